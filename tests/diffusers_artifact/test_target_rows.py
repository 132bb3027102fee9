"""Computing the target only equals a full computation whose background is overwritten after every block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.target_rows import TargetRows

from ..helpers.tiny_pipelines import tiny_chroma, tiny_flux, tiny_flux2, tiny_flux2_klein, tiny_qwen_image, tiny_sd3


GRID = (6, 7)
NUM_TOKENS = GRID[0] * GRID[1]
STEPS = 4
EYE = PatchMapping((8, 9), (31, 32), GRID, ("duplication",) * 2)
HAND = PatchMapping((26, 27, 33, 34, 40), (1, 2, 8, 9, 1), GRID, ("omission",) * 5)
TWO = PatchMapping((0, 41), (20, 20), GRID, ("omission", "duplication"))
EMPTY = PatchMapping.empty(GRID)
MAPPINGS = [[EYE, HAND], [TWO]]
OF_VARIANT = {2: (0, EYE), 3: (0, HAND), 4: (1, TWO)}
"""By row of the whole batch: the row of its clean image, and its mapping."""

FAMILIES = {
    "flux": tiny_flux,
    "flux_schnell": lambda: tiny_flux(guidance=False),
    "flux2": tiny_flux2,
    "flux2_klein": tiny_flux2_klein,
    "chroma": tiny_chroma,
    "sd3": lambda: tiny_sd3(dual_attention=False),
    "sd3.5": tiny_sd3,
    "qwen": tiny_qwen_image,
    "qwen_zero_cond": lambda: tiny_qwen_image(zero_cond_t=True),
}
PLAIN: dict[str, Any] = {
    "num_inference_steps": STEPS,
    "max_sequence_length": 12,
    "output_type": "latent",
    "allow_distilled": True,
}


@pytest.fixture(scope="module", params=FAMILIES)
def pipe(request: pytest.FixtureRequest) -> ArtifactInjectionPipeline:
    return pipeline(FAMILIES[request.param]())


@pytest.fixture(scope="module")
def flux() -> ArtifactInjectionPipeline:
    return pipeline(tiny_flux())


def pipeline(stock: Any) -> ArtifactInjectionPipeline:
    pipe = ArtifactInjectionPipeline(**{name: part for name, part in stock.components.items() if part is not None})
    for parameter in pipe.transformer.parameters():
        parameter.data *= 1.5  # so that tokens depend more on each other
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return torch.rand(2, 3, GRID[0] * 16, GRID[1] * 16, generator=torch.Generator().manual_seed(0))


def guided(pipe: ArtifactInjectionPipeline) -> dict[str, Any]:
    """Return one guidance scale for clean and artifact images, of the kind that the family has."""
    scale = 1.0 if pipe.family.guidance_kind == "none" else 2.5
    settings: dict[str, Any] = {"guidance_scale": scale, "inversion_guidance_scale": scale}
    return settings | ({"negative_prompt": "a blur"} if pipe.family.guidance_kind == "true" else {})


def dilated(mapping: PatchMapping) -> np.ndarray:
    return binary_dilation(mapping.target_patches(), np.ones((3, 3), bool)).reshape(-1)


@contextmanager
def background_overwritten(pipe: ArtifactInjectionPipeline) -> Iterator[list[int]]:
    """Give text and background of every artifact row what the clean row has, after every block; yield the calls."""
    calls: list[int] = []

    def overwrite(states: torch.Tensor, text_length: int) -> torch.Tensor:
        calls.append(len(states))
        states = states.clone()
        for row, (clean, mapping) in OF_VARIANT.items():
            of_clean = torch.cat([torch.ones(text_length, dtype=torch.bool), torch.from_numpy(~dilated(mapping))])
            of_clean = of_clean[: states.shape[1]]
            states[row, of_clean] = states[clean, of_clean]
        return states

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        parts = output if isinstance(output, tuple) else (output,)
        if len(parts[-1]) != 5:  # the inversion has two rows
            return output
        if isinstance(output, tuple):
            text, image = output  # SD3's last block has no text left
            return None if text is None else overwrite(text, text.shape[1]), overwrite(image, 0)
        return overwrite(output, output.shape[1] - NUM_TOKENS)

    blocks = [block for name in pipe.family.block_lists for block in getattr(pipe.transformer, name)]
    handles = [block.register_forward_hook(hook) for block in blocks]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def test_rows_of_targets_hold_the_variants_of_a_photo_one_after_the_other():
    """EYE and HAND are dilated to 12 tokens, TWO to 4 at each of two corners; 8 is the multiple."""
    rows = TargetRows([EYE, EMPTY, HAND, TWO], [0, 0, 0, 1], 2, 8)
    own = {index: dilated(mapping).nonzero()[0].tolist() for index, mapping in ((0, EYE), (2, HAND), (3, TWO))}
    assert tuple(rows.tokens.shape) == (2, 24) and len(rows) == 3 and rows.sources.tolist() == [0, 0, 1]
    assert rows.tokens[0].tolist() == own[0] + own[2]
    assert rows.tokens[1].tolist() == own[3] + own[3][-1:] * 16
    numbers = 100 * torch.arange(6)[:, None] + torch.arange(NUM_TOKENS)  # rows 0 and 1 are the clean ones
    clean, targets = rows.split(numbers[..., None])
    assert torch.equal(clean[..., 0], numbers[:2])
    places = targets.flatten(0, 1)[rows.places][..., 0]
    for variant, of_variant in zip((0, 2, 3), places, strict=True):
        assert of_variant[: len(own[variant])].tolist() == [100 * (2 + variant) + token for token in own[variant]]
    assert torch.equal(places.flatten()[rows.origins], targets[..., 0])
    joined = rows.join(clean, targets)[..., 0]
    for variant, image in enumerate((0, 0, 0, 1)):
        inside = torch.zeros(NUM_TOKENS, dtype=torch.bool)
        inside[own.get(variant, [])] = True
        assert torch.equal(joined[2 + variant], torch.where(inside, numbers[2 + variant], numbers[image]))


@pytest.mark.parametrize(
    "settings",
    [{}, {"transfer_noise": True, "solver": "midpoint", "value_steps": 4}, {"position_steps": 0, "solver": "euler"}],
    ids=["defaults", "strong", "values only"],
)
def test_it_equals_a_full_computation_with_the_background_overwritten_after_every_block(pipe, photos, settings):
    arguments = PLAIN | settings | guided(pipe) | {"prompt": ["a cat", "a black dog"]}
    if settings:
        arguments["value_blocks"] = range(pipe.family.num_blocks)
    with background_overwritten(pipe) as calls:
        expected = pipe(photos, MAPPINGS, **arguments, compute="full", hold_background=True, confine="latent")
    assert calls
    reacting = pipe(photos, MAPPINGS, **arguments, compute="full", hold_background=True, confine="latent")
    output = pipe(photos, MAPPINGS, **arguments)
    torch.testing.assert_close(output.reconstructions, expected.reconstructions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.images, expected.images, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(reacting.images, expected.images, rtol=1e-4, atol=1e-5)
    for image, (clean, mapping) in zip(output.images, OF_VARIANT.values(), strict=True):
        change = (image - output.reconstructions[clean]).abs().amax(0)
        by_token = torch.nn.functional.max_pool2d(change[None], 2)[0].flatten()
        assert not by_token[torch.from_numpy(~dilated(mapping))].any()
        assert by_token[list(mapping.targets)].min() > 0


def test_callbacks_see_whole_rows_and_may_replace_targets(flux, photos):
    shapes = []

    def targets_to_zero(pipe: Any, index: int, timestep: torch.Tensor, given: dict[str, Any]) -> dict[str, Any]:
        shapes.append(tuple(given["latents"].shape))
        factors = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])[: len(given["latents"]), None, None]
        return {"latents": given["latents"] * factors}

    output = flux(photos, MAPPINGS, **PLAIN, callback_on_step_end=targets_to_zero)
    assert shapes == [(2, NUM_TOKENS, 64)] * 5 + [(5, NUM_TOKENS, 64)] * 5
    tokens = flux.family.pack(output.images)
    inside = torch.from_numpy(dilated(EYE))
    assert not tokens[0, inside].any()
    assert torch.equal(tokens[0, ~inside], flux.family.pack(output.reconstructions)[0, ~inside])
    assert torch.equal(output.images[1:], flux(photos, MAPPINGS, **PLAIN).images[1:])


@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni_inv"])
def test_a_variant_without_targets_is_its_clean_image_and_costs_nothing(flux, photos, solver):
    mappings = [[EMPTY, EYE], [EMPTY], []]
    photos = torch.cat([photos, photos[:1]])
    settings = PLAIN | {"solver": solver, "output_type": "pt"}
    output = flux(photos, mappings, **settings)
    assert torch.equal(output.images[0], output.reconstructions[0])
    assert torch.equal(output.images[2], output.reconstructions[1])
    alone = flux(photos[:1], EYE, **settings)
    torch.testing.assert_close(output.images[1], alone.images[0], rtol=1e-3, atol=1e-4)
    nothing = flux(photos, [[EMPTY]] * 3, **settings)
    assert torch.equal(nothing.images, output.reconstructions)
    assert nothing.token_evaluations == nothing.num_function_evaluations == 3 * flux.num_timesteps
    assert nothing.token_evaluations < output.token_evaluations < alone.token_evaluations + 2 * flux.num_timesteps + 1


@pytest.mark.parametrize("build", [tiny_flux, tiny_sd3, tiny_qwen_image])
def test_pixels_far_from_the_target_equal_the_clean_image_and_near_ones_the_decoded_latents(build):
    """The autoencoder's normalisation and attention over the whole image move far pixels too."""
    pipe, grid = pipeline(build()), (8, 9)
    photo = torch.rand(1, 3, 128, 144, generator=torch.Generator().manual_seed(0))
    mapping = PatchMapping((0, 1), (31, 32), grid)
    output: Any = pipe(photo, mapping, **PLAIN | {"output_type": "pt"})
    latents: Any = pipe(photo, mapping, **PLAIN)
    decoded = (pipe.family.decode_latents(latents.images.to(pipe.vae.dtype)) / 2 + 0.5).detach().clamp(0, 1)
    # The dilated target is two rows and three columns; a patch and a half farther all is the clean image's.
    far = torch.ones(128, 144, dtype=torch.bool)
    far[: 2 * 16 + 24, : 3 * 16 + 24] = False
    assert torch.equal(output.images[..., far], output.reconstructions[..., far])
    torch.testing.assert_close(output.images[..., :32, :48], decoded[..., :32, :48], rtol=1e-3, atol=1e-4)
    assert not torch.equal(decoded[..., far], output.reconstructions[..., far])
