"""Style and helpers of all charts: no frames, left-aligned titles and the colours of [`style`]."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageFont

from . import style
from .lettering import lettered
from .style import TYPE_COLORS, as_hex


INK, FAINT, RULE = map(as_hex, (style.INK, style.FAINT, style.RULE))
BLUE, ORANGE, GREEN = map(as_hex, (style.BLUE, style.ORANGE, style.GREEN))
COLOR_OF_TYPE: Mapping[str, str] = {kind: as_hex(color) for kind, color in TYPE_COLORS.items()}

# Charts are rendered at this multiple of their size on a page, so that they stay sharp on dense screens.
SHARPNESS = 2

_SETTINGS: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
}

styled = rc_context(_SETTINGS)
"""Decorator that applies the shared style to a function that draws a chart."""


def new_figure(width: int, height: int) -> Figure:
    """Create a white figure that is `width` × `height` px on a page."""
    return Figure(figsize=(width / 100, height / 100), dpi=100 * SHARPNESS, facecolor="white")


def name_rows(axes: Axes, names: Sequence[str], length: int = 28, notes: Sequence[str] = ()) -> None:
    """
    Write a name at each whole number of the y-axis, from 0, in any script; see [`lettered`].

    Args:
        axes (`matplotlib.axes.Axes`): The axes.
        names (`Sequence[str]`): The names.
        length (`int`, *optional*, defaults to 28): Characters to which names are shortened, so that they fit.
        notes (`Sequence[str]`, *optional*): What follows each name.
    """
    usual = _usual_font()
    drawn = [lettered(name, usual) for name in names]
    texts = [_shortened(text, length) for text, _ in drawn]
    if notes:
        texts = [text + note for text, note in zip(texts, notes, strict=True)]
    axes.set_yticks(range(len(names)), texts)
    for label, (_, font) in zip(axes.get_yticklabels(), drawn, strict=True):
        if isinstance(font, ImageFont.FreeTypeFont) and font is not usual:
            label.set_fontproperties(FontProperties(fname=str(font.path), size=label.get_fontsize()))


def only_x(axes: Axes) -> None:
    """Keep only the x-axis and vertical grid lines, for charts of horizontal bars."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def legend_below(axes: Axes) -> None:
    """Draw the legend below the axes, where it cannot cover data."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=5,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.2,
    )


@cache
def _usual_font() -> ImageFont.FreeTypeFont:
    """Return the font of labels, as Pillow reads it."""
    return ImageFont.truetype(findfont(FontProperties()), 13)


def to_image(figure: Figure) -> Image.Image:
    """Render a figure as an RGB image, `SHARPNESS` times its size in px."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
