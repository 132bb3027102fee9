"""Parts of a network that a recipe may freeze: the trunk, or the normalizations within it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from training.pixel.base import trunk_of


PARTS = ("trunk", "trunk_statistics")

# Swin's last normalization, which its backbone does not use: without a gradient it would stop a distributed training.
_UNUSED = ("backbone.swin.layernorm.",)


def freeze(network: nn.Module, parts: Sequence[str]) -> None:
    """
    Turn off the training of parts of a network, in place, and of weights that no gradient reaches.

    Args:
        network (`nn.Module`): The network, with its trunk as `segformer` or `backbone`.
        parts (`Sequence[str]`): Among [`PARTS`]. `"trunk"` freezes its weights and keeps it in evaluation mode;
            `"trunk_statistics"` keeps the running means of its batch normalizations, and trains its weights.
    """
    trunk = trunk_of(network)
    if "trunk" in parts:
        trunk.requires_grad_(False)
        trunk.register_forward_pre_hook(_evaluate)
    elif "trunk_statistics" in parts:
        for module in trunk.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_pre_hook(_evaluate)
    for name, parameter in network.named_parameters():
        if name.startswith(_UNUSED):
            parameter.requires_grad_(False)


def _evaluate(module: nn.Module, inputs: Any) -> None:
    # The trainer puts the whole network in training mode before each step.
    module.eval()
