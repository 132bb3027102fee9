"""The planners, which choose what artifacts to make where: by tools, or by corrupting regions."""

from .base import Planner
from .regions import RegionPlanner
from .tools import ToolPlanner


__all__ = ["Planner", "RegionPlanner", "ToolPlanner"]
