"""Recognition of errors that mean that memory ran out, on the device or on the machine."""

from __future__ import annotations

import torch


# What torch says in a plain `RuntimeError` where it has no class of its own.
_SAID = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, of a device or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _SAID)


def free_unused() -> None:
    """Give memory of the device that torch holds in reserve back, so that a smaller batch finds it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
