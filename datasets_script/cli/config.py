"""
Options read from a file: `--config run.yaml`.

The file holds the long names of options without their dashes, and values as on the command line. An option given on
the command line overrides the file:

```yaml
tools: add,remove
pairs-per-image: 3
allow-distilled: true
executor-option: [partition=gpu, "time=24:00:00"]
```
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import UserError
from ..utils.files import write_text


if TYPE_CHECKING:
    from .parser import Parser


CONFIG_FILE = "config.yaml"
"""File in the folder of a run that holds its options."""

# These concern a single call, not the run.
_NOT_SHOWN = ("config", "estimate", "force-new", "help", "quiet", "rank", "verbose", "world-size")
_NOT_READ = ("config", "help", "quiet", "verbose")
_HEAD = "# The options of this run. To use them again: artiagent {command} SOURCE OUT --config {file}\n"


def add_config_option(parser: Parser) -> None:
    """Add `--config` to a parser, and let it read the file."""
    parser.reads_config = True
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file of options, one NAME: VALUE per line, names without dashes; options on the command line "
        "override it",
    )


def read_config(parser: Parser, arguments: Sequence[str]) -> dict[str, Any]:
    """
    Read the options in the file given with `--config`.

    Args:
        parser (`Parser`): Parser with the options that the file may set.
        arguments (`Sequence[str]`): Arguments of the command line.

    Returns:
        `dict[str, Any]`: Converted values, keyed by the attribute of the parsed arguments; empty without `--config`.

    Raises:
        UserError: The file cannot be read, or it holds an unknown name or a value that its option does not take.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config", type=Path)
    try:
        path = finder.parse_known_args(arguments)[0].config
    except argparse.ArgumentError:  # no file after --config; the parser itself raises that
        return {}
    return {} if path is None else _values(parser, _read(path), path)


def shown_options(parser: Parser, args: argparse.Namespace) -> dict[str, Any]:
    """
    Return the options in effect by name, without those that are unset, for [`write_config`].

    Args:
        parser (`Parser`): Parser with the options.
        args (`argparse.Namespace`): Arguments that it has parsed.
    """
    named = ((option, getattr(args, option.dest, None)) for option in parser.options())
    return {
        _name(option): _shown(value)
        for option, value in named
        if _name(option) not in _NOT_SHOWN and _is_set(option, value)
    }


def write_config(out: Path, options: Mapping[str, Any], command: str) -> None:
    """Write the options of a command's run into its folder `out`, as a file that `--config` reads."""
    import yaml

    text = yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)
    # All processes of a run write the same text.
    write_text(out / CONFIG_FILE, _HEAD.format(command=command, file=CONFIG_FILE) + text, shared=True)


def _is_set(option: argparse.Action, value: Any) -> bool:
    # 0 is a value, so truth does not decide. False is one of options that can also be unset.
    return value is not None and (value is not False or option.default is None) and value != []


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, Path) else value


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        # Read strings only, as on the command line: YAML would make a number of seconds of 24:00:00.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config must be a readable file, got '{path}': {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"--config must be a YAML file, got '{path}': {error}") from error
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise UserError(f"--config must hold one option per line as NAME: VALUE, got '{path}'")
    return content


def _values(parser: Parser, content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    from .parser import did_you_mean

    options = {_name(option): option for option in parser.options()}
    known = [name for name in options if name not in _NOT_READ]
    values = {}
    for name, content_of_name in content.items():
        if name not in known:
            raise UserError(
                f"--config must hold options of {parser.prog}, got '{name}' in '{path}'{did_you_mean(name, known)}"
            )
        if content_of_name not in ("", "null", "~"):
            values[options[name].dest] = _value(parser, options[name], content_of_name, path)
    return values


def _value(parser: Parser, option: argparse.Action, content: Any, path: Path) -> Any:
    name = _name(option)
    if option.nargs == 0:
        if content not in ("true", "false"):
            raise UserError(f"`{name}` in '{path}' must be true or false, got '{content}'")
        return content == "true"
    texts = content if isinstance(content, list) else [content]
    if isinstance(option.default, list) is not isinstance(content, list) or not all(isinstance(t, str) for t in texts):
        kind = "a list of values" if isinstance(option.default, list) else "one value"
        raise UserError(f"`{name}` in '{path}' must be {kind}, got {content!r}")
    try:
        converted = [parser.convert(option, text) for text in texts]
    except argparse.ArgumentError as error:
        raise UserError(f"`{name}` in '{path}' {error.message}") from error
    return converted if isinstance(option.default, list) else converted[0]


def _name(option: argparse.Action) -> str:
    return next(text for text in option.option_strings if text.startswith("--")).lstrip("-")
