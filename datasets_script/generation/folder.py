"""
The folder of a run: a line for each candidate, and the best image of each search so far.

The image of a candidate is on disk before its line is, so that a killed process loses the batch in hand at most.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image

from diffusers_artifact.best_of_n import Candidate, Draw, curve_of, plan_draws, rank

from ..engine.identity import differences
from ..engine.shards import RunMismatchError
from ..schema.generation import (
    CANDIDATES_FILE,
    IMAGES_FOLDER,
    GeneratedImage,
    GenerationRecord,
    Prompt,
    read_prompts,
    write_images,
    write_lines,
    write_prompts,
)
from ..schema.run_record import holds_run
from ..utils.files import replacing
from ..utils.stored_images import stored_png
from .settings import GenerationSettings


CANDIDATES_FOLDER = "candidates"

# Later draws follow those of a smaller run, which are kept.
_MAY_GROW = ("best_of", "images_per_prompt")


def check_continues(out: Path, prompts: Sequence[Prompt], current: dict[str, Any]) -> GenerationRecord | None:
    """
    Check that a folder is new, or that its run can be continued. A run may get more prompts, more images of each, and
    longer searches; one that has drawn nothing yet begins again.

    Args:
        out (`Path`): The folder.
        prompts (`Sequence[Prompt]`): All prompts.
        current (`dict`): What the images would now depend on, or some of it; see `GenerationRecord.identity`.

    Returns:
        `GenerationRecord`: Record of the run that is there; `None` if there is none, or it has drawn nothing.

    Raises:
        RunMismatchError: The run depends on something else.
        UserError: There is something else than a run in the folder.
    """
    if not holds_run(out):
        return None
    recorded = GenerationRecord.read(out)
    journal = out / CANDIDATES_FILE
    if not journal.is_file() or not journal.stat().st_size:
        return None
    # As they will be read again.
    different = set(differences(recorded.identity, json.loads(json.dumps(current))))
    before, now = recorded.settings, current["settings"]
    different -= {f"settings.{name}" for name in _MAY_GROW if before[name] <= now[name]}
    texts = {prompt.id: prompt.text for prompt in prompts}
    if any(texts.get(prompt.id) != prompt.text for prompt in read_prompts(out)):
        different.add("prompts")
    if different:
        raise RunMismatchError(
            f"'{out}' holds a run with another {', '.join(sorted(different))}; give the same to continue that run, "
            "which may only grow, or choose another output folder. The run is as it was"
        )
    return recorded


def planned(prompts: Iterable[Prompt], settings: GenerationSettings) -> dict[str, list[Draw]]:
    """
    List the candidates of each image of a run, by the image's id.

    Args:
        prompts (`Iterable[Prompt]`): All prompts.
        settings (`GenerationSettings`): Settings of the run.
    """
    names = [(f"{prompt.id}-{number}", prompt) for prompt in prompts for number in range(settings.images_per_prompt)]
    return {name: plan_draws(name, prompt.text, settings.best_of, settings.seed) for name, prompt in names}


class GenerationFolder:
    """
    The folder of a run, open for writing.

    Args:
        out (`Path`): The folder, which [`check_continues`] has accepted.
        prompts (`Sequence[Prompt]`): All prompts.
        plan (`dict[str, list[Draw]]`): Candidates of each image; see [`planned`].
        keep_candidates (`bool`, *optional*, defaults to `False`): Keep the images of all candidates.
    """

    def __init__(
        self, out: Path, prompts: Sequence[Prompt], plan: dict[str, list[Draw]], keep_candidates: bool = False
    ) -> None:
        self.out, self.prompts, self.plan, self.keep_candidates = out, prompts, plan, keep_candidates
        self._lines: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in plan}
        self._read()

    def begin(self, record: GenerationRecord) -> None:
        """Write record and prompts, so that the run can be continued."""
        # First, as a folder with anything else is refused.
        record.write(self.out)
        write_prompts(self.out, self.prompts)
        (self.out / CANDIDATES_FILE).touch()

    def remaining(self) -> list[Draw]:
        """List the candidates that are still to be drawn, in order."""
        return [draw for name, draws in self.plan.items() for draw in draws if draw.number not in self._lines[name]]

    def add(self, batch: Sequence[Candidate]) -> None:
        """Keep a batch: write the images that are the best of their search so far, then the lines."""
        best = {name: self._best(name) for name in dict.fromkeys(candidate.draw.id for candidate in batch)}
        images = {(candidate.draw.id, candidate.draw.number): candidate.image for candidate in batch}
        lines = [_line(candidate) for candidate in batch]
        for line in lines:
            self._lines[line["id"]][line["number"]] = line
            if self.keep_candidates:
                _write_png(self._candidate_path(line), images[line["id"], line["number"]])
        for name, before in best.items():
            now = self._best(name)
            if now is not None and now is not before:
                _write_png(self._image_path(name), images[name, now["number"]])
        with (self.out / CANDIDATES_FILE).open("ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def finish(self, record: GenerationRecord) -> GenerationRecord:
        """Write what the run says of its images, and then its record as that of a complete run."""
        images = [self._image(prompt, name) for name, prompt in self._prompt_of().items()]
        write_images(self.out, images)
        # Without those of which a safety checker withheld the first candidates.
        scored = [[score for score in image.curve if score is not None] for image in images]
        curves = [curve for curve, image in zip(scored, images, strict=True) if len(curve) == len(image.curve)]
        done = replace(
            record,
            status="complete",
            images=len(images),
            candidates=sum(map(len, self._lines.values())),
            curve=tuple(map(fmean, zip(*curves, strict=True))),
        )
        done.write(self.out)
        return done

    def _read(self) -> None:
        """Read the lines; take out those whose image is lost, so that it is drawn again."""
        path = self.out / CANDIDATES_FILE
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a killed process may have left half a line
        lines = [json.loads(line) for line in whole.splitlines()]
        for line in lines:
            self._lines[line["id"]][line["number"]] = line
        for name, found in self._lines.items():
            best = self._best(name)
            lost = [
                line for line in found.values() if self.keep_candidates and not self._candidate_path(line).exists()
            ]
            if best is not None and not self._image_path(name).exists():
                lost.append(best)
            for line in lost:
                found.pop(line["number"], None)
        kept = [line for line in lines if line["number"] in self._lines[line["id"]]]
        if len(kept) < len(lines) or whole != content:
            write_lines(path, kept)

    def _best(self, name: str) -> dict[str, Any] | None:
        return max(self._lines[name].values(), key=lambda line: rank(line["score"], line["number"]), default=None)

    def _prompt_of(self) -> dict[str, Prompt]:
        texts = {prompt.id: prompt for prompt in self.prompts}
        return {name: texts[name.rpartition("-")[0]] for name in self.plan}

    def _image(self, prompt: Prompt, name: str) -> GeneratedImage:
        best, scores = self._best(name), [self._lines[name][draw.number]["score"] for draw in self.plan[name]]
        assert best is not None  # the run is complete
        return GeneratedImage(
            file_name=self._image_path(name).name,
            id=name,
            prompt_id=prompt.id,
            prompt=prompt.text,
            seed=best["seed"],
            score=best["score"],
            curve=curve_of(scores),
        )

    def _image_path(self, name: str) -> Path:
        return self.out / IMAGES_FOLDER / f"{name}.png"

    def _candidate_path(self, line: dict[str, Any]) -> Path:
        return self.out / CANDIDATES_FOLDER / line["id"] / f"{line['number']:04d}.png"


def _line(candidate: Candidate) -> dict[str, Any]:
    draw = candidate.draw
    line = {"id": draw.id, "number": draw.number, "round": draw.round, "seed": draw.seed, "score": candidate.score}
    return {**line, "withheld": True} if candidate.withheld else line


def _write_png(path: Path, image: Image.Image) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(stored_png(np.asarray(image))["bytes"])
