"""
Kind `detector`: minus the smoothed maximum of a pixel detector's map, by which `artiagent generate --detector` ranks.

Of the kinds it is the easiest to please without a better image: a trained generator soon draws what this one detector
does not see. Keep a guard of another trunk.
"""

from __future__ import annotations

from datasets_script.detection.scoring import DetectorScorer, load_detector
from training.denoiser.rewards.base import OfImages, Reward, RewardSpec


def load(spec: RewardSpec, device: str) -> Reward:
    """Load a pixel detector; see [`~training.denoiser.rewards.registry.load_rewards`]."""
    options = spec.read(device=str)
    return OfImages(DetectorScorer(load_detector(spec.model, options.get("device", device), "rewards")))
