"""
Pairs as the head of a reward model sees them. If the trunk is frozen and no image is augmented, that never changes: it
is computed once, and the head trains in seconds instead of running the trunk in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets_script.detection.reward.network import RewardNetwork
from training.reward.data import PairCollator, PairUnits, cross_pairs


# Numbers would differ in their last bits in other batches, and a training that continues must find the same ones.
_PAIRS_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class HeadItem:
    """
    A pair to train a head on.

    Attributes:
        place (`int`): Its place in the order of the training.
        scene (`int`): A number of its photo.
        vectors, counts (`torch.Tensor`): Those of [`~datasets_script.detection.reward.heads.RewardHead.inputs`], of
            shape `(2, views, 1, channels)` and `(2, views, 1)`, the clean image first.
    """

    place: int
    scene: int
    vectors: torch.Tensor
    counts: torch.Tensor


class HeadInputs(Dataset):
    """
    What a head with one vector for each view sees of pairs, computed once for each pair.

    Args:
        pairs (`PairUnits`): The pairs, whose images are not augmented.
        network (`RewardNetwork`): Network with a frozen trunk, on the device that it is computed on.
        collator (`PairCollator`): Makes its input.
        quiet (`bool`, *optional*, defaults to `False`): Show no progress bar.
    """

    def __init__(self, pairs: PairUnits, network: RewardNetwork, collator: PairCollator, quiet: bool = False) -> None:
        self._keys = [(int(source), int(index)) for source, index in pairs.units.order]
        first = {key: place for place, key in reversed(list(enumerate(self._keys)))}
        self._found: dict[tuple[int, int], tuple[int, torch.Tensor, torch.Tensor]] = {}
        keys = sorted(first)
        for start in tqdm(range(0, len(keys), _PAIRS_AT_ONCE), desc="images through the trunk", disable=quiet):
            some = keys[start : start + _PAIRS_AT_ONCE]
            items = [pairs[first[key]] for key in some]
            vectors, counts = _seen(network, collator(items))
            for key, item, *seen in zip(some, items, vectors, counts, strict=True):
                self._found[key] = (item.scene, *seen)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, place: int) -> HeadItem:
        return HeadItem(place, *self._found[self._keys[place]])


@torch.no_grad()
def _seen(network: RewardNetwork, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors and counts of a batch of pairs, of shape `(pairs, 2, views, 1, …)`, on the CPU."""
    network.eval()
    made = []
    for pixel_values, inside in zip(batch["inputs"]["pixel_values"], batch["inputs"]["inside"], strict=True):
        found = network.head_inputs(pixel_values.to(network.device), inside.to(network.device))
        made.append([one.cpu().unflatten(0, pixel_values.shape[:2]) for one in found])
    vectors, counts = (
        torch.cat(ones)[batch["places"]].unflatten(0, (2, -1)).transpose(0, 1) for ones in zip(*made, strict=True)
    )
    return vectors, counts


@dataclass(frozen=True)
class HeadCollator:
    """
    Function that makes a batch for a head.

    Args:
        cross_scene, seed (*optional*): See [`PairCollator`].
    """

    cross_scene: int = 0
    seed: int = 0

    def __call__(self, items: Sequence[HeadItem]) -> dict[str, Any]:
        """Make a batch as [`PairCollator`] does; its `inputs` are the arguments of `RewardHead`."""
        vectors, counts = (torch.stack([getattr(item, name) for item in items], 1) for name in ("vectors", "counts"))
        return {
            "labels": torch.tensor([item.scene for item in items]),
            "inputs": {
                "vectors": vectors.flatten(0, 2),
                "counts": counts.flatten(0, 2),
                "views": vectors.shape[2],
            },
            "places": torch.arange(2 * len(items)),
            "cross": cross_pairs(items, self.cross_scene, self.seed),
        }
