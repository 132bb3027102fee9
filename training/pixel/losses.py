"""Losses on the logits of the class "artifact", averaged over the pixels that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from datasets_script.utils.errors import check_choice


OUTSIDE = -1.0
"""Label of pixels that do not count: padding, and what fell out of an augmented image."""


def mse(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the squared error of the sigmoid, per pixel (DiffDoctor §3.1)."""
    return functional.mse_loss(logits.sigmoid(), labels, reduction="none")


def bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the binary cross-entropy with soft labels, per pixel."""
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def ce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Compute the cross-entropy of two classes, per pixel (Menn et al. §4). Labels of at least .5 are the class
    "artifact". With the difference of the classes' logits it equals binary cross-entropy.
    """
    return bce(logits, (labels >= 0.5).to(logits.dtype))


LOSSES: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"ce": ce, "bce": bce, "mse": mse}


def pixel_loss(logits: torch.Tensor, labels: torch.Tensor, name: str) -> torch.Tensor:
    """
    Compute the mean loss over the pixels of a batch.

    Args:
        logits (`torch.Tensor` of shape `(batch, height, width)`): Logits of the class "artifact".
        labels (`torch.Tensor` of shape `(batch, height, width)`): Labels in [0, 1], or [`OUTSIDE`] for pixels that do
            not count.
        name (`str`): One of [`LOSSES`].

    Returns:
        `torch.Tensor`: A scalar; 0 if no pixel counts.

    Raises:
        ArgumentError: There is no such loss.
    """
    check_choice("loss", name, tuple(LOSSES))
    counts = labels >= 0
    values = LOSSES[name](logits.float(), labels.clamp(min=0).float())
    return (values * counts).sum() / counts.sum().clamp(min=1)
