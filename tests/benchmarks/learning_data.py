"""
Make views of photos with regions for `tests/benchmarks/learning.py`. Regions are found by colour and texture alone
(Felzenszwalb and Huttenlocher's graph segmentation), so that photos need no annotations.

    python tests/benchmarks/learning_data.py PHOTOS OUT

writes views to `OUT/train` and `OUT/heldout`, and annotations to `OUT/train.json` and `OUT/heldout.json`. Each photo
is in only one of the two parts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps
from skimage.measure import label, regionprops
from skimage.segmentation import felzenszwalb
from tqdm import tqdm

from datasets_script.utils.photos import list_sources, open_source
from datasets_script.utils.seeds import derive_seed


Region = tuple[np.ndarray, list[np.ndarray]]
"""Mask of a region, and the masks of smaller regions inside it."""

SIDE = 256
HELDOUT_SHARE = 0.17

# Shares of a view. A part of 1 % covers a few of the view's 256 patches.
_ENTITY_SHARES, _PART_SHARES = (0.04, 0.6), (0.01, 0.08)
_ENTITIES, _PARTS_EACH = 4, 3

_CATEGORIES = [
    {"id": 1, "name": "region", "supercategory": "entity"},
    {"id": 2, "name": "piece", "supercategory": "part", "level": "peripheral"},
    {"id": 3, "name": "area", "supercategory": "part", "level": "intermediate"},
]


def is_heldout(photo: str) -> bool:
    """Return whether a photo is held out for evaluation, by a hash of its name."""
    return derive_seed(0, f"learning:{photo}") < HELDOUT_SHARE * 2**63


def views(photo: Image.Image, name: str, number: int) -> Iterator[Image.Image]:
    """Crop square views of `SIDE` px at different places and sizes from a photo; every second is mirrored."""
    generator = np.random.default_rng(derive_seed(0, name))
    for index in range(number):
        longest = min(photo.size)
        side = int(generator.integers(min(longest, SIDE), longest + 1))
        x, y = (int(generator.integers(0, length - side + 1)) for length in photo.size)
        view = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(x, y, x + side, y + side))
        yield ImageOps.mirror(view) if index % 2 else view


def regions(view: Image.Image, generator: np.random.Generator) -> list[Region]:
    """Return masks of the largest regions of a view, each with masks of smaller regions inside it."""
    pixels = np.asarray(view)
    found = []
    finer = list(_segments(felzenszwalb(pixels, scale=60, sigma=0.8, min_size=300), _PART_SHARES))
    coarse = _segments(felzenszwalb(pixels, scale=500, sigma=0.8, min_size=1500), _ENTITY_SHARES)
    for mask in sorted(coarse, key=np.sum, reverse=True)[:_ENTITIES]:
        inside = [part for part in finer if (part & mask).sum() > 0.9 * part.sum()]
        generator.shuffle(inside)
        found.append((mask, [part & mask for part in inside[:_PARTS_EACH]]))
    return found


def _segments(segmentation: np.ndarray, shares: tuple[float, float]) -> Iterator[np.ndarray]:
    labels = label(segmentation + 1)
    for region in regionprops(labels):
        if shares[0] <= region.area / labels.size <= shares[1]:
            yield labels == region.label


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as COCO's uncompressed RLE: lengths of runs of 0 and 1 in turn, column by column."""
    flat = mask.flatten(order="F")
    borders = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *borders, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def annotation(mask: np.ndarray, number: int, image: int, category: int, parent: int | None = None) -> dict[str, Any]:
    """
    Return an annotation as a COCO file holds it.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Pixels, of which there must be one.
        number, image, category (`int`): Ids of the annotation, of its image and of its category.
        parent (`int`, *optional*): Id of the entity's annotation, for a part.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    entry = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": run_lengths(mask),
    }
    return entry if parent is None else {**entry, "parent_id": parent}


class _Annotations:
    """COCO annotations to which images are added."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, name: str, found: list[Region]) -> None:
        self.images.append({"id": len(self.images) + 1, "file_name": name, "width": SIDE, "height": SIDE})
        for entity, parts in found:
            parent = self._add(entity, 1)
            for index, part in enumerate(parts):
                self._add(part, 2 + index % 2, parent)

    def _add(self, mask: np.ndarray, category: int, parent: int | None = None) -> int:
        number = len(self.annotations) + 1
        self.annotations.append(annotation(mask, number, len(self.images), category, parent))
        return number

    def write(self, path: Path) -> None:
        document = {"images": self.images, "categories": _CATEGORIES, "annotations": self.annotations}
        path.write_text(json.dumps(document), encoding="utf-8")


def make_views(photos: Path, out: Path, number: int, processes: int = 1) -> dict[str, int]:
    """Write the views of all photos with some processes, and return the number of photos in each part."""
    annotations = {"train": _Annotations(), "heldout": _Annotations()}
    counts = {"train": 0, "heldout": 0}
    names = list_sources(photos)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        made = pool.map(_write_views, repeat(photos), names, repeat(out), repeat(number))
        for name, found_by_file in tqdm(zip(names, made, strict=True), desc="views", total=len(names)):
            split = _split_of(name)
            counts[split] += 1
            for file, found in found_by_file.items():
                annotations[split].add(file, found)
    for part, one in annotations.items():
        one.write(out / f"{part}.json")
    return counts


def _split_of(photo: str) -> Literal["train", "heldout"]:
    return "heldout" if is_heldout(photo) else "train"


def _write_views(photos: Path, name: str, out: Path, number: int) -> dict[str, list[Region]]:
    """Write the views of one photo that have regions, and return the regions by file name within the part."""
    written = {}
    for index, view in enumerate(views(open_source(photos / name), name, number)):
        found = regions(view, np.random.default_rng(derive_seed(index, name)))
        if not any(parts for _, parts in found):
            continue
        # In order of name, the first views of all photos come before the second ones.
        file = Path(str(index), name).with_suffix(".png")
        path = out / _split_of(name) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        view.save(path)
        written[file.as_posix()] = found
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--views", type=int, default=5, help="number of views of each photo (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="number of processes (default: %(default)s)")
    args = parser.parse_args()
    print(make_views(args.photos, args.out, args.views, args.processes))


if __name__ == "__main__":
    main()
