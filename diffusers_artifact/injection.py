"""What is injected where: the plan that the attention processors of one call share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from .mapping import ArtifactType, PatchMapping


ValueSource = Literal["reconstruction", "inversion"]
VALUE_SOURCES: tuple[ValueSource, ...] = get_args(ValueSource)

# Shares of the denoising steps and of the depth, from the paper's settings for 25 steps and FLUX's 19 + 38 blocks
# (ArtiAgent §4.2.2): position 20 steps, 24 for omission; value 15 steps; position in the first 38 blocks, value in the
# last 19.
POSITION_STEP_SHARE: dict[ArtifactType, float] = {
    "duplication": 20 / 25,
    "omission": 24 / 25,
    "distortion": 20 / 25,
    "fusion": 20 / 25,
}
VALUE_STEP_SHARE = 15 / 25
UNTYPED: tuple[ArtifactType, ...] = ("duplication",)
SPLIT_DEPTH_SHARE = 38 / 57


def default_position_blocks(num_blocks: int) -> range:
    """The blocks that get positions by default: the first two thirds."""
    return range(round(SPLIT_DEPTH_SHARE * num_blocks))


def default_value_blocks(num_blocks: int) -> range:
    """The blocks that get values by default: the last third."""
    return range(round(SPLIT_DEPTH_SHARE * num_blocks), num_blocks)


class InjectionState:
    r"""
    Answers, for the model evaluation under way, which position and which value every token takes.

    A batch has one row for each image's reconstruction, then one for each flawed variant. Rows whose mapping is empty
    are left alone.

    Args:
        mappings (`Sequence[PatchMapping]`): One for each variant.
        variant_image (`Sequence[int]`): Index of the image each variant is made from.
        num_images (`int`): Number of images, and of reconstruction rows.
        num_inference_steps (`int`): Denoising steps.
        position_blocks (`Sequence[int]`): Blocks in which target tokens take the position of their reference.
        value_blocks (`Sequence[int]`): Blocks in which variants take the clean image's values.
        position_steps (`int`, *optional*): First steps with position injection; by default a share by artifact type.
        value_steps (`int`, *optional*): First steps with value injection; by default 15/25 of them.
        value_source (`str`, *optional*, defaults to `"reconstruction"`): Where values come from. `"reconstruction"`
            reads the reconstruction's row of the same evaluation and needs no memory. `"inversion"` is the paper's:
            the values that the inversion had over the same interval of the sigma grid, read from a cache.
        device (`torch.device`, *optional*): Device of the index tensors.
    """

    def __init__(
        self,
        mappings: Sequence[PatchMapping],
        variant_image: Sequence[int],
        num_images: int,
        num_inference_steps: int,
        position_blocks: Sequence[int],
        value_blocks: Sequence[int],
        position_steps: int | None = None,
        value_steps: int | None = None,
        value_source: ValueSource = "reconstruction",
        device: torch.device | str = "cpu",
    ):
        self.position_blocks, self.value_blocks = frozenset(position_blocks), frozenset(value_blocks)
        self.num_tokens = mappings[0].grid[0] * mappings[0].grid[1]
        self.value_source = value_source
        self.value_steps = round(VALUE_STEP_SHARE * num_inference_steps) if value_steps is None else value_steps
        self._mappings = mappings
        self._position_until = [
            [
                round(POSITION_STEP_SHARE[kind] * num_inference_steps) if position_steps is None else position_steps
                for kind in mapping.types or UNTYPED * len(mapping)
            ]
            for mapping in mappings
        ]
        self._num_images, self._device = num_images, device
        self._value_rows = self._index_values(variant_image, num_images + len(mappings))
        self._cache: dict[tuple[int, int, str, str], torch.Tensor] = {}
        self._rotary: tuple[torch.Tensor, torch.Tensor] | None = None
        self._window: tuple[int, ...] | None = None
        self._window_positions: torch.Tensor | None = None
        self.end()

    def _index_values(self, variant_image: Sequence[int], num_rows: int) -> torch.Tensor:
        """Index into the flattened `(row, token)` values, to which a cache is appended if there is one."""
        tokens = self.num_tokens
        index = torch.arange(num_rows * tokens, device=self._device).view(num_rows, tokens)
        bank = num_rows * tokens if self.value_source == "inversion" else 0
        for row, (mapping, image) in enumerate(zip(self._mappings, variant_image, strict=True), self._num_images):
            if len(mapping):
                index[row] = torch.arange(tokens, device=self._device) + bank + image * tokens
                index[row, list(mapping.targets)] = (
                    torch.tensor(mapping.references, device=self._device) + bank + image * tokens
                )
        return index.flatten()

    @property
    def cache_bytes(self) -> int:
        """Memory held by cached values, in bytes."""
        return sum(value.numel() * value.element_size() for value in self._cache.values())

    def end(self) -> None:
        """Between evaluations, and for evaluations without injection: every token is its own."""
        self._step, self._branch, self._recording, self._injecting = 0, "", False, False
        self.positions: torch.Tensor | None = None

    def begin_inversion(self, step: int, branch: str, updates: bool) -> None:
        """
        Prepares for an evaluation while inverting.

        Args:
            step (`int`): The denoising step whose interval of the sigma grid the evaluation belongs to.
            branch (`str`): `"cond"` or `"uncond"`.
            updates (`bool`): Whether its velocity moves the solution across the interval; those are cached, so that
                there is one value for each interval whatever the solver.
        """
        self.end()
        self._step, self._branch = step, branch
        self._recording = updates and self.value_source == "inversion" and step < self.value_steps

    def begin_denoising(self, step: int, branch: str) -> None:
        """Prepares for an evaluation of denoising step `step`, 0-based; see `begin_inversion`."""
        self.end()
        self._step, self._branch, self._injecting = step, branch, step < self.value_steps
        self.positions = self._positions_at(step)

    def _positions_at(self, step: int) -> torch.Tensor | None:
        # How many pairs of each mapping are still active tells which: pairs only ever become inactive.
        window = tuple(sum(until > step for until in pairs) for pairs in self._position_until)
        if window != self._window:
            self._window, self._rotary = window, None
            self._window_positions = self._index_positions(step) if any(window) else None
        return self._window_positions

    def _index_positions(self, step: int) -> torch.Tensor:
        """For every token of every row, the token whose position it takes at `step`."""
        index = torch.arange(self.num_tokens).repeat(self._num_images + len(self._mappings), 1)
        for row, (mapping, pairs) in enumerate(
            zip(self._mappings, self._position_until, strict=True), self._num_images
        ):
            for target, reference, until in zip(mapping.targets, mapping.references, pairs, strict=True):
                if until > step:
                    index[row, target] = reference
        return index.to(self._device)

    def values(self, block: int, name: str, value: torch.Tensor) -> torch.Tensor:
        r"""
        The values of image tokens, after injection.

        Args:
            block (`int`): Index of the transformer block.
            name (`str`): Which attention of the block, for blocks that have two.
            value (`torch.Tensor` of shape `(rows, tokens, heads, head_dim)`): The model's own values.

        Returns:
            `torch.Tensor` of the same shape.
        """
        if block not in self.value_blocks:
            return value
        key = (self._step, block, name, self._branch)
        if self._recording:
            self._cache[key] = value
        if not self._injecting:
            return value
        flat = value.flatten(0, 1)
        if self.value_source == "inversion":
            flat = torch.cat([flat, self._cache[key].flatten(0, 1)])
        return flat[self._value_rows].view_as(value)

    def rotary(
        self, block: int, rotary_embedding: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        r"""
        The rotary embedding of each row, or `None` where all rows keep the one they share.

        Args:
            block (`int`): Index of the transformer block.
            rotary_embedding (`tuple[torch.Tensor, torch.Tensor]`): Cosines and sines of shape `(sequence, head_dim)`,
                text tokens first.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: the same, of shape `(rows, sequence, head_dim)`.
        """
        if self.positions is None or block not in self.position_blocks:
            return None
        if self._rotary is None:
            text_length = len(rotary_embedding[0]) - self.num_tokens
            text = torch.arange(text_length, device=self.positions.device).expand(len(self.positions), -1)
            index = torch.cat([text, self.positions + text_length], dim=1)
            self._rotary = (rotary_embedding[0][index], rotary_embedding[1][index])
        return self._rotary


def rotate(states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    r"""
    Applies a rotary embedding that differs from row to row, else as diffusers' `apply_rotary_emb`.

    Args:
        states (`torch.Tensor` of shape `(rows, sequence, heads, head_dim)`): Queries or keys.
        cosines, sines (`torch.Tensor` of shape `(rows, sequence, head_dim)`): Of adjacent pairs of channels.

    Returns:
        `torch.Tensor` of the shape and dtype of `states`.
    """
    real, imaginary = states.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-imaginary, real], dim=-1).flatten(3)
    return (states.float() * cosines[:, :, None] + turned.float() * sines[:, :, None]).to(states.dtype)
