"""Pictures with the oracle's verdicts, as a benchmark that people have labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from scipy import ndimage

from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.schema.image import BENCHMARK_FEATURES, BenchmarkImage, Region, image_to_row
from datasets_script.utils.files import replacing_folder
from datasets_script.utils.stored_images import stored_png
from diffusers_artifact.tools import bbox_of_mask
from tests.benchmarks.creatures.oracle import Fault, judge
from tests.benchmarks.creatures.reading import Reading
from tests.benchmarks.creatures.words import Words


# Around the parts that a fault is about, in px: where a person would draw the line.
_AROUND = 3


def fault_mask(image: np.ndarray, fault: Fault) -> np.ndarray:
    """
    Return where a person would mark a fault: the parts it is about, or the creature if they are missing.

    Args:
        image (`np.ndarray` of shape `(64, 64, 3)`, `uint8`): Picture.
        fault (`Fault`): One of the oracle's.

    Returns:
        `np.ndarray` of shape `(64, 64)`, `bool`.
    """
    reading = Reading(image)
    parts = [] if fault.part == "body" else reading.pieces(fault.part)
    return ndimage.binary_dilation(np.any(parts, axis=0), iterations=_AROUND) if parts else reading.silhouette


def write_labelled(pictures: np.ndarray, words: Sequence[Words], folder: Path) -> None:
    """
    Write pictures with the oracle's verdicts as the test split of a prepared benchmark, atomically.

    Args:
        pictures (`np.ndarray` of shape `(batch, 64, 64, 3)`, `uint8`): Pictures.
        words (`Sequence[Words]`): What each was asked to show.
        folder (`Path`): Folder to write; must not exist.
    """
    images = [_labelled(index, *item) for index, item in enumerate(zip(pictures, words, strict=True))]
    rows = Dataset.from_list([image_to_row(image) for image in images], features=BENCHMARK_FEATURES)
    with replacing_folder(folder) as temporary:
        (temporary / "data").mkdir()
        rows.to_parquet(temporary / "data" / "test-00000-of-00001.parquet")


def write_clean(benchmark: str, folder: Path) -> None:
    """
    Write the pictures of a prepared benchmark that have no artifact as an image folder, atomically.

    Args:
        benchmark (`str`): Folder that [`write_labelled`] wrote.
        folder (`Path`): Folder to write; must not exist.
    """
    with replacing_folder(folder) as temporary:
        for image in load_benchmark(benchmark):
            if not image.has_artifact:
                (temporary / f"{image.id}.png").write_bytes(image.image)


def _labelled(index: int, picture: np.ndarray, words: Words) -> BenchmarkImage:
    faults = judge(picture, words).faults
    return BenchmarkImage(
        id=f"{index:05d}",
        image=stored_png(picture)["bytes"],
        size=(picture.shape[1], picture.shape[0]),
        has_artifact=bool(faults),
        regions=tuple(_region(fault_mask(picture, fault), fault) for fault in faults),
        caption=words.prompt,
    )


def _region(mask: np.ndarray, fault: Fault) -> Region:
    return Region(
        shape="mask", bbox=bbox_of_mask(mask), mask=mask, name=fault.type, caption=f"{fault.part}: {fault.reason}"
    )
