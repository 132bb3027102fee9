"""Colours of artifact types in the app."""

from __future__ import annotations

from collections.abc import Sequence

from ..figures.style import BLUE, GREEN, GREY, OCHRE, ORANGE, PURPLE, TYPE_COLORS, Color, as_hex


# Colours of types that this package has none for.
_OTHER_COLORS: tuple[Color, ...] = (ORANGE, BLUE, GREEN, PURPLE, OCHRE, GREY)


def type_colors(types: Sequence[str]) -> tuple[str, ...]:
    """Return a colour as `"#rrggbb"` for each type, all different: the package's own where it has one."""
    known = {str(kind): color for kind, color in TYPE_COLORS.items()}
    free = [color for color in _OTHER_COLORS if color not in {known.get(kind) for kind in types}]
    colors: list[str] = []
    for number, kind in enumerate(types):
        spare = free.pop(0) if free and kind not in known else (37 * number % 256, 91 * number % 256, 200)
        colors.append(as_hex(known.get(kind, spare)))
    return tuple(colors)
