"""Edits of made pairs and images, as the tab Browse writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from datasets_script.app.browsing import SeenRegion, split_of_file
from datasets_script.edits.digests import image_digest, pair_digest
from datasets_script.edits.layer import EditLayer, now
from datasets_script.edits.records import Action, Edit, Key, Values
from datasets_script.pairs.storage import read_rows
from datasets_script.utils.run_lengths import encode_mask
from diffusers_artifact.tools import bbox_of_mask


def mask_of(region: SeenRegion) -> np.ndarray:
    """Return the mask of a region, which must have one."""
    assert region.mask is not None
    return region.mask


class Editor:
    """A person who edits the samples of a folder of pairs or images of a benchmark."""

    def __init__(self, folder: Path, who: str = "ann") -> None:
        self.layer, self.who = EditLayer(folder), who
        files = [str(path) for path in sorted((folder / "data").glob("*.parquet"))]
        self.digests: dict[Key, str] = {}
        self.rows: dict[Key, Mapping[str, Any]] = {}
        for path in files:
            of_pairs = "pair_id" in pq.read_schema(path).names
            split = "" if of_pairs else split_of_file(path)
            rows = read_rows([path]) if of_pairs else pq.read_table(path).to_pylist()
            digest: Callable[[Any], str] = pair_digest if of_pairs else image_digest
            for row in rows:
                key = (split, row["pair_id" if of_pairs else "id"])
                self.digests[key], self.rows[key] = digest(row), row

    def edit(self, key: Key, action: Action, before: Values, after: Values, data: str | None = None) -> Edit:
        edit = Edit(key[1], key[0], action, self.who, now(), data or self.digests[key], before, after)
        self.layer.record(edit)
        return edit

    def judge(self, key: Key, verdict: Any, before: str = "") -> Edit:
        return self.edit(key, verdict, Values(verdict=before), Values(verdict=verdict))

    def relabel(self, key: Key, region: int, before: str, after: str) -> Edit:
        return self.edit(key, "relabel", Values(region=region, type=before), Values(region=region, type=after))

    def paint(self, key: Key, region: int, mask: np.ndarray) -> Edit:
        after = Values(region=region, box=bbox_of_mask(mask), mask=encode_mask(mask))
        return self.edit(key, "mask", Values(region=region), after)
