"""Memory alignment of weights, so that results do not change from one load to the next."""

from __future__ import annotations

from itertools import chain

from torch import Tensor, nn, strided


CACHE_LINE = 64
"""Bytes. torch allocates at multiples of it, and matrix kernels sum in one order at such addresses."""


def align_weights(module: nn.Module) -> int:
    """
    Copy unaligned weights in host memory to multiples of [`CACHE_LINE`], so that results are equal bit for bit.

    Weights loaded from safetensors files are memory-mapped at their offset in the file, often 8 to 56 bytes past a
    cache line. Some matrix kernels then sum in another order, so that two loads of the same weights give results that
    differ in the last bits. Tensors are copied one at a time, so at most one of them is held twice, and later calls
    find nothing to copy. Weights on accelerators and weights of quantized or sparse types are left alone.

    Args:
        module (`torch.nn.Module`): Changed in place. Parameters and buffers keep their identity and values.

    Returns:
        `int`: Number of bytes copied.
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
