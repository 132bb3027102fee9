"""Colours, based on Okabe and Ito's colour-blind-safe palette, and fonts of all figures."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import ImageFont

from diffusers_artifact.artifact_types import RECORDS
from diffusers_artifact.mapping import ArtifactType


Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BLUE: Color = (0, 114, 178)
ORANGE: Color = (213, 94, 0)
GREEN: Color = (0, 140, 105)
PURPLE: Color = (170, 60, 140)
OCHRE: Color = (190, 140, 0)
GREY: Color = (90, 90, 90)

INK: Color = (30, 30, 34)
FAINT: Color = (112, 112, 120)
RULE: Color = (222, 222, 226)
ERROR: Color = (176, 32, 32)

TYPE_COLORS: Mapping[ArtifactType, Color] = {kind: record.color for kind, record in RECORDS.items()}

TITLE_FONT = ImageFont.load_default(size=26)
TEXT_FONT = ImageFont.load_default(size=17)
SMALL_FONT = ImageFont.load_default(size=14)
LINE = 22
"""Height of a line of `TEXT_FONT`, px."""

MARGIN = 28
"""Margin around a sheet, px."""


def as_hex(color: Color) -> str:
    """Format a colour as `"#rrggbb"`, as HTML and matplotlib take it."""
    return "#{:02x}{:02x}{:02x}".format(*color)
