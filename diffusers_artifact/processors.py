"""Base of the injecting attention processors, and how they are installed; each family's own are in its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import injection

    InjectionState = injection.InjectionState
    Turn = injection.Turn


@dataclass(eq=False)
class Recording:
    """
    What one attention computed for the clean rows, kept until the rows of targets have read it in the same evaluation.

    Attributes:
        query (`torch.Tensor` of shape `(variants, tokens, heads, head_dim)`, *optional*): Rotated queries of the clean
            row at the tokens of every variant's target, in blocks and steps with value injection.
        key, value (`torch.Tensor` of shape `(rows, sequence, heads, head_dim)`, *optional*): Rotated keys, and values.
        mask (`torch.Tensor` of shape `(rows, 1, 1, sequence)`, *optional*): Attention mask of an image token.
        frequencies (`torch.Tensor` of shape `(tokens, channels)`, *optional*): Rotary table of the image tokens, for
            families whose table has the length of the row.
    """

    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    frequencies: torch.Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Memory that the recorded tensors take, in bytes."""
        kept = (self.query, self.key, self.value)
        return sum(part.numel() * part.element_size() for part in kept if part is not None)

    def clear(self) -> None:
        """Forget everything."""
        self.query = self.key = self.value = self.mask = self.frequencies = None


class InjectionAttnProcessor:
    """
    Base of the injecting attention processors.

    Args:
        state (`InjectionState`): State that all processors of a call share.
        block (`int`): Index of the block, in the order of the family's `block_lists`.
        name (`str`, *optional*, defaults to `"attn"`): Name of the attention within the block, for blocks with two.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, state: InjectionState, block: int, name: str = "attn"):
        self.state = state
        self.block = block
        self.name = name
        # Looked up here and not while the model runs, so that compiled blocks can share a graph.
        self.takes_values, self.takes_positions = block in state.value_blocks, block in state.position_blocks
        self.recording = Recording()
        state.recordings.append(self.recording)

    def inject(
        self, query: torch.Tensor, value: torch.Tensor, text_length: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply [`InjectionState.inject`] if values are injected in this block, else return the arguments."""
        if not self.takes_values:
            return query, value
        return self.state.inject(self.block, self.name, query, value, text_length)

    def rotate(self, states: torch.Tensor, turn: Turn, text_length: int = 0) -> torch.Tensor:
        """Apply [`InjectionState.rotate`], with the injected positions if they are injected in this block."""
        return self.state.rotate(states, turn, text_length, self.takes_positions)

    def share(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        text_first: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Apply [`InjectionState.share`], right before the attention."""
        return self.state.share(self.recording, self.takes_values, query, key, value, mask, text_first)

    def collect(self, output: torch.Tensor) -> torch.Tensor:
        """Apply [`InjectionState.collect`], right after the attention."""
        return self.state.collect(output)


@contextmanager
def swapped_processors(transformer: Any, processors: Mapping[str, InjectionAttnProcessor]) -> Iterator[None]:
    """
    Install other attention processors for the duration of a `with` block, and restore the originals at its end.

    Args:
        transformer (`~diffusers.ModelMixin`): The diffusion transformer.
        processors (`Mapping[str, InjectionAttnProcessor]`): A new processor for each name in
            `transformer.attn_processors`.
    """
    originals = dict(transformer.attn_processors)
    for name, processor in processors.items():
        # `set_attention_backend` stores its choice on the processors.
        processor._attention_backend = getattr(originals[name], "_attention_backend", None)
        processor._parallel_config = getattr(originals[name], "_parallel_config", None)
    try:
        transformer.set_attn_processor(dict(processors))
        yield
    finally:
        transformer.set_attn_processor(originals)


def project(
    attn: Any, hidden_states: torch.Tensor, of_text: bool = False, fused: bool | None = None
) -> tuple[torch.Tensor, ...]:
    """
    Compute queries, keys and values.

    Args:
        attn (`torch.nn.Module`): diffusers' attention.
        hidden_states (`torch.Tensor` of shape `(rows, tokens, channels)`): Its input.
        of_text (`bool`, *optional*, defaults to `False`): Use the projections of the text tokens.
        fused (`bool`, *optional*, defaults to `attn.fused_projections`): Use the fused projection.

    Returns:
        `tuple[torch.Tensor, ...]`: Three tensors of shape `(rows, tokens, heads * head_dim)`.
    """
    if attn.fused_projections if fused is None else fused:
        return (attn.to_added_qkv if of_text else attn.to_qkv)(hidden_states).chunk(3, dim=-1)
    names = ("add_q_proj", "add_k_proj", "add_v_proj") if of_text else ("to_q", "to_k", "to_v")
    return tuple(getattr(attn, name)(hidden_states) for name in names)


def split_output(attn: Any, output: torch.Tensor, text_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Split the output of joint attention, and project each part.

    Args:
        attn (`torch.nn.Module`): diffusers' attention.
        output (`torch.Tensor` of shape `(rows, sequence, channels)`): Output of attention, text tokens first.
        text_length (`int`): Number of text tokens.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Image tokens, then text tokens.
    """
    text, image = output[:, :text_length].contiguous(), output[:, text_length:].contiguous()
    return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)
