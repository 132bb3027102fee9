"""The kinds of rewards by name, and the weighted sum that a policy is trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from datasets_script.utils.errors import UserError
from training.denoiser.rewards import bertscore, classes, detector, function, no, reward_model
from training.denoiser.rewards.base import Reward, RewardSpec


REWARDS: Mapping[str, Callable[[RewardSpec, str], Reward]] = {
    "reward": reward_model.load,
    "detector": detector.load,
    "no": no.load,
    "classes": classes.load,
    "bertscore": bertscore.load,
    "function": function.load,
}


@dataclass(frozen=True)
class Scores:
    """
    Rewards of images.

    Attributes:
        total (`list[float]`): Weighted sum for each image.
        parts (`Mapping[str, list[float]]`): Each reward by its name, without weight.
    """

    total: list[float]
    parts: Mapping[str, list[float]]


@dataclass(frozen=True)
class WeightedSum:
    """
    Sum of rewards.

    Args:
        rewards (`Mapping[str, tuple[float, Reward]]`): Weights and rewards by name.
    """

    rewards: Mapping[str, tuple[float, Reward]]

    def __call__(self, images: list[Image.Image], prompts: Sequence[str]) -> Scores:
        """
        Score images.

        Args:
            images (`list[PIL.Image.Image]`): RGB.
            prompts (`Sequence[str]`): What each was drawn from.

        Raises:
            ValueError: A reward does not give a finite number for each image.
        """
        parts = {name: _checked(name, reward(images, prompts), images) for name, (_, reward) in self.rewards.items()}
        weighted = [[weight * score for score in parts[name]] for name, (weight, _) in self.rewards.items()]
        total = [math.fsum(scores) for scores in zip(*weighted, strict=True)]
        return Scores(total, parts)

    def identity(self) -> dict[str, Any]:
        """Return everything that scores depend on, JSON-serialisable."""
        return {name: {"weight": weight, **reward.identity()} for name, (weight, reward) in self.rewards.items()}


def parse_rewards(values: Sequence[str | Mapping[str, Any]]) -> list[RewardSpec]:
    """
    Read the entries of a recipe's rewards.

    Args:
        values (`Sequence`): Entries as [`RewardSpec.parse`] takes them.

    Raises:
        UserError: There is none, or one has another form or is of an unknown kind.
    """
    specs = [RewardSpec.parse(value) for value in values]
    if not specs:
        raise UserError("--rewards must name at least one, such as detector=embedded, got none")
    for spec in specs:
        if spec.kind not in REWARDS:
            raise UserError(f"--rewards must have a kind among {', '.join(REWARDS)}, got '{spec.kind}'")
    return specs


def load_rewards(specs: Sequence[RewardSpec], device: str) -> WeightedSum:
    """
    Load rewards.

    Args:
        specs (`Sequence[RewardSpec]`): Entries, from [`parse_rewards`].
        device (`str`): Device of models without one of their own.

    Returns:
        `WeightedSum`: Their sum. A second reward of a kind is called `KIND_2`.

    Raises:
        UserError: A reward cannot be loaded.
        VLMUnavailable: A vision-language model cannot be loaded.
    """
    rewards: dict[str, tuple[float, Reward]] = {}
    for spec in specs:
        same = sum(name.split("_")[0] == spec.kind for name in rewards)
        rewards[f"{spec.kind}_{same + 1}" if same else spec.kind] = (spec.weight, REWARDS[spec.kind](spec, device))
    return WeightedSum(rewards)


def _checked(name: str, scores: Sequence[float], images: Sequence[Image.Image]) -> list[float]:
    found = [float(score) for score in scores]
    if len(found) != len(images) or not all(map(math.isfinite, found)):
        raise ValueError(f"reward '{name}' must give a finite number for each of {len(images)} images, got {found}")
    return found
