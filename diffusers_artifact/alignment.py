"""Weights at addresses that do not change results from one load to the next."""

from __future__ import annotations

from itertools import chain

from torch import Tensor, nn, strided


CACHE_LINE = 64
"""Bytes. torch allocates at multiples of it, and matrix kernels give the same sums for addresses that are."""


def align_weights(module: nn.Module) -> int:
    """
    Copy the weights that lie at odd addresses of host memory to even ones, so that results are equal bit for bit.

    Weights loaded from safetensors files are mapped into memory where they lie in the file, often 8 to 56 bytes past a
    cache line. Some matrix kernels then sum in another order, and two loads of the same weights differ in the last
    bits. Each such tensor is copied once; while that goes on, no more than one of them is held twice. Later calls find
    nothing to copy. Weights on accelerators and those of quantized or sparse types stay where they are.

    Args:
        module (`torch.nn.Module`): Changed in place: parameters and buffers keep their identity, and their values.

    Returns:
        `int`: Bytes copied.
    """
    copied = 0
    for tensor in chain(module.parameters(), module.buffers()):
        data = tensor.data
        if type(data) is not Tensor or data.device.type != "cpu" or data.layout is not strided:
            continue
        if data.data_ptr() % CACHE_LINE:
            tensor.data = data.clone()
            copied += data.nbytes
    return copied
