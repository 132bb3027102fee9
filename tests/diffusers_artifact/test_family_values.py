"""Value injection on FLUX and SD3, compared with hooks on the stock model's projections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.family import TransformerFamily
from diffusers_artifact.injection import InjectionState

from ..helpers.tiny_pipelines import tiny_flux, tiny_sd3


GRID = (4, 4)
ARTIFACT = PatchMapping(targets=(0, 1, 5), references=(10, 11, 10), grid=GRID)


@contextmanager
def hooked(family: TransformerFamily) -> Iterator[int]:
    """Give row 1 the values of row 0, targets those of their references, in every `to_v`; yield the hooks' number."""
    given_by = torch.arange(16)
    given_by[list(ARTIFACT.targets)] = torch.tensor(ARTIFACT.references)

    def replace(module: torch.nn.Module, inputs: tuple, value: torch.Tensor) -> torch.Tensor:
        start = value.shape[1] - 16  # FLUX's single-stream blocks have the text before the image
        value = value.clone()
        value[1, start:] = value[0, start:][given_by]
        return value

    projections = [module for name, module in family.transformer.named_modules() if name.endswith(".to_v")]
    handles = [module.register_forward_hook(replace) for module in projections]
    yield len(projections)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("build, attentions", [(tiny_flux, 4), (tiny_sd3, 5)])
@torch.no_grad()
def test_values_are_injected_in_every_attention(build, attentions):
    stock = build()
    family = ArtifactInjectionPipeline(**{k: v for k, v in stock.components.items() if v is not None}).family
    tokens = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(0))
    condition = family.encode_prompt("a cat", torch.device("cpu"), 8).expand(2)
    arguments = (torch.tensor(500.0), condition, torch.ones(2), GRID)
    with hooked(family) as count:
        expected = family.velocity(tokens, *arguments)
    assert count == attentions  # SD3.5's second attentions are among them
    blocks = range(family.num_blocks)
    state = InjectionState([PatchMapping.empty(GRID), ARTIFACT], [0, 0], 2, blocks, blocks, position_steps=0)
    with family.injecting(state):
        state.begin_denoising(0, "cond")
        injected = family.velocity(tokens, *arguments)
    torch.testing.assert_close(injected, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(injected, family.velocity(tokens, *arguments), atol=1e-4)
