"""
The stages that turn photos into pairs, in order: read, perceive, plan, inject, explain. A sample that one stage
rejects passes through the later ones unchanged.
"""

from .base import ArtifactPlan, Sample, Stage
from .explain import Explain
from .inject import Inject
from .perceive import Perceive
from .plan import Plan
from .read import Read


__all__ = ["ArtifactPlan", "Explain", "Inject", "Perceive", "Plan", "Read", "Sample", "Stage"]
