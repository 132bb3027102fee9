"""What the pipeline needs to know of a family of diffusion transformers; each family is one file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .injection import InjectionState


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning of one image: `prompt_embeds` `(1, sequence, channels)`, `pooled` `(1, channels)`."""

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor


class TransformerFamily(ABC):
    r"""
    Adapter of one family. Tokens are packed latents of shape `(batch, tokens, channels)`, row-major.

    Args:
        transformer (`~diffusers.ModelMixin`): The diffusion transformer.
        components (`dict[str, Any]`): All components of the pipeline by name, for encoding prompts.
    """

    transformer_class: str
    """Name of the diffusers class of the transformer."""

    position_blocks_reason: str | None = None
    """Why positions cannot be restricted to some blocks, where they cannot."""

    has_true_guidance: bool = False
    """Whether guidance takes a second evaluation with the negative prompt."""

    def __init__(self, transformer: Any, components: dict[str, Any]):
        self.transformer = transformer
        self.components = components

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """Number of transformer blocks, which `position_blocks` and `value_blocks` index."""

    @property
    @abstractmethod
    def has_guidance(self) -> bool:
        """Whether a guidance scale other than 1 has an effect."""

    @abstractmethod
    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        """Encodes one prompt as the family's stock pipeline does."""

    @property
    @abstractmethod
    def token_side(self) -> int:
        """Latent pixels to a side of a token."""

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(batch, channels, height, width)` to tokens."""
        side = self.token_side
        batch, channels, height, width = latents.shape
        tokens = latents.view(batch, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
        return tokens.reshape(batch, height * width // side**2, channels * side**2)  # (batch, tokens, channels)

    def unpack(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The inverse of `pack` for a grid of `(rows, columns)` tokens."""
        side = self.token_side
        batch, _, channels = tokens.shape
        latents = tokens.view(batch, *grid, channels // side**2, side, side).permute(0, 3, 1, 4, 2, 5)
        return latents.reshape(batch, channels // side**2, side * grid[0], side * grid[1])

    @abstractmethod
    def timestep_arguments(self, num_inference_steps: int, num_tokens: int, scheduler: Any) -> dict[str, Any]:
        """Arguments of `set_timesteps` that give the stock pipeline's sigma grid."""

    @abstractmethod
    def velocity(
        self,
        tokens: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor | None,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        """The model's velocity for `tokens` at `timestep` (0 to 1000, scalar); `guidance` of shape `(batch,)`."""

    @abstractmethod
    def make_processors(self, state: InjectionState) -> dict[str, Any]:
        """A fresh injecting processor for each attention of the transformer."""

    @contextmanager
    def injecting(self, state: InjectionState) -> Iterator[None]:
        """Swaps the attention processors for injecting ones, and back however the block ends."""
        originals = dict(self.transformer.attn_processors)
        try:
            self.transformer.set_attn_processor(self.make_processors(state))
            yield
        finally:
            self.transformer.set_attn_processor(originals)


def block_names(processors: Sequence[str] | dict[str, Any], prefixes: Sequence[str]) -> dict[str, int]:
    """Block index of every processor name, counting the lists of blocks named in `prefixes` one after the other."""
    lengths = [
        1 + max((int(n.split(".")[1]) for n in processors if n.startswith(p + ".")), default=-1) for p in prefixes
    ]
    starts = {prefix: sum(lengths[:i]) for i, prefix in enumerate(prefixes)}
    return {name: starts[name.split(".")[0]] + int(name.split(".")[1]) for name in processors}
