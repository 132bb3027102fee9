"""
Vision-language models, local or behind an endpoint, with one interface and a cache.

Names are loaded on first use, so that importing a box convention does not load transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .base import VLM, VLMAnswer, VLMRequest, VLMUnavailable, VLMUsage
    from .cache import CachedVLM, default_cache_folder
    from .endpoint import EndpointVLM
    from .local import LocalVLM


_HOMES = {
    "VLM": ".base",
    "CachedVLM": ".cache",
    "EndpointVLM": ".endpoint",
    "LocalVLM": ".local",
    "VLMAnswer": ".base",
    "VLMRequest": ".base",
    "VLMUnavailable": ".base",
    "VLMUsage": ".base",
    "default_cache_folder": ".cache",
}

__all__ = [
    "VLM",
    "CachedVLM",
    "EndpointVLM",
    "LocalVLM",
    "VLMAnswer",
    "VLMRequest",
    "VLMUnavailable",
    "VLMUsage",
    "default_cache_folder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
