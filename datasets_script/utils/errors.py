"""Errors that end a command with one line: a user's mistake, or work that was stopped and can be continued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake made by the user. The command line shows its message and no traceback."""


class ArgumentError(UserError, ValueError):
    """
    An argument with an illegal value. The message names arguments in backticks, as in "`limit` must be at least 1, got
    0"; the command line replaces them with its option names.
    """


@contextmanager
def renamed(name: str, to: str) -> Iterator[None]:
    """
    Call an argument in the messages of [`ArgumentError`] as the caller does.

    Args:
        name (`str`): Its name where it is checked.
        to (`str`): Its name for the user.
    """
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(str(error).replace(f"`{name}`", f"`{to}`")) from error


class StoppedError(RuntimeError):
    """Work stopped by something it depends on. Finished work is kept, and the same command continues."""


def check_at_least(name: str, number: int | float | None, least: int = 1) -> None:
    """
    Refuse a number below a bound.

    Args:
        name (`str`): Name of the argument, for the message.
        number (`int` or `float`, *optional*): Its value; `None` passes.
        least (`int`, *optional*, defaults to 1): Smallest legal value.

    Raises:
        ArgumentError: `number` is below `least`.
    """
    if number is not None and number < least:
        raise ArgumentError(f"`{name}` must be at least {least}, got {number}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """
    Refuse a value that is not one of the choices.

    Args:
        name (`str`): Name of the argument, for the message.
        value (`str`): Its value.
        choices (`tuple[str, ...]`): Legal values.

    Raises:
        ArgumentError: `value` is not among `choices`.
    """
    if value not in choices:
        raise ArgumentError(f"`{name}` must be among {', '.join(choices)}, got '{value}'")
