"""`map_region`: patch mappings for the pipeline from a box or a mask."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline, PatchMapping, map_region
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL, add, from_region


SIZE = (256, 192)  # 16 x 12 patches
EYE = (96, 64, 128, 96)  # 2 x 2 patches
FACE = (64, 32, 192, 160)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patches(x_min: int, y_min: int, x_max: int, y_max: int) -> np.ndarray:
    marked = np.zeros((12, 16), dtype=bool)
    marked[y_min:y_max, x_min:x_max] = True
    return marked


def test_the_patches_of_a_box_are_those_it_touches():
    mapping = map_region(SIZE, box=(96, 64, 128, 97.5), tool="distort", generator=seeded())
    assert mapping.grid == (12, 16) and np.array_equal(mapping.target_patches(), patches(6, 4, 8, 7))


@pytest.mark.parametrize("tool", ["add", "remove", "distort"])
def test_a_tool_is_given_the_region_and_the_object_that_holds_it(tool):
    made = map_region(Image.new("RGB", SIZE), box=EYE, within=FACE, tool=tool, generator=seeded())
    assert set(made.types) == {ARTIFACT_TYPE_OF_TOOL[tool]}
    mine = made.reference_patches() if tool == "add" else made.target_patches()
    assert np.array_equal(mine, patches(6, 4, 8, 6))


def test_add_is_the_tool_of_patch_sets():
    expected = add(patches(6, 4, 8, 6), patches(4, 2, 12, 10), generator=seeded(3))
    assert map_region(SIZE, box=EYE, within=FACE, generator=seeded(3)) == expected
    assert map_region(SIZE, box=EYE, within=FACE, generator=seeded(3)) == expected, "the same seed, the same patches"


def test_nothing_but_the_region_needs_to_be_known():
    made = map_region(SIZE, box=EYE)
    assert isinstance(made, PatchMapping) and len(made)


@pytest.mark.parametrize("as_image", [False, True])
def test_a_mask_is_a_box_of_any_shape(as_image):
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[64:96, 96:128] = True
    region = Image.fromarray(mask) if as_image else mask
    assert map_region(SIZE, mask=region, tool="remove", generator=seeded()) == map_region(
        SIZE, box=EYE, tool="remove", generator=seeded()
    )


def test_fuse_takes_two_regions_that_overlap():
    one, two = (16, 16, 128, 160), (112, 16, 224, 160)
    made = map_region(SIZE, box=one, other=two, tool="fuse", generator=seeded())
    seam = patches(7, 1, 8, 10)
    assert set(made.types) == {"fusion"} and made.target_patches()[seam].all()
    wide = map_region(SIZE, box=one, other=two, tool="fuse", band_radius=2, generator=seeded())
    assert len(wide) > len(made)


def test_options_reach_the_tool():
    strips = map_region(SIZE, box=FACE, tool="distort", kernel="strip", generator=seeded())
    shuffled = map_region(SIZE, box=FACE, tool="distort", generator=seeded())
    assert strips != shuffled
    with pytest.raises(TypeError, match="kernel"):
        map_region(SIZE, box=EYE, tool="add", kernel="strip")


def test_several_artifacts_of_an_image_keep_to_patches_of_their_own():
    first = map_region(SIZE, box=EYE, within=FACE, generator=seeded())
    second = map_region(SIZE, box=(80, 128, 112, 160), within=FACE, occupied=[first], generator=seeded())
    assert len(PatchMapping.union([first, second])) == len(first) + len(second)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"box": EYE, "tool": "melt"}, "`tool` must be one of add, remove, distort, fuse, got 'melt'"),
        ({}, "`box` or `mask` must be given, and not both, got neither"),
        (
            {"box": EYE, "mask": np.ones(SIZE[::-1], dtype=bool)},
            "`box` or `mask` must be given, and not both, got both",
        ),
        ({"box": (96, 64, 104, 72)}, "`box` must cover at least a patch, 16x16 pixels, got 64 pixels"),
        ({"box": (96, 64, 300, 96)}, "`box` must be .* within the image of 256x192 pixels"),
        ({"box": (96, 64, 96, 96)}, "`box` must be .* within the image"),
        ({"box": (96, 64)}, "`box` must be \\(x_min, y_min, x_max, y_max\\), got \\(96, 64\\)"),
        ({"mask": np.ones((8, 8), dtype=bool)}, "`mask` must have the image's shape \\(192, 256\\), got \\(8, 8\\)"),
        ({"mask": np.zeros(SIZE[::-1], dtype=bool)}, "`mask` must cover at least a patch"),
        ({"box": EYE, "tool": "fuse"}, "`other` must be given for fuse, and for no other tool, got none for fuse"),
        ({"box": EYE, "other": FACE}, "`other` must be given for fuse, and for no other tool, got one for add"),
        ({"box": EYE, "within": (0, 0, 4, 4)}, "`within` must cover at least a patch"),
        ({"box": (0, 0, *SIZE)}, "`tool` must find room for this region, got 'add': no free place"),
        ({"box": (0, 0, *SIZE), "tool": "remove"}, "`tool` must find room .* got 'remove': no free patch within 2"),
        ({"box": (0, 0, 64, 64), "other": (128, 0, 192, 64), "tool": "fuse"}, "share 0 patches, fewer than 6"),
    ],
)
def test_mistakes_name_the_argument_and_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        map_region(SIZE, **arguments)


def test_an_image_off_the_grid_is_told_the_size_it_could_have():
    with pytest.raises(ValueError, match="multiples of 16, got 250x192; crop or resize it to 240x192 first"):
        map_region(Image.new("RGB", (250, 192)), box=EYE)


def test_the_pipeline_takes_the_mapping_and_changes_the_target_more():
    pipe = ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL)
    pipe.set_progress_bar_config(disable=True)
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC)
    mapping = map_region(photo, box=EYE, tool="distort", patch_size=pipe.patch_size, generator=seeded())
    output = pipe(photo, mapping, num_inference_steps=2)
    change = np.abs(np.asarray(output.images[0], dtype=float) - np.asarray(output.reconstructions[0])).mean(-1)
    inside = np.kron(mapping.target_patches(), np.ones((8, 8), dtype=bool))
    assert change[inside].mean() > 2 * change[~inside].mean()


def test_the_example_runs():
    assert doctest.testmod(from_region).failed == 0
