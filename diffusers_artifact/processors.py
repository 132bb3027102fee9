"""Attention processors that inject, and how a transformer gets them for a while; a family's own are in its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from .injection import InjectionState, Turn


class InjectionAttnProcessor:
    """
    Base of the injecting attention processors.

    Args:
        state (`InjectionState`): Shared by all processors of a call.
        block (`int`): Index of the block, in the order of the family's `block_lists`.
        name (`str`, *optional*, defaults to `"attn"`): Which attention of the block, for blocks that have two.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, state: InjectionState, block: int, name: str = "attn"):
        self.state = state
        self.block = block
        self.name = name
        # Not looked up while the model runs, lest every block be compiled by itself.
        self.takes_values, self.takes_positions = block in state.value_blocks, block in state.position_blocks

    def inject(
        self, query: torch.Tensor, value: torch.Tensor, text_length: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `InjectionState.inject`, where this block takes values."""
        if not self.takes_values:
            return query, value
        return self.state.inject(self.block, self.name, query, value, text_length)

    def rotate(self, states: torch.Tensor, turn: Turn, text_length: int = 0) -> torch.Tensor:
        """As `InjectionState.rotate`, with every token at its own position where this block takes none."""
        return self.state.rotate(states, turn, text_length) if self.takes_positions else turn(states, None)


@contextmanager
def swapped_processors(transformer: Any, processors: Mapping[str, InjectionAttnProcessor]) -> Iterator[None]:
    """
    Give a transformer other attention processors, and its own back however the block ends.

    Args:
        transformer (`~diffusers.ModelMixin`): The diffusion transformer.
        processors (`Mapping[str, InjectionAttnProcessor]`): A fresh processor for each name in
            `transformer.attn_processors`.
    """
    originals = dict(transformer.attn_processors)
    for name, processor in processors.items():
        # A backend chosen with `set_attention_backend` is kept on the processor.
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
    """Queries, keys and values `(rows, tokens, heads * head_dim)`; `fused` defaults to what `attn` says of itself."""
    if attn.fused_projections if fused is None else fused:
        return (attn.to_added_qkv if of_text else attn.to_qkv)(hidden_states).chunk(3, dim=-1)
    names = ("add_q_proj", "add_k_proj", "add_v_proj") if of_text else ("to_q", "to_k", "to_v")
    return tuple(getattr(attn, name)(hidden_states) for name in names)


def split_output(attn: Any, output: torch.Tensor, text_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and text, each through its projection, of attention over text and image `(rows, sequence, channels)`."""
    text, image = output[:, :text_length].contiguous(), output[:, text_length:].contiguous()
    return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)
