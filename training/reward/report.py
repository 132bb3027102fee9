"""
How good a reward model is, on pairs of photos that it was not trained on.

- Within pairs it should score the clean image higher (`pair_accuracy`), and across photos too (`cross_scene_auc`),
  which is what search, guidance and treating need: within a pair everything but the artifact is equal.
- Controls for shortcuts should be near chance, .5. `reconstruction_against_photo`: clean images are reconstructions by
  the diffusion model; does it know them from the photos that they were made from? `artifact_taken_out`: the artifact
  image with the pixels of the clean image in its labels; does anything around tell that there was an artifact?
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from datasets_script.detection.reward.model import RewardModel
from datasets_script.pairs.storage import read_rows
from datasets_script.schema.features import PAIR_FEATURES, row_to_pair
from datasets_script.schema.pair import Pair
from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.pair_ranking import pair_ranking
from evaluate_metrics.functional.versions import versions
from training.pixel.sources.registry import Source


SEVERAL = "several types"
"""What a pair with artifacts of different types is listed under."""

_IMAGES = ("clean", "artifact", "photo", "taken_out")


@dataclass(frozen=True, eq=False)
class HeldOutPair:
    """
    A pair with its photo.

    Attributes:
        pair (`Pair`): The pair.
        photo (`str`): What it shows; pairs of one photo are resampled together.
    """

    pair: Pair
    photo: str

    @property
    def type(self) -> str:
        """Type of its artifacts, or [`SEVERAL`]."""
        types = {artifact.type for artifact in self.pair.artifacts}
        return types.pop() if len(types) == 1 else SEVERAL

    def images(self) -> Iterator[Image.Image]:
        """Yield the images to score: clean, artifact, photo, and artifact image with the artifacts taken out."""
        yield from (self.pair.clean, self.pair.flawed, self.pair.source)
        labels = np.logical_or.reduce([artifact.mask for artifact in self.pair.artifacts])
        yield Image.composite(self.pair.clean, self.pair.flawed, Image.fromarray(labels))


def held_out_pairs(source: Source, ids: Container[str]) -> Iterator[HeldOutPair]:
    """
    Read pairs of a source.

    Args:
        source (`Source`): The source.
        ids (`Container[str]`): Ids of the pairs to read.
    """
    photos = dict(zip(source.units["id"][:], source.photos, strict=True))
    for row in read_rows(source.files.all()):
        if row["pair_id"] in ids:
            yield HeldOutPair(row_to_pair(PAIR_FEATURES.decode_example(row)), photos[row["pair_id"]])


def reward_report(
    model: RewardModel, pairs: Iterable[HeldOutPair], bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """
    Score a reward model.

    Args:
        model (`RewardModel`): The model.
        pairs (`Iterable[HeldOutPair]`): Pairs that it was not trained on, at least one.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals, by resampling photos.

    Returns:
        `dict[str, Any]`: JSON-serialisable: `pair_accuracy`, `cross_scene_auc` and their intervals, `n`, `n_photos`;
        the same `by_type` and, against chance, of the `controls`; `model`, `bootstrap` and `versions`.

    Raises:
        ValueError: There are no pairs.
    """
    bootstrap = bootstrap or Bootstrap()
    facts: list[tuple[str, str]] = []
    scores = np.array(list(model.stream(_images(pairs, facts))), dtype=np.float64).reshape(-1, len(_IMAGES)).T
    photos, types = zip(*facts, strict=True) if facts else ((), ())
    clean, artifact, photo, taken_out = scores
    chosen = {name: np.flatnonzero(np.array(types) == name) for name in sorted(set(types))}
    return {
        **_ranking(clean, artifact, photos, bootstrap),
        "by_type": {
            name: _ranking(clean[those], artifact[those], [photos[index] for index in those], bootstrap)
            for name, those in chosen.items()
        },
        "controls": {
            "reconstruction_against_photo": _ranking(clean, photo, photos, bootstrap),
            "artifact_taken_out": _ranking(clean, taken_out, photos, bootstrap),
        },
        "model": model.identity(),
        "bootstrap": asdict(bootstrap),
        "versions": versions("torch", "transformers", "timm"),
    }


def _images(pairs: Iterable[HeldOutPair], facts: list[tuple[str, str]]) -> Iterator[Image.Image]:
    """Yield the images of pairs, and note photo and type of each pair on the way."""
    for one in pairs:
        facts.append((one.photo, one.type))
        yield from one.images()


def _ranking(clean: np.ndarray, other: np.ndarray, photos: Any, bootstrap: Bootstrap) -> dict[str, Any]:
    scores = pair_ranking(clean.tolist(), other.tolist(), photos, bootstrap)
    del scores["versions"]
    return {name: _finite(value) for name, value in scores.items()}


def _finite(value: Any) -> Any:
    """Return a value as JSON has it, which knows no NaN."""
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
