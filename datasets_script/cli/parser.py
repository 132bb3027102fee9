"""Argument parser that is filled on first use, suggests corrections, and raises mistakes as one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from ..utils.errors import UserError
from .config import read_config, shown_options


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formatter that keeps line breaks of descriptions and examples, and shortens metavars: `--vlm-batch-size N`."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        if action.type is None:
            return action.dest.rpartition("_")[2].upper()
        # All other types are numbers.
        return "PATH" if action.type is Path else "N"


class Parser(argparse.ArgumentParser):
    """
    Parser of `artiagent` or of one of its commands.

    Args:
        fill (`Callable[[Parser], None]`, *optional*): Function that adds description and arguments to the parser. It
            is called on first use, so that the modules of other commands are not imported.
    """

    def __init__(self, fill: Callable[[Parser], None] | None = None, **kwargs: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, **kwargs})
        self._fill = fill
        self.reads_config = False
        """Whether the parser has `--config`, see [`datasets_script.cli.config`]."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        self.fill()
        if self.reads_config and args is not None:
            self.set_defaults(**read_config(self, args))
        parsed, others = super().parse_known_args(args, namespace or argparse.Namespace())
        if others:
            self._refuse(others[0])
        if self.reads_config:
            parsed.shown_options = shown_options(self, parsed)
        return parsed, others

    def fill(self) -> None:
        """Add description and arguments, unless already done."""
        if self._fill:
            fill, self._fill = self._fill, None
            fill(self)
            self.usage = self.usage or self._short_usage()

    def format_help(self) -> str:
        self.fill()
        return super().format_help()

    def options(self) -> list[argparse.Action]:
        """Return the options, the arguments whose names begin with dashes."""
        return self._get_optional_actions()

    def convert(self, option: argparse.Action, text: str) -> Any:
        """
        Convert the text of one value as on the command line.

        Args:
            option (`argparse.Action`): Option that takes the value.
            text (`str`): Value as text.

        Raises:
            argparse.ArgumentError: The option does not take the value.
        """
        value = self._get_value(option, text)
        self._check_value(option, value)
        return value

    def error(self, message: str) -> NoReturn:
        """
        Raise a mistake in the form of all other messages: "--limit must be …, got …", with the next step.

        Raises:
            UserError: Always.
        """
        # argparse writes "argument --limit: must be …".
        message = re.sub(r"^argument (\S+): must", r"\1 must", message)
        raise UserError(f"{message} (see `{self.prog} --help`)")

    def _short_usage(self) -> str:
        """Return a usage line of the required arguments alone, as the options are listed below it."""
        words = []
        for action in self._get_positional_actions():
            name = str(action.metavar)
            words.append(f"[{name}]" if action.nargs == "?" else name)
            words += ["..."] if action.nargs in ("+", argparse.PARSER, argparse.REMAINDER) else []
        for option in self._get_optional_actions():
            if option.required:
                words += [option.option_strings[-1], HelpFormatter("")._get_default_metavar_for_optional(option)]
        return " ".join(["%(prog)s", *words, "[options]"])

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"must be one of {', '.join(choices)}, got '{value}'{did_you_mean(str(value), choices)}"
            )

    def _refuse(self, argument: str) -> NoReturn:
        if not argument.startswith("-"):
            self.error(f"unexpected argument '{argument}'")
        name = argument.partition("=")[0]
        known = [name for option in self.options() for name in option.option_strings]
        self.error(f"unknown option {name}{did_you_mean(name, known)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'name'?" with the closest known name, or an empty string if none is close."""
    # Leading dashes would make all options look alike.
    names = {name.lstrip("-"): name for name in known}
    near = [names[name] for name in get_close_matches(word.lstrip("-"), names, n=1)]
    return f"; did you mean '{near[0]}'?" if near else ""


# Types of options. argparse puts the option's name before their messages.


def positive_int(text: str) -> int:
    """Convert a whole number of at least 1."""
    return at_least(1)(text)


def non_negative_int(text: str) -> int:
    """Convert a whole number of at least 0."""
    return at_least(0)(text)


def at_least(least: int) -> Callable[[str], int]:
    """Return an option type for whole numbers of at least `least`."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got '{text}'") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    return convert


def positive_float(text: str) -> float:
    """Convert a number above 0."""
    number = _number(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {number}")
    return number


def between_0_and_1(text: str) -> float:
    """Convert a number between 0 and 1, both excluded."""
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {number}")
    return number


def share(text: str) -> float:
    """Convert a number from 0 to below 1."""
    number = _number(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {number}")
    return number


def names_among(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Return an option type for comma-separated lists of known names."""
    choices = tuple(known)

    def convert(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(","))
        for name in names:
            if name not in choices:
                hint = did_you_mean(name, choices)
                raise argparse.ArgumentTypeError(f"must be among {', '.join(choices)}, got '{name}'{hint}")
        return names

    return convert


def numbers(convert: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    """Return an option type for comma-separated lists of numbers, each converted by another option type."""
    return lambda text: tuple(convert(number) for number in text.split(","))


def named_number(text: str) -> tuple[str, float]:
    """Convert NAME=VALUE with a number."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got '{text}'")
    return name, _number(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got '{text}'") from None
