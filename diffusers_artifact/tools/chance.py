"""
Random draws from a torch generator, as Python numbers and numpy arrays.

torch is imported when something is drawn, so that the tools' names can be listed without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    import torch


def integer(stop: int, generator: torch.Generator) -> int:
    """Draw an integer from 0 to `stop` - 1."""
    import torch

    return int(torch.randint(stop, (), generator=generator))


def uniform(shape: Sequence[int], generator: torch.Generator) -> np.ndarray:
    """Draw an array of `shape`, `float64`, from [0, 1)."""
    import torch

    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64).numpy()


def normal(shape: Sequence[int], generator: torch.Generator) -> np.ndarray:
    """Draw an array of `shape`, `float64`, from the normal distribution of mean 0 and standard deviation 1."""
    import torch

    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).numpy()


def permutation(length: int, generator: torch.Generator) -> np.ndarray:
    """Draw a permutation of 0 to `length` - 1, an `int64` array of shape `(length,)`."""
    import torch

    return torch.randperm(length, generator=generator).numpy()
