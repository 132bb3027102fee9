"""Contact sheets: of pairs, and of source photos with their perceived entities and parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..agents.perception.base import PerceptionError
from ..schema.pair import Artifact, Pair
from ..schema.perception import PartLevel, Perception
from ..utils.files import replacing
from .drawing import draw_box, draw_legend, draw_swatch, draw_title, fitted, in_rows, with_mask, wrapped
from .lettering import draw_text
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
_SHEET_TOP = MARGIN + 96
MAX_PAGE_HEIGHT = 4000
"""Height of a contact sheet in pixels, above which another page begins: viewers and mail cut off larger images."""
_INDENT = 22
_TILE_TITLES = ("source photo", "clean image", "artifact image", "artifacts")


def contact_sheets(pairs: Iterable[Pair], columns: int = 2, max_pairs: int = 64) -> Iterator[Image.Image]:
    """
    Draw sheets of pairs, of at most `MAX_PAGE_HEIGHT` unless a row alone is higher. Each pair shows the source photo,
    the clean image, the artifact image, and the artifact image with the mask and box of each artifact in the colour of
    its type, above labels and explanations.

    Args:
        pairs (`Iterable[Pair]`): At least one pair.
        columns (`int`, *optional*, defaults to 2): Number of pairs per row.
        max_pairs (`int`, *optional*, defaults to 64): Number of pairs to show, from the first; no more are taken.

    Yields:
        `PIL.Image.Image`: RGB; 1792 px wide for two columns.

    Raises:
        ValueError: `pairs` is empty.
    """
    page: list[Image.Image] = []
    height = 0
    blocks = map(_pair_block, islice(pairs, max_pairs))
    while row := list(islice(blocks, columns)):
        of_row = max(block.height for block in row) + _BLOCK_GAP
        if page and _SHEET_TOP + height + of_row + MARGIN - _BLOCK_GAP > MAX_PAGE_HEIGHT:
            yield _page(page, columns)
            page, height = [], 0
        page += row
        height += of_row
    if not page:
        raise ValueError("`pairs` must hold at least one pair, got none")
    yield _page(page, columns)


def save_pages(pages: Iterable[Image.Image], path: Path) -> list[Path]:
    """
    Write pages atomically as `NAME.png`, `NAME-2.png`, …, and remove further ones of before.

    Args:
        pages (`Iterable[PIL.Image.Image]`): The pages.
        path (`Path`): File of the first page; its extension decides the format.

    Returns:
        `list[Path]`: The files.
    """
    files: list[Path] = []
    for number, page in enumerate(pages, start=1):
        files.append(_numbered(path, number))
        with replacing(files[-1]) as temporary:
            page.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])
    for number in count(len(files) + 1):
        if not (left_over := _numbered(path, number)).exists():
            return files
        left_over.unlink()
    return files


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")


def _page(blocks: Sequence[Image.Image], columns: int) -> Image.Image:
    sheet = in_rows(blocks, columns, _SHEET_TOP, _BLOCK_GAP)
    draw = ImageDraw.Draw(sheet)
    draw_title(draw, ["Source photos with their clean and artifact images"])
    draw_legend(draw, [(color, kind) for kind, color in TYPE_COLORS.items()], MARGIN + 36)
    for column in range(min(columns, len(blocks))):
        left = MARGIN + column * (_BLOCK_WIDTH + _BLOCK_GAP)
        for index, title in enumerate(_TILE_TITLES):
            place = (left + index * (TILE + _TILE_GAP), MARGIN + 73)
            draw_text(draw, place, title, FAINT, SMALL_FONT)
    return sheet


def draw_artifacts(image: Image.Image, artifacts: Sequence[Artifact], size: tuple[int, int]) -> Image.Image:
    """
    Resize an image and draw the mask (translucent) and box of each artifact in the colour of its type.

    Args:
        image (`PIL.Image.Image`): The artifact image.
        artifacts (`Sequence[Artifact]`): Its artifacts.
        size (`tuple[int, int]`): Width and height to resize to, px. Lines keep their width.

    Returns:
        `PIL.Image.Image`: A new RGB image.
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
    Draw a sheet of source photos with their entities, the parts in one colour per level, and the names of both. A
    photo that could not be perceived is faded and shows the reason.

    Args:
        items (`Iterable[tuple[str, PIL.Image.Image, Perception | PerceptionError]]`): Name, photo and outcome of
            [`PerceptionAgent.perceive_batch`] for at least one photo.
        columns (`int`, *optional*, defaults to 3): Number of photos per row.
        max_images (`int`, *optional*, defaults to 24): Number of photos to show, from the first; no more are taken.

    Returns:
        `PIL.Image.Image`: RGB; 1372 px wide for three columns.

    Raises:
        ValueError: `items` is empty.
    """
    tiles = [_perception_tile(*item) for item in islice(items, max_images)]
    if not tiles:
        raise ValueError("`items` must hold at least one photo, got none")
    # A single narrow column would cut off the legend.
    sheet = in_rows(tiles, columns, MARGIN + 72, MARGIN, least_width=2 * _PERCEPTION_TILE + MARGIN)
    draw = ImageDraw.Draw(sheet)
    draw_title(draw, ["Perceived entities and parts"])
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
            draw_text(draw, (_INDENT, top - 1), line, INK, TEXT_FONT)
            top += LINE
    draw_text(draw, (_INDENT, top), pair.pair_id, FAINT, SMALL_FONT)
    return block


def _perception_tile(name: str, image: Image.Image, outcome: Perception | PerceptionError) -> Image.Image:
    shown = fitted(image, _PERCEPTION_TILE)
    if isinstance(outcome, PerceptionError):
        shown = Image.blend(shown, Image.new("RGB", shown.size, "white"), 0.6)
        texts = [(ERROR, f"not used: {outcome}")]
    else:
        shown = _with_levels(shown, outcome)
        texts = _perceived_names(outcome)
    lines = [(color, line) for color, text in texts for line in wrapped(text, _PERCEPTION_TILE)]
    tile = Image.new("RGB", (_PERCEPTION_TILE, shown.height + 8 + LINE * (1 + len(lines))), "white")
    tile.paste(shown)
    draw, top = ImageDraw.Draw(tile), shown.height + 6
    draw_text(draw, (0, top + 1), name, FAINT, SMALL_FONT)
    for color, line in lines:
        top += LINE
        draw_text(draw, (0, top), line, color, TEXT_FONT)
    return tile


def _with_levels(image: Image.Image, perception: Perception) -> Image.Image:
    """Tint the entities of a perception, and its parts in the colour of their level."""
    for index, entity in enumerate(perception.entities):
        image = with_mask(image, entity.mask, _ENTITY_COLORS[index % len(_ENTITY_COLORS)], 0.18)
    parts = [part for entity in perception.entities for part in entity.parts]
    # An eye lies on a face: tinting both there would mix the two colours into a third.
    covered = np.logical_or.reduce([part.mask for part in parts if part.level == "peripheral"])
    for part in parts:
        mask = part.mask if part.level == "peripheral" else part.mask & ~covered
        image = with_mask(image, mask, _LEVEL_COLORS[part.level], 0.35)
    return image


def _perceived_names(perception: Perception) -> list[tuple[Color, str]]:
    """List the names of entities, then of the parts of each level, each once with its number, and their colours."""
    texts = [(INK, _counted(entity.name for entity in perception.entities))]
    for level, color in _LEVEL_COLORS.items():
        parts = [part.name for entity in perception.entities for part in entity.parts if part.level == level]
        if parts:
            texts.append((color, _counted(parts)))
    return texts


def _counted(names: Iterable[str]) -> str:
    return ", ".join(name if number == 1 else f"{name} ({number})" for name, number in Counter(names).items())
