"""Corrected images, and the record of their run: what is in the folder of `artiagent correct`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..utils.files import write_json
from .boxes import Box
from .run_record import RUN_FILE, read_record_of


CORRECTIONS_FILE = "corrections.jsonl"
"""File with a line for each image that is done."""

_COMMAND = "correct"

Outcome = Literal["clean", "better", "unsolved", "worse", "not confirmed", "too large", "too many"]
"""
How a region ended. `"clean"`: the verifier saw no artifact any more. `"better"`: it still did, but was clearly less
sure. Of the others, the region is the input's: `"unsolved"`: no repair was better; `"worse"`: a repair was worse, by
the verifier or by the reward; `"not confirmed"`: the verifier saw no artifact to begin with; `"too large"`: nothing
around it would be left to draw it from; `"too many"`: others came first, up to `max_regions`.
"""
KEPT: tuple[Outcome, ...] = ("clean", "better")


@dataclass(frozen=True)
class Verdict:
    """
    What a verifier says of a region.

    Attributes:
        has_artifact (`bool`, *optional*): Whether there is an artifact in it; `None` if the answer could not be read.
        score (`float`, *optional*): How sure the verifier is that there is, in [0, 1]; `None` if it does not say.
        answer (`str`): The answer in its words.
    """

    has_artifact: bool | None
    score: float | None = None
    answer: str = ""


@dataclass(frozen=True)
class Round:
    """
    One round of repairs of a region.

    Attributes:
        number (`int`): From 1.
        strength (`float`): Strength of the repairs, in (0, 1].
        margin (`int`): Pixels by which the region was grown.
        seeds (`tuple[int, ...]`): Seed of each repair.
        verdicts (`tuple[Verdict, ...]`): What the verifier says of each.
        rewards (`tuple[float, ...]`): Reward of each; empty without a reward model.
        best (`int`): Which of them is the best.
        evaluations (`float`): Pictures that went through the diffusion model.
        seconds (`float`): Time that it took.
    """

    number: int
    strength: float
    margin: int
    seeds: tuple[int, ...]
    verdicts: tuple[Verdict, ...]
    rewards: tuple[float, ...]
    best: int
    evaluations: float
    seconds: float

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Round:
        """Read what `asdict` wrote."""
        verdicts = tuple(Verdict(**verdict) for verdict in content["verdicts"])
        lists = {name: tuple(content[name]) for name in ("seeds", "rewards")}
        return cls(**{**content, **lists, "verdicts": verdicts})


@dataclass(frozen=True)
class CorrectedRegion:
    """
    A region with an artifact, and what became of it.

    Attributes:
        box (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels.
        label (`str`): What is wrong there, in the detector's words; empty if it does not say.
        score (`float`, *optional*): How sure the detector is.
        given (`bool`): Whether the region was given and not detected.
        prompt (`str`): Caption of the scene as it should be, which the repairs were told; empty if there was none.
        before (`Verdict`): What the verifier said of the image before.
        rounds (`tuple[Round, ...]`): Rounds, in order.
        outcome (`str`): See [`Outcome`].
    """

    box: Box
    label: str
    score: float | None
    given: bool
    prompt: str
    before: Verdict
    rounds: tuple[Round, ...]
    outcome: Outcome


@dataclass(frozen=True)
class CorrectedImage:
    """
    An image that is done.

    Attributes:
        id (`str`): Its id: the name of its files in the folder of a run.
        source (`str`): Path of the image.
        width, height (`int`): Size of the upright image in pixels.
        changed (`bool`): Whether a repair was kept. If not, the corrected image is the upright input.
        regions (`tuple[CorrectedRegion, ...]`): Regions in the order in which they were treated.
        evaluations (`float`): Pictures that went through the diffusion model.
        questions (`int`): Judgements of detector and verifier, captions included.
        seconds (`float`): Time that it took, rounds of interrupted runs included.
        failures (`tuple[str, ...]`): Answers of models that could not be used, and why.
    """

    id: str
    source: str
    width: int
    height: int
    changed: bool
    regions: tuple[CorrectedRegion, ...]
    evaluations: float
    questions: int
    seconds: float
    failures: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CorrectedImage:
        """Read what `asdict` wrote."""
        regions = tuple(
            CorrectedRegion(
                **{
                    **region,
                    "box": tuple(region["box"]),
                    "before": Verdict(**region["before"]),
                    "rounds": tuple(map(Round.from_dict, region["rounds"])),
                }
            )
            for region in content["regions"]
        )
        return cls(**{**content, "regions": regions, "failures": tuple(content["failures"])})


@dataclass(frozen=True)
class CorrectionRecord:
    """
    Content of `run.json` in the folder of a run of `artiagent correct`.

    Attributes:
        settings (`Mapping`): `CorrectionSettings` as a dictionary.
        models (`Mapping`): Everything that corrections depend on of `detector`, `verifier`, `repairer`, `captioner`,
            `reward` and `segmenter`.
        given (`Mapping`): Box, mask and prompt that were given in place of a detector's and a model's.
        versions (`Mapping[str, str]`): Versions of packages.
        status (`str`): `"running"` or `"complete"`.
        totals (`Mapping`): Of a complete run: `images`, `with_artifacts`, `changed`, `regions`, their outcomes,
            `rounds`, `evaluations`, `questions`, `seconds`, the tokens of language models, and `pairs` if they were
            asked for.
    """

    settings: Mapping[str, Any]
    models: Mapping[str, Any]
    given: Mapping[str, Any]
    versions: Mapping[str, str]
    status: Literal["running", "complete"] = "running"
    totals: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        """Return everything that corrections depend on besides the images."""
        return {name: getattr(self, name) for name in ("settings", "models", "given", "versions")}

    @classmethod
    def read(cls, folder: Path) -> CorrectionRecord:
        """
        Read the record in a folder.

        Raises:
            UserError: There is none, or its content is not that of one.
        """
        return read_record_of(folder, _COMMAND, cls)

    def write(self, folder: Path) -> None:
        """Write the record into a folder, atomically."""
        write_json(folder / RUN_FILE, {"command": _COMMAND, **asdict(self)})


def totals_of(images: Sequence[CorrectedImage]) -> dict[str, Any]:
    """Add up what a run did; see [`CorrectionRecord`]."""
    regions = [region for image in images for region in image.regions]
    outcomes = [region.outcome for region in regions]
    return {
        "images": len(images),
        "with_artifacts": sum(bool(image.regions) for image in images),
        "changed": sum(image.changed for image in images),
        "regions": len(regions),
        **{outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)},
        "rounds": sum(len(region.rounds) for region in regions),
        "evaluations": round(sum(image.evaluations for image in images), 2),
        "questions": sum(image.questions for image in images),
        "seconds": round(sum(image.seconds for image in images), 1),
    }
