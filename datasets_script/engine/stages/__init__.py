"""
The stages that turn photos into pairs, one a file, in this order. What one of them rejects passes through the
others untouched.
"""

from .base import ArtifactPlan, Sample, Stage
from .explain import Explain
from .inject import Inject
from .perceive import Perceive
from .plan import Plan
from .read import Read


__all__ = ["ArtifactPlan", "Explain", "Inject", "Perceive", "Plan", "Read", "Sample", "Stage"]
