"""The command `artiagent`."""

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
Make pairs of clean images and images with artifacts from real photos, and train and score detectors of artifacts."""

_EPILOG = """\
examples:
  artiagent demo                                            make the first pairs, offline, on a CPU
  artiagent synthesize portraits/ out/ --perception people  make pairs from your own photos
  artiagent status out/                                     see how far that is
  artiagent prepare                                         list the benchmarks and their licences
  artiagent train                                           list the training recipes

`artiagent COMMAND --help` explains a command and its options."""


class _Version(argparse.Action):
    """Print the version, which is looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("artiagent")
        except PackageNotFoundError:  # run from its folder
            number = "(not installed)"
        print(f"artiagent {number}")
        parser.exit()


class CommandLine(Parser):
    """The parser of `artiagent` itself: its help lists the commands in groups."""

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
        """The commands' parsers by name."""
        return self._commands.choices


def build_parser() -> CommandLine:
    """Return the parser of the whole command line; the parsers of its commands are filled when they are used."""
    parser = CommandLine(prog="artiagent", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    add_verbosity_options(parser.add_argument_group("messages"))
    parser.set_defaults(verbose=0, quiet=False, interrupted="nothing half-made is kept.")
    parser.add_commands()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments (`Sequence[str]`, *optional*): Its words; those of the process by default.

    Returns:
        `int`: The exit status: 0 done, 1 nothing made, 2 a mistake of the user, 3 a run that was stopped by what it
        depends on and can be continued, 130 Ctrl-C.
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
