"""Images generated from prompts, and the record of their run: what is in the folder of `artiagent generate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..utils.errors import UserError
from ..utils.files import write_json, write_text
from ..utils.image_texts import METADATA
from .run_record import RUN_FILE, read_record_of


CANDIDATES_FILE = "generate.jsonl"
"""File with a line for each candidate: what it was drawn from, and its score."""

PROMPTS_FILE = "prompts.jsonl"
"""File with a line for each prompt."""

IMAGES_FOLDER = "images"
"""Folder of the best image of each search, which `load_dataset` reads by its `metadata.jsonl`."""

_COMMAND = "generate"


@dataclass(frozen=True)
class Prompt:
    """
    A prompt.

    Attributes:
        id (`str`): Its id, part of the names of its images.
        text (`str`): What to draw.
    """

    id: str
    text: str


@dataclass(frozen=True)
class GeneratedImage:
    """
    An image of a prompt, the best of its candidates.

    Attributes:
        file_name (`str`): Name of the PNG file in the folder of images.
        id (`str`): Id of the image, from which the seeds of its candidates derive with the seed of the run.
        prompt_id, prompt (`str`): Its prompt.
        seed (`int`): Seed of its noise.
        score (`float`, *optional*): Its score; `None` without a scorer.
        curve (`tuple[float | None, ...]`): Best score so far after each round of the search.
    """

    file_name: str
    id: str
    prompt_id: str
    prompt: str
    seed: int
    score: float | None
    curve: tuple[float | None, ...]


@dataclass(frozen=True)
class GenerationRecord:
    """
    Content of `run.json` in the folder of a run of `artiagent generate`.

    Attributes:
        settings (`Mapping`): `GenerationSettings` as a dictionary.
        model_revision (`str`): Commit of the diffusion model, or a fingerprint of its files.
        scorer (`Mapping`, *optional*): Everything that scores depend on; `None` without a scorer.
        versions (`Mapping[str, str]`): Versions of packages.
        guide (`Mapping`, *optional*): Everything that guidance depends on: `detectors` and `rewards`, each as
            `scorer` names them, and `settings` and `checkpoint_vae` of [`~diffusers_artifact.DetectorGuidance`];
            `None` without guidance.
        status (`str`): `"running"` or `"complete"`.
        images, candidates (`int`): Number of images, and of candidates drawn; 0 until the run is complete.
        curve (`tuple[float, ...]`): Mean over the images of the best score so far, after each round.
        seconds (`float`): Time that the call took that completed the run.
        guided_steps (`Sequence[Mapping]`): Guided steps of the batch that was drawn last, with the losses before each.
    """

    settings: Mapping[str, Any]
    model_revision: str
    scorer: Mapping[str, Any] | None
    versions: Mapping[str, str]
    guide: Mapping[str, Any] | None = None
    status: Literal["running", "complete"] = "running"
    images: int = 0
    candidates: int = 0
    curve: Sequence[float] = field(default_factory=tuple)
    seconds: float = 0.0
    guided_steps: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def identity(self) -> dict[str, Any]:
        """Return everything that the images depend on besides the prompts."""
        return {name: getattr(self, name) for name in ("settings", "model_revision", "scorer", "versions", "guide")}

    @property
    def chosen_by(self) -> tuple[Mapping[str, Any], ...]:
        """Return the scorers that chose or guided the images, which therefore cannot judge them."""
        guide = self.guide or {"detectors": (), "rewards": ()}
        return tuple(filter(None, [self.scorer, *guide["detectors"], *guide["rewards"]]))

    @classmethod
    def read(cls, folder: Path) -> GenerationRecord:
        """
        Read the record in a folder.

        Raises:
            UserError: There is none, or its content is not that of one.
        """
        return read_record_of(folder, _COMMAND, cls)

    def write(self, folder: Path) -> None:
        """Write the record into a folder, atomically."""
        write_json(folder / RUN_FILE, {"command": _COMMAND, **asdict(self)})


def is_generated(folder: Path) -> bool:
    """Return whether a folder was written by `artiagent generate`."""
    return (folder / CANDIDATES_FILE).is_file()


def read_prompts(folder: Path) -> list[Prompt]:
    """Read the prompts of a folder."""
    return [Prompt(line["id"], line["prompt"]) for line in read_lines(folder / PROMPTS_FILE)]


def write_prompts(folder: Path, prompts: Sequence[Prompt]) -> None:
    """Write the prompts of a folder, atomically."""
    write_lines(folder / PROMPTS_FILE, [{"id": prompt.id, "prompt": prompt.text} for prompt in prompts])


def read_images(folder: Path) -> list[GeneratedImage]:
    """Read what a complete run says of its images."""
    lines = read_lines(folder / IMAGES_FOLDER / METADATA)
    return [GeneratedImage(**{**line, "curve": tuple(line["curve"])}) for line in lines]


def write_images(folder: Path, images: Sequence[GeneratedImage]) -> None:
    """Write what a run says of its images, atomically."""
    write_lines(folder / IMAGES_FOLDER / METADATA, [asdict(image) for image in images])


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """
    Read a file of JSON lines that this package wrote.

    Raises:
        UserError: It cannot be read.
    """
    try:
        # Not `splitlines`: texts may hold other line breaks, such as U+2028.
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' must be JSON lines of a run: {error}; restore a copy of the file") from error


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of JSON lines, atomically."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
