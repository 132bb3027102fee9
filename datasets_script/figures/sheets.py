"""Sheets of images for people: pairs, and what was perceived of source photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from PIL import Image, ImageDraw

from ..agents.perception.base import PerceptionError
from ..schema.pair import Artifact, Pair
from ..schema.perception import PartLevel, Perception
from .drawing import draw_box, draw_legend, draw_swatch, draw_title, fitted, in_rows, with_mask, wrapped
from .style import (
    BLUE,
    ERROR,
    FAINT,
    GREEN,
    GREY,
    INK,
    LINE,
    MARGIN,
    OCHRE,
    ORANGE,
    PURPLE,
    SMALL_FONT,
    TEXT_FONT,
    TYPE_COLORS,
    Color,
)


_LEVEL_COLORS: dict[PartLevel, Color] = {"peripheral": BLUE, "intermediate": ORANGE}
_LEVEL_USES: dict[PartLevel, str] = {"peripheral": "to add or remove", "intermediate": "to distort"}
_ENTITY_COLORS: tuple[Color, ...] = (GREEN, PURPLE, OCHRE, GREY)

TILE = 208
_PERCEPTION_TILE = 420
_TILE_GAP = 6
_BLOCK_WIDTH = 4 * TILE + 3 * _TILE_GAP
_BLOCK_GAP = 36
_INDENT = 22
_TILE_TITLES = ("photograph", "clean: reconstructed", "flawed: injected", "where")


def contact_sheet(pairs: Iterable[Pair], columns: int = 2, max_pairs: int = 64) -> Image.Image:
    """
    An image of pairs: photo, clean, flawed, and the artifact image with mask and box of each artifact, over their
    labels and explanations; one colour for each type of artifact.

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
    sheet = in_rows(blocks, columns, MARGIN + 96, _BLOCK_GAP)
    draw = ImageDraw.Draw(sheet)
    draw_title(draw, ["Photos and their artifact twins"])
    draw_legend(draw, [(color, kind) for kind, color in TYPE_COLORS.items()], MARGIN + 36)
    for column in range(min(columns, len(blocks))):
        left = MARGIN + column * (_BLOCK_WIDTH + _BLOCK_GAP)
        for index, title in enumerate(_TILE_TITLES):
            place = (left + index * (TILE + _TILE_GAP), MARGIN + 73)
            draw.text(place, title, fill=FAINT, font=SMALL_FONT)
    return sheet


def draw_artifacts(image: Image.Image, artifacts: Sequence[Artifact], size: tuple[int, int]) -> Image.Image:
    """
    An image resized to `size` `(width, height)` with the mask (translucent) and box of each artifact in the colour of
    its type. The lines are drawn at the new size.
    """
    drawn = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    for artifact in artifacts:
        drawn = with_mask(drawn, artifact.mask, TYPE_COLORS[artifact.type], 0.32)
    scale = (size[0] / image.width, size[1] / image.height)
    for artifact in artifacts:
        draw_box(drawn, artifact.bbox, scale, TYPE_COLORS[artifact.type])
    return drawn


def perception_sheet(
    items: Iterable[tuple[str, Image.Image, Perception | PerceptionError]], columns: int = 3, max_images: int = 24
) -> Image.Image:
    """
    An image of what was perceived, to look at before anything is made of it: each photo with its entities, the
    parts on them in one colour for each level, and their names; faded with the reason where nothing was.

    Args:
        items (`Iterable[tuple[str, PIL.Image.Image, Perception | PerceptionError]]`): Name, photo, and what came
            of it, as [`PerceptionAgent.perceive_batch`] gives it. At least one.
        columns (`int`, *optional*, defaults to 3): Photos beside each other.
        max_images (`int`, *optional*, defaults to 24): How many to show, from the first; no more are taken.

    Returns:
        `PIL.Image.Image`: RGB; 1372 px wide for three columns.

    Raises:
        ValueError: no item.
    """
    tiles = [_perception_tile(*item) for item in islice(items, max_images)]
    if not tiles:
        raise ValueError("`items` must hold at least one photo, got none")
    # One narrow column would cut the header.
    sheet = in_rows(tiles, columns, MARGIN + 72, MARGIN, least_width=2 * _PERCEPTION_TILE + MARGIN)
    draw = ImageDraw.Draw(sheet)
    draw_title(draw, ["What was perceived"])
    legend = [(color, f"{level} parts: {_LEVEL_USES[level]}") for level, color in _LEVEL_COLORS.items()]
    draw_legend(draw, legend, MARGIN + 36)
    return sheet


def _pair_block(pair: Pair) -> Image.Image:
    tiles = [fitted(image, TILE) for image in (pair.source, pair.clean, pair.flawed)]
    size = tiles[-1].size
    tiles.append(draw_artifacts(pair.flawed, pair.artifacts, size))
    texts = [
        (artifact, wrapped(f"{artifact.label}: {artifact.explanation}", _BLOCK_WIDTH - _INDENT))
        for artifact in pair.artifacts
    ]
    lines = sum(len(wrapped_lines) for _, wrapped_lines in texts)
    block = Image.new("RGB", (_BLOCK_WIDTH, size[1] + 12 + LINE * (lines + 1)), "white")
    for index, tile in enumerate(tiles):
        block.paste(tile, (index * (TILE + _TILE_GAP) + (TILE - size[0]) // 2, 0))
    draw, top = ImageDraw.Draw(block), size[1] + 10
    for artifact, wrapped_lines in texts:
        draw_swatch(draw, (0, top + 2), TYPE_COLORS[artifact.type])
        for line in wrapped_lines:
            draw.text((_INDENT, top - 1), line, fill=INK, font=TEXT_FONT)
            top += LINE
    draw.text((_INDENT, top), pair.pair_id, fill=FAINT, font=SMALL_FONT)
    return block


def _perception_tile(name: str, image: Image.Image, outcome: Perception | PerceptionError) -> Image.Image:
    picture = fitted(image, _PERCEPTION_TILE)
    if isinstance(outcome, PerceptionError):
        picture = Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.6)
        texts = [(ERROR, f"not used: {outcome}")]
    else:
        picture = _with_levels(picture, outcome)
        texts = _perceived_names(outcome)
    lines = [(color, line) for color, text in texts for line in wrapped(text, _PERCEPTION_TILE)]
    tile = Image.new("RGB", (_PERCEPTION_TILE, picture.height + 8 + LINE * (1 + len(lines))), "white")
    tile.paste(picture)
    draw, top = ImageDraw.Draw(tile), picture.height + 6
    draw.text((0, top + 1), name, fill=FAINT, font=SMALL_FONT)
    for color, line in lines:
        top += LINE
        draw.text((0, top), line, fill=color, font=TEXT_FONT)
    return tile


def _with_levels(picture: Image.Image, perception: Perception) -> Image.Image:
    """`picture` with the masks of a perception: entities tinted, parts in the colour of their level."""
    for index, entity in enumerate(perception.entities):
        picture = with_mask(picture, entity.mask, _ENTITY_COLORS[index % len(_ENTITY_COLORS)], 0.18)
    parts = [part for entity in perception.entities for part in entity.parts]
    # An eye lies on a face, and two colours over each other are a third.
    covered = np.logical_or.reduce([part.mask for part in parts if part.level == "peripheral"])
    for part in parts:
        mask = part.mask if part.level == "peripheral" else part.mask & ~covered
        picture = with_mask(picture, mask, _LEVEL_COLORS[part.level], 0.35)
    return picture


def _perceived_names(perception: Perception) -> list[tuple[Color, str]]:
    """The entities, then the parts of each level, in the level's colour; each name once, with how many there are."""
    texts = [(INK, _counted(entity.name for entity in perception.entities))]
    for level, color in _LEVEL_COLORS.items():
        parts = [part.name for entity in perception.entities for part in entity.parts if part.level == level]
        if parts:
            texts.append((color, _counted(parts)))
    return texts


def _counted(names: Iterable[str]) -> str:
    return ", ".join(name if number == 1 else f"{name} ({number})" for name, number in Counter(names).items())
