"""What a run is about to do, in a few lines at its start."""

from __future__ import annotations

from pathlib import Path

from diffusers_artifact.presets import EMBEDDED

from ..agents.curation.curator import Curator
from .diffusion_model import DiffusionModel
from .settings import CommonSettings
from .shards import Shards


def models_banner(model: DiffusionModel, curator: Curator, settings: CommonSettings) -> str:
    """
    Describe the models of a run, and warn of a judge that sees too little.

    Args:
        model (`DiffusionModel`): Loaded diffusion model.
        curator (`Curator`): Judge of the artifacts and author of the texts.
        settings (`CommonSettings`): Settings of the run.
    """
    side, pipeline, vlm = model.sample_size, model.pipeline, curator.vlm
    size = f"{side}x{side} px" if side else f"long side up to {settings.max_long_side} px"
    dtype = str(pipeline.dtype).removeprefix("torch.")
    lines = [
        f"model: {model.model}, {size}, on {pipeline.device} in {dtype}",
        model.about,
        f"judge: image metrics with {curator.metric.name}{'' if vlm is None else f', then {vlm.model}'}",
        f"explanations: {'templates' if vlm is None else vlm.model}",
    ]
    if curator.detector is not None:
        lines.append(f"second opinion: {curator.detector.name}, recorded in the scores")
    if model.model == EMBEDDED and vlm is not None:
        lines.append(
            f"warning: the embedded model makes images of {size}, in which '{vlm.model}' sees little and may reject "
            "most artifacts; it is meant for trials without a VLM: give another --model"
        )
    return "\n".join(lines)


def photos_banner(shards: Shards, out: Path, settings: CommonSettings) -> str:
    """
    Describe the photos of a run.

    Args:
        shards (`Shards`): Division of the run.
        out (`Path`): Folder of the run.
        settings (`CommonSettings`): Settings of the run.
    """
    done, count = shards.count_finished(out), len(shards.sources)
    before = f" ({done} of {shards.num_tasks} done before)" if done else ""
    return f"photos: {count}{before}, {settings.pairs_per_image} pair(s) each, seed {settings.seed}, to {out}"
