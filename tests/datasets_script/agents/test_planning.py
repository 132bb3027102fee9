"""Planning: which artifacts are chosen for what was perceived."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets_script.agents.perception import Entity, Part, Perception
from datasets_script.agents.planning import Choice, Scene, plan_artifacts


SIDE, PATCH = 256, 16
TOOLS = ("add", "remove", "distort", "fuse")


Box = tuple[int, int, int, int]


def box_mask(x_min: int, y_min: int, x_max: int, y_max: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y_min:y_max, x_min:x_max] = True
    return mask


def entity(name: str, number: int, box: Box, parts: dict[str, tuple]) -> Entity:
    made = tuple(
        Part(part, number + i, where, box_mask(*where), 1.0, number, level)
        for i, (part, (level, where)) in enumerate(parts.items(), start=1)
    )
    return Entity(name, number, box, box_mask(*box), 1.0, made)


@pytest.fixture
def scene() -> Scene:
    cat = entity(
        "cat",
        10,
        (40, 40, 150, 200),
        {"ear": ("peripheral", (40, 40, 72, 72)), "face": ("intermediate", (80, 90, 130, 140))},
    )
    dog = entity("dog", 20, (140, 60, 240, 220), {"tail": ("peripheral", (200, 170, 236, 216))})
    return Scene.of(Perception((cat, dog), "a cat and a dog"), PATCH)


def plan(scene, num_artifacts=3, seed=0, counts=(), **arguments):
    generator = torch.Generator().manual_seed(seed)
    return plan_artifacts(scene, TOOLS, num_artifacts, Counter(counts), generator, **arguments)


@pytest.mark.parametrize("seed", range(12))
def test_artifacts_of_an_image_are_disjoint_and_of_different_types(scene, seed):
    artifacts, _ = plan(scene, seed=seed)
    used = np.zeros(scene.grid, dtype=int)
    for artifact in artifacts:
        used += artifact.mapping.target_patches() | artifact.mapping.reference_patches()
    assert used.max() == 1
    assert len({artifact.type for artifact in artifacts}) == len(artifacts) >= 2


@pytest.mark.parametrize("seed", range(12))
def test_boxes_and_masks_lie_on_the_targets(scene, seed):
    for artifact in plan(scene, seed=seed)[0]:
        targets = artifact.mapping.target_patches().repeat(PATCH, 0).repeat(PATCH, 1)
        assert artifact.mask.any() and not artifact.mask[~targets].any()
        x_min, y_min, x_max, y_max = (int(v) for v in artifact.bbox)
        assert artifact.mask[y_min:y_max, x_min:x_max].sum() == artifact.mask.sum()


def test_same_seed_same_plan(scene):
    first, second = plan(scene, seed=3)[0], plan(scene, seed=3)[0]
    assert [a.mapping for a in first] == [a.mapping for a in second]


def test_rarer_types_come_first(scene):
    for kind in ("duplication", "omission", "distortion", "fusion"):
        others = {"duplication": 5, "omission": 5, "distortion": 5, "fusion": 5, kind: 0}
        assert plan(scene, 1, counts=others)[0][0].type == kind


def test_levels_decide_what_a_tool_may_use(scene):
    for seed in range(8):
        for artifact in plan(scene, seed=seed)[0]:
            allowed = {"add": {"ear", "tail"}, "remove": {"ear", "tail"}, "distort": {"face"}, "fuse": {""}}
            assert artifact.part in allowed[artifact.tool]


def test_what_an_entity_looks_whole_without_is_not_removed(scene):
    cat, dog = scene.perception.entities
    cat = replace(cat, parts=tuple(replace(part, optional=part.name == "ear") for part in cat.parts))
    scene = Scene.of(Perception((cat, dog)), PATCH)
    planned = [(artifact.tool, artifact.part) for seed in range(12) for artifact in plan(scene, seed=seed)[0]]
    assert ("remove", "tail") in planned and ("add", "ear") in planned
    assert ("remove", "ear") not in planned


def test_large_artifacts_are_refused_with_the_reason(scene):
    artifacts, reasons = plan(scene, max_target_share=0.02)
    assert all(artifact.mapping.target_patches().mean() <= 0.02 for artifact in artifacts)
    assert "of the image, over 2%" in reasons["fuse"]


def test_what_other_variants_have_is_avoided(scene):
    everything = frozenset(Choice(tool, number) for tool in TOOLS for number in (10, 11, 12, 20, 21))
    artifacts, reasons = plan(scene, avoid=everything)
    assert not artifacts and set(reasons) == set(TOOLS)


def test_another_kernel_of_what_was_tried_is_allowed(scene):
    tried = frozenset({Choice("distort", 12, "shuffle"), Choice("distort", 12, "jitter")})
    for seed in range(4):
        (artifact,), _ = plan_artifacts(
            scene, ("distort",), 1, Counter(), torch.Generator().manual_seed(seed), avoid=tried
        )
        assert (artifact.kernel, artifact.instance_id, artifact.parameters) == ("strip", 12, {})


def test_occupied_patches_are_left_alone(scene):
    occupied = np.zeros(scene.grid, dtype=bool)
    (first,), _ = plan_artifacts(scene, ("add",), 1, Counter(), torch.Generator().manual_seed(0))
    occupied |= first.mapping.target_patches()
    (second,), _ = plan_artifacts(scene, ("add",), 1, Counter(), torch.Generator().manual_seed(0), occupied=occupied)
    assert not (second.mapping.target_patches() & occupied).any()
    assert not np.array_equal(first.mapping.target_patches(), second.mapping.target_patches())


def test_other_instances_of_a_part_are_known(scene):
    cat, dog = scene.perception.entities
    second = replace(dog, parts=(replace(dog.parts[0], name="ear"),))
    two_ears = Scene.of(Perception((cat, second)), PATCH)
    assert np.array_equal(two_ears.same_parts(cat.parts[0]), two_ears.patches[dog.parts[0].instance_id])
