"""
The stages that turn photos into pairs, in order: read, perceive, plan, encode, inject, explain. A sample that one
stage rejects passes through the later ones unchanged. Where an endpoint is asked ahead, perceiving is two stages: name
and locate. A run that stores noise inverts before it explains.
"""

from .base import ArtifactPlan, Sample, Stage
from .encode import Encode
from .explain import Explain
from .inject import Inject
from .invert import Invert
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
    "Invert",
    "Locate",
    "Name",
    "Perceive",
    "Plan",
    "Read",
    "Sample",
    "Stage",
]
