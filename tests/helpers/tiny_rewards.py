"""Tiny reward models of all trunks."""

from __future__ import annotations

from typing import Any

import torch

from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.detection.reward.heads import HeadSettings
from datasets_script.detection.reward.model import RewardModel
from datasets_script.detection.reward.network import RewardNetwork, build_network
from datasets_script.detection.reward.preprocessing import RewardPreprocessing
from datasets_script.detection.reward.record import RewardRecord

from .tiny_detectors import TINY_TRUNKS


_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
}
TINY_REWARD_TRUNKS: dict[str, dict[str, Any]] = {
    **TINY_TRUNKS,
    "clip_vit_b16": {**_VISION, "image_size": 64},
    "siglip_base": {**_VISION, "image_size": 64},
    "siglip2_base": {**_VISION, "num_patches": 64},
    "dinov3_vits16": {**_VISION, "image_size": 64},
    "dinov3_vitb16": {**_VISION, "image_size": 64},
}


def tiny_reward_network(trunk: str = "convnext_tiny", **settings: Any) -> RewardNetwork:
    """Build a network with random weights, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = HeadSettings(**{"hidden_size": 8, **settings})
        return build_network(trunk, head, changes=TINY_REWARD_TRUNKS[trunk])


def tiny_reward(trunk: str = "convnext_tiny", length: int = 64, **settings: Any) -> RewardModel:
    """Return a reward model with random weights, which sees images at a length of 64 px."""
    network = tiny_reward_network(trunk, **settings)
    tiles = network.head.settings.tiles if network.head.settings.kind == "tiled" else 1
    return RewardModel(network, RewardRecord(RewardPreprocessing(Preprocessing(length), tiles), trunk=trunk))
