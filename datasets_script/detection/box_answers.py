"""Boxes in a model's answer, in whatever notation they are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..schema.boxes import Box
from ..vlm.conventions import find_convention


# Tolerance for sums of fractions.
_ROUNDING = 1e-9
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_GROUP = re.compile(rf"[\[(]\s*({_NUMBER}(?:\s*[,;]?\s+{_NUMBER}|\s*[,;]\s*{_NUMBER})*)\s*,?\s*[\])]")
_LINE = re.compile(
    rf"^[ \t]*(?:(?:[-*•]|\d+[.)])[ \t]*)?({_NUMBER}(?:[ \t]*,[ \t]*{_NUMBER}){{3}})[ \t.]*$", re.MULTILINE
)
_NAMED = re.compile(
    r"\b(?:(x_?1|x_?min|left)|(y_?1|y_?min|top)|(x_?2|x_?max|right)|(y_?2|y_?max|bottom))"
    rf"[\"'`*]*\s*[:=]\s*({_NUMBER})",
    re.IGNORECASE,
)
# Separators of the two corners of a box.
_TO = r"(?:,|;|to|and|-|–|→)"
_OTHER_CORNER = r"(?:the )?(?:bottom|lower)[- ]right(?: corner)?\s*(?:at|is|:|=)?"
_CORNERS = re.compile(rf"\s*(?:{_TO}|(?:{_TO}\s*)?{_OTHER_CORNER})\s*", re.IGNORECASE)
# An empty list of boxes. That of another field, such as "classes", says nothing about boxes.
_EMPTY = re.compile(
    r"(?:(?:answer|[\"'](?:artifacts?|\w{0,20}box\w{0,20}|regions?|detections?|objects?)[\"'])\s{0,9}:|^|[^:\s])"
    r"\s{0,9}\[\s{0,9}\]",
    re.IGNORECASE,
)
# A list that ends within a box: the answer was cut off.
_CUT_OFF = re.compile(rf"[\[(]\s*{_NUMBER}(?:\s*,\s*{_NUMBER})*\s*,?\s*$")
# Gemini's native boxes have y first. If it was asked for x first, the order of its answer cannot be known.
_BOX_2D = re.compile(r"[\"']box_2d[\"']")
# Boxes that are x, y, width and height by their names.
_XYWH = re.compile(
    r"\b(?:bbox|box|bboxes|boxes)?_?xywh[\"'`*]*\s*[:=]\s*\[(?:[^\[\]]*\]|\s*(?:\[[^\[\]]*\][\s,]*)+)", re.I
)
_LIST = re.compile(r"\[[^\[\]]*\]")
_SIDE = rf"(?<!\w)(?:x|y|left|top|w|h|width|height)[\"'`*]*\s*[:=]\s*{_NUMBER}"
_SIDES = re.compile(rf"{_SIDE}(?:[\"'`*\s,;]{{0,20}}{_SIDE}){{3}}", re.IGNORECASE)
_NAMED_SIDE = re.compile(rf"(?<!\w)(x|y|left|top|w|h|width|height)[\"'`*]*\s*[:=]\s*({_NUMBER})", re.IGNORECASE)
# A name for corners in answers, and for x, y, width and height in COCO's files.
_BBOX = re.compile(r"[\"']bbox[\"']\s*:\s*\[(?:[^\[\]]*\]|\s*(?:\[[^\[\]]*\][\s,]*)+)", re.IGNORECASE)


@dataclass(frozen=True)
class BoxAnswer:
    """
    The boxes of an answer, in pixels of the stored image.

    Attributes:
        boxes (`tuple[Box, ...]`): Plausible boxes, each once, in their order.
        failures (`tuple[str, ...]`): Why the others are not plausible.
        is_empty (`bool`): Whether the answer is a list without a box.
    """

    boxes: tuple[Box, ...]
    failures: tuple[str, ...]
    is_empty: bool


def find_boxes(text: str, size: tuple[int, int], convention: str, resized: tuple[int, int] | None = None) -> BoxAnswer:
    """
    Find all boxes in a text: in JSON, complete or cut off, in a code fence or amid prose; in InternVL's or Qwen's
    tags; as four numbers in brackets or alone on a line, as two bracketed corners, or as `x_min=..., y_min=..., ...`.

    Boxes under the name `bbox_xywh`, or of numbers named x, y, width and height, are read as such. Other numbers are
    corners, which may come in any order; only under the name `bbox`, which in COCO is x, y, width and height, corners
    in another order are a failure of the whole answer.

    A box that leaves the image by at most one step of the convention (a pixel, a thousandth, a hundredth for
    fractions) is taken as rounded and clipped; one that leaves it by more is a failure, as are boxes without an area,
    and fractions where the convention has whole numbers.

    Args:
        text (`str`): A model's answer.
        size (`tuple[int, int]`): Width and height of the stored image in pixels.
        convention (`str`): See [`~datasets_script.vlm.conventions.encode_box`].
        resized (`tuple[int, int]`, *optional*): See [`~datasets_script.vlm.conventions.encode_box`].

    Returns:
        `BoxAnswer`: The boxes, and why others could not be read.
    """
    if _BOX_2D.search(text):
        return BoxAnswer((), ('"box_2d" has y first in Gemini\'s boxes: which order is meant is not known',), False)
    text = _with_corners(text)
    for listed in _BBOX.finditer(text):
        for values in map(_numbers, _LIST.findall(listed[0])):
            if len(values) == 4 and not in_order(values):
                reason = (
                    f'"bbox" {shown(values)} cannot be corners: whether x, y, width, height are meant is not known'
                )
                return BoxAnswer((), (reason,), False)
    boxes: dict[Box, None] = {}
    failures = []
    for values in _quadruples(text):
        try:
            boxes[meant_box(values, size, convention, resized)] = None
        except ValueError as error:
            failures.append(f"{shown(values)}: {error}")
    if _CUT_OFF.search(text):
        failures.append("it is cut off within a box")
    return BoxAnswer(tuple(boxes), tuple(failures), bool(_EMPTY.search(text)) and not boxes and not failures)


def in_order(values: Sequence[float]) -> bool:
    """Return whether four numbers can be x_min, y_min, x_max and y_max, in this order."""
    return values[0] <= values[2] and values[1] <= values[3]


def _with_corners(text: str) -> str:
    """Replace boxes that are x, y, width and height by their names by the corners."""

    def of_list(match: re.Match[str]) -> str:
        values = _numbers(match[0])
        return _corners_in_words(values) if len(values) == 4 else match[0]

    def of_names(match: re.Match[str]) -> str:
        initials = {"left": "x", "top": "y"}
        sides = {initials.get(name.lower(), name[0].lower()): number for name, number in _NAMED_SIDE.findall(match[0])}
        return _corners_in_words([float(sides[name]) for name in "xywh"]) if len(sides) == 4 else match[0]

    return _SIDES.sub(of_names, _XYWH.sub(lambda match: _LIST.sub(of_list, match[0]), text))


def _corners_in_words(values: Sequence[float]) -> str:
    x, y, width, height = values
    return f"[{', '.join(f'{value:.10g}' for value in (x, y, x + width, y + height))}]"


def _quadruples(text: str) -> Iterator[tuple[float, ...]]:
    """Yield candidates for boxes in the order of the text; candidates with other than four numbers are failures."""
    found = [*_named(text), *_grouped(text)]
    found += [(match.start(), _numbers(match[1])) for match in _LINE.finditer(text)]
    yield from (values for _, values in sorted(found, key=lambda item: item[0]))


def _grouped(text: str) -> Iterator[tuple[int, tuple[float, ...]]]:
    corners: list[re.Match[str]] = []
    for match in _GROUP.finditer(text):
        values = _numbers(match[1])
        if len(values) == 2 and corners and _CORNERS.fullmatch(text, corners[-1].end(), match.start()):
            corners.append(match)
            continue
        yield from _joined(corners)
        corners = [match] if len(values) == 2 else []
        if len(values) > 2:
            yield match.start(), values
    yield from _joined(corners)


def _joined(corners: list[re.Match[str]]) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Join points in a row: two are corners, more may be a polygon, one alone is a point or a size."""
    if len(corners) > 1:
        yield corners[0].start(), tuple(value for match in corners for value in _numbers(match[1]))


def _named(text: str) -> Iterator[tuple[int, tuple[float, ...]]]:
    edges: dict[int, float] = {}
    for match in _NAMED.finditer(text):
        edge = next(index for index in range(4) if match[index + 1])
        if edge in edges:
            yield match.start(), tuple(edges.values())
            edges = {}
        edges[edge] = float(match[5])
        if len(edges) == 4:
            yield match.start(), tuple(edges[index] for index in range(4))
            edges = {}
    if edges:
        yield len(text), tuple(edges.values())


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in re.findall(_NUMBER, text))


def meant_box(
    values: Sequence[float], size: tuple[int, int], convention: str, resized: tuple[int, int] | None = None
) -> Box:
    """
    Compute the box that numbers in an answer stand for.

    Args:
        values (`Sequence[float]`): The numbers, corners in any order.
        size, convention, resized: See [`find_boxes`].

    Returns:
        `tuple[float, float, float, float]`: The box in pixels of the stored image.

    Raises:
        ValueError: The numbers cannot be a box of this image.
    """
    if len(values) != 4:
        raise ValueError(f"{len(values)} numbers are no box")
    if not all(map(math.isfinite, values)):
        raise ValueError("not all of them are finite")
    x_min, x_max = sorted(values[0::2])
    y_min, y_max = sorted(values[1::2])
    form = find_convention(convention)
    whole = form.encode((0, 0, *size), size, resized)
    step = 0.01 if form.decimals else 1
    # A box of the whole image as fractions is far more common than one of a single pixel in its corner.
    if step == 1 and max(values) <= 1:
        raise ValueError(f"fractions are no box of the convention '{convention}'")
    least, most = min(x_min - whole[0], y_min - whole[1]), max(x_max - whole[2], y_max - whole[3])
    if least < -step - _ROUNDING or most > step + _ROUNDING:
        raise ValueError(f"it reaches out of the image, which is {shown(whole)}")
    box = form.decode((x_min, y_min, x_max, y_max), size, resized)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError("it has no area")
    return box


def shown(values: Sequence[float]) -> str:
    """Write numbers for a message, at most eight of them."""
    return f"[{', '.join(f'{value:g}' for value in values[:8])}{', …' if len(values) > 8 else ''}]"
