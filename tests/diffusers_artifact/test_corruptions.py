"""The five corruptions as functions of latents, and the levels that they are applied at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from diffusers_artifact.choices import CORRUPTION_NAMES
from diffusers_artifact.corruption_levels import CORRUPTION_PRESETS, sigma_of_step
from diffusers_artifact.corruptions import CORRUPTIONS, NoiseLevel


SHAPE = (3, 12, 17)
LEVEL = NoiseLevel(0.885, 0.466)
RANDOM = ("proposed", "gaussian")


@pytest.fixture
def latents() -> tuple[torch.Tensor, torch.Tensor]:
    """Return an inverted and a clean latent."""
    generator = torch.Generator().manual_seed(0)
    inverted, clean = torch.randn(2, *SHAPE, generator=generator)
    return inverted, clean


def rectangle(top: int, left: int, height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(SHAPE[1:], dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def scattered() -> torch.Tensor:
    return torch.rand(SHAPE[1:], generator=torch.Generator().manual_seed(1)) < 0.3


MASKS = {
    "square": rectangle(2, 3, 4, 4),
    "wide": rectangle(5, 1, 2, 13),
    "line": rectangle(0, 8, 12, 1),
    "corner": rectangle(10, 14, 2, 3),
    "scattered": scattered(),
    "everything": rectangle(0, 0, 12, 17),
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def test_corruptions_are_listed_where_they_are_named():
    assert tuple(CORRUPTIONS) == CORRUPTION_NAMES


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_the_mask_changes(latents, name, mask):
    inverted, clean = latents
    before = inverted.clone()
    corrupted = CORRUPTIONS[name](inverted, clean, mask, LEVEL, seeded())
    assert torch.equal(inverted, before), "the argument is left as it was"
    assert torch.equal(corrupted[:, ~mask], inverted[:, ~mask])
    assert (corrupted[:, mask] != inverted[:, mask]).float().mean() > 0.8, "all but the centre of a turn changes"
    assert corrupted.isfinite().all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_depends_on_its_generator_alone(latents, name):
    inverted, clean = latents
    first, again, other = (
        CORRUPTIONS[name](inverted, clean, MASKS["scattered"], LEVEL, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in RANDOM)


def test_proposed_is_the_clean_latent_at_the_level(latents):
    """Menn et al., eq. 4: what is left after taking the clean latent away is noise of the level's amplitude."""
    inverted, _ = latents
    clean = torch.randn(8, 64, 64, generator=seeded())
    mask = torch.ones(64, 64, dtype=torch.bool)
    corrupted = CORRUPTIONS["proposed"](clean, clean, mask, LEVEL, torch.Generator().manual_seed(3))
    noise = (corrupted - LEVEL.signal * clean) / LEVEL.noise
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert abs((noise * clean).mean()) < 0.02
    assert torch.equal(CORRUPTIONS["proposed"](inverted, inverted, ~scattered(), NoiseLevel(1, 0), None), inverted)


def test_gaussian_has_variance_1_at_any_level():
    inverted = torch.full((8, 64, 64), 5.0)
    mask = torch.ones(64, 64, dtype=torch.bool)
    corrupted = CORRUPTIONS["gaussian"](inverted, inverted, mask, LEVEL, seeded())
    assert abs(corrupted.mean()) < 0.02 and abs(corrupted.std() - 1) < 0.02


def test_rotation_of_a_square_is_a_quarter_turn(latents):
    inverted, clean = latents
    corrupted = CORRUPTIONS["rotate"](inverted, clean, MASKS["square"], LEVEL)
    box = (slice(None), slice(2, 6), slice(3, 7))
    assert torch.equal(corrupted[box], torch.rot90(inverted[box], dims=(1, 2)))


def test_rotation_of_a_rectangle_takes_in_what_a_quarter_turn_brings(latents):
    """A 2×4 box turns about its centre: its pixels come from the 4×2 box with the same centre."""
    inverted, clean = latents
    corrupted = CORRUPTIONS["rotate"](inverted, clean, rectangle(4, 5, 2, 4), LEVEL)
    source = inverted[:, 3:7, 6:8]
    assert torch.equal(corrupted[:, 4:6, 5:9], torch.rot90(source, dims=(1, 2)))


def test_rotation_mirrors_what_lies_beyond_the_latent(latents):
    """The quarter turn of a line of 17 latent pixels needs rows from -8 to 8 around the first one."""
    inverted, clean = latents
    corrupted = CORRUPTIONS["rotate"](inverted, clean, rectangle(0, 0, 1, 17), LEVEL)
    expected = inverted[:, [abs(row) for row in range(-8, 9)], 8]
    assert torch.equal(corrupted[:, 0], expected)


def test_downscaled_cells_are_flat_and_keep_their_mean(latents):
    inverted, clean = latents
    corrupted = CORRUPTIONS["downscale"](inverted, clean, rectangle(2, 1, 8, 16), LEVEL)
    for left in (1, 9):
        cell = (slice(None), slice(2, 10), slice(left, left + 8))
        mean = inverted[cell].mean((1, 2))
        torch.testing.assert_close(corrupted[cell], mean[:, None, None].expand(-1, 8, 8))


def test_blur_keeps_what_is_flat_and_flattens_noise(latents):
    inverted, clean = latents
    mask = MASKS["everything"]
    flat = torch.full(SHAPE, 0.7)
    torch.testing.assert_close(CORRUPTIONS["blur"](flat, clean, mask, LEVEL), flat)
    blurred = CORRUPTIONS["blur"](inverted, clean, mask, LEVEL)
    assert blurred.std() < 0.3 * inverted.std()
    tiny = torch.randn(3, 1, 2)
    assert CORRUPTIONS["blur"](tiny, tiny, torch.ones(1, 2, dtype=torch.bool), LEVEL).shape == tiny.shape


@pytest.mark.parametrize(
    ("step", "noise", "sigma"), [(45, 0.288, 0.231), (40, 0.466, 0.345), (35, 0.615, 0.438), (30, 0.738, 0.522)]
)
def test_a_step_has_the_noise_of_the_stock_scheduler(step, noise, sigma):
    """Menn et al., §5.3: steps of DDIM with 50 steps, as the stock scheduler of Stable Diffusion 1.5 counts them."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False
    )
    scheduler.set_timesteps(50)
    alpha = float(scheduler.alphas_cumprod[scheduler.timesteps[step]])
    level = NoiseLevel(alpha**0.5, (1 - alpha) ** 0.5)
    assert level.noise == pytest.approx(noise, abs=5e-4)
    assert sigma_of_step(step) == pytest.approx(level.sigma, abs=1e-6)
    assert sigma_of_step(step) == pytest.approx(sigma, abs=5e-4)


def test_steps_fall_to_the_image():
    sigmas = [sigma_of_step(step) for step in range(50)]
    assert sigmas == sorted(sigmas, reverse=True) and 0 < sigmas[-1] < sigmas[0] < 1
    for step in (-1, 50, 40.0, True):
        with pytest.raises(ValueError, match="`step` must be an integer from 0 to 49"):
            sigma_of_step(step)  # type: ignore[arg-type]


def test_published_levels_are_the_papers():
    """Menn et al., §4.3 and §5.2: ten steps for the proposed method, twenty for the others."""
    preset = CORRUPTION_PRESETS["published"]
    assert (preset.num_inference_steps, preset.level("proposed")) == (50, sigma_of_step(40))
    assert {preset.level(name) for name in CORRUPTION_NAMES[1:]} == {sigma_of_step(30)}
    assert np.isclose(CORRUPTION_PRESETS["embedded"].level("proposed"), 0.7)
