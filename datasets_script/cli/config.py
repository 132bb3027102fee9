"""
Options in a file: `--config run.yaml`.

The file holds long names without their dashes, and values as on the command line, which wins over the file:

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
"""Where a run keeps its options, in its folder."""

# They say how this one call is made, and nothing about the run.
_NOT_SHOWN = ("config", "force-new", "help", "quiet", "rank", "verbose", "world-size")
_NOT_READ = ("config", "help", "quiet", "verbose")
_HEAD = "# The options of this run. To use them again: artiagent synthesize SOURCE OUT --config {file}\n"


def add_config_option(parser: Parser) -> None:
    """Add `--config` to a parser, and let it read the file."""
    parser.reads_config = True
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file with options as NAME: VALUE, names without dashes; options given here win over it",
    )


def read_config(parser: Parser, arguments: Sequence[str]) -> dict[str, Any]:
    """
    Read the file that `--config` names among the arguments.

    Args:
        parser (`Parser`): Has the options that the file may set.
        arguments (`Sequence[str]`): The command line.

    Returns:
        `dict[str, Any]`: The values by attribute of the parsed arguments; empty without `--config`.

    Raises:
        UserError: the file cannot be read, or it holds an unknown name or a value that its option does not take.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config", type=Path)
    try:
        path = finder.parse_known_args(arguments)[0].config
    except argparse.ArgumentError:  # without a file; the parser says so
        return {}
    return {} if path is None else _values(parser, _read(path), path)


def shown_options(parser: Parser, args: argparse.Namespace) -> dict[str, Any]:
    """
    Return the options in effect by name, those that are unset left out, as [`write_config`] takes them.

    Args:
        parser (`Parser`): Has the options.
        args (`argparse.Namespace`): What it made of the command line and the file.
    """
    named = ((_name(option), getattr(args, option.dest, None)) for option in parser.options())
    return {name: _shown(value) for name, value in named if name not in _NOT_SHOWN and _is_set(value)}


def write_config(out: Path, options: Mapping[str, Any]) -> None:
    """Write the options of a run into its folder, in a form that `--config` reads."""
    import yaml

    text = yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)
    # Each process of a run writes the same.
    write_text(out / CONFIG_FILE, _HEAD.format(file=CONFIG_FILE) + text, shared=True)


def _is_set(value: Any) -> bool:
    # 0 is a value.
    return value is not None and value is not False and value != []


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value) if isinstance(value, Path) else value


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        # Texts only, as on the command line: 24:00:00 is no number of seconds.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config must be a file that can be read, got '{path}': {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"--config must be a YAML file, got '{path}': {error}") from error
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise UserError(f"--config must hold options as NAME: VALUE, one a line, got '{path}'")
    return content


def _values(parser: Parser, content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    from .parser import did_you_mean

    options = {_name(option): option for option in parser.options()}
    known = [name for name in options if name not in _NOT_READ]
    values = {}
    for name, content_of_name in content.items():
        if name not in known:
            raise UserError(f"'{path}' must hold options of {parser.prog}, got '{name}'{did_you_mean(name, known)}")
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
    return option.option_strings[-1].lstrip("-")
