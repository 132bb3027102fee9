"""Batches of pairs for a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets_script.detection.reward.preprocessing import RewardPreprocessing
from datasets_script.utils.errors import UserError
from datasets_script.utils.seeds import derive_seed
from training.pixel.data import Part, TrainingUnits
from training.pixel.sources.spec import SourceSpec


@dataclass(frozen=True, eq=False)
class PairItem:
    """
    A pair to train on.

    Attributes:
        place (`int`): Its place in the order of the training.
        scene (`int`): A number of its photo.
        clean, artifact (`torch.Tensor` of shape `(3, height, width)`, `uint8`): Its images.
    """

    place: int
    scene: int
    clean: torch.Tensor
    artifact: torch.Tensor


class PairUnits(Dataset):
    """
    Pairs in the order of a training.

    Args:
        units (`TrainingUnits`): Units that are pairs.
        parts (`Sequence[Part]`): The parts of the mixture that they were drawn from.
    """

    def __init__(self, units: TrainingUnits, parts: Sequence[Part]) -> None:
        self.units, self.parts = units, parts

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, place: int) -> PairItem:
        part, index = self.units.order[place]
        (artifact, _), (clean, _) = self.units[place]
        return PairItem(place, derive_seed(0, self.parts[part].photos[index]), clean, artifact)

    def ids(self) -> list[set[str]]:
        """Return the ids of the pairs of each part."""
        names = [part.units["id"][:] for part in self.parts]
        return [
            {of_part[index] for source, index in self.units.order if source == number}
            for number, of_part in enumerate(names)
        ]


@dataclass(frozen=True)
class PairCollator:
    """
    Function that makes a batch of pairs.

    Args:
        preprocessing (`RewardPreprocessing`): Preprocessing of the reward model.
        cross_scene (`int`, *optional*, defaults to 0): Number of pairs of a clean and an artifact image of different
            photos to draw from each batch.
        seed (`int`, *optional*, defaults to 0): Seed of the draw.
    """

    preprocessing: RewardPreprocessing
    cross_scene: int = 0
    seed: int = 0

    def __call__(self, items: Sequence[PairItem]) -> dict[str, Any]:
        """
        Make a batch.

        Args:
            items (`Sequence[PairItem]`): Pairs.

        Returns:
            `dict`: `labels` of shape `(pairs,)`, numbers of the photos; `inputs`, the arguments of
                [`~datasets_script.detection.reward.network.RewardNetwork`], lists with a tensor for each size of
                image; `places` of shape `(2 · pairs,)`, where in the network's output the score of each clean image
                and then of each artifact image is; `cross`, see [`cross_pairs`].
        """
        images = [item.clean for item in items] + [item.artifact for item in items]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_shape.setdefault(tuple(image.shape), []).append(index)
        made = [
            self.preprocessing(torch.stack([images[index] for index in indices]).float() / 255)
            for indices in by_shape.values()
        ]
        order = torch.tensor([index for indices in by_shape.values() for index in indices])
        # First what tells the trainer the number of pairs.
        return {
            "labels": torch.tensor([item.scene for item in items]),
            "inputs": {"pixel_values": [one.pixel_values for one in made], "inside": [one.inside for one in made]},
            "places": order.argsort(),
            "cross": cross_pairs(items, self.cross_scene, self.seed),
        }


class HasScene(Protocol):
    """What pairs across photos are drawn by: `place` and `scene` of [`PairItem`]."""

    @property
    def place(self) -> int: ...

    @property
    def scene(self) -> int: ...


def cross_pairs(items: Sequence[HasScene], number: int, seed: int) -> torch.Tensor:
    """
    Draw pairs of a clean and an artifact image of different photos from a batch.

    Args:
        items (`Sequence[HasScene]`): The batch.
        number (`int`): How many to draw, if there are as many.
        seed (`int`): Seed of the draw.

    Returns:
        `torch.Tensor` of shape `(pairs, 2)`: Indices in the batch of the clean and of the artifact image.
    """
    scenes = np.array([item.scene for item in items])
    possible = np.argwhere(scenes[:, None] != scenes[None])
    generator = np.random.default_rng(derive_seed(seed, f"cross-scene:{items[0].place}"))
    return torch.from_numpy(possible[np.sort(generator.permutation(len(possible))[:number])])


def check_pair_sources(specs: Sequence[SourceSpec]) -> None:
    """
    Check that sources hold pairs.

    Raises:
        UserError: One is of another kind.
    """
    for spec in specs:
        if spec.kind != "pairs":
            raise UserError(
                f"--sources must be of kind pairs for a reward model, which learns from two images of one photo, got "
                f"'{spec.kind}'"
            )
