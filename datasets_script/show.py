"""Pictures and tables for people: the contact sheet, the summary, and an overlay of what was perceived."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from diffusers_artifact.mapping import ARTIFACT_TYPES, ArtifactType

from .curation.measures import inside_outside_ratio
from .perception.base import Perception
from .records import Artifact, Pair


Color = tuple[int, int, int]

# From Okabe and Ito's palette, which stays apart for the colour-blind.
TYPE_COLORS: dict[ArtifactType, Color] = {
    "duplication": (0, 114, 178),
    "omission": (213, 94, 0),
    "distortion": (0, 140, 105),
    "fusion": (170, 60, 140),
}
_PERCEPTION_COLORS: tuple[Color, ...] = (*TYPE_COLORS.values(), (190, 140, 0), (60, 150, 210), (90, 90, 90))

TILE = 208
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
        _draw_box(drawn, artifact.bbox, scale, TYPE_COLORS[artifact.type])
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
        _draw_box(drawn, region.bbox, (factor, factor), color)
    for region, color, _ in regions:
        _draw_tag(drawn, region.name, (region.bbox[0] * factor, region.bbox[1] * factor), color)
    return drawn


def summary_table(pairs: Iterable[Pair], rejected: Sequence[dict[str, Any]]) -> str:
    """
    Counts and medians by type, as aligned text.

    Args:
        pairs (`Iterable[Pair]`): The pairs of a data set.
        rejected (`Sequence[dict]`): Its rejections, as read by [`read_rejected`].

    Returns:
        `str`: Lines for made, accepted and rejected artifacts, then the other rejections by stage.
    """
    artifacts = [artifact for pair in pairs for artifact in pair.artifacts]
    discarded = Counter(entry["type"] for entry in rejected if entry["stage"] == "curation")
    heading = ["type", "made", "accepted", "rejected", "inside", "outside", "in/out", "PSNR outside"]
    table = [heading]
    for kind in ARTIFACT_TYPES:
        table.append([kind, *_counts_and_medians([a for a in artifacts if a.type == kind], discarded[kind])])
    table.append(["all", *_counts_and_medians(artifacts, discarded.total())])
    widths = [max(len(row[column]) for row in table) for column in range(len(heading))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    lines.append("inside, outside: median change of the accepted, mean absolute difference in [0, 1]; PSNR in dB")
    stages = Counter(entry["stage"] for entry in rejected if entry["stage"] != "curation")
    if stages:
        lines.append("also rejected: " + ", ".join(f"{count} at {stage}" for stage, count in stages.most_common()))
    return "\n".join(lines)


def read_rejected(out: Path) -> list[dict[str, Any]]:
    """The rejections of a run, also of one that was interrupted and has no `rejected.jsonl` yet."""
    path = out / "rejected.jsonl"
    if path.exists():
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    markers = sorted((out / "shards").glob("*.json"))
    return [entry for marker in markers for entry in json.loads(marker.read_text(encoding="utf-8"))["rejected"]]


def _counts_and_medians(accepted: Sequence[Artifact], rejected: int) -> list[str]:
    counts = [str(len(accepted) + rejected), str(len(accepted)), str(rejected)]
    if not accepted:
        return [*counts, "-", "-", "-", "-"]
    scores = [artifact.scores for artifact in accepted]
    ratio = statistics.median(inside_outside_ratio(s["change_inside"], s["change_outside"]) for s in scores)
    return [
        *counts,
        f"{statistics.median(s['change_inside'] for s in scores):.3f}",
        f"{statistics.median(s['change_outside'] for s in scores):.4f}",
        f"{ratio:.1f}",
        f"{statistics.median(s['psnr_outside'] for s in scores):.1f}",
    ]


def _header(columns: int) -> Image.Image:
    width = 2 * _MARGIN + columns * _BLOCK_WIDTH + (columns - 1) * _BLOCK_GAP
    header = Image.new("RGB", (width, _MARGIN + 96), "white")
    draw = ImageDraw.Draw(header)
    draw.text((_MARGIN, _MARGIN - 6), "Photographs and their flawed twins", fill=_INK, font=_TITLE_FONT)
    left = float(_MARGIN)
    for kind, color in TYPE_COLORS.items():
        draw.rounded_rectangle((left, _MARGIN + 38, left + 16, _MARGIN + 54), radius=3, fill=color)
        draw.text((left + 23, _MARGIN + 36), kind, fill=_INK, font=_TEXT_FONT)
        left += 23 + draw.textlength(kind, font=_TEXT_FONT) + 26
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
    texts = [(artifact, _wrapped(f"{artifact.label}: {artifact.explanation}")) for artifact in pair.artifacts]
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


def _fit_tile(size: tuple[int, int]) -> tuple[int, int]:
    """The size in which an image fills a tile's width, or its height if it is upright."""
    factor = TILE / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _TEXT_FONT.getlength(longer) > _BLOCK_WIDTH - 22:
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


def _draw_box(
    image: Image.Image, bbox: tuple[float, float, float, float], scale: tuple[float, float], color: Color
) -> None:
    draw = ImageDraw.Draw(image)
    x_min, x_max = math.floor(bbox[0] * scale[0]), math.ceil(bbox[2] * scale[0]) - 1
    y_min, y_max = math.floor(bbox[1] * scale[1]), math.ceil(bbox[3] * scale[1]) - 1
    # The white line keeps the box visible on any background.
    draw.rectangle((x_min - 1, y_min - 1, x_max + 1, y_max + 1), outline="white", width=4)
    draw.rectangle((x_min, y_min, x_max, y_max), outline=color, width=2)


def _draw_tag(image: Image.Image, text: str, corner: tuple[float, float], color: Color) -> None:
    draw = ImageDraw.Draw(image)
    width, height = draw.textlength(text, font=_TEXT_FONT) + 8, 20
    left = min(max(0.0, corner[0]), image.width - width)
    top = min(max(0.0, corner[1] - height), image.height - height)
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + 4, top), text, fill="white", font=_TEXT_FONT)
