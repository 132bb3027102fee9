"""The data engine: find the parts of things in photos, inject artifacts there, and keep curated pairs as a dataset."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .benchmarks.loading import load_benchmark
    from .benchmarks.registry import register
    from .comparison.compare import compare
    from .correction.agent import CorrectionAgent
    from .correction.correct import correct
    from .detection.detector import ArtifactDetector
    from .detection.pixel.detector import PixelDetector
    from .detection.reward.model import RewardModel
    from .engine.corrupt import corrupt
    from .engine.synthesize import synthesize
    from .generation.generate import generate
    from .pairs.builder import ArtiAgentPairs


__all__ = [
    "ArtiAgentPairs",
    "ArtifactDetector",
    "CorrectionAgent",
    "PixelDetector",
    "RewardModel",
    "compare",
    "correct",
    "corrupt",
    "generate",
    "load_benchmark",
    "register",
    "synthesize",
]

# Where each public name lives. It is imported on first use: most need a library that takes seconds to import.
_HOMES = {
    "ArtiAgentPairs": ".pairs.builder",
    "ArtifactDetector": ".detection.detector",
    "CorrectionAgent": ".correction.agent",
    "PixelDetector": ".detection.pixel.detector",
    "RewardModel": ".detection.reward.model",
    "load_benchmark": ".benchmarks.loading",
    "register": ".benchmarks.registry",
    "compare": ".comparison.compare",
    "correct": ".correction.correct",
    "corrupt": ".engine.corrupt",
    "generate": ".generation.generate",
    "synthesize": ".engine.synthesize",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
