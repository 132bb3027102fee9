"""Perception: the entities of an image, their parts, and which of them can carry an artifact."""

from ...schema.perception import Entity, Part, PartLevel, Perception
from .annotations import AnnotationError, AnnotationPerception, NoAnnotation
from .base import PerceptionAgent, PerceptionError, PerceptionModelError
from .usable import apply_to_perception, filter_perception


__all__ = [
    "AnnotationError",
    "AnnotationPerception",
    "Entity",
    "NoAnnotation",
    "Part",
    "PartLevel",
    "Perception",
    "PerceptionAgent",
    "PerceptionError",
    "PerceptionModelError",
    "apply_to_perception",
    "filter_perception",
]
