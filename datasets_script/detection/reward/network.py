"""The network of a reward model: a trunk and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ...utils.errors import ArgumentError
from .features import build_trunk, channels_of, trunk_features
from .heads import HeadSettings, RewardHead
from .trunks import trunk_config


MODEL_TYPE = "artifact_reward"
"""`model_type` of its `config.json`."""


class RewardNetwork(nn.Module):
    """
    A trunk of transformers with a head that scores images.

    Args:
        backbone (`PreTrainedModel`): The trunk, see [`~datasets_script.detection.reward.features.build_trunk`].
        settings (`HeadSettings`): The head, whose weights are random.
    """

    def __init__(self, backbone: PreTrainedModel, settings: HeadSettings) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = RewardHead(settings, channels_of(backbone))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RewardNetwork:
        """
        Build a network with random weights from the output of [`to_dict`], in evaluation mode.

        Raises:
            ArgumentError: It is of another type, or a value is not as described.
        """
        if content.get("model_type") != MODEL_TYPE:
            raise ArgumentError(f"`model` must be of type {MODEL_TYPE}, got {content.get('model_type')!r}")
        return cls(build_trunk(content["trunk"]), HeadSettings.from_dict(content["head"])).eval()

    def to_dict(self) -> dict[str, Any]:
        """Return what the network is built from, JSON-serialisable."""
        trunk = self.backbone.config
        return {
            "model_type": MODEL_TYPE,
            "trunk": {**trunk.to_diff_dict(), "model_type": trunk.model_type},
            "head": self.head.settings.to_dict(),
        }

    @property
    def dtype(self) -> torch.dtype:
        return self.head.score.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.head.score.weight.device

    def forward(self, pixel_values: Sequence[torch.Tensor], inside: Sequence[torch.Tensor]) -> torch.Tensor:
        """
        Score images. Those of one size of input are a tensor of their own, so that none is padded for another's sake.

        Args:
            pixel_values (`Sequence[torch.Tensor]`): Inputs of shape `(images, views, 3, height, width)`, from
                [`~datasets_script.detection.reward.preprocessing.RewardPreprocessing`].
            inside (`Sequence[torch.Tensor]`): Which of their pixels show the image, `bool` of shape `(images, views,
                height, width)`.

        Returns:
            `torch.Tensor` of shape `(images,)`: Scores in the order of the tensors, `float32`.
        """
        return torch.cat([self._scores(*pair) for pair in zip(pixel_values, inside, strict=True)])

    def head_inputs(self, pixel_values: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compute what the head sees of images of one size, see
        [`~datasets_script.detection.reward.heads.RewardHead.inputs`].

        Args:
            pixel_values, inside (`torch.Tensor`): One of those of [`forward`].
        """
        flat = pixel_values.flatten(0, 1).to(self.dtype)
        return self.head.inputs(trunk_features(self.backbone, flat, inside.flatten(0, 1)))

    def _scores(self, pixel_values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return self.head(*self.head_inputs(pixel_values, inside), pixel_values.shape[1]).float()


def build_network(
    trunk: str, settings: HeadSettings | None = None, *, changes: Mapping[str, Any] | None = None
) -> RewardNetwork:
    """
    Build a network with random weights, offline.

    Args:
        trunk (`str`): One of [`~datasets_script.detection.reward.trunks.REWARD_TRUNKS`].
        settings (`HeadSettings`, *optional*): The head. Defaults to the pooled one.
        changes (`Mapping[str, Any]`, *optional*): Values of the trunk's configuration to change.

    Raises:
        ArgumentError: There is no such trunk.
    """
    return RewardNetwork(build_trunk(trunk_config(trunk, changes)), settings or HeadSettings()).eval()
