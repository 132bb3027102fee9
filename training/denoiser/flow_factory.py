"""
The rewards of this package in Flow-Factory, for reinforcement learning on many GPUs.

Flow-Factory is installed from its repository, and finds the class by its path. In the YAML file of a run:

```yaml
rewards:
  - name: artifacts
    reward_model: training.denoiser.flow_factory.ArtiAgentReward
    batch_size: 16
    rewards: ["no=runs/qwen3_vl_8b", "reward=runs/reward_dinov3,weight=0.1"]
```

Entries of the inner list are those of `training.ddpo --rewards`. The interface is that of Flow-Factory in 2026: a
`PointwiseRewardModel` is made of a configuration, whose unknown names are in `extra_kwargs`, and an accelerator; it is
called with prompts and PIL images, and returns a `RewardModelOutput`.
"""

from __future__ import annotations

from typing import Any

from PIL import Image


try:
    from flow_factory.rewards import PointwiseRewardModel, RewardModelOutput
except ImportError as error:
    raise ImportError(
        "training.denoiser.flow_factory needs Flow-Factory; install it from https://github.com/X-GenGroup/Flow-Factory"
    ) from error

from training.denoiser.rewards.registry import load_rewards, parse_rewards


class ArtiAgentReward(PointwiseRewardModel):
    """
    Weighted sum of rewards.

    Args:
        config (`RewardArguments`): Flow-Factory's configuration, with `rewards` among its `extra_kwargs`.
        accelerator (`accelerate.Accelerator`): Of the run.

    Raises:
        UserError: A reward is unknown or cannot be loaded.
    """

    required_fields = ("prompt", "image")
    use_tensor_inputs = False

    def __init__(self, config: Any, accelerator: Any) -> None:
        super().__init__(config, accelerator)
        self.rewards = load_rewards(parse_rewards(config.extra_kwargs.get("rewards", [])), str(self.device))

    # Flow-Factory gathers what the signature names, and nothing else.
    def __call__(self, prompt: list[str], image: list[Image.Image] | None = None) -> RewardModelOutput:
        """
        Score images.

        Args:
            prompt (`list[str]`): What each was drawn from.
            image (`list[PIL.Image.Image]`): RGB.

        Raises:
            ValueError: There are no images.
        """
        if image is None:
            raise ValueError("`image` must be given, as videos are not scored, got None")
        scores = self.rewards([one.convert("RGB") for one in image], prompt)
        return RewardModelOutput(rewards=scores.total)
