"""Data of a pixel detector: a mixture of sources, and the batches that are made from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import chain
from typing import Any

import datasets
import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.pairs.storage import split_of
from datasets_script.utils.errors import UserError
from datasets_script.utils.seeds import derive_seed
from training.pixel.augment import SHRINK, STANDARD, STRONG, Augmentation, Ranges
from training.pixel.hard_cases import HardCases
from training.pixel.losses import OUTSIDE
from training.pixel.mixture import plan
from training.pixel.sources.registry import Source
from training.pixel.sources.units import CLEAN, PSEUDO


# Units whose labels the share of artifact pixels is measured on.
_MEASURED = 400
# A head that calls nothing an artifact would begin at the logit of 0.
_LEAST_PRIOR = 1e-4


@dataclass(frozen=True, kw_only=True)
class AugmentationPolicy:
    """
    Which images are augmented, and how.

    Args:
        share (`float`, *optional*, defaults to 0.5): Share of the batches that are augmented, all of their units.
        shrink_share (`float`, *optional*, defaults to 0.5): Share of the pseudo-labelled images without artifacts that
            are shrunk and padded instead (DiffDoctor §3.2). Those with artifacts are augmented strongly.
        units_per_batch (`int`, *optional*, defaults to 1): Units of a batch.
        crop (`float`, *optional*, defaults to 1.0): Sides of the part of an image that is trained on.
        seed (`int`, *optional*, defaults to 0): Seed of the training.
    """

    share: float = 0.5
    shrink_share: float = 0.5
    units_per_batch: int = 1
    crop: float = 1.0
    seed: int = 0

    def choose(self, place: int, unit: Mapping[str, Any], label: torch.Tensor) -> Augmentation | None:
        """
        Choose what is done to a unit.

        Args:
            place (`int`): Place of the unit in the order of the training.
            unit (`Mapping`): Row of `UNIT_FEATURES`.
            label (`torch.Tensor` of shape `(height, width)`): Label of its first image, of which the part that is
                trained on shows an artifact, if it has any.

        Returns:
            `Augmentation`: One for all images of the unit; `None` to leave them as they are.
        """
        ranges, seed = self._ranges(place, unit), derive_seed(self.seed, f"augmentation:{place}")
        if ranges is None and self.crop == 1:
            return None
        change = Augmentation() if ranges is None else Augmentation.draw(ranges, seed)
        return replace(change, window=change.window * self.crop).showing(label, derive_seed(seed, "place"))

    def _ranges(self, place: int, unit: Mapping[str, Any]) -> Ranges | None:
        if PSEUDO in unit["provenance"]:
            if any(label is not None for label in unit["labels"]):
                return STRONG
            if self._is_below(f"shrink:{place}", self.shrink_share):
                return SHRINK
        return STANDARD if self._is_below(f"batch:{place // self.units_per_batch}", self.share) else None

    def _is_below(self, name: str, share: float) -> bool:
        return derive_seed(self.seed, name) < share * 2**63


class TrainingUnits(Dataset):
    """
    Units in the order of a training. The unit at a place, and its augmentation, depend on nothing but the seed and the
    place, so a training that was interrupted continues with the same ones.

    Args:
        units (`Sequence[datasets.Dataset]`): Units of each source.
        order (`np.ndarray` of shape `(length, 2)`): Source and unit of each place.
        policy (`AugmentationPolicy`, *optional*): Defaults to none, for evaluation.
        clean_images (`bool`, *optional*, defaults to `True`): Whether images without a label are kept in units.
    """

    def __init__(
        self,
        units: Sequence[datasets.Dataset],
        order: np.ndarray,
        policy: AugmentationPolicy | None = None,
        clean_images: bool = True,
    ) -> None:
        self.units, self.order, self.policy, self.clean_images = units, order, policy, clean_images

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return image `(3, height, width)`, `uint8`, and label `(height, width)`, floats, of each image."""
        source, index = self.order[place]
        unit = self.units[source][int(index)]
        halves = zip(unit["images"], unit["labels"], strict=True)
        items = [_tensors(*half) for half in halves if self.clean_images or half[1] is not None]
        change = self.policy.choose(place, unit, items[0][1]) if self.policy else None
        return [change(*item) for item in items] if change else items


@dataclass(frozen=True)
class Collator:
    """
    Function that makes a batch: the input of the network, and labels in its geometry.

    Args:
        preprocessing (`Preprocessing`): Preprocessing of the detector.
    """

    preprocessing: Preprocessing

    def __call__(self, units: Sequence[Sequence[tuple[torch.Tensor, torch.Tensor]]]) -> dict[str, torch.Tensor]:
        """
        Make a batch of units.

        Args:
            units (`Sequence`): Items of [`TrainingUnits`].

        Returns:
            `dict`: `images` of shape `(units,)`, the number of images of each unit; `pixel_values` of shape `(images,
            3, height, width)` and `labels` of shape `(images, height, width)`, with [`OUTSIDE`] where there is no
            image.
        """
        made = [self._one(image, label) for unit in units for image, label in unit]
        height, width = (max(label.shape[axis] for _, label in made) for axis in (0, 1))
        values = [_enlarged(pixels, height, width, self.preprocessing.padding) for pixels, _ in made]
        labels = [_enlarged(label, height, width, OUTSIDE) for _, label in made]
        # First what tells the trainer the number of units.
        return {
            "images": torch.tensor([len(unit) for unit in units]),
            "pixel_values": torch.stack(values),
            "labels": torch.stack(labels),
        }

    def _one(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, geometry = self.preprocessing(image[None].float() / 255)
        counts = geometry.fit((label >= 0).float()[None])[0] > 0.999
        fitted = geometry.fit(label.clamp(min=0)[None])[0].clamp(0, 1)
        return pixels[0], torch.where(counts & geometry.inside(), fitted, OUTSIDE)


@dataclass(frozen=True, eq=False)
class Part:
    """
    Units of one source and one role.

    Attributes:
        source (`Source`): The source.
        role (`str`): `"train"` or `"test"`.
        units (`datasets.Dataset`): The units.
        photos (`Sequence[str]`): Photo of each unit.
    """

    source: Source
    role: str
    units: datasets.Dataset
    photos: Sequence[str]


@dataclass(frozen=True, eq=False)
class Mixture:
    """
    Sources of a training, divided into what is trained on and what is held out.

    Args:
        sources (`Sequence[Source]`): The sources, of both roles.
        test_share (`float`, *optional*, defaults to 0.0): Share of the photos of the sources with role `"train"` that
            are held out too, with all their units.
        seed (`int`, *optional*, defaults to 0): Seed of the order, and of the choice of photos.
        hard_cases (`HardCases`, *optional*): Categories to draw more often.
        clean_images (`bool`, *optional*, defaults to `True`): Whether clean images are trained on: clean halves of
            pairs, photos, and images in which nothing is marked. Held-out ones are kept either way.

    Raises:
        UserError: Nothing is left to train on, or nothing of one of the sources.
    """

    sources: Sequence[Source]
    test_share: float = 0.0
    seed: int = 0
    hard_cases: HardCases | None = None
    clean_images: bool = True

    @cached_property
    def _parts(self) -> list[Part]:
        parts = []
        for source in self.sources:
            photos = source.photos
            is_test = [
                source.spec.role == "test" or split_of(photo, self.test_share, self.seed) == "test" for photo in photos
            ]
            for role, wanted in (("train", False), ("test", True)):
                places = [place for place, held_out in enumerate(is_test) if held_out is wanted]
                if role == "train" and places and not self.clean_images:
                    places = _marked(source, places)
                if places:
                    chosen = [photos[place] for place in places]
                    parts.append(Part(source, role, source.units.select(places), chosen))
        if not any(part.role == "train" for part in parts):
            raise UserError("--sources must give units to train on, got only held-out ones; add one of role train")
        return parts

    @property
    def fingerprint(self) -> str:
        """
        Return a hash of the ids of all units, of the files that they were read from, and of how often hard categories
        are drawn, by which a training is continued with the same data only.
        """
        digest = sha256()
        for source, record in zip(self.sources, self._records, strict=True):
            parts = [source.spec.role, *source.units["id"][:], record["fingerprint"], ""]
            digest.update("\n".join(parts).encode())
        if self.hard_cases:
            digest.update(json.dumps(asdict(self.hard_cases), sort_keys=True).encode())
        return f"sha256:{digest.hexdigest()[:16]}"

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        # Computed once, as each reads all files of its source.
        return [source.record() for source in self.sources]

    def parts(self, role: str) -> list[Part]:
        """Return the parts of one role, `"train"` or `"test"`, in the order of the sources."""
        return [part for part in self._parts if part.role == role]

    def units(self, role: str) -> list[datasets.Dataset]:
        """Return the units of one role, by source."""
        return [part.units for part in self.parts(role)]

    def train(self, length: int, policy: AugmentationPolicy | None = None) -> TrainingUnits:
        """
        Return the units to train on.

        Args:
            length (`int`): Number of units to draw.
            policy (`AugmentationPolicy`, *optional*): Which are augmented. Defaults to none.

        Raises:
            UserError: There are hard categories, and no unit is of one.
        """
        units = self.units("train")
        order = plan(
            list(map(len, units)),
            [part.source.spec.weight for part in self.parts("train")],
            length,
            self.seed,
            self._frequencies(self.hard_cases, units) if self.hard_cases else None,
        )
        return TrainingUnits(units, order, policy, self.clean_images)

    def _frequencies(self, hard_cases: HardCases, units: Sequence[datasets.Dataset]) -> list[np.ndarray]:
        categories, hard = [part["category"][:] for part in units], hard_cases.hard
        if hard and not set(hard).intersection(chain(*categories)):
            raise UserError(
                f"--hard_cases must have hard categories that the sources have too, got {', '.join(hard[:5])}; "
                "images of a category lie in a folder of its name, or name it in their metadata"
            )
        return [hard_cases.frequencies(names) for names in categories]

    def test(self, limit: int | None = None) -> TrainingUnits | None:
        """Return the held-out units, or the first `limit` of them in the order of the seed; `None` without any."""
        held_out = self.units("test")
        order = np.array([(s, u) for s, units in enumerate(held_out) for u in range(len(units))], dtype=np.int64)
        if not len(order):
            return None
        if limit is not None:
            order = order[np.sort(np.random.default_rng(self.seed).permutation(len(order))[:limit])]
        return TrainingUnits(held_out, order)

    def count(self, role: str) -> int:
        """Return the number of units of a role."""
        return sum(map(len, self.units(role)))

    def prior(self) -> float:
        """Measure the share of pixels that are labelled as artifacts, on the first units that are drawn."""
        units = self.train(min(_MEASURED, self.count("train")))
        shares = [float(label.mean()) for place in range(len(units)) for _, label in units[place]]
        return max(float(np.mean(shares)), _LEAST_PRIOR)

    def record(self, drawn: TrainingUnits) -> dict[str, Any]:
        """
        Return what the record of a training states about its data.

        Args:
            drawn (`TrainingUnits`): The units that were trained on, from [`train`].

        Returns:
            `dict`: JSON-serialisable: `source` (names), `sources` (what was read), `licenses` and `runs` of them,
                `pairs`, `units` and `images` (number by role), `provenance` (number of labels by role and origin),
                `drawn` (how many images of each origin were trained on).
        """
        by_role = {role: self.units(role) for role in ("train", "test")}
        provenance = {role: _count(units) for role, units in by_role.items()}
        if not self.clean_images:
            del provenance["train"][CLEAN]
        origins = [units["provenance"][:] for units in drawn.units]
        pairs = {
            role: sum(len(images) == 2 for part in units for images in part["provenance"][:])
            for role, units in by_role.items()
        }
        shown = Counter(origin for source, unit in drawn.order for origin in origins[source][unit])
        if not self.clean_images:
            del shown[CLEAN]
        return {
            "source": ", ".join(dict.fromkeys(source.files.name for source in self.sources)),
            "sources": self._records,
            "licenses": sorted({name for source in self.sources for name in source.files.stated_licenses()}),
            "runs": [origin for source in self.sources for origin in source.files.run_origins()],
            **({"pairs": pairs} if any(pairs.values()) else {}),
            "units": {role: sum(map(len, units)) for role, units in by_role.items()},
            "images": {role: sum(counts.values()) for role, counts in provenance.items()},
            "provenance": {role: dict(counts) for role, counts in provenance.items()},
            "drawn": dict(shown),
            "test_share": self.test_share,
            "seed": self.seed,
            "hard_cases": self.hard_cases.record() if self.hard_cases else None,
        }


def _marked(source: Source, places: Sequence[int]) -> list[int]:
    """Return the places of units in which something is marked as an artifact."""
    undecoded = source.units.select(places).cast_column("labels", datasets.List(datasets.Image(decode=False)))
    marked = [place for place, labels in zip(places, undecoded["labels"], strict=True) if any(labels)]
    if not marked:
        raise UserError(
            f"--sources must have artifact images for --clean_images false, got none in '{source.spec.source}'; "
            "leave this source out"
        )
    return marked


def _count(units: Sequence[datasets.Dataset]) -> Counter[str]:
    return Counter(origin for part in units for origins in part["provenance"][:] for origin in origins)


def _tensors(image: Any, label: Any) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if label is None:
        return pixels, torch.zeros(pixels.shape[1:])
    return pixels, torch.from_numpy(np.array(label)).float() / 255


def _enlarged(values: torch.Tensor, height: int, width: int, fill: float) -> torch.Tensor:
    below, right = height - values.shape[-2], width - values.shape[-1]
    return functional.pad(values, (0, right, 0, below), value=fill)
