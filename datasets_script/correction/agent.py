"""
The agent that corrects images (ArtiAgent, Alg. 6): detect, draw again, and ask again within the region.

```python
from datasets_script import CorrectionAgent

agent = CorrectionAgent.from_names()  # the embedded detector and the embedded model
done = agent("portrait.png")
done.image.save("corrected.png")
print([(region.box, region.outcome) for region in done.regions])
```
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from diffusers_artifact.presets import EMBEDDED
from diffusers_artifact.repair_regions import FADE

from ..detection.base import Detector
from ..detection.images import ImageInput, upright
from ..schema.correction import KEPT, CorrectedRegion, Outcome, Round, Verdict
from ..utils.errors import ArgumentError
from ..utils.seeds import derive_seed
from .captioner import VLMCaptioner
from .regions import Region, regions_of
from .repairers import Repairer
from .settings import CorrectionSettings
from .verifiers import Verifier


if TYPE_CHECKING:
    from ..agents.perception.grounding import BoxSegmenter
    from ..detection.scoring import Scorer


# A region of a larger share of the image leaves too little around it.
_LARGEST_SHARE = 0.8
# By which a score must have risen for a repair to count as worse; less is noise.
_WORSE = 0.05


@dataclass(frozen=True, eq=False)
class Correction:
    """
    An image that was corrected.

    Attributes:
        image (`PIL.Image.Image`): The corrected image, RGB: the upright input if nothing was kept.
        regions (`tuple[CorrectedRegion, ...]`): Regions in the order in which they were treated.
        questions (`int`): Judgements of detector and verifier, captions included.
        failures (`tuple[str, ...]`): Answers of models that could not be used, and why.
    """

    image: Image.Image
    regions: tuple[CorrectedRegion, ...]
    questions: int
    failures: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Return whether a repair was kept."""
        return any(region.outcome in KEPT for region in self.regions)


@dataclass(frozen=True, eq=False)
class Found:
    """Regions of an image, and answers that could not be used."""

    regions: list[Region]
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Repaired:
    """A round with its pictures, and the mask of what was repaired."""

    round: Round
    images: list[Image.Image]
    mask: np.ndarray


class Store(Protocol):
    """Keeper of what an agent has done to an image, so that it is not done twice."""

    def found(self, make: Callable[[], Found]) -> Found:
        """Return the regions of the image, and make them if they are not kept."""
        ...

    def value(self, region: int, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a JSON-serialisable value of a region by its name, and make it if it is not kept."""
        ...

    def round(self, region: int, number: int, make: Callable[[], Repaired]) -> tuple[Round, Image.Image]:
        """Return a round and the best of its pictures, and make them if they are not kept."""
        ...


class NoStore:
    """Keeper that keeps nothing."""

    def found(self, make: Callable[[], Found]) -> Found:
        """Make the regions."""
        return make()

    def value(self, region: int, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Make the value."""
        return make()

    def round(self, region: int, number: int, make: Callable[[], Repaired]) -> tuple[Round, Image.Image]:
        """Make the round."""
        made = make()
        return made.round, made.images[made.round.best]


class CorrectionAgent:
    """
    Agent that finds artifacts in an image, draws their regions again, and asks again within each region.

    A region ends when the verifier sees no artifact in it any more, when a repair is worse than what was there, and
    after `max_rounds` rounds at the latest. Unless a repair was judged clean, or clearly better at the bound, the
    region is the input's.

    Args:
        repairer (`Repairer`): Draws regions again.
        verifier (`Verifier`): Says whether there is an artifact in a region. A detector that confirms itself is
            easily satisfied: use another one.
        detector (`Detector`, *optional*): Finds regions. Without one, regions must be given.
        captioner (`VLMCaptioner`, *optional*): Says what the scene should be, for repairers that can be told.
        reward (`Scorer`, *optional*): Chooses among repairs that the verifier judges alike, and refuses those that
            score less than the image before.
        segmenter (`BoxSegmenter`, *optional*): Finds the thing in a box that comes without a mask.
        settings (`CorrectionSettings`, *optional*): Rounds, candidates, strengths and thresholds.
    """

    def __init__(
        self,
        repairer: Repairer,
        verifier: Verifier,
        detector: Detector | None = None,
        captioner: VLMCaptioner | None = None,
        reward: Scorer | None = None,
        segmenter: BoxSegmenter | None = None,
        settings: CorrectionSettings | None = None,
    ) -> None:
        self.repairer, self.verifier, self.detector, self.captioner = repairer, verifier, detector, captioner
        self.reward, self.segmenter = reward, segmenter
        self.settings = settings or CorrectionSettings()

    @classmethod
    def from_names(
        cls,
        detector: str = EMBEDDED,
        repairer: str = EMBEDDED,
        verifier: str | None = None,
        *,
        device: str | None = None,
        settings: CorrectionSettings | None = None,
    ) -> CorrectionAgent:
        """
        Load an agent.

        Args:
            detector (`str`, *optional*, defaults to `"embedded"`): A pixel detector or a vision-language model.
            repairer (`str`, *optional*, defaults to `"embedded"`): A diffusion model.
            verifier (`str`, *optional*): As `detector`, which it is by default.
            device (`str`, *optional*): Defaults to CUDA if available.
            settings (`CorrectionSettings`, *optional*): Settings.

        Raises:
            ArgumentError, UserError: A model cannot be loaded.
        """
        from ..engine.loading import usable_device
        from .judges import load_judge
        from .repairers import load_repairer

        place = usable_device(device)
        found = load_judge(detector, place)
        judge = found if verifier is None else load_judge(verifier, place)
        return cls(
            load_repairer(repairer, device=place),
            judge.verifier(),
            found.detector(),
            judge.captioner() or found.captioner(),
            settings=settings,
        )

    def __call__(
        self,
        image: ImageInput,
        regions: Sequence[Region] | None = None,
        prompt: str | None = None,
        name: str = "image",
        store: Store | None = None,
    ) -> Correction:
        """
        Correct an image.

        Args:
            image (`str`, `os.PathLike` or `PIL.Image.Image`): The image. EXIF orientation is applied.
            regions (`Sequence[Region]`, *optional*): Regions to correct; by default the detector's.
            prompt (`str`, *optional*): The scene as it should be; by default the captioner's.
            name (`str`, *optional*, defaults to `"image"`): What seeds derive from, with the settings' own.
            store (`Store`, *optional*): Keeps what was done.

        Raises:
            ArgumentError: There is neither a region nor a detector.
            SourceError: The image cannot be read.
        """
        if regions is None and self.detector is None:
            raise ArgumentError("`regions` must be given to an agent without a detector, got None")
        store = store or NoStore()
        start = upright(image)
        found = store.found(lambda: self._find(start, regions))
        current, questions, failures = start, int(regions is None), list(found.failures)
        done = []
        for index, region in enumerate(found.regions):
            treated, current, failed = self._treat(current, region, index, prompt, name, store)
            asked = sum(len(one.verdicts) for one in treated.rounds) + (
                treated.outcome not in ("too large", "too many")
            )
            questions += asked + int(bool(treated.prompt) and prompt is None)
            failures += failed
            done.append(treated)
        return Correction(current, tuple(done), questions, tuple(failures))

    def identity(self) -> dict[str, Any]:
        """Return everything that corrections depend on besides settings and images, JSON-serialisable."""
        parts = ("repairer", "verifier", "captioner", "reward", "segmenter")
        named = {part: getattr(self, part) for part in parts}
        return {name: None if part is None else part.identity() for name, part in named.items()}

    def _find(self, image: Image.Image, regions: Sequence[Region] | None) -> Found:
        if regions is not None:
            return Found(list(regions))
        assert self.detector is not None  # checked at the door
        detection = self.detector(image)
        found = regions_of(detection, image, self.segmenter)
        failures = detection.failures
        if detection.has_artifact and not found:
            failures = (*failures, "the detector sees artifacts and names no region")
        return Found(found, tuple(failures))

    def _treat(
        self, image: Image.Image, region: Region, index: int, prompt: str | None, name: str, store: Store
    ) -> tuple[CorrectedRegion, Image.Image, list[str]]:
        """Treat a region; return what became of it, the image, and answers that could not be used."""

        def ended(
            outcome: Outcome, before: Verdict, prompt: str = "", rounds: Sequence[Round] = ()
        ) -> CorrectedRegion:
            told = (region.box, region.label, region.score, region.given, prompt, before)
            return CorrectedRegion(*told, tuple(rounds), outcome)

        if index >= self.settings.max_regions:
            return ended("too many", Verdict(None)), image, []
        if region.mask.mean() > _LARGEST_SHARE:
            return ended("too large", Verdict(None)), image, []
        before = self._before(image, region, index, store)
        # Whoever gives a region has seen the artifact; a detector must be confirmed.
        if not region.given and before.has_artifact is False:
            return ended("not confirmed", before), image, []
        failed: list[str] = []
        if prompt is None:
            prompt, failure = self._caption(image, region, index, store)
            failed += [failure] if failure else []
        outcome, rounds, image = self._rounds(image, region, index, prompt, name, before, store)
        return ended(outcome, before, prompt, rounds), image, failed

    def _before(self, image: Image.Image, region: Region, index: int, store: Store) -> Verdict:
        def judge() -> dict[str, Any]:
            verdict = self._judge([image], region)[0]
            return {"has_artifact": verdict.has_artifact, "score": verdict.score, "answer": verdict.answer}

        return Verdict(**store.value(index, "before", judge))

    def _caption(self, image: Image.Image, region: Region, index: int, store: Store) -> tuple[str, str]:
        if self.captioner is None or not self.repairer.takes_prompts:
            return "", ""
        captioner = self.captioner

        def caption() -> dict[str, Any]:
            text, failure = captioner(image, region)
            return {"prompt": text, "failure": failure}

        value = store.value(index, "caption", caption)
        return value["prompt"], value["failure"]

    def _rounds(
        self,
        image: Image.Image,
        region: Region,
        index: int,
        prompt: str,
        name: str,
        before: Verdict,
        store: Store,
    ) -> tuple[Outcome, list[Round], Image.Image]:
        """Repair a region until a rule stops it; return how it ended, the rounds, and the image."""
        reward = None
        if self.reward is not None and self.settings.max_rounds:
            scorer = self.reward
            reward = store.value(index, "reward", lambda: {"reward": float(scorer([image])[0])})["reward"]
        rounds: list[Round] = []
        least: tuple[float, Image.Image] | None = None
        for number in range(1, self.settings.max_rounds + 1):
            seeds = tuple(
                derive_seed(self.settings.seed, f"{name}:{index}:{number}:{candidate}")
                for candidate in range(self.settings.candidates)
            )
            done, picture = store.round(
                index,
                number,
                lambda: self._repair(image, region, number, prompt, seeds),  # noqa: B023
            )
            rounds.append(done)
            verdict = done.verdicts[done.best]
            if self._is_worse(before, verdict, reward, done):
                return "worse", rounds, image
            if verdict.has_artifact is False:
                return "clean", rounds, picture
            if verdict.score is not None and (least is None or verdict.score < least[0]):
                least = verdict.score, picture
        if least is not None and before.score is not None and before.has_artifact is not False:
            if least[0] <= (1 - self.settings.least_gain) * before.score:
                return "better", rounds, least[1]
        return "unsolved", rounds, image

    def _is_worse(self, before: Verdict, after: Verdict, reward: float | None, done: Round) -> bool:
        if reward is not None and done.rewards[done.best] < reward:
            return True
        if after.has_artifact is False or before.score is None or after.score is None:
            return False
        return after.score > before.score + _WORSE

    def _repair(
        self, image: Image.Image, region: Region, number: int, prompt: str, seeds: tuple[int, ...]
    ) -> Repaired:
        begun, evaluations = time.monotonic(), self.repairer.evaluations
        strength = self.settings.strength_of(number, self.repairer.strengths)
        longer = max(region.box[2] - region.box[0], region.box[3] - region.box[1])
        margin = number * max(FADE, round(self.settings.margin * longer))
        repair = self.repairer(image, region.mask, prompt, strength, seeds, margin)
        verdicts = tuple(self._judge(repair.images, region))
        rewards = () if self.reward is None else tuple(map(float, self.reward(repair.images)))
        done = Round(
            number=number,
            strength=strength,
            margin=margin,
            seeds=seeds,
            verdicts=verdicts,
            rewards=rewards,
            best=best_of(verdicts, rewards),
            evaluations=round(self.repairer.evaluations - evaluations, 3),
            seconds=round(time.monotonic() - begun, 2),
        )
        return Repaired(done, repair.images, repair.mask)

    def _judge(self, images: Sequence[Image.Image], region: Region) -> list[Verdict]:
        threshold = self.settings.threshold
        verdicts = self.verifier(images, region)
        if threshold is None:
            return verdicts
        return [
            verdict if verdict.score is None else Verdict(verdict.score > threshold, verdict.score, verdict.answer)
            for verdict in verdicts
        ]


def best_of(verdicts: Sequence[Verdict], rewards: Sequence[float]) -> int:
    """
    Return the index of the best repair: judged clean before others, then by reward if there is one, then by score. Of
    clean ones whose scores differ little, which says nothing, the first is the best: repairers give that first which
    fits best.

    Args:
        verdicts (`Sequence[Verdict]`): What a verifier says of each.
        rewards (`Sequence[float]`): Reward of each, or none.

    Example:

    ```python
    >>> best_of([Verdict(True, 0.6), Verdict(False, 0.3), Verdict(False, 0.2)], rewards=[])
    2
    >>> best_of([Verdict(True), Verdict(False), Verdict(False)], rewards=[9.0, 5.0, 1.0])
    1

    ```
    """

    def rank(index: int) -> tuple[bool, float, float]:
        verdict, reward = verdicts[index], -rewards[index] if rewards else 0.0
        score = 1.0 if verdict.score is None else verdict.score
        is_clean = verdict.has_artifact is False
        return not is_clean, reward, round(score, 1) if is_clean else score

    return min(range(len(verdicts)), key=rank)
