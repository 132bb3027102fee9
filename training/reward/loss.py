"""The loss of a reward model."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def bradley_terry(clean: torch.Tensor, artifact: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
    """
    Compute the Bradley-Terry loss, -log σ(s(clean) - s(artifact)), averaged over the pairs of a batch and over pairs
    of a clean image and an artifact image of different photos, so that a score cannot depend on what a photo shows
    (ArtiAgent, appendix C.1).

    Args:
        clean, artifact (`torch.Tensor` of shape `(pairs,)`): Scores.
        cross (`torch.Tensor` of shape `(cross pairs, 2)`, `int64`): Index of the clean and of the artifact image of
            each pair across photos.

    Returns:
        `torch.Tensor`: A scalar.
    """
    differences = torch.cat([clean - artifact, clean[cross[:, 0]] - artifact[cross[:, 1]]])
    return -functional.logsigmoid(differences).mean()


def squared_norm(module: nn.Module) -> torch.Tensor:
    """Compute the sum of the squares of all parameters of a module."""
    return torch.stack([parameter.square().sum() for parameter in module.parameters()]).sum()
