"""
The preset `as-released` against the released rule, written here once more from its description: hooks on the stock
transformer of FLUX.1's depth, one row at a time, and a FireFlow loop of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from PIL import Image

from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.presets import PRESETS

from ..helpers.tiny_pipelines import tiny_chroma, tiny_flux, tiny_flux2, tiny_qwen_image, tiny_sd3


GRID = (4, 6)
STEPS = 5  # values in 3 of them, positions in 4, and in all 5 for the omission
DOUBLE, SINGLE = 19, 38
# Two targets, 9 and 15, are references of later ones; the chain 21 → 15 → 9 → 8 ends with the omission's steps.
MAPPING = PatchMapping(
    targets=(8, 9, 15, 21, 3),
    references=(14, 8, 9, 15, 19),
    grid=GRID,
    types=("duplication", "duplication", "duplication", "omission", "omission"),
)
POSITION_STEPS = {"duplication": 4, "omission": 5}
VALUE_STEPS = 3


@dataclass
class ReleasedRule:
    """The released rule on FLUX.1; each of the first four fields takes away one of its differences from the paper."""

    transformer: FluxTransformer2DModel
    prompt: dict[str, torch.Tensor]
    text_takes_values: bool = True
    first_value_block: int = 20
    values_at_first_evaluation: bool = False
    chains_positions: bool = True
    cache: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    def velocity(self, latents: torch.Tensor, sigma: float, guidance: float) -> torch.Tensor:
        rows, columns = np.indices(GRID)
        ids = torch.tensor(np.stack([0 * rows, rows, columns], axis=-1).reshape(-1, 3), dtype=torch.float32)
        return self.transformer(
            hidden_states=latents,
            timestep=torch.tensor([sigma]),
            guidance=torch.tensor([guidance]),
            img_ids=ids,
            txt_ids=torch.zeros(self.text_length, 3),
            **self.prompt,
        ).sample

    @property
    def text_length(self) -> int:
        return self.prompt["encoder_hidden_states"].shape[1]

    @contextmanager
    def values(self, change: Callable[[int, torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
        """Pass the values of each single-stream block with value injection through `change`."""
        handles = [
            self.transformer.single_transformer_blocks[block].attn.to_v.register_forward_hook(
                lambda module, inputs, value, block=block: change(block, value)
            )
            for block in range(self.first_value_block, SINGLE)
        ]
        yield
        for handle in handles:
            handle.remove()

    @contextmanager
    def positions(self, step: int, mapping: PatchMapping) -> Iterator[None]:
        """Write positions of references over those of targets in the first 38 blocks' rotary table."""

        def edit(module: torch.nn.Module, inputs: tuple, arguments: dict) -> tuple[tuple, dict]:
            stock = arguments["image_rotary_emb"]
            tables = tuple(table.clone() for table in stock)
            for target, reference, kind in zip(mapping.targets, mapping.references, mapping.types, strict=True):
                if step < POSITION_STEPS[kind]:
                    for table, untouched in zip(tables, stock, strict=True):
                        read = table if self.chains_positions else untouched
                        table[self.text_length + target] = read[self.text_length + reference]
            return inputs, arguments | {"image_rotary_emb": tables}

        blocks = [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks][: DOUBLE + 19]
        handles = [block.register_forward_pre_hook(edit, with_kwargs=True) for block in blocks]
        yield
        for handle in handles:
            handle.remove()

    def invert(self, latents: torch.Tensor, grid: list[float]) -> torch.Tensor:
        """Invert with FireFlow at guidance 1, and cache values of the midpoints, whole sequences, by interval."""
        velocity = self.velocity(latents, grid[-1], 1.0)
        for step in reversed(range(STEPS)):
            length = grid[step] - grid[step + 1]

            def keep(block: int, value: torch.Tensor, step: int = step) -> None:
                self.cache[step, block] = value

            with self.values(keep):
                middle = latents + length / 2 * velocity
                velocity = self.velocity(middle, (grid[step] + grid[step + 1]) / 2, 1.0)
            latents = latents + length * velocity
        return latents

    def denoise(
        self, latents: torch.Tensor, grid: list[float], guidance: float, mapping: PatchMapping
    ) -> torch.Tensor:
        """Denoise with FireFlow and inject; an empty mapping gives the reconstruction."""

        def inject(block: int, value: torch.Tensor) -> torch.Tensor:
            cached = self.cache[step, block]
            given = cached.clone()
            given[:, [self.text_length + target for target in mapping.targets]] = cached[
                :, [self.text_length + reference for reference in mapping.references]
            ]
            if not self.text_takes_values:
                given[:, : self.text_length] = value[:, : self.text_length]
            return given

        def evaluate(latents: torch.Tensor, sigma: float, takes_values: bool) -> torch.Tensor:
            if not (takes_values and step < VALUE_STEPS and len(mapping)):
                return self.velocity(latents, sigma, guidance)
            with self.values(inject):
                return self.velocity(latents, sigma, guidance)

        step = 0
        with self.positions(step, mapping):
            velocity = evaluate(latents, grid[0], self.values_at_first_evaluation)
        for step in range(STEPS):
            length = grid[step + 1] - grid[step]
            with self.positions(step, mapping):
                middle = latents + length / 2 * velocity
                velocity = evaluate(middle, (grid[step] + grid[step + 1]) / 2, True)
            latents = latents + length * velocity
        return latents


def sigma_grid() -> list[float]:
    """FLUX.1's shifted schedule: mu is linear from 0.5 at 256 tokens to 1.15 at 4096."""
    tokens = GRID[0] * GRID[1]
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    uniform = [1 - step / STEPS for step in range(STEPS)]
    return [math.exp(mu) / (math.exp(mu) + 1 / sigma - 1) for sigma in uniform] + [0.0]


@pytest.fixture(scope="module")
def pipe() -> ArtifactInjectionPipeline:
    stock = tiny_flux()
    torch.manual_seed(1)
    config = {**stock.transformer.config, "num_layers": DOUBLE, "num_single_layers": SINGLE}
    transformer = FluxTransformer2DModel.from_config(config).eval()
    components = {name: part for name, part in stock.components.items() if part is not None}
    pipeline = ArtifactInjectionPipeline(**components | {"transformer": transformer})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (GRID[0] * 16, GRID[1] * 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def made(pipe, photo):
    """What the preset makes, as latents."""
    preset = PRESETS["as-released"]
    arguments = preset.arguments(STEPS, pipe.family.num_blocks)
    return pipe(
        photo,
        MAPPING,
        prompt="a cat",
        num_inference_steps=STEPS,
        max_sequence_length=8,
        output_type="latent",
        **arguments,
    )


@pytest.fixture(scope="module")
def rule(pipe) -> ReleasedRule:
    embeddings, pooled, _ = pipe.encode_prompt("a cat", max_sequence_length=8)
    return ReleasedRule(pipe.transformer, {"encoder_hidden_states": embeddings, "pooled_projections": pooled})


@pytest.fixture(scope="module")
def clean(pipe, photo) -> torch.Tensor:
    pixels = torch.from_numpy(np.asarray(photo, dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    vae = pipe.vae
    with torch.no_grad():
        latents = (vae.encode(pixels).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
    return FluxPipeline._pack_latents(latents, *latents.shape)


@torch.no_grad()
def artifact_by(rule: ReleasedRule, clean: torch.Tensor) -> torch.Tensor:
    return rule.denoise(rule.invert(clean, sigma_grid()), sigma_grid(), 5.0, MAPPING)


def packed(latents: torch.Tensor) -> torch.Tensor:
    return FluxPipeline._pack_latents(latents, *latents.shape)


def test_the_preset_is_the_released_rule(rule, made, clean):
    with torch.no_grad():
        noise = rule.invert(clean, sigma_grid())
        reconstruction = rule.denoise(noise, sigma_grid(), 1.0, PatchMapping.empty(GRID))
    torch.testing.assert_close(made.inverted_latents, noise, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(packed(made.reconstructions), reconstruction, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(packed(made.images), artifact_by(rule, clean), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "difference",
    [
        {"text_takes_values": False},
        {"first_value_block": 19},
        {"values_at_first_evaluation": True},
        {"chains_positions": False},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_each_difference_from_the_paper_is_in_it(rule, made, clean, difference):
    """A rule without it makes another image, ten times farther from the preset's than the rule itself may be."""
    other = artifact_by(replace(rule, cache={}, **difference), clean)
    assert (other - packed(made.images)).abs().max() > 1e-4


@pytest.mark.parametrize("build", [tiny_flux2, tiny_chroma])
def test_other_models_with_single_stream_blocks_run_with_it(build, photo):
    made = run_with(build, photo)
    change = (made.images - made.reconstructions).abs()
    assert torch.isfinite(change).all() and change.max() > 1e-3


@pytest.mark.parametrize("build", [tiny_sd3, tiny_qwen_image])
def test_models_without_single_stream_blocks_are_refused(build, photo):
    with pytest.raises(ValueError, match="`rule` must be 'paper' for .*single-stream blocks, which it lacks"):
        run_with(build, photo)


def run_with(build, photo):
    pipeline = ArtifactInjectionPipeline(**{k: v for k, v in build().components.items() if v is not None})
    pipeline.set_progress_bar_config(disable=True)
    arguments = PRESETS["as-released"].arguments(2, pipeline.family.num_blocks)
    settings: dict = {"num_inference_steps": 2, "max_sequence_length": 8, "output_type": "latent"}
    return pipeline(photo, MAPPING, guidance_scale=1.0, **settings, **arguments)
