"""Loading of the detectors and the reward that guide while images are drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffusers_artifact.detector_guidance import DetectorGuidance, GuidanceSettings, settings_for

from ..detection.scoring import load_detector, load_reward
from ..utils.errors import ArgumentError
from .settings import GenerationSettings


def load_guidance(
    settings: GenerationSettings, pipeline: Any, device: str
) -> tuple[DetectorGuidance, dict[str, Any]] | None:
    """
    Load what guides a pipeline.

    Args:
        settings (`GenerationSettings`): Settings of the run.
        pipeline ([`~diffusers.DiffusionPipeline`]): The pipeline that draws.
        device (`str`): Device of the guides.

    Returns:
        `tuple[DetectorGuidance, dict]`: The guidance, and everything that it depends on, JSON-serialisable; see
        [`~datasets_script.schema.generation.GenerationRecord`]. `None` if the settings name no guide.

    Raises:
        ArgumentError: A guide cannot be loaded, or the pipeline cannot be guided.
    """
    if not settings.is_guided:
        return None
    strengths = _strengths(settings, pipeline)
    detectors = [load_detector(name, device, "guide") for name in settings.guide]
    rewards = [load_reward(settings.guide_reward, device, "guide_reward")] if settings.guide_reward else []
    guidance = DetectorGuidance(
        [detector.artifact_map for detector in detectors], [reward.score for reward in rewards], strengths
    )
    identity = {
        **guidance.to_dict(),
        "detectors": [{"detector": detector.identity()} for detector in detectors],
        "rewards": [reward.identity() for reward in rewards],
    }
    del identity["steps"]  # of a call, and there was none
    return guidance, identity


def _strengths(settings: GenerationSettings, pipeline: Any) -> GuidanceSettings:
    try:
        published = settings_for(pipeline)
    except ValueError as error:
        name, reason = "guide" if settings.guide else "guide_reward", str(error).replace("`", "")
        raise ArgumentError(
            f"`{name}` must come with a model that can be guided, got '{settings.model}': {reason}. Save the pipeline "
            f"with what it needs and give its folder as `model`, or leave out `{name}`"
        ) from error
    if settings.guide_strength is None:
        return published
    return replace(published, strength=settings.guide_strength, final_strength=None)
