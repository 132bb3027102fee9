"""Weights at odd addresses, as those mapped from a safetensors file are, on any processor."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn


CACHE_LINE = 64


def move_weights(module: nn.Module, offset: int) -> None:
    """
    Copy the weights of `module` to addresses `offset` bytes past a cache line.

    Args:
        module (`torch.nn.Module`): Changed in place: parameters and buffers keep their identity, and their values.
        offset (`int`): 0 to 63, a multiple of the item size. Files give 8 to 56; 24 and 56 showed differences.
    """
    for tensor in chain(module.parameters(), module.buffers()):
        tensor.data = _moved(tensor.data, offset)


def offsets(module: nn.Module) -> set[int]:
    """Return how many bytes past a cache line each weight of `module` lies."""
    return {tensor.data_ptr() % CACHE_LINE for tensor in chain(module.parameters(), module.buffers())}


def _moved(data: torch.Tensor, offset: int) -> torch.Tensor:
    room = torch.empty(data.nbytes + 2 * CACHE_LINE, dtype=torch.uint8)
    begin = (offset - room.data_ptr()) % CACHE_LINE
    return room[begin : begin + data.nbytes].view(data.dtype).view(data.shape).copy_(data)
