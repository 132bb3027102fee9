"""What the pipeline needs to know of a family of diffusion transformers; each family is one file of its own."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from .injection import InjectionState
from .processors import InjectionAttnProcessor, swapped_processors


GuidanceKind = Literal["none", "distilled", "true"]

# Names of few-step checkpoints, where their configurations do not tell. FLUX.2 klein has an undistilled "base".
FEW_STEP_NAMES = re.compile(r"schnell|turbo|lightning|hyper|flash|lcm|klein(?!.*base)", re.IGNORECASE)


@dataclass(frozen=True)
class Conditioning:
    r"""
    Text conditioning of one or several rows of a batch.

    Attributes:
        prompt_embeds (`torch.Tensor` of shape `(rows, sequence, channels)`): Text tokens.
        pooled (`torch.Tensor` of shape `(rows, channels)`, *optional*): Pooled text, for families that take one.
        mask (`torch.Tensor` of shape `(rows, sequence)`, *optional*): `True`, or 1 where the family's are numbers,
            where a text token counts. `None`: all of them do.
    """

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    @classmethod
    def stack(cls, conditions: Sequence[Conditioning]) -> Conditioning:
        """The rows of all of `conditions`; shorter texts are padded with zeros, which a mask then leaves out."""
        length = max(condition.prompt_embeds.shape[1] for condition in conditions)
        padded = [condition._pad(length) for condition in conditions]
        masks = [part.mask for part in padded if part.mask is not None]
        if masks and len(masks) < len(padded):
            masks = [part._full_mask() if part.mask is None else part.mask for part in padded]
        pooled = [part.pooled for part in padded if part.pooled is not None]
        return cls(
            torch.cat([part.prompt_embeds for part in padded]),
            torch.cat(pooled) if pooled else None,
            torch.cat(masks) if masks else None,
        )

    def expand(self, rows: int) -> Conditioning:
        """The one row repeated `rows` times, without copying."""
        pooled, mask = (
            None if part is None else part.expand(rows, *part.shape[1:]) for part in (self.pooled, self.mask)
        )
        return Conditioning(self.prompt_embeds.expand(rows, -1, -1), pooled, mask)

    def to(self, dtype: torch.dtype) -> Conditioning:
        """The same with embeddings of another dtype."""
        return Conditioning(
            self.prompt_embeds.to(dtype), None if self.pooled is None else self.pooled.to(dtype), self.mask
        )

    def _pad(self, length: int) -> Conditioning:
        missing = length - self.prompt_embeds.shape[1]
        if not missing:
            return self
        mask = self._full_mask() if self.mask is None else self.mask
        return Conditioning(
            torch.nn.functional.pad(self.prompt_embeds, (0, 0, 0, missing)),
            self.pooled,
            torch.nn.functional.pad(mask, (0, missing)),
        )

    def _full_mask(self) -> torch.Tensor:
        return torch.ones(self.prompt_embeds.shape[:2], dtype=torch.bool, device=self.prompt_embeds.device)


class TransformerFamily(ABC):
    r"""
    Adapter of one family. Tokens are packed latents of shape `(batch, tokens, channels)`, row-major.

    Args:
        transformer (`~diffusers.ModelMixin`): The diffusion transformer.
        components (`dict[str, Any]`): All components of the pipeline by name.
    """

    transformer_class: str
    """Name of the diffusers class of the transformer."""

    block_lists: tuple[str, ...] = ("transformer_blocks",)
    """Names of the transformer's lists of blocks, in the order in which they run."""

    position_blocks_reason: str | None = None
    """Why positions cannot be restricted to some blocks, where they cannot."""

    text_components: tuple[str, ...] = ("text_encoder", "tokenizer")
    """Components that encode a prompt."""

    may_lack_text: bool = False
    """Whether a checkpoint without any of them is an unconditional model."""

    token_side: int = 2
    """Latent pixels to a side of a token."""

    def __init__(self, transformer: Any, components: dict[str, Any]):
        self.transformer = transformer
        self.components = components

    @property
    def num_blocks(self) -> int:
        """Number of transformer blocks, which `position_blocks` and `value_blocks` index."""
        return sum(len(getattr(self.transformer, name)) for name in self.block_lists)

    @property
    @abstractmethod
    def guidance_kind(self) -> GuidanceKind:
        """
        `"distilled"`: the transformer takes the scale as an input. `"true"`: a second evaluation with the negative
        prompt. `"none"`: no scale but 1 has an effect.
        """

    @property
    def default_guidance_scale(self) -> float:
        """Guidance of flawed rows where the user gives none."""
        return 1.0

    def needs_negative(self, scales: torch.Tensor) -> bool:
        """Whether rows with these guidance scales take a second evaluation, with the negative prompt."""
        return self.guidance_kind == "true" and bool((scales != 1).any())

    def guide(self, conditional: torch.Tensor, unconditional: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Velocity of true classifier-free guidance; `scales` of shape `(rows, 1, 1)`."""
        return unconditional + scales * (conditional - unconditional)

    def distillation(self, name: str) -> str | None:
        """
        Why the checkpoint is taken for a few-step distilled one, which does not invert well; `None` if it is not.

        Args:
            name (`str`): Id or folder it was loaded from, as far as known.
        """
        parts = PurePath(name).parts
        if "snapshots" in parts:  # of the Hub's cache, where the folder above has the repository's name
            parts = parts[: parts.index("snapshots")]
        match = FEW_STEP_NAMES.search(parts[-1]) if parts else None
        return match and f"its name has {match[0]!r} in it"

    @property
    def input_channels(self) -> int:
        """Channels of the transformer's input if it takes noisy latents and nothing else."""
        return self.vae.config.latent_channels * self.token_side**2

    def check(self) -> None:
        """
        Raises:
            ValueError: the transformer takes more than noisy latents, as those for filling in or editing do, or what
                encodes prompts is not loaded.
        """
        missing = [name for name in self.text_components if self.components.get(name) is None]
        if missing and not (self.may_lack_text and len(missing) == len(self.text_components)):
            raise ValueError(f"`{missing[0]}` must be loaded for {self.transformer_class}, got None")
        if (channels := self.transformer.config.in_channels) != self.input_channels:
            raise ValueError(
                f"`transformer` must take noisy latents alone, which have {self.input_channels} channels, got "
                f"{channels}: checkpoints for filling in, depth or edges take further inputs"
            )

    # Autoencoder

    @property
    def vae(self) -> Any:
        return self.components["vae"]

    @property
    def patch_size(self) -> int:
        """Side of a token in pixels."""
        return self.token_side * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode_images(self, images: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """
        Latents of `(batch, channels, height, width)`, normalised as the transformer takes them, of images of shape
        `(batch, 3, height, width)` in [-1, 1]; sampled from the posterior if there is a `generator`, else its mode.
        """
        latents = self.raw_latents(images, generator)
        return (latents - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    def raw_latents(self, images: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Latents as the autoencoder gives them; see `encode_images`."""
        posterior = self.vae.encode(images.to(self.vae.dtype)).latent_dist
        return posterior.mode() if generator is None else posterior.sample(generator)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `encode_images`."""
        latents = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        return self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]

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

    # Transformer

    @abstractmethod
    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        """Encodes one prompt as the family's stock pipeline does."""

    @abstractmethod
    def timestep_arguments(self, num_inference_steps: int, num_tokens: int, scheduler: Any) -> dict[str, Any]:
        """Arguments of `set_timesteps` that give the stock pipeline's sigma grid."""

    @abstractmethod
    def velocity(
        self,
        tokens: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
        guidance: torch.Tensor,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        r"""
        The model's velocity.

        Args:
            tokens (`torch.Tensor` of shape `(rows, tokens, channels)`): Noisy latents in float32.
            timestep (`torch.Tensor`): 0 to 1000, scalar.
            conditioning (`Conditioning`): Of as many rows.
            guidance (`torch.Tensor` of shape `(rows,)`): Scales, for guidance-distilled transformers.
            grid (`tuple[int, int]`): Rows and columns of tokens.

        Returns:
            `torch.Tensor` of the shape of `tokens`.
        """

    @abstractmethod
    def make_processor(self, state: InjectionState, block: int, path: str) -> InjectionAttnProcessor:
        """
        A fresh injecting processor for an attention of block number `block`, whose stock processor `attn_processors`
        lists as `path`.
        """

    @contextmanager
    def injecting(self, state: InjectionState) -> Iterator[None]:
        """Swaps the attention processors for injecting ones, and back however the block ends."""
        paths = list(self.transformer.attn_processors)
        processors = {path: self.make_processor(state, self._block_of(path), path) for path in paths}
        with swapped_processors(self.transformer, processors):
            yield

    def _block_of(self, path: str) -> int:
        """Index of the block that a processor listed as `path` belongs to, such as `transformer_blocks.3.attn`."""
        name, index = path.split(".")[:2]
        before = self.block_lists[: self.block_lists.index(name)]
        return sum(len(getattr(self.transformer, other)) for other in before) + int(index)


def dynamic_shift(num_tokens: int, config: Any) -> float:
    """The stock pipelines' `mu` of an image's size, by a scheduler's configuration."""
    return calculate_shift(
        num_tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
