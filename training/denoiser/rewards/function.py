"""
Kind `function`: a function of your own, `function=PACKAGE.MODULE:NAME`.

```python
def brightness(images, prompts):
    return [float(np.asarray(image).mean()) / 255 for image in images]
```
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from datasets_script.utils.errors import UserError
from training.denoiser.rewards.base import Reward, RewardSpec


@dataclass(frozen=True)
class FunctionReward:
    """
    A function as a reward.

    Args:
        name (`str`): Where it is, `PACKAGE.MODULE:NAME`.
        function (`Callable`): Takes images and prompts, and returns a number for each.
    """

    name: str
    function: Callable[[list[Image.Image], Sequence[str]], Sequence[float]]

    def __call__(self, images: list[Image.Image], prompts: Sequence[str]) -> Sequence[float]:
        return self.function(images, prompts)

    def identity(self) -> dict[str, Any]:
        return {"score": "function", "function": self.name}


def load(spec: RewardSpec, device: str) -> Reward:
    """
    Import a function; see [`~training.denoiser.rewards.registry.load_rewards`]. The device is the function's own
    choice.

    Raises:
        UserError: There is no such function.
    """
    spec.read()
    module, colon, name = spec.model.partition(":")
    try:
        function = getattr(importlib.import_module(module), name) if colon else None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--rewards must name a function that can be imported, got '{spec.model}': {error}") from error
    if not callable(function):
        raise UserError(f"--rewards must name a function as PACKAGE.MODULE:NAME, got '{spec.model}'")
    return FunctionReward(spec.model, function)
