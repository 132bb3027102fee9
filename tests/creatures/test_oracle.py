"""The oracle on creatures whose truth is known. `oracle_figures.py` measures it on thousands."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.creatures.bodies import make_scene
from tests.benchmarks.creatures.labels import fault_mask
from tests.benchmarks.creatures.measures import changes, compared, differences_of, diversity, figures_of
from tests.benchmarks.creatures.oracle import Fault, Verdict, judge
from tests.benchmarks.creatures.planting import IN_SCENES, plant
from tests.benchmarks.creatures.renderer import render_many, render_scene
from tests.benchmarks.creatures.shares import share
from tests.benchmarks.creatures.words import Words, all_words


OWL = Words("owl", "green", "navy", 2)
BEAR = Words("bear", "purple", "sand", 0)


def test_clean_renders_are_clean_and_their_words_are_read():
    verdicts = [judge(one.image, one.words) for one in render_many(150, 1, "test oracle")]
    assert sum(verdict.has_artifact for verdict in verdicts) <= 1
    assert all(verdict.meets_words for verdict in verdicts)


def test_planted_artifacts_are_found():
    planted = [plant(index, 1, "test oracle") for index in range(150)]
    found = [judge(one.image, one.words).has_artifact for one in planted]
    assert sum(found) >= 147
    assert {one.type for one in planted} == {"duplication", "omission", "distortion", "fusion"}


def verdict_of(words: Words, kind: str, way: str) -> tuple[np.ndarray, Verdict]:
    generator = np.random.default_rng(5)
    image = render_scene(IN_SCENES[kind][way](make_scene(words, generator), generator)).image
    return image, judge(image, words)


@pytest.mark.parametrize(
    ("kind", "way", "part"),
    [
        ("duplication", "third eye", "eye"),
        ("duplication", "further horn", "horn"),
        ("omission", "no ear", "inner_ear"),
        ("omission", "no pupil", "pupil"),
        ("fusion", "eyes grown together", "eye"),
        ("distortion", "eye displaced", "eye"),
        ("distortion", "stretched eye", "eye"),
    ],
)
def test_the_type_is_told(kind, way, part):
    _, verdict = verdict_of(BEAR, kind, way)
    assert (kind, part) in {(fault.type, fault.part) for fault in verdict.faults}


def test_a_dent_is_a_distortion_of_the_body():
    """Unless it takes the mouth, or an ear, away."""
    generator = np.random.default_rng(0)
    dent = IN_SCENES["distortion"]["dented head"]
    pictures = [render_scene(dent(make_scene(BEAR, generator), generator)).image for _ in range(8)]
    verdicts = [judge(picture, BEAR) for picture in pictures]
    assert all(verdict.has_artifact for verdict in verdicts)
    assert any(fault.part == "body" for verdict in verdicts for fault in verdict.faults)


def test_horns_are_counted_against_the_words():
    one = judge(render_scene(make_scene(OWL, np.random.default_rng(2))).image, BEAR)
    assert one.shown == OWL
    assert {fault.part for fault in one.faults} >= {"horn"}


def test_a_fault_is_marked_at_its_part():
    image, verdict = verdict_of(BEAR, "distortion", "eye displaced")
    mask = fault_mask(image, verdict.faults[0])
    assert 0.02 < mask.mean() < 0.2


def test_an_empty_picture_is_judged():
    empty = np.full((64, 64, 3), 128, np.uint8)
    assert judge(empty, OWL).has_artifact


def test_figures_of_clean_renders():
    renders = render_many(12, 2, "test figures")
    images, words = np.stack([one.image for one in renders]), [one.words for one in renders]
    figures = figures_of(images, [words[0]] * 6 + words[6:], images)
    assert figures["artifact_rate"] <= 0.5
    assert figures["diversity"] == figures["sharpness"] == 1.0
    # Of the same pictures, there is nothing that resampling could change.
    assert figures["diversity_interval"] == figures["sharpness_interval"] == [1.0, 1.0]
    assert figures["conditions_met"]["all"]["share"] == pytest.approx(7 / 12, abs=1e-3)


def test_diversity_and_sharpness_change_in_pairs():
    generator, words = np.random.default_rng(0), all_words()[:4] * 3
    before = generator.integers(96, 160, (12, 64, 64, 3)).astype(np.uint8)
    # Half the contrast halves both; pictures whose contrast falls to between .4 and .6 do so on average.
    after = np.stack(
        [128 + (one - 128.0) * share for one, share in zip(before, np.linspace(0.4, 0.6, 12), strict=True)]
    )
    found = changes(before, after.round().astype(np.uint8), words)
    for name in ("diversity_change", "sharpness_change"):
        low, high = found[f"{name}_interval"]
        assert found[name] == pytest.approx(-0.5, abs=0.02) and low < found[name] < high
        assert -0.6 < low and high < -0.4
    nothing = changes(before[:3], before[3:6], words[:3])
    assert nothing["diversity_change"] is None and nothing["diversity_change_interval"] is None
    assert differences_of(before, words).keys() == set(words)
    assert diversity(before[:3], words[:3]) is None


def test_intervals():
    # Wilson, 1927, as in Brown, Cai and DasGupta, 2001.
    assert share([True] * 5 + [False] * 5)["interval"] == pytest.approx([0.2366, 0.7634], abs=1e-3)
    assert share([False] * 20)["interval"][0] == 0.0
    with pytest.raises(ValueError, match="`hits` must have at least one entry"):
        share([])


def test_pictures_are_compared_in_pairs():
    asked, other = Words("owl", "green", "navy", 2), Words("owl", "green", "navy", 1)
    clean, unmet = Verdict((), asked, asked), Verdict((), other, asked)
    flawed = Verdict((Fault("omission", "nose", "there is none"),), asked, asked)
    result = compared([flawed] * 4 + [clean] * 2, [flawed] + [clean] * 4 + [unmet])
    assert result["relative_reduction"] == 0.75
    assert result["conditions_met_change"] == pytest.approx(-1 / 6, abs=1e-4)
    low, high = result["relative_reduction_interval"]
    assert low < 0.75 < high <= 1
