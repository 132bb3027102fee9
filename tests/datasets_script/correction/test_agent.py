"""The correction loop: its stop rules, its choice of repairs, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets_script.correction.agent import Correction, CorrectionAgent
from datasets_script.correction.regions import Region, given_region, regions_of
from datasets_script.correction.repairers import ModelRepairer
from datasets_script.correction.settings import CorrectionSettings
from datasets_script.correction.verifiers import PixelVerifier
from datasets_script.detection.images import ImageInput
from datasets_script.schema.correction import Verdict
from datasets_script.schema.detection import DetectedRegion, Detection
from datasets_script.utils.errors import ArgumentError

from ...helpers.tiny_detectors import red_detector, square


class Painter:
    """An inpainter that paints a region in a grey of its own for each seed, and remembers what it was asked."""

    side, multiple, cell, takes_prompts = 64, 1, 4, True

    def __init__(self, greys: Sequence[int] = ()) -> None:
        self.greys, self.evaluations = list(greys), 0.0
        self.asked: list[tuple[str, float, int]] = []

    def __call__(
        self, image: Image.Image, mask: np.ndarray, prompt: str, strength: float, seeds: Sequence[int]
    ) -> list[Image.Image]:
        self.asked.append((prompt, strength, int(mask.sum())))
        self.evaluations += len(seeds)
        greys = [self.greys.pop(0) if self.greys else 40 + seed % 100 for seed in seeds]
        return [Image.fromarray(np.where(mask[..., None], grey, np.asarray(image)).astype(np.uint8)) for grey in greys]

    def identity(self) -> dict[str, Any]:
        return {"inpainter": "paint"}


class Always:
    """A verifier that always says the same."""

    def __init__(self, answer: bool | None, score: float | None = None) -> None:
        self.verdict, self.asked = Verdict(answer, score), 0

    def __call__(self, images: Sequence[Image.Image], region: Region) -> list[Verdict]:
        self.asked += len(images)
        return [self.verdict] * len(images)

    def identity(self) -> dict[str, Any]:
        return {"kind": "always"}


class Brightness(Always):
    """A verifier that scores how bright a region is, and sees an artifact above a half."""

    def __init__(self) -> None:
        super().__init__(None)

    def __call__(self, images: Sequence[Image.Image], region: Region) -> list[Verdict]:
        means = [float(np.asarray(image.convert("L"))[region.mask].mean()) / 255 for image in images]
        return [Verdict(mean > 0.5, mean) for mean in means]


class Finder:
    """A detector that names given regions."""

    def __init__(self, *regions: DetectedRegion) -> None:
        self.regions = regions

    def __call__(self, images: Any) -> Any:
        return Detection(images.size, bool(self.regions), self.regions, None, {})

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Detection]:
        return map(self, images)


BRIGHT = Image.new("RGB", (64, 64), (240, 240, 240))
ONE, OTHER = DetectedRegion((8, 8, 24, 24), "spot", 0.6), DetectedRegion((36, 36, 52, 52), "blot", 0.9)


def correct(verifier: Any, painter: Painter | None = None, *found: DetectedRegion, **changes: Any) -> Correction:
    settings = {"max_rounds": 3, "candidates": 2} | changes
    agent = CorrectionAgent(
        ModelRepairer(painter or Painter()),
        verifier,
        Finder(*(found or (ONE,))),
        settings=CorrectionSettings(**settings),
    )
    return agent(BRIGHT)


def unchanged(correction: Correction) -> bool:
    return not correction.changed and correction.image.tobytes() == BRIGHT.tobytes()


def test_a_verifier_that_always_says_yes_ends_at_the_bound():
    verifier = Always(True)
    done = correct(verifier)
    (region,) = done.regions
    assert region.outcome == "unsolved" and len(region.rounds) == 3 and unchanged(done)
    assert verifier.asked == 1 + 3 * 2 and done.questions == 1 + 1 + 3 * 2


def test_a_verifier_that_always_says_no_changes_nothing():
    painter = Painter()
    done = correct(Always(False), painter)
    assert done.regions[0].outcome == "not confirmed" and not painter.asked and unchanged(done)


def test_an_answer_that_cannot_be_read_is_no_no():
    done = correct(Always(None))
    assert done.regions[0].outcome == "unsolved" and unchanged(done)


def test_it_stops_at_the_first_clean_repair_and_keeps_the_best():
    painter = Painter([200, 180, 90, 30])
    done = correct(Brightness(), painter)
    (region,) = done.regions
    assert region.outcome == "clean" and [one.best for one in region.rounds] == [1, 1]
    assert done.changed and np.asarray(done.image)[16, 16, 0] == 30
    assert (np.asarray(done.image)[40:, 40:] == 240).all()


def test_strength_and_mask_grow_when_a_round_fails():
    painter = Painter()
    correct(Always(True), painter, strength=0.4, last_strength=0.8)
    strengths, areas = [asked[1] for asked in painter.asked], [asked[2] for asked in painter.asked]
    assert strengths == [0.4, 0.6, 0.8] and areas == sorted(set(areas))


def test_the_input_comes_back_when_a_repair_is_worse():
    done = correct(Brightness(), Painter([255, 255]), DetectedRegion((8, 8, 24, 24)))
    assert done.regions[0].outcome == "worse" and len(done.regions[0].rounds) == 1 and unchanged(done)


def test_at_the_bound_a_clear_gain_is_kept_and_a_slight_one_is_not():
    assert correct(Brightness(), Painter([150] * 6)).regions[0].outcome == "better"
    slight = correct(Brightness(), Painter([220] * 6))
    assert slight.regions[0].outcome == "unsolved" and unchanged(slight)


def test_a_reward_chooses_and_refuses():
    class Reward:
        def __init__(self, before: float) -> None:
            self.before = before

        def __call__(self, images: list[Image.Image]) -> list[float]:
            greys = [float(np.asarray(image)[16, 16, 0]) for image in images]
            return [self.before if grey == 240 else grey for grey in greys]

        def identity(self) -> dict[str, Any]:
            return {"kind": "reward"}

    def run(before: float) -> Correction:
        repairer, finder = ModelRepairer(Painter([20, 60])), Finder(ONE)
        settings = CorrectionSettings(candidates=2)
        return CorrectionAgent(repairer, Brightness(), finder, reward=Reward(before), settings=settings)(BRIGHT)

    chosen = run(before=10)
    assert chosen.regions[0].outcome == "clean" and np.asarray(chosen.image)[16, 16, 0] == 60
    refused = run(before=100)
    assert refused.regions[0].outcome == "worse" and unchanged(refused)


def test_a_score_below_the_threshold_stops():
    assert correct(Brightness(), Painter([150, 140]), threshold=0.6).regions[0].outcome == "clean"


def test_the_surest_region_comes_first_and_repairs_add_up():
    done = correct(Brightness(), Painter([10, 20, 30, 40]), ONE, OTHER)
    assert [region.label for region in done.regions] == ["blot", "spot"]
    pixels = np.asarray(done.image)
    assert pixels[44, 44, 0] == 10 and pixels[16, 16, 0] == 30
    bounded = correct(Brightness(), Painter([10, 20]), ONE, OTHER, max_regions=1)
    assert [(region.label, region.outcome) for region in bounded.regions] == [("blot", "clean"), ("spot", "too many")]


def test_a_given_region_needs_no_confirmation():
    agent = CorrectionAgent(ModelRepairer(Painter([50])), Always(False), settings=CorrectionSettings(candidates=1))
    done = agent(BRIGHT, [given_region(BRIGHT.size, (8, 8, 24, 24))], prompt="a wall")
    assert done.regions[0].outcome == "clean" and len(done.regions[0].rounds) == 1
    assert done.regions[0].prompt == "a wall" and np.asarray(done.image)[16, 16, 0] == 50
    with pytest.raises(ArgumentError, match="`regions` must be given to an agent without a detector"):
        agent(BRIGHT)


def test_a_region_that_leaves_nothing_around_it_is_not_drawn():
    done = correct(Always(True), None, DetectedRegion((0, 0, 64, 64)))
    assert done.regions[0].outcome == "too large" and unchanged(done)


def test_nothing_found_is_nothing_changed():
    agent = CorrectionAgent(ModelRepairer(Painter()), Always(True), Finder())
    assert agent(BRIGHT).regions == ()


def test_the_same_seed_gives_the_same_image_and_images_differ():
    agent = CorrectionAgent(ModelRepairer(Painter()), Always(True), Finder(ONE), settings=CorrectionSettings())
    seeds = [agent(BRIGHT, name=name).regions[0].rounds[0].seeds for name in ("a", "a", "b")]
    assert seeds[0] == seeds[1] != seeds[2] and len(set(seeds[0])) == 4


def test_a_pixel_detector_judges_the_box_alone():
    verifier = PixelVerifier(red_detector())
    image = square((8, 8, 24, 24))
    on, off = (given_region(image.size, box) for box in ((6, 6, 26, 26), (40, 4, 60, 24)))
    assert verifier([image], on)[0].has_artifact and not verifier([image], off)[0].has_artifact
    clean = square(None)
    scores = [verdict.score for verdict in verifier([image, clean], on)]
    assert scores[0] is not None and scores[1] is not None and scores[0] > scores[1]


def test_a_segmenter_narrows_boxes_without_a_mask():
    class Segmenter:
        def segment(self, images: Sequence[Image.Image], boxes: Sequence[Sequence[Any]]) -> list[list[np.ndarray]]:
            mask = np.zeros((64, 64), dtype=bool)
            mask[10:14, 4:60] = True
            return [[mask for _ in some] for some in boxes]

    detection = Detection((64, 64), True, (ONE, OTHER), None, {})
    blot, spot = regions_of(detection, BRIGHT, Segmenter())  # type: ignore[arg-type]
    assert spot.mask.sum() == 4 * 16  # within the box
    assert blot.mask.sum() == 16 * 16  # nothing found there: the whole box


def test_wrong_settings_and_regions_are_told():
    with pytest.raises(ArgumentError, match="`strength` must be above 0 and at most 1, got 2"):
        CorrectionSettings(strength=2)
    with pytest.raises(ArgumentError, match="`max_rounds` must be at least 0"):
        CorrectionSettings(max_rounds=-1)
    with pytest.raises(ArgumentError, match="`box` must lie in the image, of 64x64 px"):
        given_region((64, 64), (70, 70, 80, 80))
    with pytest.raises(ArgumentError, match="`mask` must have the image's size of 64x64 px, got 4x4"):
        given_region((64, 64), mask=np.ones((4, 4), dtype=bool))
