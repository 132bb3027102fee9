"""
The adapter for Flow-Factory, on a stand-in with the interface that Flow-Factory publishes: it is no package of PyPI,
and cannot be installed here.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image


NAME = "training.denoiser.flow_factory"


class PointwiseRewardModel:
    def __init__(self, config, accelerator):
        self.accelerator, self.config, self.dtype = accelerator, config, config.dtype
        self.device = accelerator.device if config.device == torch.device("cuda") else config.device


@dataclass
class RewardModelOutput:
    rewards: list[float]


def brightness(images, prompts):
    return [float(np.asarray(image).mean()) / 255 for image in images]


@pytest.fixture
def adapter(monkeypatch):
    rewards = ModuleType("flow_factory.rewards")
    vars(rewards).update(PointwiseRewardModel=PointwiseRewardModel, RewardModelOutput=RewardModelOutput)
    monkeypatch.setitem(sys.modules, "flow_factory", ModuleType("flow_factory"))
    monkeypatch.setitem(sys.modules, "flow_factory.rewards", rewards)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


def test_it_gives_the_weighted_sum(adapter):
    entries = [f"function={__name__}:brightness,weight=2"]
    config = SimpleNamespace(
        device=torch.device("cuda"), dtype=torch.bfloat16, batch_size=2, extra_kwargs={"rewards": entries}
    )
    model = adapter.ArtiAgentReward(config, SimpleNamespace(device=torch.device("cpu")))
    images = [Image.new("RGBA", (8, 8), color) for color in ("white", "black")]
    # Called by name, as its processor does.
    assert model(prompt=["a", "b"], image=images).rewards == [2.0, 0.0]
    with pytest.raises(ValueError, match="`image` must be given"):
        model(prompt=["a"])


def test_without_flow_factory_its_source_is_told():
    sys.modules.pop(NAME, None)
    with pytest.raises(ImportError, match="needs Flow-Factory; install it from https://github.com/X-GenGroup"):
        importlib.import_module(NAME)
