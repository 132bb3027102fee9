"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[object]], aligned: bool = False) -> str:
    """
    Write a table.

    Args:
        heading (`Sequence[str]`): Names of the columns.
        rows (`Iterable[Sequence[object]]`): Cells of each row, as many as columns. A `|` in a cell is escaped, and a
            line break becomes a space.
        aligned (`bool`, *optional*, defaults to `False`): Whether cells are padded to columns of one width, for a
            table that is also read as plain text.

    Returns:
        `str`: The lines, without a line break at the end.

    Example:

    ```python
    >>> print(markdown_table(["type", "kept"], [["fusion", 3], ["a|b", 12]]))
    | type | kept |
    |---|---|
    | fusion | 3 |
    | a\\|b | 12 |
    >>> print(markdown_table(["type", "kept"], [["fusion", 3]], aligned=True))
    | type   | kept |
    | ------ | ---- |
    | fusion | 3    |

    ```
    """
    lines = [list(heading), *([str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)]
    if not aligned:
        rule = "|---" * len(lines[0]) + "|"
        return "\n".join([_line(lines[0]), rule, *map(_line, lines[1:])])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(map(_line, [padded[0], ["-" * width for width in widths], *padded[1:]]))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
