"""
The oracle: finds a picture's artifacts by counting and measuring parts, given what the picture was asked to show.

Its limits, `ranges.json`, are those of clean renders alone, with a margin; nothing in it was fitted to artifacts. Made
by `python tests/benchmarks/creatures/oracle_figures.py --ranges`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from tests.benchmarks.creatures.bodies import BODIES
from tests.benchmarks.creatures.reading import Piece, Reading, measure, thickness
from tests.benchmarks.creatures.words import Words


ArtifactType = Literal["duplication", "omission", "distortion", "fusion"]
Ranges = dict[str, dict[str, tuple[float, float]]]

RANGES = Path(__file__).with_name("ranges.json")
# Limits lie this share of a measure's range in clean renders outside of it, and at least as far as `SLACK`: a
# difference that one has to look for, such as a part two pixels from its place or an ear a fifth smaller than the
# other, is no artifact.
MARGIN = 0.4
SLACK = {
    "across": 0.05,
    "down": 0.05,
    "level": 0.06,
    "elongation": 0.3,
    "evenness": 0.2,
    "fill": 0.12,
    "likeness": 0.015,
    "bulge": 0.5,
    "dent": 0.5,
    "strange": 12.0,
    "debris": 8.0,
    "mottle": 6.0,
}
# Measures of which less is never worse.
NO_LEAST = ("bulge", "dent", "level", "strange", "debris", "mottle")
# A piece of fewer pixels than this share of the smallest clean one is no part.
PART_SHARE = 0.4
# Pieces of this many times the largest clean area are two in one.
FUSED = 1.35
# Pixels that halves of one part lie apart at most.
TORN = 5
STRAY = 8  # pixels of a part where none belongs
PUPIL_LEAST, PUPIL_THICKNESS = 6, 1.6  # pixels; half the thickness in px that lines do not have


@dataclass(frozen=True)
class Fault:
    """
    One artifact.

    Args:
        type (`str`): `"duplication"`, `"omission"`, `"distortion"` or `"fusion"`.
        part (`str`): Kind of part, or `"body"`.
        reason (`str`): What was measured.
    """

    type: ArtifactType
    part: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """
    What the oracle says of a picture.

    Args:
        faults (`tuple[Fault, ...]`): Artifacts, none for a clean picture.
        shown (`Words`): The condition that the picture meets.
        asked (`Words`): The condition that it was made for.
    """

    faults: tuple[Fault, ...]
    shown: Words
    asked: Words

    @property
    def has_artifact(self) -> bool:
        return bool(self.faults)

    @property
    def types(self) -> frozenset[str]:
        return frozenset(fault.type for fault in self.faults)

    @property
    def meets_words(self) -> bool:
        return self.shown == self.asked


def expected_counts(words: Words) -> dict[str, int]:
    """Return how many pieces of each kind a picture must have."""
    mouths = int(BODIES[words.species].mouth is not None)
    return {"inner_ear": 2, "eye": 2, "horn": words.horns, "nose": 1, "mouth": mouths}


def limits_name(kind: str, count: int) -> str:
    """Return under which name the limits of parts are kept: a single horn has another place than two."""
    return "horns" if kind == "horn" and count == 2 else kind


def judge(image: np.ndarray, words: Words) -> Verdict:
    """
    Find the artifacts of a picture.

    Args:
        image (`np.ndarray` of shape `(64, 64, 3)`, `uint8`): Picture.
        words (`Words`): What it was asked to show.
    """
    reading = Reading(image)
    return Verdict(tuple(_faults(reading, words, load_ranges()[words.species])), reading.words, words)


def _faults(reading: Reading, words: Words, ranges: Ranges) -> Iterator[Fault]:
    expected = expected_counts(words).items()
    found = [fault for kind, count in expected for fault in _parts(reading, kind, count, ranges)]
    found += _pupils(reading)
    if any(fault.part == "inner_ear" and fault.type != "distortion" for fault in found):
        # Places are measured from the middle of a body that is whole.
        found = [fault for fault in found if fault.type != "distortion" or fault.part == "inner_ear"]
    yield from found
    if not found:
        # Measures of the whole would only say again what those of parts have said.
        yield from _outside_each(body_measures(reading, words), ranges["body"], "body")


def _parts(reading: Reading, kind: str, count: int, ranges: Ranges) -> Iterator[Fault]:
    """Find what is wrong with the parts of a kind, of which there must be `count`."""
    if not count:
        if strays := reading.pieces(kind, STRAY):
            yield Fault("duplication", kind, f"{len(strays)} where none belong")
        return
    limits = ranges[limits_name(kind, count)]
    low, high = (limit * reading.body.area for limit in limits["area"])
    masks = reading.pieces(kind, max(STRAY, PART_SHARE * low))
    if len(masks) > count:
        torn = _is_torn(masks, low, count * high)
        yield Fault("distortion" if torn else "duplication", kind, f"{len(masks)} of {count}")
    elif len(masks) < count:
        fused = any(_is_two(reading, mask, count, limits) for mask in masks)
        yield Fault("fusion" if fused else "omission", kind, f"{len(masks)} of {count}")
    else:
        yield from _outside_each(part_measures(reading, masks), limits, kind)


def _is_torn(masks: list[np.ndarray], least: float, most: float) -> bool:
    """Return whether all pieces are no more than the parts, and the smallest is less than one, beside another."""
    smallest = min(masks, key=np.sum)
    around = ndimage.binary_dilation(smallest, iterations=TORN)
    if smallest.sum() >= least or sum(mask.sum() for mask in masks) > most:
        return False
    return any((around & mask).any() for mask in masks if mask is not smallest)


def _is_two(reading: Reading, mask: np.ndarray, count: int, limits: dict[str, tuple[float, float]]) -> bool:
    """Return whether a piece is larger than a part can be, or lies between the places of a pair."""
    if mask.sum() > FUSED * limits["area"][1] * reading.body.area:
        return True
    beside = limits["across"][0] * np.sqrt(reading.body.area) / 2
    return count == 2 and abs(measure(mask).x - reading.body.x) < beside


def _pupils(reading: Reading) -> Iterator[Fault]:
    """Find eyes without a pupil or with several, and pupils without an eye."""
    pupils = reading.pieces("pupil", PUPIL_LEAST)
    eyes = reading.pieces("eye", 2 * STRAY)
    inside = [sum(bool((pupil & eye).any()) for pupil in pupils) for eye in eyes]
    if 0 in inside:
        yield Fault("omission", "pupil", "an eye without one")
    if any(number > 1 for number in inside):
        yield Fault("fusion" if len(eyes) == 1 else "duplication", "pupil", "two in an eye")
    outside = [pupil for pupil in pupils if not any((pupil & eye).any() for eye in eyes)]
    # Lines are as dark, but thin.
    if any(thickness(pupil) > PUPIL_THICKNESS for pupil in outside):
        yield Fault("duplication", "pupil", "one without an eye")


def part_measures(reading: Reading, masks: list[np.ndarray]) -> dict[str, list[float]]:
    """
    Measure the parts of one kind, relative to the body's size.

    Args:
        reading (`Reading`): Reading of the picture.
        masks (`list[np.ndarray]`): Parts, from left to right.

    Returns:
        `dict[str, list[float]]`: By measure a value for each part, or one of a pair.
    """
    body, parts = reading.body, [measure(mask) for mask in masks]
    size = np.sqrt(body.area)
    # The parts of a pair are mirror images, a single one lies in the middle.
    across = [(part.x - body.x) / size for part in parts]
    measures = {
        "area": [part.area / body.area for part in parts],
        "elongation": [part.breadth / part.height for part in parts],
        "fill": [part.fill for part in parts],
        "down": [(part.y - body.y) / size for part in parts],
        "across": [-across[0], across[1]] if len(parts) == 2 else across,
    }
    return measures | _pair_measures(parts, float(size)) if len(parts) == 2 else measures


def _pair_measures(parts: list[Piece], size: float) -> dict[str, list[float]]:
    return {
        "evenness": [min(part.area for part in parts) / max(part.area for part in parts)],
        "level": [abs(parts[0].y - parts[1].y) / size],
    }


def body_measures(reading: Reading, words: Words) -> dict[str, list[float]]:
    """Measure the creature as a whole, given what it was asked to be."""
    body = reading.body
    return {
        "area": [body.area],
        "likeness": [reading.likeness(words.species, words.horns)],
        "bulge": [reading.bulge(words.species, words.horns)],
        "dent": [reading.dent(words.species, words.horns)],
        "x": [body.x],
        "y": [body.y],
        "strange": [reading.strange],
        "debris": [reading.debris],
        "mottle": [reading.mottle],
    }


def _outside_each(
    measures: dict[str, list[float]], ranges: dict[str, tuple[float, float]], part: str
) -> Iterator[Fault]:
    for name, values in measures.items():
        low, high = ranges[name]
        for value in values:
            if not low <= value <= high:
                yield Fault("distortion", part, f"{name} {value:.2f}, not {low:.2f} – {high:.2f}")


@cache
def load_ranges() -> dict[str, Ranges]:
    """Load the limits of all measures by species, part and measure."""
    ranges: dict[str, Ranges] = json.loads(RANGES.read_text(encoding="utf-8"))["ranges"]
    return ranges


def find_ranges(pictures: Iterable[tuple[np.ndarray, Words]]) -> dict[str, Ranges]:
    """
    Find the limits of all measures in clean pictures.

    Args:
        pictures (`Iterable[tuple[np.ndarray, Words]]`): Clean pictures and what they show.
    """
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for image, words in pictures:
        reading = Reading(image)
        measured = {"body": body_measures(reading, words)}
        for kind, count in expected_counts(words).items():
            if count:
                measured[limits_name(kind, count)] = part_measures(reading, _largest(reading.pieces(kind), count))
        for kind, measures in measured.items():
            for name, found in measures.items():
                values[words.species, kind, name] += found
    ranges: dict[str, Ranges] = defaultdict(lambda: defaultdict(dict))
    for (species, kind, name), found in sorted(values.items()):
        ranges[species][kind][name] = _limits(name, np.asarray(found))
    return ranges


def _largest(masks: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Return the largest masks in their order; in a clean picture the others are crumbs."""
    least = sorted(mask.sum() for mask in masks)[-count]
    return [mask for mask in masks if mask.sum() >= least][:count]


def _limits(name: str, values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = max(MARGIN * (high - low), SLACK.get(name, 0.0))
    return (0.0 if name in NO_LEAST else round(low - margin, 4)), round(high + margin, 4)
