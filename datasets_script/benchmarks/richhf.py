"""RichHF-18K (Liang et al., CVPR 2024): heat maps of implausible places in images of Pick-a-Pic, and scores."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..schema.image import BenchmarkImage, Region
from .base import Benchmark, BenchmarkError, Skipped
from .builder import BenchmarkBuilder
from .reading import RecordError, decoded_size, read_or_skip
from .tfrecord import Feature, read_examples


_SCORES = ("aesthetics_score", "artifact_score", "misalignment_score", "overall_score")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

# Levels of a map that is the mean of three annotators' marks.
_THIRDS = (0, 85, 170, 255)


class RichHF(Benchmark):
    """
    The artifact maps of RichHF-18K. They are published as 512 × 512 pixels with levels 0 to 255, whatever the size of
    the image, and are resized to the image (bilinear). Places and scores of artifacts are published, but not whether
    an image has an artifact. The prompts are those of Pick-a-Pic and are not read.

    Two thresholds are in use: above 0.3 (ArtiAgent, LEGION), and two of three annotators (Menn et al.), which is 0.6
    or above where `three_annotators` in `metadata` is true. The number of annotators is not published:
    `three_annotators` means that the levels of the map are thirds. Menn et al. keep 7,801 images of train and 500 of
    test; that this rule selects the same ones is not verified.
    """

    name = "richhf"
    title = "RichHF-18K"
    homepage = "https://github.com/google-research-datasets/richhf-18k"
    license = "unknown"
    citation = """\
@inproceedings{richhf,
  title={Rich Human Feedback for Text-to-Image Generation},
  author={Youwei Liang and Junfeng He and Gang Li and Peizhao Li and Arseniy Klimovskiy and Nicholas Carolan and
    Jiao Sun and Jordi Pont-Tuset and Sarah Young and Feng Yang and Junjie Ke and Krishnamurthy Dj Dvijotham and
    Katie Collins and Yiwen Luo and Yang Li and Kai J Kohlhoff and Deepak Ramachandran and
    Vidhya Navalpakkam},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2024},
}"""
    instructions = """\
The repository states no licence, and the images are those of Pick-a-Pic v1, under its own terms.

The labels, kept with Git LFS:

    git lfs install
    git clone https://github.com/google-research-datasets/richhf-18k richhf-source

The images that the labels name, from Pick-a-Pic v1 (yuvalkirstain/pickapic_v1 on the Hub: the id of an image is in
image_0_uid or image_1_uid, its file in jpg_0 or jpg_1). Write each file unchanged to images/, named by its id:

    richhf-source/
      train.tfrecord, dev.tfrecord, test.tfrecord
      images/<id>.png       or .jpg, .jpeg and .webp, also in subfolders such as images/train/

For a single split, fetch its images only and name the split (--split test)."""
    splits = {"train": 15810, "dev": 995, "test": 955}

    def records(
        self, source: Path, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[BenchmarkImage | Skipped, ...]]:
        labels, folder = source / f"{split}.tfrecord", source / "images"
        if not labels.is_file():
            raise BenchmarkError(f"found no {labels.name} in '{source}'\n\n{self.instructions}")
        if not folder.is_dir():
            raise BenchmarkError(f"found no folder images in '{source}'\n\n{self.instructions}")
        files = {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _SUFFIXES}
        for example in read_examples(labels, start, stop):
            name = Path(_text(example, "filename")).stem
            yield read_or_skip(name, partial(_read_example, example, files))


def _read_example(example: dict[str, Feature], files: dict[str, Path]) -> tuple[BenchmarkImage]:
    filename = _text(example, "filename")
    name = Path(filename).stem
    if name not in files:
        raise RecordError(f"the image of {filename} is not in images/")
    content = files[name].read_bytes()
    size = decoded_size(content, "the image")
    levels = _decode_map(_one(example, "artifact_map"))
    image = BenchmarkImage(
        id=name,
        image=content,
        size=size,
        has_artifact=None,
        regions=(_heat_map_region(levels, size),),
        metadata=_metadata(example, filename, levels),
    )
    return (image,)


def _metadata(example: dict[str, Feature], filename: str, levels: np.ndarray) -> dict[str, Any]:
    return {
        "filename": filename,
        **{score: float(_one(example, score)) for score in _SCORES},
        "prompt_misalignment_label": _text(example, "prompt_misalignment_label"),
        "heat_map_size": [levels.shape[1], levels.shape[0]],
        "three_annotators": is_mean_of_three(levels),
    }


def is_mean_of_three(levels: np.ndarray) -> bool:
    """
    Check whether a heat map can be the mean of three annotators' marks: all its levels are thirds of 255 (within 1,
    for rounding), and one third or two thirds occur.

    Args:
        levels (`np.ndarray` of shape `(height, width)`, `uint8`): The map as published.
    """
    present = np.flatnonzero(np.bincount(levels.ravel(), minlength=256))
    distance = np.abs(present[:, None] - np.array(_THIRDS))
    return bool((distance.min(axis=1) <= 1).all() and np.isin(distance.argmin(axis=1), (1, 2)).any())


def _decode_map(content: bytes) -> np.ndarray:
    """Decode a published map to grey levels, `uint8` of shape `(height, width)`."""
    decoded_size(content, "the artifact map")
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("L"))


def _heat_map_region(levels: np.ndarray, size: tuple[int, int]) -> Region:
    heat_map = levels.astype(np.float32) / 255
    if levels.shape != size[::-1]:
        resized = Image.fromarray(heat_map).resize(size, Image.Resampling.BILINEAR)
        heat_map = np.clip(np.asarray(resized), 0, 1)
    rows, columns = np.flatnonzero(heat_map.any(axis=1)), np.flatnonzero(heat_map.any(axis=0))
    if not len(rows):
        return Region("heat_map", None, mask=heat_map)
    bbox = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return Region("heat_map", bbox, mask=heat_map)


def _one(example: dict[str, Feature], name: str) -> Any:
    """Return the single value of a feature."""
    values = example.get(name, [])
    if len(values) != 1:
        raise BenchmarkError(
            f"every record must have one value of '{name}', got {len(values)}; this one has {', '.join(example)}"
        )
    return values[0]


def _text(example: dict[str, Feature], name: str) -> str:
    return _one(example, name).decode()


class RichHFBuilder(BenchmarkBuilder):
    """Builder of RichHF-18K."""

    benchmark = RichHF()
