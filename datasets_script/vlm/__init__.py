"""Vision-language models, local or behind an endpoint, with one interface and a cache."""

from .base import VLM, VLMAnswer, VLMRequest, VLMUnavailable, VLMUsage
from .cache import CachedVLM, default_cache_folder
from .endpoint import EndpointVLM
from .local import LocalVLM


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
