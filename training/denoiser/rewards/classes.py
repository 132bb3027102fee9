"""
Kind `classes`: whether a vision-language model names no class of artifacts, when asked which of SynArtifact's classes
an image has.

The classes are read, not compared as texts, so that an answer that dodges the question is worth no more than one that
admits artifacts; compare `bertscore`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from datasets_script.detection.answers import read_classes, without_thinking
from datasets_script.detection.yes_no import AnswerError
from datasets_script.utils.errors import UserError
from datasets_script.vlm.base import VLM
from evaluate_metrics.functional.classification import CLASSES
from training.denoiser.rewards.answers import VLM_OPTIONS, answers_about, identity_of, load_vlm
from training.denoiser.rewards.base import Reward, RewardSpec


_MOST = len(CLASSES) - 1


def classes_reward(answer: str, per_class: float = 0.0) -> float:
    """
    Compute the reward of an answer.

    Args:
        answer (`str`): The model's answer.
        per_class (`float`, *optional*, defaults to 0.0): What each class that it names takes off, at least 0. Above 0,
            the reward of one artifact is above that of two.

    Returns:
        `float`: 1 for "No artifacts"; else minus `per_class` for each class. An answer that cannot be read, or not
        wholly, is worth as little as one that names all 13.

    Example:

    ```python
    >>> [classes_reward(answer, 0.1) for answer in ("1. No artifacts.", "1. Duplicated components.", "I cannot tell.")]
    [1.0, -0.1, -1.3]

    ```
    """
    try:
        classes, unknown = read_classes(without_thinking(answer))
    except AnswerError:
        return -per_class * _MOST
    if unknown:
        return -per_class * _MOST
    return -per_class * len(classes) if classes else 1.0


class ClassesReward:
    """
    Reward of the exact set of classes; see [`classes_reward`].

    Args:
        vlm (`VLM`): The model that is asked.
        per_class (`float`, *optional*, defaults to 0.0): See [`classes_reward`].
    """

    def __init__(self, vlm: VLM, per_class: float = 0.0) -> None:
        if per_class < 0:
            raise UserError(f"--rewards must have per_class of at least 0, got {per_class}")
        self.vlm, self.per_class = vlm, per_class

    def __call__(self, images: list[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [classes_reward(answer, self.per_class) for answer in answers_about(images, "classification", self.vlm)]

    def identity(self) -> dict[str, Any]:
        return identity_of(self.vlm, "no classes", "classification") | {"per_class": self.per_class}


def load(spec: RewardSpec, device: str) -> Reward:
    """Load the model of a folder, Hub id or endpoint; see [`~training.denoiser.rewards.registry.load_rewards`]."""
    options = spec.read(**VLM_OPTIONS, per_class=float)
    return ClassesReward(load_vlm(spec, options, device), options.get("per_class", 0.0))
