"""
The stages that turn photos into pairs, in order: read, perceive, plan, encode, inject, explain. A sample that one
stage rejects passes through the later ones unchanged. Where an endpoint is asked ahead, perceiving is two stages: name
and locate.
"""

from .base import ArtifactPlan, Sample, Stage
from .encode import Encode
from .explain import Explain
from .inject import Inject
from .locate import Locate
from .name import Name
from .perceive import Perceive
from .plan import Plan
from .read import Read


__all__ = [
    "ArtifactPlan",
    "Encode",
    "Explain",
    "Inject",
    "Locate",
    "Name",
    "Perceive",
    "Plan",
    "Read",
    "Sample",
    "Stage",
]
