"""The function `generate`, the Python form of `artiagent generate`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusers_artifact.best_of_n import Draw, NonFiniteImageError, draw_candidates
from diffusers_artifact.guidance_gradients import GuideError
from evaluate_metrics.functional.versions import recorded_versions

from ..engine.loading import resolved, usable_device
from ..engine.locks import holding_rank
from ..engine.settings import DType, LoadSettings, Offload, Quantization
from ..schema.generation import GenerationRecord
from ..utils.errors import ArgumentError, check_at_least
from .folder import GenerationFolder, check_continues, planned
from .guides import load_guidance
from .pipelines import call_options, load_text_to_image
from .prompts import Prompts, find_prompts
from .scorers import load_scorer
from .settings import GenerationSettings


_PACKAGES = ("artiagent", "torch", "diffusers", "transformers", "numpy", "pillow")


def generate(
    prompts: Prompts,
    out: str | os.PathLike[str],
    *,
    model: str,
    revision: str | None = None,
    best_of: int = 1,
    reward: str | None = None,
    detector: str | None = None,
    images_per_prompt: int = 1,
    guide: str | Sequence[str] = (),
    guide_reward: str | None = None,
    guide_strength: float | None = None,
    num_inference_steps: int | None = None,
    guidance: float | None = None,
    negative_prompt: str | None = None,
    size: str | None = None,
    seed: int = 0,
    keep_candidates: bool = False,
    batch_size: int = 1,
    dtype: DType | None = None,
    quantization: Quantization = "none",
    attention_backend: str | None = None,
    compile: bool = False,
    vae_tiling: bool = False,
    offload: Offload = "none",
    device: str | None = None,
) -> GenerationRecord:
    """
    Draw images from prompts, each the best of `best_of` candidates of the last round and those before.

    A call that was interrupted is continued by the same call, and no candidate is drawn twice. A run may grow: more
    prompts at the end, more `images_per_prompt`, a larger `best_of`.

    Args:
        prompts (`str`, `os.PathLike` or `Sequence[str | Prompt]`): A file of prompts, a list, or one
            prompt; see [`~datasets_script.generation.prompts.find_prompts`].
        out (`str` or `os.PathLike`): Folder to write, new or of the same run.
        model, revision, best_of, reward, detector, images_per_prompt, guide_reward, guide_strength,
            num_inference_steps, guidance, negative_prompt, size, seed, keep_candidates: See
            [`~datasets_script.generation.settings.GenerationSettings`].
        guide (`str` or `Sequence[str]`, *optional*): Pixel detectors that guide while images are drawn; see the same.
        batch_size (`int`, *optional*, defaults to 1): Candidates drawn together. Changes images by rounding only.
        dtype, quantization, attention_backend, compile, vae_tiling (*optional*): See
            [`~datasets_script.engine.settings.LoadSettings`].
        offload (`str`, *optional*, defaults to `"none"`): Where weights wait: `"none"`, `"model"`, `"group"` or
            `"sequential"`.
        device (`str`, *optional*): By default CUDA if available, else the CPU.

    Returns:
        `GenerationRecord`: Record of the complete run.

    Raises:
        ArgumentError, UserError: A value is out of range, a model cannot be loaded or guided, or the scorer is
            missing.
        RunMismatchError: `out` holds a run with other settings.
        RunBusyError: Another process writes to `out`.
    """
    check_at_least("batch_size", batch_size)
    out, found, device = Path(out), find_prompts(prompts), usable_device(device)
    loading = LoadSettings(dtype, quantization, attention_backend, compile, vae_tiling)
    settings = GenerationSettings(
        model=model,
        revision=revision,
        best_of=best_of,
        reward=reward,
        detector=detector,
        images_per_prompt=images_per_prompt,
        guide=(guide,) if isinstance(guide, str) else tuple(guide),
        guide_reward=guide_reward,
        guide_strength=guide_strength,
        num_inference_steps=num_inference_steps,
        guidance=guidance,
        negative_prompt=negative_prompt,
        size=size,
        seed=seed,
        keep_candidates=keep_candidates,
        loading=resolved(loading, model, device),
    )
    current = {"settings": asdict(settings), "versions": recorded_versions(_PACKAGES)}
    recorded = check_continues(out, found, current)
    with holding_rank(out, 0, 1):
        folder = GenerationFolder(out, found, planned(found, settings), keep_candidates)
        draws = folder.remaining()
        if recorded and recorded.status == "complete" and not draws:
            return recorded
        return _run(folder, draws, settings, current, device, offload, batch_size)


def _run(
    folder: GenerationFolder,
    draws: Sequence[Draw],
    settings: GenerationSettings,
    current: Mapping[str, Any],
    device: str,
    offload: Offload,
    batch_size: int,
) -> GenerationRecord:
    """Load the models, check that they are those of the run, and draw what is left."""
    begun = time.monotonic()
    scorer = load_scorer(settings, device)
    pipeline, revision = load_text_to_image(settings, device, offload)
    guidance, guide = load_guidance(settings, pipeline, device) or (None, None)
    record = GenerationRecord(
        model_revision=revision, scorer=scorer.identity() if scorer else None, guide=guide, **current
    )
    options = call_options(pipeline, settings) | ({"callback_on_step_end": guidance} if guidance else {})
    check_continues(folder.out, folder.prompts, record.identity)
    folder.begin(record)
    total = sum(map(len, folder.plan.values()))
    try:
        with (
            guidance.attached(pipeline) if guidance else nullcontext(),
            tqdm(desc="drawing", total=total, initial=total - len(draws), unit="image") as bar,
        ):
            for batch in draw_candidates(pipeline, draws, scorer, batch_size=batch_size, **options):
                _check_size(batch[0].image.size, settings)
                folder.add(batch)
                bar.update(len(batch))
    except NonFiniteImageError as error:
        raise ArgumentError(f"`dtype` {settings.loading.dtype} is too narrow: {error}") from error
    except GuideError as error:
        told = str(error).replace("`detectors`", "`guide`").replace("`rewards`", "`guide_reward`")
        raise ArgumentError(f"{told}; guide by another model. Images that were finished before are kept") from error
    steps = tuple(guidance.to_dict()["steps"]) if guidance else ()
    return folder.finish(replace(record, seconds=round(time.monotonic() - begun, 1), guided_steps=steps))


def _check_size(drawn: tuple[int, int], settings: GenerationSettings) -> None:
    """Refuse the sizes that pipelines round without an error."""
    asked = settings.width_and_height()
    if asked is not None and asked != drawn:
        raise ArgumentError(
            f"`size` must be one that the model can draw, got {settings.size}, of which it made {drawn[0]}x{drawn[1]}"
        )
