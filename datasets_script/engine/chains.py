"""The ways of making artifacts that a run can take. Each is a model, a planner, and the settings that choose it."""

from __future__ import annotations

from dataclasses import dataclass

from .corruptor import Corruptor
from .diffusion_model import DiffusionModel
from .injector import Injector
from .planners import Planner, RegionPlanner, ToolPlanner
from .settings import CommonSettings, CorruptionRunSettings, RunSettings


@dataclass(frozen=True)
class Chain:
    """
    What differs between two ways of making artifacts.

    Attributes:
        model (`type[DiffusionModel]`): Class that makes the images.
        planner (`type[Planner]`): Class that chooses the artifacts.
    """

    model: type[DiffusionModel]
    planner: type[Planner]


CHAINS: dict[type[CommonSettings], Chain] = {
    RunSettings: Chain(Injector, ToolPlanner),
    CorruptionRunSettings: Chain(Corruptor, RegionPlanner),
}
"""Way that each kind of settings chooses."""
