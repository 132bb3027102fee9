"""What all images are drawn with: boxes, tags, masks, wrapped text, legends, and blocks in rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .style import INK, MARGIN, TEXT_FONT, TITLE_FONT, Color, Font


_TITLE_LINE = 34
_SWATCH = 16


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Resize an image, as RGB, so that its long side is `side` px."""
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def with_mask(
    image: Image.Image, mask: np.ndarray, color: Color, opacity: float, outline: int = 1, halo: bool = False
) -> Image.Image:
    """
    Lay a mask over an image.

    Args:
        image (`PIL.Image.Image`): RGB.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Of any size; it is resized to that of the image.
        color (`tuple[int, int, int]`): Of the tint and of the outline.
        opacity (`float`): Of the tint, in [0, 1].
        outline (`int`, *optional*, defaults to 1): Width of the line within the mask's edge, px. A mask that fills the
            image has one too.
        halo (`bool`, *optional*, defaults to `False`): Whether a white line of 1 px goes around the mask.

    Returns:
        `PIL.Image.Image`: A new RGB image.
    """
    region = Image.fromarray(mask.astype(np.uint8) * 255).resize(image.size, Image.Resampling.BILINEAR)
    inside = region.point(lambda value: 255 * (value > 127))
    # The border is outside, so that the image's edge is an edge of the mask.
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
    """Draw a frame about the pixels of a box that `scale` (horizontal, vertical) brings to those of the image."""
    draw = ImageDraw.Draw(image)
    x_min, x_max = math.floor(bbox[0] * scale[0]), math.ceil(bbox[2] * scale[0]) - 1
    y_min, y_max = math.floor(bbox[1] * scale[1]), math.ceil(bbox[3] * scale[1]) - 1
    # The white line keeps the box visible on any background.
    draw.rectangle((x_min - 1, y_min - 1, x_max + 1, y_max + 1), outline="white", width=4)
    draw.rectangle((x_min, y_min, x_max, y_max), outline=color, width=2)


def draw_tag(image: Image.Image, text: str, corner: tuple[float, float], color: Color) -> None:
    """Draw a line of text on a ground of `color`, above `corner` where the image has room."""
    draw = ImageDraw.Draw(image)
    width, height = draw.textlength(text, font=TEXT_FONT) + 8, 21
    left = min(max(0.0, corner[0]), image.width - width)
    top = min(max(0.0, corner[1] - height), image.height - height)
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 4, top), text, fill="white", font=TEXT_FONT)


def draw_swatch(draw: ImageDraw.ImageDraw, corner: tuple[float, float], color: Color, side: int = 14) -> None:
    """Draw the small square that stands for a colour beside a text."""
    left, top = corner
    draw.rounded_rectangle((left, top, left + side, top + side), radius=3, fill=color)


def draw_legend(draw: ImageDraw.ImageDraw, entries: Iterable[tuple[Color, str]], top: int) -> None:
    """Draw what each colour means, in one line from the sheet's left margin."""
    left = float(MARGIN)
    for color, text in entries:
        draw_swatch(draw, (left, top + 3), color, _SWATCH)
        draw.text((left + 23, top), text, fill=INK, font=TEXT_FONT)
        left += 23 + draw.textlength(text, font=TEXT_FONT) + 26


def draw_title(draw: ImageDraw.ImageDraw, lines: Sequence[str]) -> int:
    """Draw the title of a sheet and return where what follows it begins."""
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN - 6 + _TITLE_LINE * number), line, fill=INK, font=TITLE_FONT)
    return MARGIN + _TITLE_LINE * len(lines)


def wrapped(text: str, width: int, font: Font = TEXT_FONT) -> list[str]:
    """Split a text into lines that fit; what is wider than a line on its own, such as Chinese, is broken anywhere."""
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
    Arrange blocks of one width on a white sheet with margins.

    Args:
        blocks (`Sequence[PIL.Image.Image]`): At least one.
        columns (`int`): Blocks beside each other.
        top (`int`): Where the first row begins, px; a title and a legend go above.
        gap (`int`): Between blocks, px.
        least_width (`int`, *optional*, defaults to 0): Of the sheet without its margins, px.

    Returns:
        `PIL.Image.Image`: RGB.
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
