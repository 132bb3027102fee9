"""The function `synthesize`, the Python form of `artiagent synthesize`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from diffusers_artifact.choices import ComputeMode, Confinement, ValueSource
from diffusers_artifact.presets import EMBEDDED
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..agents.perception.backends import PerceptionSpec
from ..utils.errors import ArgumentError
from ..vlm.spec import VLMSpec
from .carry_out import Photos, carry_out, located
from .plan import RunPlan
from .settings import Balance, DType, InjectionSettings, LoadSettings, Offload, Quantization, RunSettings


def synthesize(
    photos: Photos,
    out: str | os.PathLike[str],
    *,
    perception: str | PerceptionSpec = "people",
    annotations: str | os.PathLike[str] | None = None,
    vlm: str | VLMSpec | None = None,
    model: str = EMBEDDED,
    revision: str | None = None,
    tools: Sequence[str] = tuple(ARTIFACT_TYPE_OF_TOOL),
    max_artifacts: int = 3,
    min_part_patches: int = 2,
    pairs_per_image: int = 1,
    max_rerolls: int = 1,
    balance: Balance = "sample",
    perceptual_metric: str = "stlpips",
    judge: str | None = None,
    max_long_side: int = 1024,
    num_inference_steps: int | None = None,
    solver: str = "fireflow",
    value_source: ValueSource | None = None,
    confine: Confinement = "visible",
    compute: ComputeMode | None = None,
    allow_distilled: bool = False,
    preset: str = "auto",
    hold_background: bool | None = None,
    store_noise: bool = False,
    dtype: DType | None = None,
    quantization: Quantization = "none",
    attention_backend: str | None = None,
    compile: bool = False,
    vae_tiling: bool = False,
    offload: Offload = "none",
    keep_loaded: bool = False,
    seed: int = 0,
    limit: int | None = None,
    shard_size: int = 32,
    device: str | None = None,
    batch_size: int = 1,
    perception_batch_size: int | None = None,
    processes: int = 1,
    force_new: bool = False,
    show_progress: bool = True,
) -> Path:
    """
    Make a dataset of pairs of clean and artifact images from photos, as `artiagent synthesize` does: the same
    arguments give the same pairs. You can interrupt it at any time; the same call continues.

    Args:
        photos (`str`, `os.PathLike` or a sequence of them):
            Folder of photos, searched recursively, or the files themselves.
        out (`str` or `os.PathLike`):
            Folder to write. An existing run there with the same settings is resumed, and grows if there are more
            photos or pairs per image now.
        perception (`str` or `PerceptionSpec`, *optional*, defaults to `"people"`):
            Backend that finds entities and parts: `"people"` (offline; extra: `people`), `"annotations"` (reads a
            COCO-format file), `"grounded-sam"` or `"sam3"` (both need `vlm` to name entities).
        annotations (`str` or `os.PathLike`, *optional*):
            File for `perception="annotations"`; by default `annotations.json` in the folder of photos.
        vlm (`str` or `VLMSpec`, *optional*):
            Vision-language model that names entities, and judges and explains artifacts: a Hub id, a folder, or a
            `VLMSpec` with further options such as an endpoint. Without one, image metrics judge and templates explain.
        model (`str`, *optional*, defaults to `"embedded"`):
            Diffusion model: `"embedded"` for the small model of this package, a folder, or a Hub id such as
            `"black-forest-labs/FLUX.1-dev"`.
        revision (`str`, *optional*):
            Branch, tag or commit of a model on the Hub.
        tools (`Sequence[str]`, *optional*):
            Tools to choose from: any of `"add"`, `"remove"`, `"distort"` and `"fuse"`; by default all.
        max_artifacts (`int`, *optional*, defaults to 3):
            Maximum number of artifacts in an image.
        min_part_patches (`int`, *optional*, defaults to 2):
            Smallest part to work on: it has more pixels than this many patches of the model.
        pairs_per_image (`int`, *optional*, defaults to 1):
            Artifact images made from each photo; they share the clean image.
        max_rerolls (`int`, *optional*, defaults to 1):
            Number of times a rejected artifact is replaced by another of the same tool before it is left out.
        balance (`str`, *optional*, defaults to `"sample"`):
            Balance of artifact types. `"sample"`: a photo's artifacts depend only on the photo and the seed.
            `"shard"`: types that are rare so far in the photo's shard come first.
        perceptual_metric (`str`, *optional*, defaults to `"stlpips"`):
            Metric that judges distortions: `"stlpips"`, which works offline, or the paper's `"lpips"`.
        judge (`str`, *optional*):
            Pixel detector whose second opinion is recorded in the scores and rejects nothing: `"embedded"` for the one
            of this package, a folder, or a Hub id.
        max_long_side (`int`, *optional*, defaults to 1024):
            Long side in pixels, at least 480, to which longer photos are shrunk. The embedded model always uses
            256×256.
        num_inference_steps (`int`, *optional*):
            Steps of the inversion and of the denoising; by default the preset's.
        solver (`str`, *optional*, defaults to `"fireflow"`):
            ODE solver, one of `diffusers_artifact.SOLVERS`.
        value_source (`str`, *optional*):
            Source of the injected attention values: `"reconstruction"`, the clean image denoised in the same batch, or
            `"inversion"`, values cached during the inversion as in the paper. Defaults to `"inversion"` with
            `preset="as-released"`, else to `"reconstruction"`.
        confine (`str`, *optional*, defaults to `"visible"`):
            What to keep of the clean image: `"visible"`, all pixels but those of the visible change at the part;
            outside the target and the patches around it, `"latent"` (tokens) or `"pixel"`; or `"none"`.
        compute (`str`, *optional*):
            What to compute of an artifact image: `"full"`, all of it, or `"target"`, only the target and the patches
            around it, which attend to the clean image; each further artifact then costs its target alone. Defaults to
            `"target"` with a preset that holds the background, which `"target"` needs, else to `"full"`.
        allow_distilled (`bool`, *optional*, defaults to `False`):
            Whether to allow few-step models, although they invert poorly.
        preset (`str`, *optional*, defaults to `"auto"`):
            Strength of the injection. `"auto"` is `"embedded"` for the embedded model and `"paper"` for others.
            `"as-released"` follows the code that the paper's authors published where it differs from the paper.
        hold_background (`bool`, *optional*):
            Whether tokens outside the target also take the clean image's queries, so that less changes there; by
            default the preset's.
        store_noise (`bool`, *optional*, defaults to `False`):
            Whether to invert both images of each pair and store their noise in the columns `clean_noise` and
            `flawed_noise`, for preference training: 1 MiB a pair for FLUX.1 at 1024×1024.
        dtype (`str`, *optional*):
            `"float32"`, `"bfloat16"` or `"float16"`; by default float32 for the embedded model and on a CPU, else
            bfloat16.
        quantization (`str`, *optional*, defaults to `"none"`):
            Weights of the transformer: `"float8"` (torchao), `"8bit"` or `"4bit"` (bitsandbytes). Extra:
            `quantization`.
        attention_backend (`str`, *optional*):
            Attention kernel by diffusers' name, such as `"flash"`.
        compile (`bool`, *optional*, defaults to `False`):
            Whether to compile the transformer's blocks.
        vae_tiling (`bool`, *optional*, defaults to `False`):
            Whether to encode and decode images one by one, large ones in overlapping tiles, whose borders are blended.
        offload (`str`, *optional*, defaults to `"none"`):
            Where the diffusion model's weights wait: `"none"`, on the device; else in host memory, by `"model"`,
            `"group"` or `"sequential"`.
        keep_loaded (`bool`, *optional*, defaults to `False`):
            Whether all models stay on the device instead of taking turns.
        seed (`int`, *optional*, defaults to 0):
            Seed from which, with the photo's name, all random choices derive.
        limit (`int`, *optional*):
            Use only the first `limit` photos.
        shard_size (`int`, *optional*, defaults to 32):
            Photos per shard, which is a file of pairs.
        device (`str`, *optional*):
            Device of the models; by default CUDA if available, else the CPU.
        batch_size (`int`, *optional*, defaults to 1):
            Photos per batch of injection.
        perception_batch_size (`int`, *optional*):
            Photos per batch of perception and of explanation; by default 8 with a vision-language model, else 1.
        processes (`int`, *optional*, defaults to 1):
            Worker processes on this machine, one per device. With more than one, a script must call this function
            under `if __name__ == "__main__":`.
        force_new (`bool`, *optional*, defaults to `False`):
            Whether to start a new run next to an existing one in `out`: out-2, out-3, …
        show_progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar.

    Returns:
        `pathlib.Path`: Folder of the run. `load_dataset(str(path), split="train")` reads its pairs; `rejected.jsonl`
        lists what was rejected and why.

    Raises:
        UserError: An argument is invalid, or `out` holds a run with other settings.
        StoppedError: Something external stopped the run; the same call continues it.
        ImportError: An extra is not installed; the message names it.
    """
    source, names = located(photos)
    plan = RunPlan(
        source=source,
        out=Path(out),
        settings=RunSettings(
            tools=tuple(tools),
            max_artifacts=max_artifacts,
            min_part_patches=min_part_patches,
            pairs_per_image=pairs_per_image,
            max_rerolls=max_rerolls,
            balance=balance,
            max_long_side=max_long_side,
            seed=seed,
            shard_size=shard_size,
            perceptual_metric=perceptual_metric,
            model=model,
            revision=revision,
            loading=LoadSettings(
                dtype=dtype,
                quantization=quantization,
                attention_backend=attention_backend,
                compile=compile,
                vae_tiling=vae_tiling,
            ),
            injection=InjectionSettings(
                num_inference_steps=num_inference_steps,
                solver=solver,
                value_source=value_source,
                confine=confine,
                compute=compute,
                allow_distilled=allow_distilled,
                preset=preset,
                hold_background=hold_background,
            ),
            store_noise=store_noise,
        ),
        perception=_perception_spec(perception, annotations),
        vlm=VLMSpec(vlm) if isinstance(vlm, str) else vlm,
        judge=judge,
        names=names,
        limit=limit,
        device=device,
        batch_size=batch_size,
        perception_batch_size=perception_batch_size,
        processes=processes,
        offload=offload,
        keep_loaded=keep_loaded,
    )
    return carry_out(plan, force_new, show_progress)


def _perception_spec(perception: str | PerceptionSpec, annotations: str | os.PathLike[str] | None) -> PerceptionSpec:
    if isinstance(perception, PerceptionSpec):
        if annotations is not None:
            raise ArgumentError(
                f"`annotations` must be an argument of the PerceptionSpec given as `perception`, got '{annotations}'"
            )
        return perception
    spec = PerceptionSpec(perception, None if annotations is None else Path(annotations))
    if annotations is not None and not spec.backend.needs_annotations:
        raise ArgumentError(f"`perception` must be 'annotations' if `annotations` is given, got '{perception}'")
    return spec
