"""
Perception: the entities of an image, their parts, and which of them can carry an artifact.

Names are imported on first use, so that reading the list of backends does not load one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from ...schema.perception import Entity, Part, PartLevel, Perception
    from .annotations import AnnotationError, AnnotationPerception, NoAnnotation
    from .backends import BACKENDS, PerceptionSpec
    from .base import PerceptionAgent, PerceptionError, PerceptionModelError
    from .usable import apply_to_perception, filter_perception


__all__ = [
    "BACKENDS",
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
    "PerceptionSpec",
    "apply_to_perception",
    "filter_perception",
]

_HOMES = {
    "...schema.perception": ("Entity", "Part", "PartLevel", "Perception"),
    ".annotations": ("AnnotationError", "AnnotationPerception", "NoAnnotation"),
    ".backends": ("BACKENDS", "PerceptionSpec"),
    ".base": ("PerceptionAgent", "PerceptionError", "PerceptionModelError"),
    ".usable": ("apply_to_perception", "filter_perception"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
