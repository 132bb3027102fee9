"""Statistics of a report: counts over all pairs, and distributions from a sample of fixed size."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffusers_artifact.mapping import ARTIFACT_TYPES

from ...agents.curation.measures import inside_outside_ratio
from ...schema.boxes import Box
from .columns import ArtifactFacts, PairFacts


SEED = 0
SAMPLE_SIZE = 10_000

# Images that the constant box is searched on. The standard error of a mean IoU over so many is at most 0.01.
_CONSTANT_BOX_IMAGES = 2500

# Cells per side of the map of positions.
GRID = 24

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ConstantBox:
    """
    Box with the greatest mean IoU when it is the answer for every image.

    Attributes:
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)` as shares of the image's sides,
            multiples of 1/24.
        mean_iou (`float`): IoU with the union of each image's boxes, mean over images (protocol `artiagent`). Boxes
            off the grid may reach more.
        mean_iou_of_whole_image (`float`): The same if the answer is the whole image.
        n (`int`): Number of images that the box was searched on.
    """

    box: Box
    mean_iou: float
    mean_iou_of_whole_image: float
    n: int


@dataclass(frozen=True)
class Agreement:
    """IoU of the box of an artifact with the hull of its visible change, and of its mask with the change itself."""

    box_iou: float
    mask_iou: float


@dataclass
class Statistics:
    """
    Running statistics of a dataset. Apart from the names, their size does not depend on the number of pairs.

    Attributes:
        acceptance (`Mapping`): `{"type/tool/kernel": {"made": …, "accepted": …}}`, as in `run.json`.
        pairs, artifacts, photos (`int`): Numbers of each. Pairs of the same photo must be counted consecutively.
        types, tools, kernels (`Counter[str]`): Number of artifacts by name.
        explanation_sources (`Counter[str]`): Number of pairs by name.
        entities, parts (`dict[str, Counter[str]]`): Number of artifacts by name and type.
        artifacts_per_pair (`Counter[int]`): Number of pairs by number of artifacts.
        rejections (`Counter[str]`): Number of rejections by stage and reason.
        coverage (`dict[str, np.ndarray]`): By type, the share of each cell that the box covers, summed over artifacts;
            shape `(GRID, GRID)`.
        ninths (`np.ndarray` of shape `(3, 3)`): Number of artifacts by the ninth of the image that holds the centre of
            the box.
        asked, detected (`Counter[str]`): By type, number of artifacts that a pixel detector was asked about, and of
            those that it saw.
        agreements (`Mapping[str, Sequence[Agreement]]`): By type, how well labels agree with what visibly changed.
        sample_size (`int`): Largest number of pairs in the sample.
        sample (`list[PairFacts]`): Uniform random sample of the pairs.
    """

    acceptance: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pairs: int = 0
    artifacts: int = 0
    photos: int = 0
    types: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    entities: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    parts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    artifacts_per_pair: Counter[int] = field(default_factory=Counter)
    explanation_sources: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    coverage: dict[str, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros((GRID, GRID))))
    ninths: np.ndarray = field(default_factory=lambda: np.zeros((3, 3), dtype=np.int64))
    asked: Counter[str] = field(default_factory=Counter)
    detected: Counter[str] = field(default_factory=Counter)
    agreements: Mapping[str, Sequence[Agreement]] = field(default_factory=dict)
    sample_size: int = SAMPLE_SIZE
    sample: list[PairFacts] = field(default_factory=list)
    _source_id: str | None = None
    _random: random.Random = field(default_factory=lambda: random.Random(SEED))
    _constant_box: ConstantBox | None = None

    def count(self, pair: PairFacts) -> None:
        """Count a pair."""
        self.pairs += 1
        self.photos += pair.source_id != self._source_id
        self._source_id = pair.source_id
        self.artifacts += len(pair.artifacts)
        self.artifacts_per_pair[len(pair.artifacts)] += 1
        self.explanation_sources[pair.explanation_source] += 1
        for artifact in pair.artifacts:
            self._count_artifact(artifact)
        self._draw(pair)

    def _count_artifact(self, artifact: ArtifactFacts) -> None:
        self.types[artifact.type] += 1
        self.tools[artifact.tool] += 1
        self.entities[artifact.entity][artifact.type] += 1
        if artifact.is_detected is not None:
            self.asked[artifact.type] += 1
            self.detected[artifact.type] += artifact.is_detected
        if artifact.kernel:
            self.kernels[artifact.kernel] += 1
        if artifact.part:
            self.parts[artifact.part][artifact.type] += 1
        self.coverage[artifact.type] += covered_cells(artifact.box)
        x_min, y_min, x_max, y_max = artifact.box
        self.ninths[min(2, int(1.5 * (y_min + y_max))), min(2, int(1.5 * (x_min + x_max)))] += 1

    def _draw(self, pair: PairFacts) -> None:
        """Update the sample by reservoir sampling (Vitter, 1985, algorithm R)."""
        if len(self.sample) < self.sample_size:
            self.sample.append(pair)
        elif (index := self._random.randrange(self.pairs)) < self.sample_size:
            self.sample[index] = pair

    def sampled_artifacts(self, kind: str | None = None) -> list[ArtifactFacts]:
        """Return the artifacts of the sample, only those of type `kind` if it is given."""
        return [artifact for pair in self.sample for artifact in pair.artifacts if kind in (None, artifact.type)]

    def sampled_changes(self, kind: str | None = None) -> list[tuple[float, float]]:
        """Return the changes inside and outside of the sampled artifacts for which both were measured."""
        return [
            (artifact.change_inside, artifact.change_outside)
            for artifact in self.sampled_artifacts(kind)
            if artifact.change_inside is not None and artifact.change_outside is not None
        ]

    @property
    def constant_box(self) -> ConstantBox:
        """Best constant box of the sample, computed on first use."""
        if self._constant_box is None:
            pairs = random.Random(SEED).sample(self.sample, min(len(self.sample), _CONSTANT_BOX_IMAGES))
            self._constant_box = best_constant_box([[artifact.box for artifact in pair.artifacts] for pair in pairs])
        return self._constant_box

    def as_dict(self) -> dict[str, Any]:
        """Return the statistics as a JSON-serialisable dictionary: shares in [0, 1], quantiles from the sample."""
        constant = self.constant_box
        return {
            "pairs": self.pairs,
            "photographs": self.photos,
            "flaws": self.artifacts,
            "flaws_per_pair": {
                str(number): self.artifacts_per_pair[number] for number in sorted(self.artifacts_per_pair)
            },
            "types": {kind: self.types[kind] for kind in ARTIFACT_TYPES},
            "tools": dict(self.tools.most_common()),
            "kernels": dict(self.kernels.most_common()),
            "acceptance": {kind: dict(counts) for kind, counts in self.acceptance.items()},
            "rejections": dict(self.rejections.most_common()),
            "box_share": {kind: quantiles([a.share for a in artifacts]) for kind, artifacts in self._by_type()},
            "ninths_of_the_image": self.ninths.tolist(),
            "coverage": {kind: grid.round(3).tolist() for kind, grid in self.coverage.items()},
            "constant_box": {
                "box": list(constant.box),
                "mean_iou": constant.mean_iou,
                "mean_iou_of_whole_image": constant.mean_iou_of_whole_image,
                "protocol": "artiagent",
                "n": constant.n,
            },
            "labels": {
                kind: {
                    "box_iou": quantiles([one.box_iou for one in of]),
                    "mask_iou": quantiles([one.mask_iou for one in of]),
                }
                for kind, of in self.agreements.items()
            },
            "second_opinion": {
                kind: {"asked": self.asked[kind], "detected": self.detected[kind]} for kind in sorted(self.asked)
            },
            "change": {kind: _changes(self.sampled_changes(kind)) for kind in ARTIFACT_TYPES if self.types[kind]},
            "entities": _by_name(self.entities),
            "parts": _by_name(self.parts),
            "explanation_words": {
                "of_flaws": quantiles([artifact.words for artifact in self.sampled_artifacts()]),
                "of_images": quantiles([pair.words for pair in self.sample]),
            },
            "explanation_sources": dict(self.explanation_sources.most_common()),
        }

    def _by_type(self) -> list[tuple[str, list[ArtifactFacts]]]:
        kinds = [kind for kind in ARTIFACT_TYPES if self.types[kind]]
        return [("all", self.sampled_artifacts()), *((kind, self.sampled_artifacts(kind)) for kind in kinds)]


def covered_cells(box: Box) -> np.ndarray:
    """Compute the exact share of each cell that a box covers, shape `(GRID, GRID)`, rows first."""
    edges = np.arange(GRID + 1)
    x_min, y_min, x_max, y_max = (coordinate * GRID for coordinate in box)
    across, down = (
        np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, 1)
        for low, high in ((x_min, x_max), (y_min, y_max))
    )
    return np.outer(down, across)


def best_constant_box(boxes_of_images: Sequence[Sequence[Box]]) -> ConstantBox:
    """
    Find the constant box with the greatest mean IoU, the best that a model can reach without looking at the images.
    Every box whose corners lie on the grid is tried.

    Args:
        boxes_of_images (`Sequence[Sequence[Box]]`): Boxes of each image's artifacts, as shares of its sides. Where two
            boxes of an image share a cell, the one that covers more of it counts.

    Returns:
        `ConstantBox`: The first of the best boxes.

    Raises:
        ValueError: `boxes_of_images` is empty.
    """
    if not boxes_of_images:
        raise ValueError("`boxes_of_images` must hold at least one image, got none")
    sums = np.zeros((len(boxes_of_images), GRID + 1, GRID + 1), dtype=np.float32)
    for image, boxes in zip(sums, boxes_of_images, strict=True):
        if boxes:
            cells = np.maximum.reduce([covered_cells(box) for box in boxes])
            image[1:, 1:] = cells.cumsum(axis=0).cumsum(axis=1)
    total = sums[:, -1, -1, None]
    lows, highs = np.triu_indices(GRID + 1, k=1)
    best, best_box = -1.0, (0.0, 0.0, 1.0, 1.0)
    for top, bottom in zip(lows, highs, strict=True):
        rows = sums[:, bottom] - sums[:, top]
        shared = rows[:, highs] - rows[:, lows]
        ious = (shared / ((highs - lows) * (bottom - top) + total - shared)).mean(axis=0)
        column = int(ious.argmax())
        # The margin keeps rounding errors from choosing among equally good boxes.
        if ious[column] > best + 1e-6:
            best = float(ious[column])
            left, right = lows[column], highs[column]
            best_box = (left / GRID, top / GRID, right / GRID, bottom / GRID)
    box = (float(best_box[0]), float(best_box[1]), float(best_box[2]), float(best_box[3]))
    return ConstantBox(box, best, float(total.mean() / GRID**2), len(boxes_of_images))


def quantiles(values: Iterable[float]) -> dict[str, float]:
    """Compute the number, mean and quantiles of at least one value."""
    array = np.asarray(list(values), dtype=np.float64)
    found = np.quantile(array, _QUANTILES)
    return {
        "n": len(array),
        "mean": float(array.mean()),
        **{f"q{100 * level:02.0f}": float(value) for level, value in zip(_QUANTILES, found, strict=True)},
    }


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """
    Compute the 95 % interval of a share (Wilson, 1927), which stays in [0, 1].

    Args:
        hits (`int`): Number of cases that count.
        total (`int`): Number of cases, above 0.

    Returns:
        `tuple[float, float]`: Lower and upper limit.
    """
    z = 1.959964
    share, spread = hits / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    margin = z * (share * (1 - share) / total + spread / total / 4) ** 0.5 / (1 + spread)
    return max(0.0, centre - margin), min(1.0, centre + margin)


def _changes(changes: Sequence[tuple[float, float]]) -> dict[str, Any]:
    if not changes:
        return {"n": 0}
    # Without a change outside, the ratio is infinite, which JSON cannot hold; such artifacts are left out.
    ratios = [inside_outside_ratio(inside, outside) for inside, outside in changes if outside]
    return {
        "n": len(changes),
        "inside": quantiles(inside for inside, _ in changes),
        "outside": quantiles(outside for _, outside in changes),
        "inside_outside_ratio": quantiles(ratios) if ratios else {"n": 0},
    }


def _by_name(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    names = sorted(counts, key=lambda name: (-counts[name].total(), name))
    return {name: dict(counts[name].most_common()) for name in names}
