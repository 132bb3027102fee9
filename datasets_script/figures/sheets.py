"""Pictures and tables for people: the contact sheet, the summary, and an overlay of what was perceived."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from diffusers_artifact.artifact_types import RECORDS
from diffusers_artifact.mapping import ArtifactType

from ..agents.perception.base import PerceptionError
from ..schema.pair import Artifact, Pair
from ..schema.perception import PartLevel, Perception


Color = tuple[int, int, int]

TYPE_COLORS: dict[ArtifactType, Color] = {kind: record.color for kind, record in RECORDS.items()}
_PERCEPTION_COLORS: tuple[Color, ...] = (*TYPE_COLORS.values(), (190, 140, 0), (60, 150, 210), (90, 90, 90))

_LEVEL_COLORS: dict[PartLevel, Color] = {"peripheral": (0, 114, 178), "intermediate": (213, 94, 0)}
_LEVEL_USES: dict[PartLevel, str] = {"peripheral": "to add or remove", "intermediate": "to distort"}
_ENTITY_COLORS: tuple[Color, ...] = ((0, 140, 105), (170, 60, 140), (190, 140, 0), (90, 90, 90))

TILE = 208
_PERCEPTION_TILE = 420
_TILE_GAP = 6
_BLOCK_WIDTH = 4 * TILE + 3 * _TILE_GAP
_BLOCK_GAP = 36
_MARGIN = 28
_TILE_TITLES = ("photograph", "clean: reconstructed", "flawed: injected", "where")

_INK: Color = (30, 30, 34)
_FAINT: Color = (112, 112, 120)
_RULE: Color = (222, 222, 226)
_TITLE_FONT = ImageFont.load_default(size=26)
_TEXT_FONT = ImageFont.load_default(size=16)
_SMALL_FONT = ImageFont.load_default(size=14)
_LINE = 21
_ERROR_INK: Color = (176, 32, 32)


def contact_sheet(pairs: Iterable[Pair], columns: int = 2, max_pairs: int = 64) -> Image.Image:
    """
    A picture of pairs: photograph, clean, flawed, and the flawed image with mask and box of each flaw, over their
    labels and explanations; one colour for each type of flaw.

    Args:
        pairs (`Iterable[Pair]`): At least one.
        columns (`int`, *optional*, defaults to 2): Pairs beside each other.
        max_pairs (`int`, *optional*, defaults to 64): How many to show, from the first.

    Returns:
        `PIL.Image.Image`: RGB; 1792 px wide for two columns.

    Raises:
        ValueError: no pair.
    """
    blocks = [_pair_block(pair) for pair in islice(pairs, max_pairs)]
    if not blocks:
        raise ValueError("`pairs` must hold at least one pair, got none")
    rows = [blocks[start : start + columns] for start in range(0, len(blocks), columns)]
    columns = min(columns, len(blocks))
    heights = [max(block.height for block in row) for row in rows]
    header = _header(columns)
    sheet = Image.new(
        "RGB",
        (header.width, header.height + sum(heights) + _BLOCK_GAP * (len(rows) - 1) + _MARGIN),
        "white",
    )
    sheet.paste(header)
    top = header.height
    for row, height in zip(rows, heights, strict=True):
        for column, block in enumerate(row):
            sheet.paste(block, (_column_left(column), top))
        top += height + _BLOCK_GAP
    return sheet


def draw_artifacts(image: Image.Image, artifacts: Sequence[Artifact], size: tuple[int, int]) -> Image.Image:
    """
    An image resized to `size` `(width, height)` with the mask (translucent) and box of each artifact in the colour of
    its type. The lines are drawn at the new size.
    """
    drawn = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    for artifact in artifacts:
        drawn = _tinted(drawn, artifact.mask, TYPE_COLORS[artifact.type])
    scale = (size[0] / image.width, size[1] / image.height)
    for artifact in artifacts:
        draw_box(drawn, artifact.bbox, scale, TYPE_COLORS[artifact.type])
    return drawn


def perception_overlay(image: Image.Image, perception: Perception, min_side: int = 768) -> Image.Image:
    """
    An image with the masks, boxes and names of its entities and their parts, to check annotations by eye. The parts of
    one entity share its colour.

    Args:
        image (`PIL.Image.Image`): The image that was perceived.
        perception (`Perception`): In the pixels of `image`.
        min_side (`int`, *optional*, defaults to 768): Short side that smaller images are enlarged to.
    """
    factor = max(1.0, min_side / min(image.size))
    drawn = image.convert("RGB").resize(
        (round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS
    )
    regions = []
    for index, entity in enumerate(perception.entities):
        color = _PERCEPTION_COLORS[index % len(_PERCEPTION_COLORS)]
        regions += [(entity, color, 0.2)] + [(part, color, 0.45) for part in entity.parts]
    for region, color, opacity in regions:
        drawn = _tinted(drawn, region.mask, color, opacity)
    for region, color, _ in regions:
        draw_box(drawn, region.bbox, (factor, factor), color)
    for region, color, _ in regions:
        draw_tag(drawn, region.name, (region.bbox[0] * factor, region.bbox[1] * factor), color)
    return drawn


def perception_sheet(
    items: Iterable[tuple[str, Image.Image, Perception | PerceptionError]], columns: int = 3, max_images: int = 24
) -> Image.Image:
    """
    A picture of what was perceived, to look at before anything is made of it: each photograph with its entities, the
    parts on them in one colour for each level, and their names; faded with the reason where nothing was.

    Args:
        items (`Iterable[tuple[str, PIL.Image.Image, Perception | PerceptionError]]`): Name, photograph, and what came
            of it, as [`PerceptionAgent.perceive_batch`] gives it. At least one.
        columns (`int`, *optional*, defaults to 3): Photographs beside each other.
        max_images (`int`, *optional*, defaults to 24): How many to show, from the first; no more are taken.

    Returns:
        `PIL.Image.Image`: RGB; 1372 px wide for three columns.

    Raises:
        ValueError: no item.
    """
    tiles = [_perception_tile(*item) for item in islice(items, max_images)]
    if not tiles:
        raise ValueError("`items` must hold at least one photograph, got none")
    # One narrow column would cut the header.
    width = 2 * _MARGIN + max(2, min(columns, len(tiles))) * (_PERCEPTION_TILE + _MARGIN) - _MARGIN
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + _MARGIN for row in rows]
    sheet = Image.new("RGB", (width, _MARGIN + 72 + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 6), "What was perceived", fill=_INK, font=_TITLE_FONT)
    legend = [(color, f"{level} parts: {_LEVEL_USES[level]}") for level, color in _LEVEL_COLORS.items()]
    _draw_legend(draw, legend, _MARGIN + 36)
    top = _MARGIN + 72
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (_MARGIN + column * (_PERCEPTION_TILE + _MARGIN), top))
        top += height
    return sheet


def _header(columns: int) -> Image.Image:
    width = 2 * _MARGIN + columns * _BLOCK_WIDTH + (columns - 1) * _BLOCK_GAP
    header = Image.new("RGB", (width, _MARGIN + 96), "white")
    draw = ImageDraw.Draw(header)
    draw.text((_MARGIN, _MARGIN - 6), "Photographs and their flawed twins", fill=_INK, font=_TITLE_FONT)
    _draw_legend(draw, [(color, kind) for kind, color in TYPE_COLORS.items()], _MARGIN + 36)
    for column in range(columns):
        for index, title in enumerate(_TILE_TITLES):
            x = _column_left(column) + index * (TILE + _TILE_GAP)
            draw.text((x, _MARGIN + 73), title, fill=_FAINT, font=_SMALL_FONT)
    return header


def _column_left(column: int) -> int:
    return _MARGIN + column * (_BLOCK_WIDTH + _BLOCK_GAP)


def _pair_block(pair: Pair) -> Image.Image:
    size = _fit_tile(pair.flawed.size)
    tiles = [
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS) for image in (pair.source, pair.clean, pair.flawed)
    ]
    tiles.append(draw_artifacts(pair.flawed, pair.artifacts, size))
    texts = [
        (artifact, _wrapped(f"{artifact.label}: {artifact.explanation}", _BLOCK_WIDTH - 22))
        for artifact in pair.artifacts
    ]
    lines = sum(len(wrapped) for _, wrapped in texts)
    block = Image.new("RGB", (_BLOCK_WIDTH, size[1] + 12 + _LINE * (lines + 1)), "white")
    for index, tile in enumerate(tiles):
        block.paste(tile, (index * (TILE + _TILE_GAP) + (TILE - size[0]) // 2, 0))
    draw, top = ImageDraw.Draw(block), size[1] + 10
    for artifact, wrapped in texts:
        draw.rounded_rectangle((0, top + 2, 14, top + 16), radius=3, fill=TYPE_COLORS[artifact.type])
        for line in wrapped:
            draw.text((22, top - 1), line, fill=_INK, font=_TEXT_FONT)
            top += _LINE
    draw.text((22, top), pair.pair_id, fill=_FAINT, font=_SMALL_FONT)
    return block


def _fit_tile(size: tuple[int, int], tile: int = TILE) -> tuple[int, int]:
    """The size in which an image fills a tile's width, or its height if it is upright."""
    factor = tile / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _perception_tile(name: str, image: Image.Image, outcome: Perception | PerceptionError) -> Image.Image:
    size = _fit_tile(image.size, _PERCEPTION_TILE)
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if isinstance(outcome, PerceptionError):
        picture = Image.blend(picture, Image.new("RGB", size, "white"), 0.6)
        texts = [(_ERROR_INK, f"not used: {outcome}")]
    else:
        picture = _with_levels(picture, outcome)
        texts = _perceived_names(outcome)
    lines = [(color, line) for color, text in texts for line in _wrapped(text, _PERCEPTION_TILE)]
    tile = Image.new("RGB", (_PERCEPTION_TILE, size[1] + 8 + _LINE * (1 + len(lines))), "white")
    tile.paste(picture)
    draw, top = ImageDraw.Draw(tile), size[1] + 6
    draw.text((0, top + 1), name, fill=_FAINT, font=_SMALL_FONT)
    for color, line in lines:
        top += _LINE
        draw.text((0, top), line, fill=color, font=_TEXT_FONT)
    return tile


def _with_levels(picture: Image.Image, perception: Perception) -> Image.Image:
    """`picture` with the masks of a perception: entities tinted, parts in the colour of their level."""
    for index, entity in enumerate(perception.entities):
        picture = _tinted(picture, entity.mask, _ENTITY_COLORS[index % len(_ENTITY_COLORS)], 0.18)
    parts = [part for entity in perception.entities for part in entity.parts]
    # An eye lies on a face, and two colours over each other are a third.
    covered = np.logical_or.reduce([part.mask for part in parts if part.level == "peripheral"])
    for part in parts:
        mask = part.mask if part.level == "peripheral" else part.mask & ~covered
        picture = _tinted(picture, mask, _LEVEL_COLORS[part.level], 0.35)
    return picture


def _perceived_names(perception: Perception) -> list[tuple[Color, str]]:
    """The entities, then the parts of each level, in the level's colour; each name once, with how many there are."""
    texts = [(_INK, _counted(entity.name for entity in perception.entities))]
    for level, color in _LEVEL_COLORS.items():
        parts = [part.name for entity in perception.entities for part in entity.parts if part.level == level]
        if parts:
            texts.append((color, _counted(parts)))
    return texts


def _counted(names: Iterable[str]) -> str:
    return ", ".join(name if number == 1 else f"{name} ({number})" for name, number in Counter(names).items())


def _draw_legend(draw: ImageDraw.ImageDraw, entries: Iterable[tuple[Color, str]], top: int) -> None:
    left = float(_MARGIN)
    for color, text in entries:
        draw.rounded_rectangle((left, top + 2, left + 16, top + 18), radius=3, fill=color)
        draw.text((left + 23, top), text, fill=_INK, font=_TEXT_FONT)
        left += 23 + draw.textlength(text, font=_TEXT_FONT) + 26


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _TEXT_FONT.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _tinted(image: Image.Image, mask: np.ndarray, color: Color, opacity: float = 0.32) -> Image.Image:
    """`image` with a mask of any size laid over it, and its outline."""
    region = Image.fromarray(mask.astype(np.uint8) * 255).resize(image.size, Image.Resampling.BILINEAR)
    region = region.point(lambda value: 255 * (value > 127))
    outline = np.asarray(region) > np.asarray(region.filter(ImageFilter.MinFilter(3)))
    alpha = np.asarray(region, dtype=np.float32)[..., None] / 255 * opacity
    alpha[outline] = 0.9
    blended = np.asarray(image, dtype=np.float32) * (1 - alpha) + np.array(color, dtype=np.float32) * alpha
    return Image.fromarray(blended.round().astype(np.uint8))


def draw_box(
    image: Image.Image, bbox: tuple[float, float, float, float], scale: tuple[float, float], color: Color
) -> None:
    """A frame about the pixels of a box that `scale` (horizontal, vertical) brings to those of the image."""
    draw = ImageDraw.Draw(image)
    x_min, x_max = math.floor(bbox[0] * scale[0]), math.ceil(bbox[2] * scale[0]) - 1
    y_min, y_max = math.floor(bbox[1] * scale[1]), math.ceil(bbox[3] * scale[1]) - 1
    # The white line keeps the box visible on any background.
    draw.rectangle((x_min - 1, y_min - 1, x_max + 1, y_max + 1), outline="white", width=4)
    draw.rectangle((x_min, y_min, x_max, y_max), outline=color, width=2)


def draw_tag(image: Image.Image, text: str, corner: tuple[float, float], color: Color) -> None:
    """A line of text on a ground of `color`, above `corner` where the image has room."""
    draw = ImageDraw.Draw(image)
    width, height = draw.textlength(text, font=_TEXT_FONT) + 8, 20
    left = min(max(0.0, corner[0]), image.width - width)
    top = min(max(0.0, corner[1] - height), image.height - height)
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 4, top), text, fill="white", font=_TEXT_FONT)
