"""The loss of a policy: the clipped surrogate, and the divergence from the base model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.denoiser.policy import Transition


@dataclass(frozen=True, eq=False)
class PolicyLoss:
    """
    Loss of a batch at one step.

    Attributes:
        loss (`torch.Tensor`): A scalar to minimise.
        ratio (`torch.Tensor` of shape `(batch,)`): Probability of each image's latents now, by that when they were
            drawn; exactly 1 before the first change of the weights.
        clipped (`torch.Tensor`): Share of images whose ratio was outside the clip range.
    """

    loss: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def clipped_loss(
    log_prob: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor, clip_range: float
) -> PolicyLoss:
    """
    Compute the clipped surrogate loss (PPO eq. 7): −mean(min(ρA, clip(ρ, 1 − ε, 1 + ε)A)), with ρ the ratio.

    Args:
        log_prob (`torch.Tensor` of shape `(batch,)`): Log-probability of the latents that were drawn, now.
        before (`torch.Tensor` of shape `(batch,)`): The same when they were drawn.
        advantages (`torch.Tensor` of shape `(batch,)`): Advantages of the images.
        clip_range (`float`): ε. Log-probabilities that are means over elements need a small one, around 1e-4.
    """
    ratio = torch.exp(log_prob - before)
    within = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = torch.maximum(-advantages * ratio, -advantages * within).mean()
    outside = ((ratio.detach() - 1).abs() > clip_range).float().mean()
    return PolicyLoss(loss, ratio.detach(), outside)


def divergence(policy: Transition, base: Transition) -> torch.Tensor:
    """
    Compute the Kullback-Leibler divergence of a noisy step from the base model's, as a mean over elements and images
    (Flow-GRPO). Both have the same standard deviation, so it is (μ − μ_base)² / 2σ².

    Args:
        policy, base (`Transition`): Distributions of the next latents from the same latents; `base` gets no gradient.

    Returns:
        `torch.Tensor`: A scalar.
    """
    return ((policy.mean - base.mean.detach()) / policy.std).square().mean() / 2
