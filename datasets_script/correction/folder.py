"""
The folder of a run: every round of every image, the corrected images, and a line for each image that is done.

A round's pictures are on disk before its record is, and an image's line is written last, so that a killed process
loses the round in hand at most.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..engine.identity import differences
from ..engine.shards import RunMismatchError
from ..figures.corrections import correction_picture
from ..schema.correction import CORRECTIONS_FILE, CorrectedImage, CorrectionRecord, Round, totals_of
from ..schema.generation import read_lines, write_lines
from ..schema.run_record import holds_run
from ..utils.files import replacing, write_json
from ..utils.stored_images import stored_mask, stored_png
from .agent import Correction, Found, Repaired
from .regions import Region


IMAGES_FOLDER, OVERLAYS_FOLDER, ROUNDS_FOLDER = "images", "overlays", "rounds"
_BEGUN_FILE = "begun.json"


def check_continues(out: Path, current: dict[str, Any]) -> CorrectionRecord | None:
    """
    Check that a folder is new, or that its run can be continued, with more images.

    Args:
        out (`Path`): The folder.
        current (`dict`): What corrections would now depend on, or the part of it that is known; see
            `CorrectionRecord.identity`.

    Returns:
        `CorrectionRecord`: Record of the run that is there; `None` if there is none.

    Raises:
        RunMismatchError: The run depends on something else.
        UserError: There is something else than a run in the folder.
    """
    if not holds_run(out):
        return None
    recorded = CorrectionRecord.read(out)
    # As they will be read again.
    then = {name: recorded.identity[name] for name in current}
    if different := sorted(differences(then, json.loads(json.dumps(current)))):
        raise RunMismatchError(
            f"'{out}' holds a run with another {', '.join(different)}; give the same to continue that run, or "
            "choose another output folder. The run is as it was"
        )
    return recorded


def begun_with(path: Path, prompt: str | None) -> dict[str, Any]:
    """Return what an image's rounds depend on: its file, and what it was told."""
    with path.open("rb") as file:
        return {"image": f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", "prompt": prompt}


def check_images(out: Path, images: Mapping[str, Path], prompts: Mapping[str, str] | None) -> None:
    """
    Check that images which a run has begun with are what they were.

    Args:
        out (`Path`): Folder of the run, or one that is not there yet.
        images (`Mapping` of `Path` by id): Image files.
        prompts (`Mapping` of `str` by id, *optional*): What images are told; `None` to compare the files alone.

    Raises:
        RunMismatchError: One is another file, or has another prompt.
    """
    for name, path in images.items():
        begun = out / ROUNDS_FOLDER / name / _BEGUN_FILE
        if not (begun.is_file() and path.is_file()):
            continue
        then = json.loads(begun.read_text(encoding="utf-8"))
        now = begun_with(path, then["prompt"] if prompts is None else prompts.get(name))
        if changed := sorted(differences(then, now)):
            raise RunMismatchError(
                f"'{out}' holds a run that began '{name}' with another {' and another '.join(changed)}; give the same "
                "to continue that run, or choose another output folder. The run is as it was"
            )


class CorrectionFolder:
    """
    The folder of a run, open for writing.

    Args:
        out (`Path`): The folder, which [`check_continues`] has accepted.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.done: dict[str, CorrectedImage] = {}
        path = out / CORRECTIONS_FILE
        if path.is_file():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]  # a killed process may have left half a line
            lines = [json.loads(line) for line in whole.splitlines()]
            kept = [line for line in lines if (out / IMAGES_FOLDER / f"{line['id']}.png").is_file()]
            self.done = {line["id"]: CorrectedImage.from_dict(line) for line in kept}
            if len(kept) < len(lines) or whole != content:
                write_lines(path, kept)

    def store(self, name: str, begun: dict[str, Any]) -> FolderStore:
        """Return the keeper of an image's rounds, and record what they depend on; see [`begun_with`]."""
        folder = self.out / ROUNDS_FOLDER / name
        write_json(folder / _BEGUN_FILE, begun)
        return FolderStore(folder)

    def add(self, image: CorrectedImage, before: Image.Image, correction: Correction) -> None:
        """Write a corrected image and its overlay, and then its line."""
        _write_png(self.out / IMAGES_FOLDER / f"{image.id}.png", correction.image)
        picture = correction_picture(before, correction.image, image)
        _write_png(self.out / OVERLAYS_FOLDER / f"{image.id}.png", picture)
        with (self.out / CORRECTIONS_FILE).open("ab") as file:
            file.write((json.dumps(asdict(image)) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.done[image.id] = image

    def totals(self) -> dict[str, Any]:
        """Add up what the run did."""
        return totals_of(list(self.done.values()))


class FolderStore:
    """
    Keeper of an image's rounds in a folder: `found.json`, and for each region `region-N/` with its mask, the verdict
    before, the caption, and `round-M/` with mask, pictures and `round.json`, which is written last.

    Args:
        folder (`Path`): The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def found(self, make: Callable[[], Found]) -> Found:
        """Return the regions of the image; see [`Store`]."""
        path = self.folder / "found.json"
        if not path.is_file():
            found = make()
            for number, region in enumerate(found.regions, 1):
                _write_mask(self.folder / f"region-{number}" / "mask.png", region.mask)
            described = [
                {"box": list(one.box), "label": one.label, "score": one.score, "given": one.given}
                for one in found.regions
            ]
            write_json(path, {"regions": described, "failures": list(found.failures)})
            return found
        content = json.loads(path.read_text(encoding="utf-8"))
        regions = [
            Region(
                tuple(region["box"]),
                np.asarray(Image.open(self.folder / f"region-{number}" / "mask.png")) > 0,
                region["label"],
                region["score"],
                region["given"],
            )
            for number, region in enumerate(content["regions"], 1)
        ]
        return Found(regions, tuple(content["failures"]))

    def value(self, region: int, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a value of a region; see [`Store`]."""
        path = self._region(region) / f"{name}.json"
        if not path.is_file():
            write_json(path, make())
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def round(self, region: int, number: int, make: Callable[[], Repaired]) -> tuple[Round, Image.Image]:
        """Return a round; see [`Store`]."""
        folder = self._region(region) / f"round-{number}"
        path = folder / "round.json"
        if not path.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
            made = make()
            _write_mask(folder / "mask.png", made.mask)
            for candidate, image in enumerate(made.images, 1):
                _write_png(folder / f"repaired-{candidate}.png", image)
            write_json(path, asdict(made.round))
        done = Round.from_dict(json.loads(path.read_text(encoding="utf-8")))
        return done, Image.open(folder / f"repaired-{done.best + 1}.png").convert("RGB")

    def _region(self, index: int) -> Path:
        return self.folder / f"region-{index + 1}"


def read_corrections(folder: Path) -> list[CorrectedImage]:
    """Read what a run says of its images."""
    return [CorrectedImage.from_dict(line) for line in read_lines(folder / CORRECTIONS_FILE)]


def _write_png(path: Path, image: Image.Image) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(stored_png(np.asarray(image))["bytes"])


def _write_mask(path: Path, mask: np.ndarray) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(stored_mask(mask)["bytes"])
