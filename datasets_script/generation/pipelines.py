"""Loading of text-to-image pipelines, and the arguments of their calls."""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import DiffusionPipeline

from diffusers_artifact.best_of_n import check_text_to_image

from ..engine.loading import ModelLoadError, check_loading, load_checkpoint, offload_weights, resolved, set_kernels
from ..engine.settings import Offload
from ..utils.errors import ArgumentError
from .settings import GenerationSettings


def load_text_to_image(settings: GenerationSettings, device: str, offload: Offload) -> tuple[DiffusionPipeline, str]:
    """
    Load the stock pipeline of a checkpoint onto a device.

    Args:
        settings (`GenerationSettings`): Model and how to load it.
        device (`str`): Device to draw on.
        offload (`str`): Where its weights wait; see [`~datasets_script.engine.loading.offload_weights`].

    Returns:
        `tuple[DiffusionPipeline, str]`: The pipeline, and the commit or the folder's fingerprint.

    Raises:
        ModelLoadError: The checkpoint does not exist, cannot be downloaded, or draws no images from texts.
        ArgumentError: Settings of the loading do not go together.
    """
    loading = resolved(settings.loading, settings.model, device)
    check_loading(loading, offload, device)
    pipeline, revision = load_checkpoint(DiffusionPipeline, settings.model, settings.revision, loading, device)
    try:
        check_text_to_image(pipeline)
    except TypeError as error:
        raise ModelLoadError(f"`model` must be a text-to-image model, got '{settings.model}': {error}") from error
    set_kernels(pipeline, loading)
    if offload == "none":
        pipeline.to(device)
    else:
        offload_weights(pipeline, offload, device)
    return pipeline, revision


def call_options(pipeline: Any, settings: GenerationSettings) -> dict[str, Any]:
    """
    Return the arguments of each call of a pipeline, besides prompt and noise.

    Args:
        pipeline ([`~diffusers.DiffusionPipeline`]): A text-to-image pipeline.
        settings (`GenerationSettings`): Settings of the run.

    Raises:
        ArgumentError: The pipeline does not take one of them.
    """
    width, height = settings.width_and_height() or (None, None)
    options: dict[str, Any] = {
        "num_inference_steps": settings.num_inference_steps,
        "width": width,
        "height": height,
        "negative_prompt": settings.negative_prompt,
    }
    if settings.guidance is not None:
        scale = _guidance_argument(pipeline)
        options[scale] = settings.guidance
        if scale == "true_cfg_scale" and settings.negative_prompt is None:
            # Without one, the pipeline leaves guidance out. An empty one has no tokens.
            options["negative_prompt"] = " "
    given = {name: value for name, value in options.items() if value is not None}
    own = inspect.signature(pipeline.__call__).parameters.get("true_cfg_scale")
    is_off = own is not None and isinstance(own.default, int | float) and own.default <= 1
    if settings.negative_prompt is not None and is_off and "true_cfg_scale" not in given:
        raise ArgumentError(
            f"`negative_prompt` must be left out for {type(pipeline).__name__}, which draws without one unless its "
            f"`true_cfg_scale` is above 1, got {settings.negative_prompt!r}"
        )
    try:
        check_text_to_image(pipeline, given)
    except ValueError as error:
        raise ArgumentError(str(error).replace("`guidance_scale`", "`guidance`")) from error
    return given


def _guidance_argument(pipeline: Any) -> str:
    """Return the argument of guidance: where `guidance_scale` has no value by itself, as Qwen-Image's, the other."""
    taken = inspect.signature(pipeline.__call__).parameters
    own = taken.get("guidance_scale")
    without_value = own is not None and own.default is None
    return "true_cfg_scale" if without_value and "true_cfg_scale" in taken else "guidance_scale"
