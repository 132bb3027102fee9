"""Base of the adapters of transformer families; each family has a file of its own."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from .processors import InjectionAttnProcessor, swapped_processors


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import injection

    InjectionState = injection.InjectionState


GuidanceKind = Literal["none", "distilled", "true"]

# Few-step checkpoints whose configuration does not say so, by name. FLUX.2 klein also has an undistilled "base".
FEW_STEP_NAMES = re.compile(r"schnell|turbo|lightning|hyper|flash|lcm|klein(?!.*base)", re.IGNORECASE)


@dataclass(frozen=True)
class Conditioning:
    r"""
    Text conditioning of one or several rows of a batch.

    Attributes:
        prompt_embeds (`torch.Tensor` of shape `(rows, sequence, channels)`): Text tokens.
        pooled (`torch.Tensor` of shape `(rows, channels)`, *optional*): Pooled text, for families that take one.
        mask (`torch.Tensor` of shape `(rows, sequence)`, *optional*): `True`, or 1 for families with numeric masks,
            for each text token that counts. `None`: all tokens count.
    """

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    @classmethod
    def stack(cls, conditions: Sequence[Conditioning]) -> Conditioning:
        """Join the rows of all `conditions`. Shorter texts are padded with zeros, which a mask then leaves out."""
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

    def rows(self) -> list[Conditioning]:
        """Return a conditioning of one row for each row; the inverse of [`stack`] for rows of one length."""
        return [
            Conditioning(
                self.prompt_embeds[row : row + 1],
                None if self.pooled is None else self.pooled[row : row + 1],
                None if self.mask is None else self.mask[row : row + 1],
            )
            for row in range(len(self.prompt_embeds))
        ]

    def expand(self, rows: int) -> Conditioning:
        """Repeat a single row `rows` times, without copying."""
        pooled, mask = (
            None if part is None else part.expand(rows, *part.shape[1:]) for part in (self.pooled, self.mask)
        )
        return Conditioning(self.prompt_embeds.expand(rows, -1, -1), pooled, mask)

    def select(self, rows: torch.Tensor | slice) -> Conditioning:
        """Return the rows at the indices `rows`, of shape `(selected,)`, or of a slice."""
        pooled, mask = (None if part is None else part[rows] for part in (self.pooled, self.mask))
        return Conditioning(self.prompt_embeds[rows], pooled, mask)

    def without_text(self) -> Conditioning:
        """Return the same rows with no text token, for rows that attend to the text of others."""
        return Conditioning(self.prompt_embeds[:, :0], self.pooled, None if self.mask is None else self.mask[:, :0])

    def to(self, dtype: torch.dtype) -> Conditioning:
        """Convert the embeddings to another dtype."""
        return Conditioning(
            self.prompt_embeds.to(dtype), None if self.pooled is None else self.pooled.to(dtype), self.mask
        )

    def on(self, device: torch.device | str) -> Conditioning:
        """Move all tensors to a device."""
        pooled, mask = (None if part is None else part.to(device) for part in (self.pooled, self.mask))
        return Conditioning(self.prompt_embeds.to(device), pooled, mask)

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


class ModelFamily(ABC):
    r"""
    Base of the adapters of all families: text, guidance and autoencoder.

    Args:
        model (`~diffusers.ModelMixin`): The model that is evaluated.
        components (`dict[str, Any]`): All components of the pipeline by name.
    """

    component: str
    """Name of the pipeline's component that is evaluated."""

    lora_loader: type[LoraBaseMixin]
    """The mixin by which diffusers loads LoRAs of the family into its stock pipeline."""

    text_components: tuple[str, ...] = ("text_encoder", "tokenizer")
    """Names of the components that encode a prompt."""

    embedding_arguments: tuple[str, ...] = ("prompt_embeds",)
    """Arguments of the pipeline that a prompt encoded before consists of."""

    may_lack_text: bool = False
    """Whether a checkpoint without any of `text_components` is an unconditional model."""

    token_side: int
    """Side of a token in latent pixels."""

    def __init__(self, model: Any, components: dict[str, Any]):
        self.model = model
        self.components = components

    @property
    @abstractmethod
    def model_class(self) -> str:
        """Name of the diffusers class of the model."""

    @property
    @abstractmethod
    def guidance_kind(self) -> GuidanceKind:
        """
        Kind of guidance. `"distilled"`: the model takes the scale as an input. `"true"`: there is a second
        evaluation with the negative prompt. `"none"`: only a scale of 1 is possible.
        """

    def check_guidance_scale(self, name: str, scale: float) -> None:
        """
        Check a guidance scale.

        Args:
            name (`str`): Name of the argument, for the message.
            scale (`float`): Its value.

        Raises:
            ValueError: The checkpoint has no guidance and the scale is not 1.
        """
        if self.guidance_kind == "none" and scale != 1:
            raise ValueError(f"`{name}` must be 1 for a checkpoint without guidance embedding, got {scale}")

    def needs_negative(self, scales: torch.Tensor) -> bool:
        """Return whether rows with these guidance scales need a second evaluation, with the negative prompt."""
        return self.guidance_kind == "true" and bool((scales != 1).any())

    def guide(self, conditional: torch.Tensor, unconditional: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """
        Apply true classifier-free guidance.

        Args:
            conditional (`torch.Tensor` of shape `(rows, ...)`): Output with the prompt.
            unconditional (`torch.Tensor` of shape `(rows, ...)`): Output with the negative prompt.
            scales (`torch.Tensor` of shape `(rows, 1, ...)`): Guidance scales.

        Returns:
            `torch.Tensor` of the shape of `conditional`: The guided output.
        """
        return unconditional + scales * (conditional - unconditional)

    def distillation(self, name: str) -> str | None:
        """
        Return why the checkpoint counts as distilled to few steps, or `None` if it does not.

        Args:
            name (`str`): Repository or folder that it was loaded from, `""` if unknown.
        """
        parts = PurePath(name).parts
        if "snapshots" in parts:  # in the Hub's cache, the folder above has the repository's name
            parts = parts[: parts.index("snapshots")]
        match = FEW_STEP_NAMES.search(parts[-1]) if parts else None
        return match and f"its name contains {match[0]!r}"

    @property
    def input_channels(self) -> int:
        """Channels of the model's input if it takes only noisy latents."""
        return self.vae.config.latent_channels * self.token_side**2

    def check(self, encodes_prompts: bool = True) -> None:
        """
        Check that the checkpoint is supported.

        Args:
            encodes_prompts (`bool`, *optional*, defaults to `True`): Whether its text encoders are needed.

        Raises:
            ValueError: The model takes further inputs, as for inpainting or editing, or a component that encodes
                prompts is needed and not loaded.
        """
        missing = [name for name in self.text_components if self.components.get(name) is None]
        if encodes_prompts and missing and not (self.may_lack_text and len(missing) == len(self.text_components)):
            raise ValueError(f"`{missing[0]}` must be loaded for {self.model_class}, got None")
        if (channels := self.model.config.in_channels) != self.input_channels:
            raise ValueError(
                f"`{self.component}` must take only noisy latents, which have {self.input_channels} channels, got "
                f"{channels}; checkpoints for inpainting, depth or edges, which take further inputs, are not supported"
            )

    @abstractmethod
    def encode_prompt(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        """
        Encode a prompt as the family's stock pipeline does.

        Args:
            prompt (`str`): The prompt.
            device (`torch.device`): Device of the text encoders and of the result.
            max_sequence_length (`int`, *optional*): Maximum number of text tokens. Defaults to the stock pipeline's.

        Returns:
            [`Conditioning`] of one row.
        """

    def encode_negative(self, prompt: str, device: torch.device, max_sequence_length: int | None) -> Conditioning:
        """Encode a negative prompt as the family's stock pipeline does; see `encode_prompt`."""
        return self.encode_prompt(prompt, device, max_sequence_length)

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
        Encode images to normalised latents.

        Args:
            images (`torch.Tensor` of shape `(batch, 3, height, width)`): Images in [-1, 1].
            generator (`torch.Generator`, *optional*): Samples the posterior; without it, its mode is taken.

        Returns:
            `torch.Tensor` of shape `(batch, channels, height, width)`: Latents, normalised for the model.
        """
        latents = self.raw_latents(images, generator)
        return (latents - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    def raw_latents(self, images: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Encode images to latents that are not normalised; see `encode_images`."""
        posterior = self.vae.encode(images.to(self.vae.dtype)).latent_dist
        return posterior.mode() if generator is None else posterior.sample(generator)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents to images in [-1, 1]; the inverse of `encode_images`."""
        latents = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        return self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]


class TransformerFamily(ModelFamily):
    r"""
    Adapter of one family of diffusion transformers. Tokens are packed latents of shape `(batch, tokens, channels)`,
    row-major.

    Args:
        transformer (`~diffusers.ModelMixin`): The diffusion transformer.
        components (`dict[str, Any]`): All components of the pipeline by name.
    """

    component = "transformer"

    transformer_class: str
    """Name of the diffusers class of the transformer."""

    block_lists: tuple[str, ...] = ("transformer_blocks",)
    """Names of the transformer's lists of blocks, in order of execution."""

    position_blocks_reason: str | None = None
    """Why `position_blocks` cannot be set, or `None` if it can."""

    token_side = 2

    def __init__(self, transformer: Any, components: dict[str, Any]):
        super().__init__(transformer, components)
        self.transformer = transformer

    @property
    def model_class(self) -> str:
        return self.transformer_class

    @property
    def num_blocks(self) -> int:
        """Number of transformer blocks, which `position_blocks` and `value_blocks` index."""
        return sum(len(getattr(self.transformer, name)) for name in self.block_lists)

    @property
    def default_guidance_scale(self) -> float:
        """Default guidance scale of artifact images."""
        return 1.0

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        """Pack latents of shape `(batch, channels, height, width)` to tokens."""
        side = self.token_side
        batch, channels, height, width = latents.shape
        tokens = latents.view(batch, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
        return tokens.reshape(batch, height * width // side**2, channels * side**2)  # (batch, tokens, channels)

    def unpack(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Unpack tokens on a grid of `(rows, columns)` to latents; the inverse of `pack`."""
        side = self.token_side
        batch, _, channels = tokens.shape
        latents = tokens.view(batch, *grid, channels // side**2, side, side).permute(0, 3, 1, 4, 2, 5)
        return latents.reshape(batch, channels // side**2, side * grid[0], side * grid[1])

    @property
    def decoder_reach(self) -> int | None:
        """Tokens around a token that its latents change in a decoded image, or `None` if there is no limit."""
        reach = getattr(self.vae, "decoder_reach", None)
        return None if reach is None else -(-reach // self.token_side)

    # Transformer

    def target_row_multiple(self, grid: tuple[int, int]) -> int:
        """Return the number of tokens of which the length of rows of targets is a multiple; see [`TargetRows`]."""
        return 16

    @abstractmethod
    def timestep_arguments(self, num_inference_steps: int, num_tokens: int, scheduler: Any) -> dict[str, Any]:
        """
        Return the arguments of `set_timesteps` for the stock pipeline's sigma grid.

        Args:
            num_inference_steps (`int`): Number of steps.
            num_tokens (`int`): Number of tokens of an image.
            scheduler (`~diffusers.SchedulerMixin`): The checkpoint's scheduler.
        """

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
        Evaluate the transformer.

        Args:
            tokens (`torch.Tensor` of shape `(rows, tokens, channels)`): Noisy latents in float32. Rows of targets
                hold fewer tokens than `grid`; see [`TargetRows`].
            timestep (`torch.Tensor`): Scalar from 0 to 1000.
            conditioning (`Conditioning`): Text conditioning of as many rows.
            guidance (`torch.Tensor` of shape `(rows,)`): Guidance scales, for guidance-distilled transformers.
            grid (`tuple[int, int]`): Rows and columns of tokens of an image.

        Returns:
            `torch.Tensor` of the shape of `tokens`: The velocity.
        """

    @abstractmethod
    def make_processor(self, state: InjectionState, block: int, path: str) -> InjectionAttnProcessor:
        """
        Create the injecting processor of one attention.

        Args:
            state (`InjectionState`): State that all processors of a call share.
            block (`int`): Index of the attention's block.
            path (`str`): Name of its stock processor in `transformer.attn_processors`.
        """

    @contextmanager
    def injecting(self, state: InjectionState) -> Iterator[None]:
        """Install injecting attention processors for the duration of a `with` block."""
        paths = list(self.transformer.attn_processors)
        processors = {path: self.make_processor(state, self._block_of(path), path) for path in paths}
        with swapped_processors(self.transformer, processors):
            yield

    def _block_of(self, path: str) -> int:
        """Return the index of a processor's block from its `path`, such as `transformer_blocks.3.attn`."""
        name, index = path.split(".")[:2]
        before = self.block_lists[: self.block_lists.index(name)]
        return sum(len(getattr(self.transformer, other)) for other in before) + int(index)


def dynamic_shift(num_tokens: int, config: Any) -> float:
    """Compute the stock pipelines' `mu` for an image of `num_tokens` tokens from a scheduler's configuration."""
    return calculate_shift(
        num_tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
