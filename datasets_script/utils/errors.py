"""What may go wrong: mistakes of the user's, and work that was stopped and can be continued."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's. Its message is all they see."""


class ArgumentError(UserError, ValueError):
    """
    An argument that has no legal value. The message names arguments in backticks, as in "`limit` must be at least 1,
    got 0"; the command line puts the names of its options in their place.
    """


class StoppedError(RuntimeError):
    """The work was stopped by what it depends on; what is finished is kept, and it can be continued."""


def check_at_least(name: str, number: int | float | None, least: int = 1) -> None:
    """
    Refuse a number that is too small; `None` passes.

    Raises:
        ArgumentError: `number`, of the argument `name`, is below `least`.
    """
    if number is not None and number < least:
        raise ArgumentError(f"`{name}` must be at least {least}, got {number}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """
    Refuse a value that is not offered.

    Raises:
        ArgumentError: `value`, of the argument `name`, is not among `choices`.
    """
    if value not in choices:
        raise ArgumentError(f"`{name}` must be among {', '.join(choices)}, got '{value}'")
