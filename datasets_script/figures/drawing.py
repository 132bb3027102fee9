"""Drawing primitives: boxes, tags, masks, wrapped text, legends, and blocks in rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .lettering import draw_text, lettered
from .style import INK, MARGIN, TEXT_FONT, TITLE_FONT, Color, Font


_TITLE_LINE = 34
_SWATCH = 16


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Convert an image to RGB and resize it so that its long side is `side` px."""
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def with_mask(
    image: Image.Image, mask: np.ndarray, color: Color, opacity: float, outline: int = 1, halo: bool = False
) -> Image.Image:
    """
    Tint and outline a mask on an image.

    Args:
        image (`PIL.Image.Image`): The RGB image.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask; resized to the image if it has another size.
        color (`tuple[int, int, int]`): RGB colour of the tint and of the outline, 0 to 255.
        opacity (`float`): Opacity of the tint, in [0, 1].
        outline (`int`, *optional*, defaults to 1): Width of the outline, px. It lies inside the mask, also along the
            border of the image.
        halo (`bool`, *optional*, defaults to `False`): Whether to draw a white line of 1 px around the mask.

    Returns:
        `PIL.Image.Image`: A new RGB image.
    """
    region = Image.fromarray(mask.astype(np.uint8) * 255).resize(image.size, Image.Resampling.BILINEAR)
    inside = region.point(lambda value: 255 * (value > 127))
    # Padding with zeros makes the border of the image an edge of the mask.
    framed = Image.new("L", (image.width + 2 * outline, image.height + 2 * outline))
    framed.paste(inside, (outline, outline))

    def filtered(kind: Callable[[int], ImageFilter.RankFilter], size: int) -> np.ndarray:
        return np.asarray(framed.filter(kind(size)))[outline:-outline, outline:-outline] > 0

    area = np.asarray(inside) > 0
    pixels = np.asarray(image, dtype=np.float32).copy()
    pixels[area] = pixels[area] * (1 - opacity) + np.array(color, dtype=np.float32) * opacity
    pixels[area & ~filtered(ImageFilter.MinFilter, 2 * outline + 1)] = color
    if halo:
        pixels[filtered(ImageFilter.MaxFilter, 3) & ~area] = 255
    return Image.fromarray(pixels.round().astype(np.uint8))


def draw_box(
    image: Image.Image, bbox: tuple[float, float, float, float], scale: tuple[float, float], color: Color
) -> None:
    """
    Draw a box onto an image.

    Args:
        image (`PIL.Image.Image`): The RGB image to draw on.
        bbox (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, px.
        scale (`tuple[float, float]`): Horizontal and vertical factor from the pixels of `bbox` to those of `image`.
        color (`tuple[int, int, int]`): RGB colour of the frame, 0 to 255.
    """
    draw = ImageDraw.Draw(image)
    x_min, x_max = math.floor(bbox[0] * scale[0]), math.ceil(bbox[2] * scale[0]) - 1
    y_min, y_max = math.floor(bbox[1] * scale[1]), math.ceil(bbox[3] * scale[1]) - 1
    # The white line keeps the box visible on any background.
    draw.rectangle((x_min - 1, y_min - 1, x_max + 1, y_max + 1), outline="white", width=4)
    draw.rectangle((x_min, y_min, x_max, y_max), outline=color, width=2)


def draw_tag(image: Image.Image, text: str, corner: tuple[float, float], color: Color) -> None:
    """
    Draw a line of text in a coloured rectangle.

    Args:
        image (`PIL.Image.Image`): The RGB image to draw on.
        text (`str`): The text, in white.
        corner (`tuple[float, float]`): Where the lower left corner of the rectangle goes, px; it is moved where the
            image has no room there.
        color (`tuple[int, int, int]`): RGB colour of the rectangle, 0 to 255.
    """
    draw = ImageDraw.Draw(image)
    shown, font = lettered(text, TEXT_FONT)
    width, height = draw.textlength(shown, font=font) + 8, 21
    left = min(max(0.0, corner[0]), image.width - width)
    top = min(max(0.0, corner[1] - height), image.height - height)
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw_text(draw, (left + 4, top), text, "white", TEXT_FONT)


def draw_swatch(draw: ImageDraw.ImageDraw, corner: tuple[float, float], color: Color, side: int = 14) -> None:
    """
    Draw a small square of a colour, the key of a legend.

    Args:
        draw (`PIL.ImageDraw.ImageDraw`): Drawing context.
        corner (`tuple[float, float]`): Upper left corner, px.
        color (`tuple[int, int, int]`): RGB colour, 0 to 255.
        side (`int`, *optional*, defaults to 14): Side of the square, px.
    """
    left, top = corner
    draw.rounded_rectangle((left, top, left + side, top + side), radius=3, fill=color)


def draw_legend(draw: ImageDraw.ImageDraw, entries: Iterable[tuple[Color, str]], top: int) -> None:
    """
    Draw a legend in one line from the left margin of a sheet.

    Args:
        draw (`PIL.ImageDraw.ImageDraw`): Drawing context of the sheet.
        entries (`Iterable[tuple[Color, str]]`): Colours and their meanings.
        top (`int`): Upper edge of the line, px.
    """
    left = float(MARGIN)
    for color, text in entries:
        draw_swatch(draw, (left, top + 3), color, _SWATCH)
        draw_text(draw, (left + 23, top), text, INK, TEXT_FONT)
        left += 23 + draw.textlength(text, font=TEXT_FONT) + 26


def draw_title(draw: ImageDraw.ImageDraw, lines: Sequence[str]) -> int:
    """Draw the lines of a sheet's title and return the y-coordinate below them, px."""
    for number, line in enumerate(lines):
        draw_text(draw, (MARGIN, MARGIN - 6 + _TITLE_LINE * number), line, INK, TITLE_FONT)
    return MARGIN + _TITLE_LINE * len(lines)


def wrapped(text: str, width: int, font: Font = TEXT_FONT) -> list[str]:
    """
    Split a text into lines. A word that is wider than a line, such as text without spaces, is broken anywhere.

    Args:
        text (`str`): The text; any white space separates words.
        width (`int`): Width of a line, px.
        font (`PIL.ImageFont`, *optional*): Font to measure with; by default `TEXT_FONT`.

    Returns:
        `list[str]`: At least one line.
    """
    text, font = lettered(text, font)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def in_rows(blocks: Sequence[Image.Image], columns: int, top: int, gap: int, least_width: int = 0) -> Image.Image:
    """
    Arrange blocks of equal width in rows on a white sheet with margins.

    Args:
        blocks (`Sequence[PIL.Image.Image]`): At least one block.
        columns (`int`): Number of blocks per row.
        top (`int`): Upper edge of the first row, px; the space above is for a title and a legend.
        gap (`int`): Space between blocks, px.
        least_width (`int`, *optional*, defaults to 0): Smallest width of the sheet without its margins, px.

    Returns:
        `PIL.Image.Image`: The sheet, RGB.
    """
    rows = [blocks[start : start + columns] for start in range(0, len(blocks), columns)]
    heights = [max(block.height for block in row) for row in rows]
    step = blocks[0].width + gap
    width = max(least_width, len(rows[0]) * step - gap)
    sheet = Image.new("RGB", (width + 2 * MARGIN, top + sum(heights) + gap * (len(rows) - 1) + MARGIN), "white")
    for row, height in zip(rows, heights, strict=True):
        for column, block in enumerate(row):
            sheet.paste(block, (MARGIN + column * step, top))
        top += height + gap
    return sheet
