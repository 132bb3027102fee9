"""The world of creatures: words, renders and annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.creatures.annotations import ANNOTATIONS, file_name, write_photos
from tests.benchmarks.creatures.bodies import make_scene
from tests.benchmarks.creatures.oracle import expected_counts
from tests.benchmarks.creatures.renderer import render, render_many
from tests.benchmarks.creatures.shapes import Oval, Polygon, pixel_centres
from tests.benchmarks.creatures.words import Words, all_words, is_held_out, parse, vocabulary


OWL = Words("owl", "green", "navy", 2)


def test_a_prompt_is_read_back():
    assert OWL.prompt == "a green owl with two horns on a navy background"
    assert all(parse(words.prompt) == words for words in all_words())
    assert set(OWL.prompt.split()) <= set(vocabulary())


@pytest.mark.parametrize("prompt", ["a green owl", "a green dog with no horns on a navy background"])
def test_other_texts_are_refused(prompt):
    with pytest.raises(ValueError, match="`prompt` must read like|`species` must be one of"):
        parse(prompt)


def test_a_seventh_of_the_conditions_is_held_out_and_every_word_is_seen():
    seen = [words for words in all_words() if not is_held_out(words)]
    assert 0.1 < 1 - len(seen) / len(all_words()) < 0.2
    assert {word for words in seen for word in words.prompt.split()} == set(vocabulary())


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_the_distance_of_an_oval_is_exact_at_its_outline(angle):
    x, y = pixel_centres(64)
    distance = Oval((32.3, 31.6), (18, 9), angle=angle).distance(x, y)
    assert np.clip(0.5 - distance, 0, 1).sum() == pytest.approx(np.pi * 18 * 9, rel=0.01)


def test_the_distance_of_a_polygon_is_exact():
    x, y = pixel_centres(64)
    distance = Polygon(((10, 10), (50, 10), (50, 40), (10, 40)), rounding=2).distance(x, y)
    assert distance[20, 30] == pytest.approx(-(10.5 + 2))
    assert distance[2, 2] == pytest.approx(np.hypot(7.5, 7.5) - 2)


def test_words_and_seed_determine_the_pixels():
    first, again, other = render(OWL, 3), render(OWL, 3), render(OWL, 4)
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)


def test_every_part_is_seen_and_no_pixel_is_of_two():
    for one in render_many(20, 0, "test masks"):
        names: list[str] = [part.name for part, _ in one.parts]
        counts = {name.removeprefix("inner_"): count for name, count in expected_counts(one.words).items()}
        assert {name: names.count(name) for name in counts} == counts
        assert all(mask.sum() >= 10 for _, mask in one.parts)
        assert np.sum([mask for _, mask in one.parts], axis=0).max() == 1
        border = np.any([mask for _, mask in one.parts], axis=0)
        assert not border[[0, -1]].any() and not border[:, [0, -1]].any()


def test_a_scene_without_a_part_keeps_the_others():
    scene = make_scene(OWL, np.random.default_rng(0))
    left, right = scene.named("ear")
    assert scene.without(left).named("ear") == [right]


def test_perception_finds_the_parts_in_the_annotations(tmp_path: Path):
    from datasets_script.agents.perception.annotations import AnnotationPerception

    renders = render_many(2, 0, "test annotations")
    write_photos(renders, tmp_path / "photos")
    found = AnnotationPerception(tmp_path / "photos" / ANNOTATIONS, tmp_path / "photos").perceive(
        renders[1].picture, file_name(1)
    )
    assert found.caption == renders[1].words.prompt
    (creature,) = found.entities
    assert creature.name == renders[1].words.species
    assert sorted(part.name for part in creature.parts) == sorted(part.name for part, _ in renders[1].parts)
    eyes = [part.mask for part in creature.parts if part.name == "eye"]
    drawn = [mask for part, mask in renders[1].parts if part.name == "eye"]
    assert np.array_equal(np.any(eyes, axis=0), np.any(drawn, axis=0))
    json.loads((tmp_path / "photos" / ANNOTATIONS).read_text())
