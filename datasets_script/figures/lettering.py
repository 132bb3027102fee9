"""Text in any script: by a font that has its letters if one is installed, else transliterated."""

from __future__ import annotations

import logging
import unicodedata
from functools import cache

from PIL import ImageDraw, ImageFont

from .style import Color, Font


logger = logging.getLogger(__name__)

# Names by which Pillow finds them in the folders of the system, widest coverage first.
_FALLBACKS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "msyh.ttc",
    "PingFang.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "ArialUnicode.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "DejaVuSans.ttf",
    "arial.ttf",
)
_NO_LETTER = "\U0010ffff"


def lettered(text: str, font: Font) -> tuple[str, Font]:
    """
    Choose how to draw a text.

    Args:
        text (`str`): The text.
        font (`PIL.ImageFont`): Font to use if it has all letters.

    Returns:
        `tuple[str, PIL.ImageFont]`: The text, and the font or an installed one of its size that has all letters. If
        there is none, letters lose their accents or become `\\uXXXX`, and a warning says so once.
    """
    missing = _missing(text, font)
    if not missing or not isinstance(font, ImageFont.FreeTypeFont):
        return text, font
    for name in _FALLBACKS:
        other = _installed(name, font.size)
        if other is not None and not _missing(text, other):
            return text, other
    _warn(min(missing))
    return "".join(_plain(letter) if letter in missing else letter for letter in text), font


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill: Color | str, font: Font) -> None:
    """
    Draw a line of text in any script; see [`lettered`].

    Args:
        draw (`PIL.ImageDraw.ImageDraw`): Drawing context.
        place (`tuple[float, float]`): Upper left corner, px.
        text (`str`): The text.
        fill (`tuple[int, int, int]` or `str`): Its colour.
        font (`PIL.ImageFont`): Its font, if that has all letters.
    """
    shown, chosen = lettered(text, font)
    draw.text(place, shown, fill=fill, font=chosen)


def _missing(text: str, font: Font) -> set[str]:
    return {letter for letter in set(text) if not letter.isspace() and not _has(letter, font)}


@cache
def _has(letter: str, font: Font) -> bool:
    return letter.isascii() or bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))


@cache
def _installed(name: str, size: float) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _warn(letter: str) -> None:
    logger.warning(
        "no installed font has %r (U+%04X) and others like it, which are written in ASCII; install Noto Sans CJK to "
        "see them",
        letter,
        ord(letter),
    )


def _plain(letter: str) -> str:
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return base or f"\\u{ord(letter):04x}"
