"""Repair of regions: masks, windows, exact compositing, and inpainters of every class that can be built offline."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusers_artifact import ArtifactInjectionPipeline, DenoisingInpainter, RegionRepairer, StockInpainter
from diffusers_artifact.repair import find_inpainter
from diffusers_artifact.repair_inpainting import RECIPES, as_inpainting, find_recipe
from diffusers_artifact.repair_regions import box_of, composite, grown_to_cells, smooth_fill, window_around
from diffusers_artifact.repair_sources import covered

from ..helpers.tiny_inpainters import (
    tiny_flux_controlnet,
    tiny_flux_fill,
    tiny_flux_kontext,
    tiny_qwen_controlnet,
    tiny_z_image,
)
from ..helpers.tiny_pipelines import (
    tiny_chroma,
    tiny_flux,
    tiny_flux2,
    tiny_flux2_klein,
    tiny_qwen_image,
    tiny_sd,
    tiny_sd3,
    tiny_sdxl,
)


def photo(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def marked(image: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((image.height, image.width), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def assert_outside_is_exact(before: Image.Image, after: Image.Image, inside: np.ndarray) -> None:
    assert after.size == before.size and after.mode == "RGB"
    assert (np.asarray(after)[~inside] == np.asarray(before)[~inside]).all()


def test_a_thin_line_becomes_whole_cells():
    mask = np.zeros((64, 64), dtype=bool)
    mask[61:64, 10:30] = True
    grown = grown_to_cells(mask, 8)
    assert grown[56:].any(axis=1).all() and not grown[:56].any()
    assert grown[60, 8:32].all() and grown.sum() == 8 * 24


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 17), st.integers(0, 9), st.integers(0, 2**30))
@settings(max_examples=40, deadline=None)
def test_growing_covers_the_mask_and_its_margin(height, width, cell, margin, seed):
    mask = np.random.default_rng(seed).random((height, width)) > 0.98
    grown = grown_to_cells(mask, cell, margin)
    assert grown.shape == mask.shape
    for row, column in np.argwhere(mask):
        above, left = max(0, row - margin), max(0, column - margin)
        assert grown[above : row + margin + 1, left : column + margin + 1].all()
    assert grown.any() == mask.any()


@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 2**30))
@settings(max_examples=60, deadline=None)
def test_windows_hold_the_region_and_fit_the_model(width, height, seed):
    rng = np.random.default_rng(seed)
    left, top = int(rng.integers(width)), int(rng.integers(height))
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + int(rng.integers(1, height)), left : left + int(rng.integers(1, width))] = True
    window = window_around(mask, side=256, multiple=16)
    x0, y0, x1, y1 = box_of(mask)
    assert 0 <= window.box[0] <= x0 and 0 <= window.box[1] <= y0
    assert x1 <= window.box[2] <= width and y1 <= window.box[3] <= height
    assert all(side % 16 == 0 and 0 < side <= 256 + 8 for side in window.size)
    image = photo(width, height)
    assert window.cut(image).size == window.size and window.cut_mask(mask).any()
    assert window.paste(window.cut(image), image).size == image.size


def test_small_regions_are_enlarged_and_large_ones_see_the_whole_image():
    mask = marked(photo(256, 256), (100, 100, 120, 120))
    assert window_around(mask, 256, 16).box == (78, 78, 142, 142)
    assert window_around(marked(photo(256, 192), (20, 20, 200, 180)), 256, 16).box == (0, 0, 256, 192)


def test_a_model_of_whole_scenes_sees_the_whole_image():
    seen = []

    class Painter:
        side, multiple, cell, takes_prompts, evaluations = 128, 16, 16, False, 0.0

        def __call__(self, image, mask, prompt, strength, seeds):
            seen.append((image.size, prompt))
            return [Image.new("RGB", image.size) for _ in seeds]

        def identity(self):
            return {}

    image = photo(128, 96)
    for crops in (False, True):
        done = RegionRepairer(Painter(), crops=crops)(image, marked(image, (8, 8, 16, 16)), "a fox")
        assert_outside_is_exact(image, done.images[0], done.mask)
    assert seen == [((128, 96), ""), ((128, 128), "")]


def test_compositing_is_exact_outside_and_whole_in_the_middle():
    before, after = photo(seed=1), photo(seed=2)
    inside = marked(before, (16, 8, 56, 40))
    mixed = composite(before, after, inside, fade=4)
    assert_outside_is_exact(before, mixed, inside)
    assert (np.asarray(mixed)[12:36, 20:52] == np.asarray(after)[12:36, 20:52]).all()
    everything = np.ones((64, 64), dtype=bool)
    assert np.asarray(composite(before, after, everything)).tolist() == np.asarray(after).tolist()


def test_smooth_fill_keeps_what_is_known_and_stays_between():
    values = np.random.default_rng(0).random((37, 53, 3)).astype(np.float32)
    known = ~marked(Image.new("RGB", (53, 37)), (10, 5, 40, 30))
    filled = smooth_fill(values, known)
    assert np.allclose(filled[known], values[known])
    assert filled[~known].min() >= values.min() - 1e-5 and filled[~known].max() <= values.max() + 1e-5
    level = smooth_fill(np.where(known[..., None], np.float32(0.25), 9), known)
    assert np.allclose(level, 0.25, atol=1e-5)


def test_a_region_is_covered_from_where_it_fits():
    """On stripes, the only places whose surroundings fit are whole periods away, and cover it without a trace."""
    columns = np.arange(128) // 8 % 4
    pixels = np.repeat(np.repeat((columns * 60)[None, :, None], 128, 0), 3, 2).astype(np.uint8)
    image, region = Image.fromarray(pixels), np.zeros((16, 16), dtype=bool)
    region[6:9, 6:9] = True
    spoilt = pixels.copy()
    spoilt[48:72, 48:72] = (255, 0, 0)
    for repaired in covered(Image.fromarray(spoilt), region, [1, 2, 3]):
        assert np.abs(np.asarray(repaired, int) - pixels).max() <= 1
    assert covered(image, ~region, [1])[0].size == image.size  # no other place: filled smoothly


FLOWS = {
    "FLUX.1": tiny_flux,
    "SD3.5": tiny_sd3,
    "Qwen-Image": tiny_qwen_image,
    "FLUX.2": tiny_flux2,
}


@pytest.mark.parametrize("name", FLOWS)
def test_re_denoising_repairs_with_any_flow_model(name):
    stock = FLOWS[name]()
    pipe = ArtifactInjectionPipeline(**stock.components)
    pipe.set_progress_bar_config(disable=True)
    inpainter = DenoisingInpainter(pipe, num_inference_steps=2, solver="euler", guidance_scale=1)
    inpainter.side = 64
    assert inpainter.source == "region" and inpainter.takes_prompts
    image = photo(75, 61)
    mask = marked(image, (20, 15, 45, 40))
    done = RegionRepairer(inpainter)(image, mask, "a red fox", strength=1.0, seeds=[1, 2])
    assert done.mask[mask].all() and not done.mask.all()
    for repaired in done.images:
        assert_outside_is_exact(image, repaired, done.mask)
        assert (np.asarray(repaired) != np.asarray(image))[mask].any()
    assert (np.asarray(done.images[0]) != np.asarray(done.images[1])).any()
    assert inpainter.evaluations > 0


@pytest.fixture(scope="module")
def flux() -> ArtifactInjectionPipeline:
    pipe = ArtifactInjectionPipeline(**tiny_flux().components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("compute", ["target", "full"])
def test_a_batch_of_seeds_equals_one_by_one(flux, compute):
    inpainter = DenoisingInpainter(flux, num_inference_steps=2, guidance_scale=1, compute=compute)
    image = photo()
    mask = grown_to_cells(marked(image, (16, 16, 48, 48)), 16)
    both = inpainter(image, mask, "a fox", 0.7, [3, 4])
    for seed, repaired in zip([3, 4], both, strict=True):
        alone = inpainter(image, mask, "a fox", 0.7, [seed])[0]
        assert np.abs(np.asarray(repaired, int) - np.asarray(alone, int)).max() <= 1


def test_what_is_not_kept_does_not_matter(flux):
    """At full strength, the result does not depend on what was in the region."""
    inpainter = DenoisingInpainter(flux, num_inference_steps=2, guidance_scale=1)
    one = photo()
    mask = marked(one, (16, 16, 48, 48))
    other = Image.fromarray(np.where(mask[..., None], 200, np.asarray(one)).astype(np.uint8))
    results = [np.asarray(inpainter(image, mask, "", 1.0, [0])[0]) for image in (one, other)]
    assert (results[0][mask] == results[1][mask]).all()
    gentle = [np.asarray(inpainter(image, mask, "", 0.5, [0])[0]) for image in (one, other)]
    assert (gentle[0][mask] != gentle[1][mask]).any()


STOCK = {
    "FluxInpaintPipeline": tiny_flux,
    "FluxFillPipeline": tiny_flux_fill,
    "FluxControlNetInpaintPipeline": tiny_flux_controlnet,
    "FluxKontextInpaintPipeline": tiny_flux_kontext,
    "Flux2KleinInpaintPipeline": tiny_flux2_klein,
    "StableDiffusion3InpaintPipeline": tiny_sd3,
    "StableDiffusionXLInpaintPipeline": tiny_sdxl,
    "StableDiffusionInpaintPipeline": tiny_sd,
    "QwenImageInpaintPipeline": tiny_qwen_image,
    "QwenImageControlNetInpaintPipeline": tiny_qwen_controlnet,
    "ZImageInpaintPipeline": tiny_z_image,
    "ChromaInpaintPipeline": tiny_chroma,
}


@pytest.mark.parametrize("name", STOCK)
def test_every_class_inpaints_at_the_images_size(name):
    pipe = STOCK[name]()
    pipe.set_progress_bar_config(disable=True)
    inpainter = find_inpainter(pipe, num_inference_steps=2)
    assert isinstance(inpainter, StockInpainter) and type(inpainter.pipeline).__name__ == name
    assert all(inpainter.pipeline.components[part] is pipe.components[part] for part in ("vae", "scheduler"))
    inpainter.side = 64
    image = photo(70, 49)
    mask = marked(image, (24, 12, 44, 34))
    done = RegionRepairer(inpainter)(image, mask, "a red fox", strength=0.9, seeds=[5])
    assert_outside_is_exact(image, done.images[0], done.mask)
    assert (np.asarray(done.images[0]) != np.asarray(image))[mask].any()
    assert inpainter.evaluations >= 1


def test_each_class_has_one_recipe():
    made_from = [name for recipe in RECIPES.values() for name in recipe.made_from]
    assert len(made_from) == len(set(made_from)) and not set(made_from) & set(RECIPES)
    assert find_recipe(tiny_flux2()) is None


def test_an_inpainting_pipeline_is_taken_as_it_is():
    fill = tiny_flux_fill()
    assert as_inpainting(fill, RECIPES["FluxFillPipeline"]) is fill


def test_wrong_arguments_are_told(flux):
    with pytest.raises(ValueError, match="`pipeline` must be of a class that inpaints, .* got Flux2Pipeline"):
        StockInpainter(tiny_flux2())
    with pytest.raises(ValueError, match="`source` must be one of"):
        DenoisingInpainter(flux, source="sky")  # type: ignore[arg-type]
    repair = RegionRepairer(DenoisingInpainter(flux))
    image = photo()
    with pytest.raises(ValueError, match="`mask` must be a bool array of shape"):
        repair(image, np.zeros((4, 4), dtype=bool))
    with pytest.raises(ValueError, match="`mask` must mark at least one pixel"):
        repair(image, np.zeros((64, 64), dtype=bool))
    mask = marked(image, (8, 8, 24, 24))
    with pytest.raises(ValueError, match="`strength` must be above 0 and at most 1, got 0"):
        repair(image, mask, strength=0)
    with pytest.raises(ValueError, match="`seeds` must hold at least one seed"):
        repair(image, mask, seeds=[])
