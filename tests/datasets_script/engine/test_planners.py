"""The planner of regions: what it may take, and what a photo's plan depends on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from datasets_script.agents.perception import Entity, Part, Perception
from datasets_script.agents.planning import Scene
from datasets_script.engine.planners import RegionPlanner
from datasets_script.engine.settings import CorruptionRunSettings, CorruptionSettings
from datasets_script.schema.pair import Artifact
from datasets_script.schema.perception import UNNAMED
from datasets_script.utils.errors import ArgumentError
from diffusers_artifact.corruption_levels import sigma_of_step


SIZE, PATCH = 128, 8


def mask_of(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def region(number: int, box: tuple[int, int, int, int], name: str = UNNAMED, parts: tuple[Part, ...] = ()) -> Entity:
    return Entity(name, number, box, mask_of(box), 1.0, parts)


BOXES = [(0, 0, 24, 24), (16, 16, 40, 40), (64, 0, 88, 24), (64, 64, 88, 88), (0, 64, 24, 88)]
REGIONS = Perception(tuple(region(number, box) for number, box in enumerate(BOXES)))


def planner(levels: dict[str, Any] | None = None, **settings) -> RegionPlanner:
    return RegionPlanner(CorruptionRunSettings(corruption=CorruptionSettings(**(levels or {})), **settings), PATCH)


def planned(perception: Perception = REGIONS, source_id: str = "a.png", count: int = 1, **settings):
    variants, _ = planner(**settings).variants(Scene.of(perception, PATCH), source_id, count, Counter())
    return variants


def regions_of(variants: dict[int, tuple[Artifact, ...]]) -> list[list[int]]:
    return [[artifact.instance_id for artifact in artifacts] for artifacts in variants.values()]


def test_a_region_becomes_an_artifact_that_borrows_from_no_other_patch():
    (artifacts,) = planned(max_artifacts=1).values()
    (artifact,) = artifacts
    assert (artifact.type, artifact.tool, artifact.kernel) == ("corruption", "corruption", "proposed")
    assert artifact.mapping.targets == artifact.mapping.references and artifact.parameters == {"sigma": 0.7}
    targets = artifact.mapping.target_patches().repeat(PATCH, 0).repeat(PATCH, 1)
    assert not (artifact.part_mask & ~targets).any() and artifact.part_mask.any()


def test_regions_of_an_image_are_disjoint_and_variants_take_new_ones_first():
    variants = planned(count=6)
    for artifacts in variants.values():
        assert np.sum([artifact.mapping.target_patches() for artifact in artifacts], axis=0).max() == 1
    seen = [number for numbers in regions_of(planned(count=4, max_artifacts=1)) for number in numbers]
    assert len(set(seen)) == 4


def test_a_photos_plan_depends_on_itself_and_the_seed_alone_and_grows():
    assert regions_of(planned(count=4)) == regions_of(planned(count=4))
    assert regions_of(planned(count=4))[:2] == regions_of(planned(count=2))
    others = [planned(count=4, seed=1), planned(count=4, source_id="b.png")]
    assert all(regions_of(other) != regions_of(planned(count=4)) for other in others)


def test_photos_take_all_methods_and_levels_and_pairs_of_a_photo_share_theirs():
    levels = {"methods": ("proposed", "rotate"), "sigmas": (0.5, 0.8)}
    found = set()
    for number in range(24):
        variants = planned(source_id=f"{number}.png", count=2, levels=levels)
        ways = {(a.kernel, a.parameters["sigma"]) for artifacts in variants.values() for a in artifacts}
        assert len(ways) == 1
        found |= ways
    assert found == {(method, sigma) for method in levels["methods"] for sigma in levels["sigmas"]}


def test_parts_are_corrupted_and_entities_that_have_none():
    parts = (Part("ear", 7, (0, 0, 24, 24), mask_of((0, 0, 24, 24)), 1.0, 5, "peripheral"),)
    perception = Perception((region(5, (0, 0, 80, 80), "cat", parts), region(6, (96, 96, 120, 120), "dog")))
    made = [a for artifacts in planned(perception, count=4).values() for a in artifacts]
    assert {(a.entity, a.part, a.instance_id) for a in made} == {("cat", "ear", 7), ("dog", "", 6)}


def test_regions_that_are_too_large_or_too_small_are_left_alone_with_a_reason():
    large = Perception((region(0, (0, 0, 96, 96)),))
    variants, reasons = planner().variants(Scene.of(large, PATCH), "a.png", 2, Counter())
    assert not variants and "the smallest takes 56% of the image, over 13%" in reasons["corruption"]
    small = Perception((region(0, (0, 0, 8, 8)), region(1, (16, 16, 40, 40))))
    kept, dropped = planner().usable(small)
    assert [entity.instance_id for entity in kept.entities] == [1]
    assert dropped == [f"{UNNAMED} #0: 0.39% of the image, under 0.781%"]


def test_a_rejected_region_is_replaced_by_one_that_was_not_tried():
    plan, scene = planner(max_artifacts=1), Scene.of(REGIONS, PATCH)
    variants, _ = plan.variants(scene, "a.png", 1, Counter())
    rejected, tried = list(variants[0]), list[Artifact]()
    for attempt in range(len(BOXES) - 1):
        tried += rejected
        rejected = plan.replacements(scene, variants, 0, [], rejected, tried, plan.generator(f"reroll {attempt}"))
        assert len(rejected) == 1 and rejected[0].instance_id not in {artifact.instance_id for artifact in tried}
        assert (rejected[0].kernel, rejected[0].parameters) == (tried[0].kernel, tried[0].parameters)
    tried += rejected
    assert not plan.replacements(scene, variants, 0, [], rejected, tried, plan.generator("last"))


def test_levels_are_those_given_or_those_of_the_model():
    assert CorruptionSettings(steps=(40, 30)).levels("embedded") == [
        ("proposed", sigma_of_step(40)),
        ("proposed", sigma_of_step(30)),
    ]
    published = dict(CorruptionSettings(methods=("proposed", "blur")).levels("lab/model"))
    assert published == {"proposed": sigma_of_step(40), "blur": sigma_of_step(30)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"methods": ("melt",)}, "`methods` must be among proposed, blur, downscale, rotate, gaussian, got 'melt'"),
        ({"methods": ()}, "`methods` must be among"),
        ({"steps": (40,), "sigmas": (0.5,)}, "`step` and `sigma` both set the level, got step 40 and sigma 0.5"),
        ({"steps": (50,)}, "`step` must be a whole number from 0 to 49, got 50"),
        ({"steps": (40.5,)}, "`step` must be a whole number from 0 to 49, got 40.5"),
        ({"sigmas": (1.5,)}, "`sigma` must be above 0 and at most 1, got 1.5"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be at least 1, got 0"),
        ({"solver": "magic"}, "`solver` must be among"),
        ({"confine": "walls"}, "`confine` must be among"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        CorruptionSettings(**options)
