"""Pairs to train preferences on: where they come from, and how a pair becomes latents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
import torch

from datasets_script.pairs.builder import ArtiAgentPairs
from datasets_script.pairs.storage import split_of
from datasets_script.schema.features import row_to_pair
from datasets_script.schema.pair import Pair
from datasets_script.utils.errors import UserError
from datasets_script.utils.seeds import derive_seed
from training.denoiser.data import as_tensor
from training.denoiser.preference import LatentPair, latent_mask
from training.denoiser.rollout import Conditions, Denoiser
from training.source_files import SourceFiles, find_pair_files, hash_files, without_paths


class PairSet:
    """
    Pairs of one or several sources, by number. Images stay in the cache of `datasets` until a pair is read.

    Args:
        rows (`datasets.Dataset`): Rows of `PAIR_FEATURES`.
        numbers (`Sequence[int]`): Those that belong to the set.
        files (`Sequence[SourceFiles]`): Where they come from.
    """

    def __init__(self, rows: Any, numbers: Sequence[int], files: Sequence[SourceFiles]) -> None:
        self._rows, self.numbers, self.files = rows, list(numbers), list(files)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Pair:
        return row_to_pair(self._rows[self.numbers[index]])

    def column(self, name: str) -> list[Any]:
        """Return a column, of each pair."""
        values = self._rows[name]
        return [values[number] for number in self.numbers]

    def image_path(self, index: int, side: str) -> Path:
        """Return the file of a pair's image, `"clean"` or `"flawed"`, in the cache of `datasets`."""
        images = self._rows.select_columns([side]).cast_column(side, datasets.Image(decode=False))
        return Path(images[self.numbers[index]][side]["path"])

    def record(self) -> dict[str, Any]:
        """Return what `training.json` says of them, without paths of this machine."""
        return {
            "pairs": len(self),
            "photos": len(set(self.column("source_id"))),
            "models": without_paths(sorted(set(self.column("model")))),
        }

    def origin(self) -> dict[str, Any]:
        """Return what `training.json` says of their sources, which cards read."""
        return {
            "sources": [{"kind": "pairs", "source": one.name} for one in self.files],
            "licenses": sorted({license for one in self.files for license in one.stated_licenses()}),
            "runs": [origin for one in self.files for origin in one.run_origins()],
        }


def load_pairs(
    sources: Sequence[str], test_share: float, seed: int, test_limit: int | None = None
) -> tuple[PairSet, PairSet]:
    """
    Find the pairs to train on and those to hold out.

    Args:
        sources (`Sequence[str]`): Runs, prepared folders, datasets on the Hub or patterns; see
            [`~training.source_files.find_pair_files`].
        test_share (`float`): Share of the photos to hold out, with all their pairs, in (0, 1).
        seed (`int`): Chooses them.
        test_limit (`int`, *optional*): Number of held-out pairs to keep, drawn at random; by default all.

    Returns:
        `tuple[PairSet, PairSet]`: To train on, and held out. Corruptions that changed nothing are in neither.

    Raises:
        UserError: A source has no pairs, or none is left to train on or to hold out.
    """
    files = [find_pair_files(source) for source in sources]
    builder = ArtiAgentPairs(config_name="pairs", source=[path for one in files for path in one.all()])
    builder.download_and_prepare()
    rows = builder.as_dataset("train")
    changed, photos = _changed(rows), rows["source_id"]
    numbers: dict[str, list[int]] = {"train": [], "test": []}
    for number in range(len(rows)):
        if changed[number]:
            numbers[split_of(photos[number], test_share, seed)].append(number)
    for split, wanted in (("train", "train on"), ("test", "hold out")):
        if not numbers[split]:
            raise UserError(
                f"--pairs must hold pairs to {wanted}, got {len(rows)} of {len(set(photos))} photo(s) and none for it "
                f"with --test_share {test_share}; give more pairs, or another share"
            )
    if test_limit is not None and test_limit < len(numbers["test"]):
        generator = torch.Generator().manual_seed(derive_seed(seed, "held-out pairs"))
        chosen = torch.randperm(len(numbers["test"]), generator=generator)[:test_limit].sort().values
        numbers["test"] = [numbers["test"][place] for place in chosen.tolist()]
    return PairSet(rows, numbers["train"], files), PairSet(rows, numbers["test"], files)


def fingerprint(pairs: PairSet) -> str:
    """Return a hash of the files that the pairs come from."""
    return hash_files([path for one in pairs.files for path in one.all()])


class LatentPairs:
    """
    Pairs as latents, with their prompts encoded. A pair is encoded when it is first read.

    Args:
        pairs (`PairSet`): The pairs.
        denoiser (`Denoiser`): Whose autoencoder encodes them; their sizes need not be those of its settings.
        conditions (`Conditions`): Encoded prompts.
        rows (`Sequence[int]`): Row of each pair's prompt among them.
        with_noise (`bool`): Whether each image comes with its own noise.
        cached (`int`, *optional*, defaults to 256): Pairs that stay in host memory, each as large as the latents of
            four images.
    """

    def __init__(
        self,
        pairs: PairSet,
        denoiser: Denoiser,
        conditions: Conditions,
        rows: Sequence[int],
        with_noise: bool,
        cached: int = 256,
    ) -> None:
        self.pairs, self.denoiser, self.with_noise = pairs, denoiser, with_noise
        self._conditions, self._rows = conditions, list(rows)
        self._encoded = lru_cache(maxsize=cached)(self._encode)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[LatentPair, Conditions]:
        return self._encoded(index), self._conditions.select([self._rows[index]])

    def _encode(self, index: int) -> LatentPair:
        pair = self.pairs[index]
        side = self.denoiser.family.patch_size
        if pair.clean.width % side or pair.clean.height % side:
            raise UserError(
                f"--pairs must have sides that are multiples of {side} px for this model, got '{pair.pair_id}' of "
                f"{pair.clean.width}x{pair.clean.height} px"
            )
        latents = self.denoiser.encode_images(torch.cat([as_tensor(pair.clean), as_tensor(pair.flawed)])).cpu()
        masks = [artifact.mask for artifact in pair.artifacts if not artifact.scores.get("unchanged")]
        mask = torch.from_numpy(np.logical_or.reduce(masks))
        noise = self._noise(pair, latents.shape) if self.with_noise else None
        return LatentPair(latents, latent_mask(mask, *latents.shape[-2:]), noise)

    @staticmethod
    def _noise(pair: Pair, shape: torch.Size) -> torch.Tensor:
        if pair.clean_noise is None or pair.flawed_noise is None:
            raise UserError(
                f"--noise must be random for pairs that were made without `artiagent synthesize --store-noise`, got "
                f"own and '{pair.pair_id}' without noise"
            )
        noise = torch.from_numpy(np.stack([pair.clean_noise, pair.flawed_noise]).astype(np.float32))
        if noise.shape != shape:
            raise UserError(
                f"--noise must be random for pairs of another model, got own and '{pair.pair_id}' of {pair.model}, "
                f"whose noise has the shape {tuple(noise.shape[1:])}, where latents have {tuple(shape[1:])}"
            )
        return noise


def _changed(rows: Any) -> list[bool]:
    """Return for each row whether it has an artifact that curation did not flag as unchanged."""
    artifacts = rows.data.column("artifacts").combine_chunks()
    scores = pc.struct_field(pc.list_flatten(artifacts), "scores").to_pylist()
    changed = [False] * len(rows)
    for row, text in zip(pc.list_parent_indices(artifacts).to_pylist(), scores, strict=True):
        changed[row] = changed[row] or not json.loads(text).get("unchanged")
    return changed
