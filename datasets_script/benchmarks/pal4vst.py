"""PAL4VST (Zhang et al., ICCV 2023): masks of artifacts in the results of ten image synthesis tasks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from ..schema.image import BenchmarkImage, Region
from .base import Benchmark, BenchmarkError, Skipped
from .builder import BenchmarkBuilder
from .reading import RecordError, decoded_size, read_image, read_or_skip


_SUFFIXES = (".jpg", ".jpeg", ".png")


class Pal4Vst(Benchmark):
    """
    One folder per task, with images and label maps of the same names, as listed by the authors' training code (class 0
    `background`, class 1 `bad_region`). The encoding of the maps is not documented: maps of one channel with the
    values 0 and 1, or 0 and 255, are read. Other values are refused, as is 255 beside 1, which the authors' library
    excludes from its scores. People marked all artifacts they saw, so an image with an empty map is clean.

    10,168 images are published; their number per split is not.
    """

    name = "pal4vst"
    title = "PAL4VST"
    homepage = "https://owenzlz.github.io/PAL4VST/"
    license = "unknown"
    citation = """\
@inproceedings{zhang2023pal4vst,
  title={Perceptual Artifacts Localization for Image Synthesis Tasks},
  author={Zhang, Lingzhi and Xu, Zhengjie and Barnes, Connelly and Zhou, Yuqian and Liu, Qing
    and Zhang, He and Amirghodsi, Sohrab and Lin, Zhe and Shechtman, Eli and Shi, Jianbo},
  booktitle={Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year={2023},
}"""
    instructions = """\
Fetch specific_tasks.zip, linked on the authors' page and in their repository (github.com/owenzlz/PAL4VST, Datasets),
and unpack it; no licence is stated. The source is the folder that holds one folder per task:

    pal4vst-source/
      stylegan2/images/train/*.jpg     stylegan2/labels/train/*.png     label maps of 0 and 1, named as their image
      stylegan2/images/val/*.jpg       stylegan2/labels/val/*.png
      stylegan2/images/test/*.jpg      stylegan2/labels/test/*.png
      ..."""
    splits = {"train": None, "val": None, "test": None}

    def records(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[BenchmarkImage | Skipped, ...]]:
        tasks = sorted(folder.parents[1] for folder in source.glob(f"*/images/{split}") if folder.is_dir())
        if not tasks:
            raise BenchmarkError(f"found no folder TASK/images/{split} in '{source}'\n\n{self.instructions}")
        records = chain.from_iterable(_task_records(task, split) for task in tasks)
        for name, read in islice(records, start, stop):
            yield read_or_skip(name, read)


def _task_records(task: Path, split: str) -> Iterator[tuple[str, Callable[[], tuple[BenchmarkImage]]]]:
    """Yield a name and a reader for each image of a task, then for each label map without an image."""
    images, labels = task / "images" / split, task / "labels" / split
    if not labels.is_dir():
        raise BenchmarkError(f"'{images}' must have a folder of labels, found no '{labels}'")
    paths = sorted(path for path in images.iterdir() if not path.name.startswith("."))
    for path in paths:
        name = f"{task.name}/{path.name}"
        yield name, partial(_read_image, name, path, labels / f"{path.stem}.png")
    known = {path.stem for path in paths}
    for label in sorted(labels.iterdir()):
        if label.stem not in known and not label.name.startswith("."):
            yield f"{task.name}/{label.name}", _refuse_label


def _refuse_label() -> NoReturn:
    raise RecordError("a label map without an image")


def _read_image(name: str, path: Path, label: Path) -> tuple[BenchmarkImage]:
    if path.suffix.lower() not in _SUFFIXES:
        raise RecordError(f"expected an image ({', '.join(_SUFFIXES)}), got {path.name}")
    content, size = read_image(path.parent, path.name)
    mask = _read_label(label, size)
    return (
        BenchmarkImage(
            id=name,
            image=content,
            size=size,
            has_artifact=bool(mask.any()),
            regions=(Region("mask", _mask_box(mask), mask=mask, name="bad_region"),) if mask.any() else (),
            metadata={"task": path.parents[2].name},
        ),
    )


def _read_label(label: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a label map as a `bool` mask of shape `(height, width)`."""
    if not label.is_file():
        raise RecordError(f"the label map {label.name} is missing")
    content = label.read_bytes()
    if (label_size := decoded_size(content, f"the label map {label.name}")) != size:
        raise RecordError(f"the label map is {label_size[0]} × {label_size[1]}, its image {size[0]} × {size[1]}")
    with Image.open(io.BytesIO(content)) as image:
        values = np.asarray(image)
    if values.ndim != 2:
        raise RecordError(f"the label map must have one channel, got {values.shape[2]}")
    found = set(np.unique(values).tolist())
    if not (found <= {0, 1} or found <= {0, 255}):
        raise RecordError(f"the label map must hold 0 and 1, or 0 and 255, got {sorted(found)[:5]}")
    return values > 0


def _mask_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class Pal4VstBuilder(BenchmarkBuilder):
    """Builder of PAL4VST."""

    benchmark = Pal4Vst()
