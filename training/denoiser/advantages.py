"""How much better an image is than others of its prompt, from rewards."""

from __future__ import annotations

from collections.abc import Sequence

import torch


# Keeps groups of equal rewards at 0; as published.
_EPSILON = 1e-4


def group_advantages(
    rewards: torch.Tensor, group_size: int, *, across_groups: bool = False, clip: float = 5.0
) -> torch.Tensor:
    """
    Compare rewards within groups of images of one prompt (GRPO).

    Args:
        rewards (`torch.Tensor` of shape `(groups * group size,)`): Rewards, group by group.
        group_size (`int`): Images of a group, at least 2.
        across_groups (`bool`, *optional*, defaults to `False`): Divide by the standard deviation of all rewards
            instead of the group's, so that a group whose rewards hardly differ does not weigh as much as others.
        clip (`float`, *optional*, defaults to 5.0): Largest magnitude.

    Returns:
        `torch.Tensor` of shape `(groups * group size,)`, `float32`: (r − mean of the group) / standard deviation. A
        group of equal rewards has 0: it teaches nothing.

    Raises:
        ValueError: `group_size` is below 2 or does not divide the number of rewards, or a reward is not finite.

    Example:

    ```python
    >>> group_advantages(torch.tensor([0.0, 2.0, 5.0, 5.0]), group_size=2).round(decimals=2).tolist()
    [-1.0, 1.0, 0.0, 0.0]

    ```
    """
    if group_size < 2 or len(rewards) % group_size:
        raise ValueError(f"`group_size` must be at least 2 and divide {len(rewards)} rewards, got {group_size}")
    groups = _checked(rewards).view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    spread = groups.std(correction=0) if across_groups else groups.std(1, correction=0, keepdim=True)
    return (centred / (spread + _EPSILON)).flatten().clamp(-clip, clip).float()


class PromptStatistics:
    """
    Rewards that each prompt had in recent updates, to compare new ones with (DDPO), for updates that hold few images
    of a prompt. A prompt with few rewards so far is compared with all images of the update.

    Args:
        prompts (`int`): Number of prompts.
        size (`int`, *optional*, defaults to 16): Rewards kept of each prompt.
        least (`int`, *optional*, defaults to 16): Rewards that a prompt needs for statistics of its own.

    Attributes:
        kept (`torch.Tensor` of shape `(prompts, size)`, `float64`): The rewards, the newest last, and NaN for those
            that are still to come. Everything that the next updates depend on.

    Raises:
        ValueError: `least` is not within 2 and `size`.
    """

    def __init__(self, prompts: int, size: int = 16, least: int = 16) -> None:
        if not 2 <= least <= size:
            raise ValueError(f"`least` must lie between 2 and `size` ({size}), got {least}")
        self.least = least
        self.kept = torch.full((prompts, size), torch.nan, dtype=torch.float64)

    def advantages(self, rows: Sequence[int], rewards: torch.Tensor, clip: float = 5.0) -> torch.Tensor:
        """
        Take the rewards of an update in, and compare them.

        Args:
            rows (`Sequence[int]`): Number of each image's prompt.
            rewards (`torch.Tensor` of shape `(images,)`): Their rewards.
            clip (`float`, *optional*, defaults to 5.0): Largest magnitude.

        Returns:
            `torch.Tensor` of shape `(images,)`, `float32`: (r − mean) / standard deviation.

        Raises:
            ValueError: A reward is not finite.
        """
        rewards = _checked(rewards)
        for row, reward in zip(rows, rewards, strict=True):
            self.kept[row] = torch.cat([self.kept[row, 1:], reward[None]])
        found = []
        for row, reward in zip(rows, rewards, strict=True):
            seen = self.kept[row][~self.kept[row].isnan()]
            others = seen if len(seen) >= self.least else rewards
            found.append((reward - others.mean()) / (others.std(correction=0) + _EPSILON))
        return torch.stack(found).clamp(-clip, clip).float()


def _checked(rewards: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(rewards).all():
        raise ValueError(f"`rewards` must be finite, got {rewards.tolist()}; a NaN can be neither good nor bad")
    return rewards.detach().cpu().double()
