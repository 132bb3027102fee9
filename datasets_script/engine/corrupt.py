"""The function `corrupt`, the Python form of `artiagent corrupt`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from diffusers_artifact.choices import CORRUPTION_NAMES, Confinement
from diffusers_artifact.presets import EMBEDDED

from ..agents.curation.thresholds import RegionGates, Unchanged
from ..agents.perception.backends import RegionOptions, regions_spec
from ..vlm.spec import VLMSpec
from .carry_out import Photos, carry_out, located
from .plan import RunPlan
from .settings import CorruptionRunSettings, CorruptionSettings, DType, LoadSettings, Offload, Quantization


Number = TypeVar("Number", int, float)


def corrupt(
    photos: Photos,
    out: str | os.PathLike[str],
    *,
    regions: str = "random",
    perception: str | None = None,
    annotations: str | os.PathLike[str] | None = None,
    detector: str | None = None,
    vlm: str | VLMSpec | None = None,
    max_artifacts: int = 3,
    max_region_share: float = CorruptionRunSettings.max_target_share,
    region_shares: tuple[float, float] = RegionOptions.shares,
    threshold: float | None = None,
    min_region_share: float = RegionOptions.min_share,
    unchanged: Unchanged = "drop",
    min_part_patches: int = 2,
    pairs_per_image: int = 1,
    max_rerolls: int = 1,
    perceptual_metric: str = "stlpips",
    judge: str | None = None,
    methods: Sequence[str] = CORRUPTION_NAMES[:1],
    step: int | Sequence[int] | None = None,
    sigma: float | Sequence[float] | None = None,
    model: str = EMBEDDED,
    revision: str | None = None,
    max_long_side: int = 1024,
    num_inference_steps: int | None = None,
    solver: str = "midpoint",
    confine: Confinement = "visible",
    allow_distilled: bool = False,
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
    Make a dataset of pairs by corrupting regions of photos (Menn et al., "Synthesizing Artifact Dataset for
    Pixel-level Detection", §3.2), as `artiagent corrupt` does: the same arguments give the same pairs. You can
    interrupt it at any time; the same call continues. The pairs have the columns of [`synthesize`].

    All pairs of a photo have one method and level, and so one clean image; they differ in their regions.

    Args:
        photos (`str`, `os.PathLike` or a sequence of them):
            Folder of photos, searched recursively, or the files themselves.
        out (`str` or `os.PathLike`):
            Folder to write. An existing run there with the same settings is resumed, and grows if there are more
            photos or pairs per image now.
        regions (`str`, *optional*, defaults to `"random"`):
            Regions to corrupt: `"annotations"`, parts, and entities without parts, of a COCO-format file;
            `"perception"`, the same as a backend finds them; `"detector"`, what a pixel detector takes for artifacts
            on the photo; or `"random"`, blobs at random places.
        perception (`str`, *optional*):
            Backend for `regions="perception"`: `"people"`, the default, `"grounded-sam"` or `"sam3"`.
        annotations (`str` or `os.PathLike`, *optional*):
            File for `regions="annotations"`; by default `annotations.json` in the folder of photos.
        detector (`str`, *optional*):
            Pixel detector for `regions="detector"`, a folder or Hub id; by default the one of this package. Or the
            detection model of `"grounded-sam"`.
        vlm (`str` or `VLMSpec`, *optional*):
            Vision-language model that names entities and explains artifacts; see [`synthesize`].
        max_artifacts (`int`, *optional*, defaults to 3):
            Maximum number of regions in an image.
        max_region_share (`float`, *optional*, defaults to 0.13):
            Largest share of the image that a region may take.
        region_shares (`tuple[float, float]`, *optional*, defaults to `(0.01, 0.06)`):
            Least and greatest share of the photo that a random region covers.
        threshold (`float`, *optional*):
            Value of the detector's map, in (0, 1), from which it is part of a region; by default the detector's own.
        min_region_share (`float`, *optional*, defaults to 0.005):
            Least share of the photo that a region of the detector covers.
        unchanged (`str`, *optional*, defaults to `"drop"`):
            What happens to regions that hardly changed: `"drop"` leaves them out, `"flag"` keeps them with the score
            `unchanged` 1, unless nothing at all is to be seen.
        min_part_patches (`int`, *optional*, defaults to 2):
            Smallest part to work on: it has more pixels than this many patches of the model.
        pairs_per_image (`int`, *optional*, defaults to 1):
            Artifact images made from each photo; they share the clean image.
        max_rerolls (`int`, *optional*, defaults to 1):
            Number of times a rejected region is replaced by another of the photo before it is left out.
        perceptual_metric (`str`, *optional*, defaults to `"stlpips"`):
            Metric that judges regions: `"stlpips"`, which works offline, or `"lpips"`.
        judge (`str`, *optional*):
            Pixel detector whose second opinion is recorded in the scores and rejects nothing: `"embedded"` for the one
            of this package, a folder, or a Hub id.
        methods (`Sequence[str]`, *optional*, defaults to `("proposed",)`):
            Methods, one of which each photo gets: any of `"proposed"`, `"blur"`, `"downscale"`, `"rotate"` and
            `"gaussian"`.
        step (`int` or `Sequence[int]`, *optional*):
            Levels, one of which each photo gets, as steps of DDIM with 50 steps: 45 corrupts little, 30 much.
        sigma (`float` or `Sequence[float]`, *optional*):
            The same as sigmas of a rectified flow, in (0, 1]. Without either, the level depends on model and method.
        model (`str`, *optional*, defaults to `"embedded"`):
            Diffusion model: `"embedded"` for the small model of this package, a folder, or a Hub id. Stable Diffusion
            1.5 and 2, SDXL, and the flow models of [`synthesize`].
        revision (`str`, *optional*):
            Branch, tag or commit of a model on the Hub.
        max_long_side (`int`, *optional*, defaults to 1024):
            Long side in pixels, at least 480, to which longer photos are shrunk. The embedded model always uses
            256×256.
        num_inference_steps (`int`, *optional*):
            Steps of the whole schedule, of which those below the level are run; by default 12 for the embedded model
            and 50 for others.
        solver (`str`, *optional*, defaults to `"midpoint"`):
            ODE solver of flow models, one of `diffusers_artifact.SOLVERS`. U-Nets have DDIM with ReNoise.
        confine (`str`, *optional*, defaults to `"visible"`):
            What to keep of the clean image: `"visible"`, all pixels but those of the visible change at the region;
            outside the region and the patches around it, `"latent"` or `"pixel"`; or `"none"`.
        allow_distilled (`bool`, *optional*, defaults to `False`):
            Whether to allow few-step models, although they invert poorly.
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
        settings=CorruptionRunSettings(
            max_artifacts=max_artifacts,
            max_target_share=max_region_share,
            min_part_patches=min_part_patches,
            pairs_per_image=pairs_per_image,
            max_rerolls=max_rerolls,
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
            corruption=CorruptionSettings(
                methods=tuple(methods),
                steps=_several(step),
                sigmas=_several(sigma),
                num_inference_steps=num_inference_steps,
                solver=solver,
                confine=confine,
                allow_distilled=allow_distilled,
            ),
            gates=RegionGates(unchanged=unchanged),
        ),
        perception=regions_spec(
            regions,
            perception,
            annotations=None if annotations is None else Path(annotations),
            detector=detector,
            regions=RegionOptions(region_shares, threshold, min_region_share),
        ),
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


def _several(numbers: Number | Sequence[Number] | None) -> tuple[Number, ...]:
    if numbers is None:
        return ()
    return tuple(numbers) if isinstance(numbers, Sequence) else (numbers,)
