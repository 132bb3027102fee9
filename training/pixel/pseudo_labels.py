"""
Pseudo labels: images that a detector labels for the training of the next one. The detector is sure of an image if its
map stays low everywhere or exceeds a high threshold somewhere; images in between are left out, and listed.

A folder of pseudo labels is a benchmark of its own: `load_benchmark` and the mixtures of
[`~training.train_pixel_detector`] read it. It is written in shards. A shard is complete once its list of confidences
exists, which is written last, so that an interrupted run continues with the first incomplete one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from PIL import Image

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.schema.image import BENCHMARK_FEATURES, BenchmarkImage, Region, image_to_row
from datasets_script.utils.data_cards import write_data_card
from datasets_script.utils.errors import UserError, check_at_least
from datasets_script.utils.files import replacing, write_json, write_text
from datasets_script.utils.photos import SourceError, list_sources, open_source
from datasets_script.utils.stored_images import stored_png
from evaluate_metrics.functional.versions import versions
from training.pixel.hard_cases import CONFIDENCES
from training.pixel.sources.units import PSEUDO
from training.source_files import hash_files


PSEUDO_FILE = "pseudo_labels.json"
"""Record in a folder of pseudo labels: detector, settings, versions and counts."""

Verdict = Literal["artifact", "clean", "uncertain", "unreadable"]

_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# Pseudo labels

Images that a pixel detector has labelled, with its maps as regions, for the training of the next detector. What it was
not sure of is left out; `confidences.jsonl` lists every image. `pseudo_labels.json` records detector and settings.
"""


@dataclass(frozen=True)
class PseudoLabelSettings:
    """
    Settings of pseudo labels.

    Args:
        low (`float`, *optional*, defaults to 0.2): An image whose map's smoothed maximum is below is clean.
        high (`float`, *optional*, defaults to 0.8): An image whose smoothed maximum is above has artifacts.
        round_number (`int`, *optional*, defaults to 1): Number of the round, which the labels record.
        shard_size (`int`, *optional*, defaults to 256): Number of images of a shard.

    Raises:
        ArgumentError, UserError: A value is out of range.
    """

    low: float = 0.2
    high: float = 0.8
    round_number: int = 1
    shard_size: int = 256

    def __post_init__(self) -> None:
        check_at_least("round", self.round_number)
        check_at_least("shard_size", self.shard_size)
        if not 0 <= self.low <= self.high <= 1:
            raise UserError(f"--low and --high must be 0 <= low <= high <= 1, got {self.low} and {self.high}")


@dataclass(frozen=True)
class _Labelled:
    """An image after labelling: a line of the list of confidences, and a row unless it was left out."""

    line: dict[str, Any]
    row: dict[str, Any] | None


class PseudoLabels:
    """
    A folder of pseudo labels that is being written.

    Args:
        images (`Path`): Folder of images. The name of an image's own folder is its category.
        out (`Path`): Folder to write, new or of the same run.
        detector (`PixelDetector`): The detector.
        settings (`PseudoLabelSettings`): Thresholds and sizes.

    Raises:
        UserError: There are no images, or `out` is of another run: with another detector, other settings, or images
            that have changed since.
    """

    def __init__(self, images: Path, out: Path, detector: PixelDetector, settings: PseudoLabelSettings) -> None:
        self.images, self.out, self.detector, self.settings = images, out, detector, settings
        if not images.is_dir() or not (names := list_sources(images)):
            raise UserError(f"IMAGES must be a folder with images, got '{images}'")
        size = settings.shard_size
        self.shards = [names[start : start + size] for start in range(0, len(names), size)]
        identity = {
            "detector": detector.identity(),
            "settings": asdict(settings),
            "images": {"count": len(names), "sha256": _hash_images(images, names)},
            "versions": versions("torch", "transformers", "timm"),
        }
        # As it will be read again, with lists for tuples.
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._begin()

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(map(len, self.shards))

    def run(self) -> Generator[Verdict, None, None]:
        """Label the images, shard by shard, and yield a verdict for each, also for those of earlier calls."""
        for number, names in enumerate(self.shards):
            done = self._list_path(number)
            if not done.exists():
                yield from self._write(number, names)
            else:
                yield from (line["verdict"] for line in _read_lines(done))
        self._finish()

    def _begin(self) -> None:
        path = self.out / PSEUDO_FILE
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if changed := [name for name, value in self.identity.items() if before.get(name) != value]:
                raise UserError(
                    f"OUT must be a new folder or one of the same run, got '{self.out}' with other {changed[0]}; "
                    "choose another folder"
                )
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"OUT must be a new or empty folder, got '{self.out}'; choose another or remove it")
        else:
            write_json(path, {**self.identity, "status": "running"})

    def _write(self, number: int, names: Sequence[str]) -> Iterator[Verdict]:
        labelled = []
        for name in names:
            labelled.append(self._label(name))
            yield labelled[-1].line["verdict"]
        rows = [item.row for item in labelled if item.row is not None]
        if rows:
            path = self.out / "data" / f"pseudo-{number:05d}.parquet"
            with replacing(path) as temporary:
                datasets.Dataset.from_list(rows, features=BENCHMARK_FEATURES).to_parquet(temporary)
        # Last, as it marks the shard as complete.
        write_text(self._list_path(number), "".join(json.dumps(item.line) + "\n" for item in labelled))

    def _label(self, name: str) -> _Labelled:
        try:
            image = open_source(self.images / name, min_side=16)
        except SourceError as error:
            return _Labelled({"id": name, "verdict": "unreadable", "reason": str(error)}, None)
        (artifact_map,) = self.detector.maps([image])
        maximum = self.detector.raw_score(artifact_map)
        verdict: Verdict = "uncertain"
        if maximum < self.settings.low:
            verdict = "clean"
        elif maximum > self.settings.high:
            verdict = "artifact"
        line = {
            "id": name,
            "category": name.rpartition("/")[0],
            "verdict": verdict,
            "maximum": round(maximum, 6),
            "mean": round(float(artifact_map.mean(dtype=np.float64)), 6),
        }
        return _Labelled(line, None if verdict == "uncertain" else self._row(image, artifact_map, line))

    def _row(self, image: Image.Image, artifact_map: np.ndarray, line: Mapping[str, Any]) -> dict[str, Any]:
        has_artifact = line["verdict"] == "artifact"
        regions = (Region("heat_map", _bounds(artifact_map), mask=artifact_map),) if has_artifact else ()
        detector = self.identity["detector"]["model"]
        origin = {"provenance": PSEUDO, "round": self.settings.round_number, "detector": detector}
        return image_to_row(
            BenchmarkImage(
                id=line["id"],
                image=stored_png(np.asarray(image))["bytes"],
                size=image.size,
                has_artifact=has_artifact,
                regions=regions,
                metadata={**origin, **{name: line[name] for name in ("category", "maximum", "mean")}},
            )
        )

    def _finish(self) -> None:
        lines = [line for number in range(len(self.shards)) for line in _read_lines(self._list_path(number))]
        kept = [line for line in lines if line["verdict"] != "unreadable"]
        write_text(self.out / CONFIDENCES, "".join(json.dumps(line) + "\n" for line in kept))
        write_data_card(self.out, _CARD)
        counts = Counter(line["verdict"] for line in lines)
        write_json(self.out / PSEUDO_FILE, {**self.identity, "status": "complete", "counts": dict(counts)})

    def _list_path(self, number: int) -> Path:
        return self.out / "shards" / f"{number:05d}.jsonl"


def _hash_images(folder: Path, names: Sequence[str]) -> str:
    """Return the SHA-256 of the names and contents of images. What cannot be read counts with its name alone."""
    digest = sha256()
    for name in names:
        digest.update(f"{name}\n".encode())
        path = folder / name
        with suppress(OSError):  # reported when the image is opened
            # Reading a pipe would not end.
            if path.is_file():
                digest.update(hash_files([str(path)]).encode())
    return digest.hexdigest()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _bounds(artifact_map: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box around the pixels that a stored map keeps above 0."""
    above = np.round(artifact_map * 65535) > 0
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
