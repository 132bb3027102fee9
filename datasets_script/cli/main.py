"""Entry point of the command line `artiagent`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ..utils.errors import UserError
from .commands import COMMANDS
from .faults import guarded
from .parser import Parser
from .verbosity import add_verbosity_options, set_verbosity


_DESCRIPTION = """\
Make training data for artifact detection from real photos, then train and score detectors. The data are pairs of a
clean image and the same image with injected structural artifacts, such as an extra hand, with boxes, masks and
explanations."""

_EPILOG = """\
examples:
  artiagent demo                                            make the first pairs, offline, on a CPU
  artiagent synthesize portraits/ out/ --perception people  make pairs from your own photos of people
  artiagent status out/                                     show the progress of that run
  artiagent prepare                                         list the benchmarks and their licences
  artiagent train                                           list the training recipes

Run `artiagent COMMAND --help` for the options of a command and examples."""


class _Version(argparse.Action):
    """Print the version and exit; looked up on use, since that takes an import."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("artiagent")
        except PackageNotFoundError:  # run from a checkout
            number = "(not installed)"
        print(f"artiagent {number}")
        parser.exit()


class CommandLine(Parser):
    """Parser of `artiagent` itself, whose help lists the commands in groups."""

    def format_help(self) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        listed = {action.dest: action for action in self._commands._choices_actions}
        for group in dict.fromkeys(command.group for command in COMMANDS):
            formatter.start_section(group)
            formatter.add_arguments([listed[command.name] for command in COMMANDS if command.group == group])
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(self.options())
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def add_commands(self) -> None:
        """Add all commands, without importing them."""
        self._commands = self.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
        for command in COMMANDS:
            self._commands.add_parser(command.name, help=command.help, fill=command.fill)

    @property
    def commands(self) -> dict[str, Parser]:
        """Return the parsers of the commands by name."""
        return self._commands.choices


def build_parser() -> CommandLine:
    """Return the parser of the whole command line; each command's parser is filled on first use."""
    parser = CommandLine(prog="artiagent", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    add_verbosity_options(parser.add_argument_group("messages"))
    parser.set_defaults(verbose=0, quiet=False, interrupted="no unfinished files are kept.")
    parser.add_commands()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments (`Sequence[str]`, *optional*): Arguments without the program's name; by default those of the process.

    Returns:
        `int`: The exit status: 0 for success, 1 if no pair was made, 2 for a user error, 3 if something external
        stopped the work and the same command can continue it, 130 after Ctrl-C.
    """
    try:
        args = build_parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return 2
    set_verbosity(args.verbose, args.quiet)
    return guarded(args)


if __name__ == "__main__":
    sys.exit(main())
