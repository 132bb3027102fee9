"""Pipeline that inverts photos to a noise level, corrupts their latents inside masks, and samples them again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import unwrap_module

# From a local folder, diffusers copies only the modules that this file imports, so it repeats their own imports.
from .alignment import align_weights  # noqa: F401

# A saved pipeline may have this autoencoder, which diffusers looks up among the loaded modules.
from .autoencoder import AutoencoderPCA  # noqa: F401
from .choices import CONFINEMENTS, SOLVER_NAMES, Confinement
from .confinement import confine_pixels, confine_to_visible
from .corruption_levels import CORRUPTION_PRESETS, CorruptionPreset
from .corruption_variants import CorruptionVariant, MaskInput, ResamplingBatch, arrange_variants, plan_batches
from .corruptions import CORRUPTIONS, NoiseLevel
from .denoising_loop import OnStepEnd
from .family import Conditioning, TransformerFamily
from .family_chroma import ChromaFamily  # noqa: F401
from .family_flux import FluxFamily  # noqa: F401
from .family_flux2 import Flux2Family  # noqa: F401
from .family_qwen import QwenImageFamily  # noqa: F401
from .family_sd3 import SD3Family  # noqa: F401
from .family_unet import UNetFamily
from .injection import InjectionState  # noqa: F401
from .inputs import ImageInput, one_of, preprocess_images
from .mapping import PatchMapping
from .path_ddim import DDIMPath
from .path_flow import FlowPath
from .pipeline_common import FlowPipelineMixin
from .processors import InjectionAttnProcessor  # noqa: F401
from .renoise import ReNoise
from .schedulers import SOLVERS  # noqa: F401
from .target_rows import TargetRows  # noqa: F401
from .value_cache import ValueCache  # noqa: F401
from .visible_change import change_map  # noqa: F401


OUTPUT_TYPES = ("pil", "np", "pt", "latent")
StepCallback = Callable[[Any, int, torch.Tensor, dict[str, Any]], dict[str, Any]]


@dataclass
class ArtifactCorruptionOutput(BaseOutput):
    r"""
    Output of [`ArtifactCorruptionPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`): Corrupted images, one for each variant. With
            `output_type="latent"`, latents of shape `(variants, channels, latent height, latent width)`.
        reconstructions (as `images`): Clean images, one for each level and photo, inverted and sampled again without a
            corruption.
        image_indices (`list[int]`): For each corrupted image, the index of its clean image.
        photo_indices (`list[int]`): For each corrupted image, the index of its photo.
        masks (`list[np.ndarray]` of shape `(height, width)`, `bool`): For each corrupted image, the pixels of its
            corrupted latent pixels: the given mask, grown to whole latent pixels.
        methods (`list[str]`): For each corrupted image, the name of its corruption.
        levels (`list[float]`): For each corrupted image its level, as the sigma of a rectified flow with the same
            signal-to-noise ratio.
        num_function_evaluations (`int`): NFE: evaluations of the model, counted once for every image.
        timings (`dict[str, float]`): Seconds spent in `encode`, `invert`, `resample` and `decode`.
    """

    images: Any
    reconstructions: Any
    image_indices: list[int]
    photo_indices: list[int]
    masks: list[np.ndarray]
    methods: list[str]
    levels: list[float]
    num_function_evaluations: int
    timings: dict[str, float] = field(default_factory=dict)


class ArtifactCorruptionPipeline(FlowPipelineMixin, DiffusionPipeline):
    r"""
    Pipeline that corrupts regions of photos (Menn et al., *Synthesizing Artifact Dataset for Pixel-level Detection*).

    A photo is inverted to a noise level, its latent is corrupted inside a mask, and sampled again from there. The
    clean image of a pair takes the same way without the corruption. Several masks, methods and levels share one
    inversion.

    Supports Stable Diffusion 1.5 and 2 and SDXL, by DDIM and ReNoise, the rectified flows of
    [`ArtifactInjectionPipeline`], and the package's embedded model.

    Args:
        scheduler (`~diffusers.SchedulerMixin`): Its configuration sets the schedule.
        vae (`AutoencoderKL` or a class with its interface): The autoencoder.
        transformer (*optional*): The diffusion transformer of a rectified flow, of a class that
            [`ArtifactInjectionPipeline`] supports.
        unet (`UNet2DConditionModel`, *optional*): The U-Net of Stable Diffusion or SDXL. One of both must be given.
        text_encoder, tokenizer, text_encoder_2, tokenizer_2, text_encoder_3, tokenizer_3 (*optional*): As in the
            checkpoint's stock pipeline. Only FLUX.1 may have none: it is then unconditional, and `prompt` is empty.
        image_encoder, feature_extractor, safety_checker (*optional*): Loaded where a checkpoint has them, but not
            used.
        is_distilled (`bool`, *optional*): Whether the model was distilled to few steps, as some checkpoints state in
            their configuration. `None`: decided by name and configuration.
        force_zeros_for_empty_prompt (`bool`, *optional*, defaults to `True`): As in SDXL's stock pipeline, for its
            negative prompt.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->text_encoder_3->transformer->unet->vae"
    _optional_components = [
        "transformer",
        "unet",
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "text_encoder_3",
        "tokenizer_3",
        "image_encoder",
        "feature_extractor",
        "safety_checker",
    ]

    _callback_tensor_inputs = ["latents"]

    renoise_class = ReNoise
    """The type of `renoise`, for users who load this file without installing the package."""

    def __init__(
        self,
        scheduler: Any,
        vae: Any,
        transformer: Any = None,
        unet: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        text_encoder_3: Any = None,
        tokenizer_3: Any = None,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        safety_checker: Any = None,
        is_distilled: bool | None = None,
        force_zeros_for_empty_prompt: bool = True,
    ):
        super().__init__()
        if (transformer is None) == (unet is None):
            got = "neither" if unet is None else "both"
            raise ValueError(f"`transformer` or `unet` must be given, got {got}")
        self.register_modules(
            scheduler=scheduler,
            vae=vae,
            transformer=transformer,
            unet=unet,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
            safety_checker=safety_checker,
        )
        self.register_to_config(is_distilled=is_distilled, force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)
        self.image_processor = VaeImageProcessor()

    @property
    def family(self) -> TransformerFamily | UNetFamily:  # type: ignore[override]
        """
        Adapter of the loaded model's family.

        Raises:
            ValueError: The model's class belongs to no supported family.
        """
        if self.unet is None:
            return super().family
        name = type(unwrap_module(self.unet)).__name__
        if name != "UNet2DConditionModel":
            raise ValueError(f"`unet` must be a UNet2DConditionModel, got {name}")
        return UNetFamily(self.unet, self.components, self.config.force_zeros_for_empty_prompt)

    @property
    def preset(self) -> CorruptionPreset:
        """Levels and steps of calls that name none: the entry of `CORRUPTION_PRESETS` for the model."""
        is_embedded = type(unwrap_module(self.vae)).__name__ == AutoencoderPCA.__name__
        return CORRUPTION_PRESETS["embedded" if is_embedded else "published"]

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        mask: MaskInput,
        prompt: str | list[str] = "",
        negative_prompt: str = "",
        method: str | Sequence[str] = "proposed",
        step: int | Sequence[int] | None = None,
        sigma: float | Sequence[float] | None = None,
        num_inference_steps: int | None = None,
        solver: str = "midpoint",
        renoise: ReNoise | None = None,
        guidance_scale: float = 1.0,
        confine: Confinement = "none",
        allow_distilled: bool = False,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        max_sequence_length: int | None = None,
        prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        prompt_embeds_mask: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ArtifactCorruptionOutput | tuple[Any, Any]:
        r"""
        Make the clean images and the corrupted images of one or several photos.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or `list[PIL.Image.Image]`):
                One photo, or several of one size. Arrays are `(batch, height, width, 3)` and tensors
                `(batch, 3, height, width)`, in [0, 1]. Sides must be multiples of `patch_size`.
            mask (`np.ndarray`, `torch.Tensor` or (nested) `list` of them):
                Boolean masks of shape `(height, width)`: for one photo, a mask or a list of them; for several, one
                such list for each photo. A latent pixel of which any pixel is marked is corrupted.
            prompt (`str` or `list[str]`, *optional*, defaults to `""`):
                Caption of all photos, or one for each; used for inversion and for resampling.
            negative_prompt (`str`, *optional*, defaults to `""`):
                Negative prompt of families with true classifier-free guidance (Stable Diffusion, SDXL, FLUX.2-klein,
                Chroma, SD3, Qwen-Image), used if `guidance_scale` is not 1.
            method (`str` or `list[str]`, *optional*, defaults to `"proposed"`):
                `"proposed"`, `"blur"`, `"downscale"`, `"rotate"` or `"gaussian"`, or several; see `corruptions.py`.
            step (`int` or `list[int]`, *optional*):
                Level to invert to, or several, as a step of DDIM with 50 steps on Stable Diffusion's schedule, for all
                families; the paper uses 45, 40, 35 and 30. See `corruption_levels.py`.
            sigma (`float` or `list[float]`, *optional*):
                In place of `step`, the level as a rectified flow's sigma, above 0 and at most 1. U-Nets take the level
                of their grid that is nearest to it. Without either, [`preset`] has the level of each method: the
                paper's, or .7 on the embedded model.
            num_inference_steps (`int`, *optional*):
                Steps of the whole schedule, of which those below a level are run, in either direction. Defaults to 50,
                as in the paper, and to 12 for the embedded model.
            solver (`str`, *optional*, defaults to `"midpoint"`):
                For rectified flows `"euler"`, `"midpoint"` (or `"rf_solver"`, the same), `"fireflow"` or `"uni_inv"`.
                U-Nets have DDIM.
            renoise (`ReNoise`, *optional*):
                For U-Nets, the settings of the inversion; by default those of ReNoise's authors.
            guidance_scale (`float`, *optional*, defaults to 1.0):
                Guidance scale of resampling, of clean and corrupted images. That of the inversion is 1.
            confine (`str`, *optional*, defaults to `"none"`):
                Guarantee that what lies outside the mask equals the clean image. `"none"`: the same inverted latents,
                as in the paper, whose change spreads a little. `"latent"`: every latent pixel outside, at every step;
                the decoder still blends across their border. `"pixel"`: every pixel one token or more from the tokens
                that the mask touches, with a fade in between. `"visible"`: every pixel but those of the visible change
                that touches such a token, with a fade where the change cannot be seen.
            allow_distilled (`bool`, *optional*, defaults to `False`):
                Run few-step models, which otherwise raise an error because they invert poorly.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Draws the noise of the variants in their order, or one for each variant, which then does not depend on
                the others. By default torch's global generator.
            max_sequence_length (`int`, *optional*):
                Maximum number of text tokens. Defaults to that of the family's stock pipeline; U-Nets' is fixed.
            prompt_embeds (`torch.Tensor` of shape `(images, sequence, channels)`, *optional*):
                Prompts that [`encode_prompt`] encoded before, a row for each photo, in place of `prompt`.
            pooled_prompt_embeds (`torch.Tensor` of shape `(images, channels)`, *optional*):
                Their pooled part, for FLUX.1, SD3 and SDXL.
            prompt_embeds_mask (`torch.Tensor` of shape `(images, sequence)`, *optional*):
                Their mask, for Chroma, and for Qwen-Image where prompts are padded.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"`, `"pt"` or `"latent"`.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, index, timestep, callback_kwargs)` after every evaluation of a transformer,
                and after every step of a U-Net, through the inversion and the resampling from each level. It returns a
                dictionary, whose `latents`, of shape `(rows, channels, height, width)`, replace the present ones. When
                resampling, clean images come first.
            callback_on_step_end_tensor_inputs (`Sequence[str]`, *optional*, defaults to `("latents",)`):
                Names of the tensors that the callback receives.

        Returns:
            [`ArtifactCorruptionOutput`], or the tuple `(images, reconstructions)` if `return_dict` is `False`.
            Variants are in the order of photos, masks, methods and levels, the last fastest.

        Raises:
            ValueError: An argument is not as described; the message names it.

        Example:

            >>> import numpy as np
            >>> import torch
            >>> from PIL import Image
            >>> from diffusers_artifact import EMBEDDED_MODEL, ArtifactCorruptionPipeline
            >>> pipe = ArtifactCorruptionPipeline.from_pretrained(EMBEDDED_MODEL)
            >>> pipe.set_progress_bar_config(disable=True)
            >>> photo = Image.radial_gradient("L").convert("RGB")
            >>> mask = np.zeros((256, 256), dtype=bool)
            >>> mask[96:160, 64:128] = True
            >>> generator = torch.Generator().manual_seed(0)
            >>> out = pipe(photo, mask, method=["proposed", "rotate"], num_inference_steps=2, generator=generator)
            >>> out.methods, len(out.images), len(out.reconstructions), out.levels[0]
            (['proposed', 'rotate'], 2, 1, 0.7)
        """
        family, device = self.family, self._execution_device
        photos = preprocess_images(image, family.patch_size)
        height, width = photos.shape[-2:]
        latent_side = family.patch_size // family.token_side
        variants = arrange_variants(mask, method, step, sigma, self.preset, len(photos), (height, width), latent_side)
        prompts = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt] * len(photos)
        encoded = (
            None if prompt_embeds is None else Conditioning(prompt_embeds, pooled_prompt_embeds, prompt_embeds_mask)
        )
        if num_inference_steps is None:
            num_inference_steps = self.preset.num_inference_steps
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self.check_inputs(
            num_images=len(photos),
            prompts=prompts,
            negative_prompt=negative_prompt,
            num_variants=len(variants),
            num_inference_steps=num_inference_steps,
            solver=solver,
            renoise=renoise,
            guidance_scale=guidance_scale,
            confine=confine,
            allow_distilled=allow_distilled,
            generator=generator,
            output_type=output_type,
            encoded=encoded,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        self._align_weights()
        timings: dict[str, float] = {}

        with self._timed(timings, "encode"):
            conditions = (
                self._encode_prompts(prompts, max_sequence_length) if encoded is None else encoded.on(device).rows()
            )
            negative = None
            if family.needs_negative(torch.tensor(guidance_scale)):
                negative = family.encode_negative(negative_prompt, device, max_sequence_length)
            clean = family.encode_images(photos.to(device), None).float()
        self._interrupt = False
        path = self._path(family, clean, num_inference_steps, solver, renoise, negative)
        levels = [path.level(variant.sigma) for variant in variants]
        batches = plan_batches(variants, levels)
        of_batches = [batch.level for batch in batches]
        self._num_timesteps = path.num_timesteps(of_batches)
        indices = itertools.count()
        with self.progress_bar(total=self.num_timesteps) as progress:

            def end_step(timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
                if callback_on_step_end is not None:
                    given = {"latents": latents} if "latents" in callback_on_step_end_tensor_inputs else {}
                    latents = callback_on_step_end(self, next(indices), timestep, given).pop("latents", latents)
                progress.update()
                return latents

            with self._timed(timings, "invert"):
                inverted = path.invert(clean, Conditioning.stack(conditions), of_batches, end_step)
            starts = self._corrupt(variants, levels, inverted, clean, generator)
            cleans: list[torch.Tensor] = []
            corrupted, image_indices = [clean[0]] * len(variants), [0] * len(variants)
            with self._timed(timings, "resample"):
                for batch in batches:
                    own = [*batch.photos, *(variants[index].photo for index in batch.variants)]
                    latents = path.resample(
                        torch.cat([inverted[batch.level][batch.photos], *(starts[index] for index in batch.variants)]),
                        batch.level,
                        Conditioning.stack([conditions[photo] for photo in own]),
                        guidance_scale,
                        own,
                        _confining(end_step, batch, variants, device) if confine == "latent" else end_step,
                    )
                    results = latents[len(batch.photos) :]
                    for index, row, result in zip(batch.variants, batch.clean_rows, results, strict=True):
                        corrupted[index], image_indices[index] = result, len(cleans) + row
                    cleans += latents[: len(batch.photos)]

        with self._timed(timings, "decode"):
            latents = torch.stack([*cleans, *corrupted])
            decoded = latents if output_type == "latent" else family.decode_latents(latents).float()
            reconstructions, images = decoded[: len(cleans)], decoded[len(cleans) :]
            if confine in ("pixel", "visible"):
                mappings = [_touched_tokens(variant.mask, family.token_side) for variant in variants]
                own_cleans = reconstructions[image_indices]
                if confine == "pixel":
                    images = confine_pixels(images, own_cleans, mappings, family.patch_size)
                else:
                    images = confine_to_visible(images, own_cleans, mappings)
            if output_type != "latent":
                reconstructions, images = (
                    self.image_processor.postprocess(part, output_type=output_type)
                    for part in (reconstructions, images)
                )
        self.maybe_free_model_hooks()
        if not return_dict:
            return images, reconstructions
        return ArtifactCorruptionOutput(
            images=images,
            reconstructions=reconstructions,
            image_indices=image_indices,
            photo_indices=[variant.photo for variant in variants],
            masks=[variant.mask.repeat(latent_side, axis=0).repeat(latent_side, axis=1) for variant in variants],
            methods=[variant.method for variant in variants],
            levels=[level.sigma for level in levels],
            num_function_evaluations=path.num_function_evaluations,
            timings=timings,
        )

    def check_inputs(
        self,
        num_images: int,
        prompts: Sequence[str],
        negative_prompt: str,
        num_variants: int,
        num_inference_steps: int,
        solver: str,
        renoise: ReNoise | None,
        guidance_scale: float,
        confine: Confinement,
        allow_distilled: bool,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        output_type: str,
        encoded: Conditioning | None,
        callback_on_step_end_tensor_inputs: Sequence[str],
    ) -> None:
        """
        Check the arguments of [`__call__`], except photos, masks, methods and levels, which are checked where they are
        converted.

        Args:
            num_images (`int`): Number of photos.
            prompts (`Sequence[str]`): Prompt of each photo.
            num_variants (`int`): Number of corrupted images.
            encoded (`Conditioning`, *optional*): Prompts that were encoded before, a row for each photo.
            others: As in [`__call__`], with defaults filled in.

        Raises:
            ValueError: An argument is not as [`__call__`] describes it; the message names it.
        """
        one_of("solver", solver, SOLVER_NAMES)
        one_of("confine", confine, CONFINEMENTS)
        one_of("output_type", output_type, OUTPUT_TYPES)
        family = self.family
        family.check_guidance_scale("guidance_scale", guidance_scale)
        guided = family.needs_negative(torch.tensor(guidance_scale))
        self.check_model(allow_distilled, encodes_prompts=encoded is None or guided)
        self._check_prompts(family, num_images, prompts, negative_prompt, encoded)
        self._check_callback_inputs(callback_on_step_end_tensor_inputs)
        if (
            isinstance(num_inference_steps, bool)
            or not isinstance(num_inference_steps, int)
            or num_inference_steps < 1
        ):
            raise ValueError(f"`num_inference_steps` must be an integer of at least 1, got {num_inference_steps!r}")
        if renoise is not None and not isinstance(family, UNetFamily):
            raise ValueError(
                f"`renoise` must be None for {family.model_class}, whose inversion is `solver`'s, got {renoise}"
            )
        if renoise is not None and not isinstance(renoise, ReNoise):
            raise ValueError(
                f"`renoise` must be a ReNoise, got {type(renoise).__name__}; `pipe.renoise_class` makes one"
            )
        if confine in ("pixel", "visible") and output_type == "latent":
            raise ValueError(f"`confine` must be 'none' or 'latent' with `output_type='latent'`, got {confine!r}")
        if isinstance(generator, (list, tuple)) and len(generator) != num_variants:
            raise ValueError(
                f"`generator` must be one generator or one for each of {num_variants} variants, got {len(generator)}"
            )

    def _path(
        self,
        family: TransformerFamily | UNetFamily,
        clean: torch.Tensor,
        num_inference_steps: int,
        solver: str,
        renoise: ReNoise | None,
        negative: Conditioning | None,
    ) -> DDIMPath | FlowPath:
        """Create the way between photos and noise of the model's family."""

        def interrupted() -> bool:
            return self.interrupt

        if isinstance(family, UNetFamily):
            return DDIMPath(family, self.scheduler, num_inference_steps, renoise or ReNoise(), negative, interrupted)
        rows, columns = (side // family.token_side for side in clean.shape[-2:])
        return FlowPath(family, self.scheduler, solver, num_inference_steps, (rows, columns), negative, interrupted)

    @staticmethod
    def _corrupt(
        variants: Sequence[CorruptionVariant],
        levels: Sequence[NoiseLevel],
        inverted: dict[NoiseLevel, torch.Tensor],
        clean: torch.Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None,
    ) -> list[torch.Tensor]:
        """Corrupt the inverted latent of every variant, of shape `(1, channels, height, width)`."""
        generators = generator if isinstance(generator, (list, tuple)) else [generator] * len(variants)
        return [
            CORRUPTIONS[variant.method](
                inverted[level][variant.photo],
                clean[variant.photo],
                torch.from_numpy(variant.mask).to(clean.device),
                level,
                own,
            )[None]
            for variant, level, own in zip(variants, levels, generators, strict=True)
        ]


def confine_latents(latents: torch.Tensor, clean_rows: Sequence[int], masks: torch.Tensor) -> torch.Tensor:
    r"""
    Replace every latent pixel outside a variant's mask by its clean image's.

    Args:
        latents (`torch.Tensor` of shape `(rows, channels, height, width)`): Clean images, then variants.
        clean_rows (`Sequence[int]`): Row of each variant's clean image.
        masks (`torch.Tensor` of shape `(variants, height, width)`, `bool`): Mask of each variant.

    Returns:
        `torch.Tensor` of the shape of `latents`.
    """
    first = len(latents) - len(clean_rows)
    variants = torch.where(masks[:, None], latents[first:], latents[list(clean_rows)])
    return torch.cat([latents[:first], variants])


def _confining(
    end_step: OnStepEnd, batch: ResamplingBatch, variants: Sequence[CorruptionVariant], device: torch.device
) -> OnStepEnd:
    """Return an `end_step` after which latents outside the masks are the clean images'."""
    masks = torch.from_numpy(np.stack([variants[index].mask for index in batch.variants])).to(device)
    return lambda timestep, latents: confine_latents(end_step(timestep, latents), batch.clean_rows, masks)


def _touched_tokens(mask: np.ndarray, side: int) -> PatchMapping:
    """Return the tokens of `side`×`side` latent pixels that a mask touches, as targets of a mapping to themselves."""
    rows, columns = (length // side for length in mask.shape)
    touched = mask.reshape(rows, side, columns, side).any(axis=(1, 3)).ravel().nonzero()[0].tolist()
    return PatchMapping(tuple(touched), tuple(touched), (rows, columns))
