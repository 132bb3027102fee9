"""Kind `reward`: the score of a reward model, as `artiagent generate --reward` searches by it."""

from __future__ import annotations

from datasets_script.detection.scoring import load_reward
from training.denoiser.rewards.base import OfImages, Reward, RewardSpec


def load(spec: RewardSpec, device: str) -> Reward:
    """Load the reward model of a folder or Hub id; see [`~training.denoiser.rewards.registry.load_rewards`]."""
    options = spec.read(device=str)
    return OfImages(load_reward(spec.model, options.get("device", device), "rewards"))
