"""Description of a metric's arguments, taken from the docstring of the function that the metric wraps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from .intervals import Bootstrap


def inputs_description(function: Callable[..., Any], examples: str, forms: Mapping[str, str] | None = None) -> str:
    """
    Build the text that `evaluate` shows for the arguments and the result of a metric.

    Arguments and results are described once, in the docstring of the function. Its `bootstrap` argument is replaced
    by the attributes of [`Bootstrap`], which a metric takes one by one.

    Args:
        function (`Callable`): Function that the metric wraps, with "Args" and "Returns" in its docstring.
        examples (`str`): Lines of a doctest that uses the metric.
        forms (`Mapping[str, str]`, *optional*): Entries by the name of the argument. They replace those of the
            function for arguments that the metric takes in another form, and add arguments that only the metric has.

    Returns:
        `str`: The sections "Args", "Returns" and "Examples".

    Raises:
        ValueError: The docstring has no "Args" or no "Returns".
    """
    sections = _sections(function)
    if missing := {"Args", "Returns"} - sections.keys():
        raise ValueError(f"the docstring of `{function.__name__}` must have {' and '.join(sorted(missing))}, got none")
    entries = {**_entries(sections["Args"]), **{name: f"    {form}" for name, form in (forms or {}).items()}}
    if entries.pop("bootstrap", None):
        entries |= _entries(_sections(Bootstrap)["Attributes"])
    arguments = "\n".join(entry.rstrip() for entry in entries.values())
    parts = [
        f"Args:\n{arguments}",
        f"Returns:\n{sections['Returns'].rstrip()}",
        f"Examples:\n\n{examples.strip(chr(10))}",
    ]
    return "\n" + "\n\n".join(parts).rstrip() + "\n"


def _sections(documented: Any) -> dict[str, str]:
    """Split a docstring into its indented sections by heading."""
    parts = re.split(r"^(\w+):\n(?=    )", inspect.cleandoc(documented.__doc__ or ""), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _entries(section: str) -> dict[str, str]:
    """Split a section into entries by argument; each line at the section's own indentation starts an entry."""
    entries = re.split(r"^(?=    \S)", section, flags=re.MULTILINE)
    return {entry.strip().partition(" (")[0]: entry.rstrip() for entry in entries if entry.strip()}
