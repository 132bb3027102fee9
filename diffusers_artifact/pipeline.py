"""Pipeline that inverts photos and denoises them again with structural artifacts."""

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

# From a local folder, diffusers copies only the modules that this file imports, so it repeats their own imports.
from .alignment import align_weights  # noqa: F401

# A saved pipeline may have this autoencoder, which diffusers looks up among the loaded modules.
from .autoencoder import AutoencoderPCA  # noqa: F401
from .choices import (
    CACHE_DEVICES,
    COMPUTE_MODES,
    CONFINEMENTS,
    INJECTION_RULES,
    SOLVER_NAMES,
    VALUE_SOURCES,
    CacheDevice,
    ComputeMode,
    Confinement,
    InjectionRule,
    ValueSource,
)
from .confinement import confine_pixels, confine_to_visible, confine_tokens, dilated_targets
from .decoding import decode_targets
from .denoising_loop import DenoisingLoop
from .family import Conditioning, TransformerFamily
from .family_chroma import ChromaFamily  # noqa: F401
from .family_flux import FluxFamily  # noqa: F401
from .family_flux2 import Flux2Family  # noqa: F401
from .family_qwen import QwenImageFamily  # noqa: F401
from .family_sd3 import SD3Family  # noqa: F401
from .injection import InjectionState, default_position_blocks, default_value_blocks
from .inputs import ImageInput, MappingInput, arrange_mappings, one_of, preprocess_images
from .mapping import PatchMapping
from .pipeline_common import FlowPipelineMixin
from .presets import NUM_INFERENCE_STEPS, may_hold_background
from .processors import InjectionAttnProcessor  # noqa: F401
from .schedulers import SOLVERS  # noqa: F401
from .target_rows import TargetInjectionState, TargetRows
from .value_cache import ValueCache  # noqa: F401
from .visible_change import change_map  # noqa: F401


OUTPUT_TYPES = ("pil", "np", "pt", "latent")
StepCallback = Callable[[Any, int, torch.Tensor, dict[str, Any]], dict[str, Any]]


@dataclass
class ArtifactInjectionOutput(BaseOutput):
    r"""
    Output of [`ArtifactInjectionPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`): Artifact images, one for each mapping. With
            `output_type="latent"`, latents of shape `(variants, channels, height / 8, width / 8)`.
        reconstructions (as `images`): Clean images, one for each photo, inverted and denoised without injection.
        image_indices (`list[int]`): For each artifact image, the index of its clean image.
        inverted_latents (`torch.Tensor` of shape `(images, tokens, channels)`): Packed noise at the end of inversion.
        num_function_evaluations (`int`): NFE: evaluations of the transformer, counted once for every image.
        token_evaluations (`float`): Tokens that went through the transformer, text aside and padding included, divided
            by the tokens of an image. Equals NFE with `compute="full"`.
        cache_bytes (`int`): Peak memory, in bytes, of values cached with `value_source="inversion"`, or of the keys,
            values and queries of one evaluation that are kept with `compute="target"`.
        timings (`dict[str, float]`): Seconds spent in `encode`, `invert`, `denoise` and `decode`.
    """

    images: Any
    reconstructions: Any
    image_indices: list[int]
    inverted_latents: torch.Tensor
    num_function_evaluations: int
    token_evaluations: float
    cache_bytes: int
    timings: dict[str, float] = field(default_factory=dict)


class ArtifactInjectionPipeline(FlowPipelineMixin, DiffusionPipeline):
    r"""
    Pipeline that injects structural artifacts into photos (ArtiAgent, arXiv 2602.20951, §4.2).

    A photo is inverted to noise along the model's flow and denoised again in one batch: once unchanged, which gives
    the clean image of a pair, and once for every mapping. While denoising an artifact image, each target token takes
    the *position* and the *value* of its reference, and all other tokens take the clean image's values.

    Supports FLUX.1, FLUX.2, Chroma, Stable Diffusion 3 / 3.5 and Qwen-Image checkpoints, and the package's embedded
    model.

    Args:
        transformer (`FluxTransformer2DModel`, `Flux2Transformer2DModel`, `ChromaTransformer2DModel`,
            `SD3Transformer2DModel` or `QwenImageTransformer2DModel`): The diffusion transformer.
        scheduler (`FlowMatchEulerDiscreteScheduler`): Its configuration sets the sigma grid of all solvers.
        vae (`AutoencoderKL` or a class with its interface): The autoencoder.
        text_encoder, tokenizer, text_encoder_2, tokenizer_2, text_encoder_3, tokenizer_3 (*optional*): As in the
            checkpoint's stock pipeline. Only FLUX.1 may have none: it is then unconditional, and `prompt` is empty.
        image_encoder, feature_extractor (*optional*): Loaded where a checkpoint has them, but not used.
        is_distilled (`bool`, *optional*): Whether the model was distilled to few steps, as some checkpoints state in
            their configuration. `None`: decided by name and configuration.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->text_encoder_3->transformer->vae"
    _optional_components = [
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "text_encoder_3",
        "tokenizer_3",
        "image_encoder",
        "feature_extractor",
    ]

    _callback_tensor_inputs = ["latents"]

    mapping_class = PatchMapping
    """The mapping type, for users who load this file without installing the package."""

    def __init__(
        self,
        transformer: Any,
        scheduler: Any,
        vae: Any,
        text_encoder: Any = None,
        tokenizer: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        text_encoder_3: Any = None,
        tokenizer_3: Any = None,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        is_distilled: bool | None = None,
    ):
        super().__init__()
        self.register_modules(
            transformer=transformer,
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        self.register_to_config(is_distilled=is_distilled)
        self.image_processor = VaeImageProcessor()

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        mapping: MappingInput,
        prompt: str | list[str] = "",
        negative_prompt: str = "",
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        solver: str = "fireflow",
        guidance_scale: float | None = None,
        inversion_guidance_scale: float = 1.0,
        position_steps: int | None = None,
        value_steps: int | None = None,
        position_blocks: Sequence[int] | None = None,
        value_blocks: Sequence[int] | None = None,
        value_source: ValueSource = "reconstruction",
        rule: InjectionRule = "paper",
        cache_device: CacheDevice = "model",
        transfer_noise: bool = False,
        hold_background: bool | None = None,
        confine: Confinement = "none",
        compute: ComputeMode | None = None,
        outlines: Sequence[np.ndarray] | None = None,
        allow_distilled: bool = False,
        generator: torch.Generator | None = None,
        max_sequence_length: int | None = None,
        prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        prompt_embeds_mask: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ArtifactInjectionOutput | tuple[Any, Any]:
        r"""
        Make the clean image and the artifact images of one or several photos.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or `list[PIL.Image.Image]`):
                One photo, or several of one size. Arrays are `(batch, height, width, 3)` and tensors
                `(batch, 3, height, width)`, in [0, 1]. Sides must be multiples of `patch_size`.
            mapping (`PatchMapping` or (nested) `list[PatchMapping]`):
                For one photo, the mapping of each artifact image; for several, one such list for each photo. Join
                several artifacts of one image with `PatchMapping.union`.
            prompt (`str` or `list[str]`, *optional*, defaults to `""`):
                Caption of all photos, or one for each; used for inversion and for denoising.
            negative_prompt (`str`, *optional*, defaults to `""`):
                Negative prompt of families with true classifier-free guidance (FLUX.2-klein, Chroma, SD3,
                Qwen-Image), used where a guidance scale is not 1.
            num_inference_steps (`int`, *optional*, defaults to 8):
                Number of steps of inversion, and of denoising. The default was chosen on the embedded model; the
                paper uses 25.
            solver (`str`, *optional*, defaults to `"fireflow"`):
                `"euler"`, `"midpoint"` (or `"rf_solver"`, the same), `"fireflow"` or `"uni_inv"`.
            guidance_scale (`float`, *optional*):
                Guidance scale of the artifact images while denoising. Defaults to 5 for FLUX.1-dev, as in the paper,
                to the stock pipeline's 4 for FLUX.2-dev, and to 1 for all others.
            inversion_guidance_scale (`float`, *optional*, defaults to 1.0):
                Guidance scale of the inversion and of the clean image.
            position_steps (`int`, *optional*):
                Number of first denoising steps with position injection. Defaults to 20/25 of the steps, and to 24/25
                for omissions.
            value_steps (`int`, *optional*):
                Number of first denoising steps with value injection. Defaults to 15/25 of the steps.
            position_blocks (`Sequence[int]`, *optional*):
                Indices of the blocks with position injection, 0-based, double-stream blocks first. Defaults to the
                first two thirds. Not available for SD3, whose positions enter all blocks at once.
            value_blocks (`Sequence[int]`, *optional*):
                Indices of the blocks with value injection. Defaults to the last third; with `rule="released"`, on
                FLUX.1, to one block less.
            value_source (`str`, *optional*, defaults to `"reconstruction"`):
                Source of the injected values: `"reconstruction"`, the clean image's row at the same evaluation, or
                `"inversion"`, a cache filled during inversion, as in the paper.
            rule (`str`, *optional*, defaults to `"paper"`):
                `"paper"`, or `"released"` to follow the code that the paper's authors published where it differs; see
                [`~injection.InjectionState`]. The latter needs `value_source="inversion"` and a model with
                single-stream blocks (FLUX.1, FLUX.2, Chroma).
            cache_device (`str`, *optional*, defaults to `"model"`):
                Device of cached values: `"model"`, the model's own, or `"cpu"`, host memory.
            transfer_noise (`bool`, *optional*, defaults to `False`):
                Also start each target from the inverted noise of its reference, which makes copies of a part sharper.
                Not in the paper.
            hold_background (`bool`, *optional*):
                Where values are injected, also give tokens outside the target the clean image's queries, so that far
                less changes there. Not in the paper. Defaults to `True` with `value_source="reconstruction"`, and must
                be `False` with `"inversion"`.
            confine (`str`, *optional*, defaults to `"none"`):
                Guarantee that everything away from the target equals the clean image. `"latent"`: every token that
                does not touch the target, at every step; the decoder still blends across their border. `"pixel"`:
                every pixel one patch or more from the target, with a fade in between. `"visible"`: every pixel but
                those of the visible change that touches the target, with a fade where the change cannot be seen.
            outlines (`Sequence[np.ndarray]`, *optional*):
                With `confine="visible"`, for each artifact image how far it may show at every pixel, of shape
                `(height, width)`, in [0, 1], so that it ends at the outline of an object and not of patches; see
                [`~confinement.soft_outline`].
            compute (`str`, *optional*):
                What is computed of an artifact image. `"full"`: all of it. `"target"`: only the target and the patches
                that touch it, which attend to the keys and values of the clean image at the same evaluation. The
                rest is the clean image's, as with `confine="latent"`, down to the pixels beyond the decoder's reach.
                Each further artifact then costs its target alone. Defaults to `"target"` where the background is
                held, which `"target"` needs, else to `"full"`.
            allow_distilled (`bool`, *optional*, defaults to `False`):
                Run few-step models, which otherwise raise an error because they invert poorly.
            generator (`torch.Generator`, *optional*):
                Samples the autoencoder's posterior. By default its mode is used, and nothing is random.
            max_sequence_length (`int`, *optional*):
                Maximum number of text tokens. Defaults to that of the family's stock pipeline.
            prompt_embeds (`torch.Tensor` of shape `(images, sequence, channels)`, *optional*):
                Prompts that [`encode_prompt`] encoded before, a row for each photo, in place of `prompt`.
            pooled_prompt_embeds (`torch.Tensor` of shape `(images, channels)`, *optional*):
                Their pooled part, for FLUX.1 and SD3.
            prompt_embeds_mask (`torch.Tensor` of shape `(images, sequence)`, *optional*):
                Their mask, for Chroma, and for Qwen-Image where prompts are padded.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"`, `"pt"` or `"latent"`.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object.
            callback_on_step_end (`Callable`, *optional*):
                Called after every evaluation of the transformer as `callback(pipe, index, timestep, callback_kwargs)`,
                as in stock pipelines; `index` counts through inversion and denoising. It returns a dictionary, whose
                `latents` replace the packed ones. With `compute="target"`, all tokens of an artifact image but its
                target's are taken from the clean image again.
            callback_on_step_end_tensor_inputs (`Sequence[str]`, *optional*, defaults to `("latents",)`):
                Names of the tensors that the callback receives.

        Returns:
            [`ArtifactInjectionOutput`], or the tuple `(images, reconstructions)` if `return_dict` is `False`.

        Raises:
            ValueError: An argument is not as described; the message names it.

        Example:

            >>> from PIL import Image
            >>> from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline, PatchMapping
            >>> pipe = ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL)
            >>> pipe.set_progress_bar_config(disable=True)
            >>> photo = Image.radial_gradient("L").convert("RGB")
            >>> patch = PatchMapping(targets=(34, 35), references=(119, 120), grid=(32, 32))
            >>> out = pipe(photo, [patch, PatchMapping.empty((32, 32))], num_inference_steps=2)
            >>> len(out.reconstructions), len(out.images), out.num_function_evaluations
            (1, 2, 9)
        """
        family, device = self.family, self._execution_device
        photos = preprocess_images(image, family.patch_size)
        grid = (photos.shape[-2] // family.patch_size, photos.shape[-1] // family.patch_size)
        mappings, image_indices = arrange_mappings(mapping, len(photos), grid)
        prompts = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt] * len(photos)
        encoded = (
            None if prompt_embeds is None else Conditioning(prompt_embeds, pooled_prompt_embeds, prompt_embeds_mask)
        )
        if guidance_scale is None:
            guidance_scale = family.default_guidance_scale
        if hold_background is None:
            hold_background = may_hold_background(value_source)
        if compute is None:
            compute = "target" if hold_background else "full"
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self.check_inputs(
            num_images=len(photos),
            prompts=prompts,
            negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps,
            solver=solver,
            position_steps=position_steps,
            value_steps=value_steps,
            position_blocks=position_blocks,
            value_blocks=value_blocks,
            guidance_scale=guidance_scale,
            inversion_guidance_scale=inversion_guidance_scale,
            value_source=value_source,
            rule=rule,
            cache_device=cache_device,
            hold_background=hold_background,
            confine=confine,
            compute=compute,
            outlines=outlines,
            outline_shape=(len(mappings), *photos.shape[-2:]),
            output_type=output_type,
            allow_distilled=allow_distilled,
            encoded=encoded,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        self._align_weights()
        # Index of the photo of every row. Reconstructions come first, so it is also the row of its reconstruction.
        sources = [*range(len(photos)), *image_indices]
        if position_blocks is None:
            position_blocks = default_position_blocks(family.num_blocks)
        settings: dict[str, Any] = {
            "mappings": [PatchMapping.empty(grid)] * len(photos) + mappings,
            "sources": sources,
            "num_inference_steps": num_inference_steps,
            "position_blocks": position_blocks,
            "value_blocks": default_value_blocks(family.num_blocks, rule) if value_blocks is None else value_blocks,
            "position_steps": position_steps,
            "value_steps": value_steps,
            "hold_background": hold_background,
            "value_source": value_source,
            "cache_device": cache_device,
            "device": device,
            "rule": rule,
        }
        target_rows, state = None, InjectionState(**settings)
        if compute == "target":
            target_rows = TargetRows(mappings, image_indices, len(photos), family.target_row_multiple(grid), device)
            state = TargetInjectionState(target_rows, **settings)
        guidance = torch.tensor(
            [inversion_guidance_scale] * len(photos) + [guidance_scale] * len(mappings), device=device
        )
        timings: dict[str, float] = {}

        with self._timed(timings, "encode"):
            conditions = (
                self._encode_prompts(prompts, max_sequence_length) if encoded is None else encoded.on(device).rows()
            )
            negative = None
            if family.needs_negative(guidance):
                negative = family.encode_prompt(negative_prompt, device, max_sequence_length)
            clean = family.pack(family.encode_images(photos.to(device), generator)).float()
        inversion, denoising = self._make_solvers(solver, num_inference_steps, clean.shape[1])
        loop = DenoisingLoop(family, grid, negative, observer=state, interrupted=lambda: self.interrupt)
        inside = dilated_targets(mappings, device)
        confines_tokens = compute == "target" or confine == "latent"
        reconstruction_rows = torch.tensor(image_indices, device=device)
        indices = itertools.count()
        with family.injecting(state), self.progress_bar(total=self.num_timesteps) as progress:

            def end_step(timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
                if callback_on_step_end is not None:
                    given = {"latents": tokens} if "latents" in callback_on_step_end_tensor_inputs else {}
                    tokens = callback_on_step_end(self, next(indices), timestep, given).pop("latents", tokens)
                progress.update()
                return tokens

            def end_denoising_step(timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
                tokens = end_step(timestep, tokens)
                return confine_tokens(tokens, reconstruction_rows, inside) if confines_tokens else tokens

            with self._timed(timings, "invert"):
                inverted = loop.invert(
                    inversion, clean, Conditioning.stack(conditions), guidance[: len(photos)], end_step
                )
            with self._timed(timings, "denoise"):
                noise = self._start(inverted, sources, mappings, transfer_noise)
                of_rows = Conditioning.stack([conditions[image] for image in sources])
                tokens = loop.denoise(denoising, noise, of_rows, guidance, end_denoising_step, target_rows)

        with self._timed(timings, "decode"):
            latents = family.unpack(tokens, grid)
            if compute == "target" and output_type != "latent":
                reconstructions, images = decode_targets(family, latents, image_indices, inside)
            else:
                decoded = latents if output_type == "latent" else family.decode_latents(latents).float()
                reconstructions, images = decoded[: len(photos)], decoded[len(photos) :]
            if confine == "pixel":
                images = confine_pixels(images, reconstructions[image_indices], mappings, family.patch_size)
            elif confine == "visible":
                images = confine_to_visible(images, reconstructions[image_indices], mappings, outlines)
            if output_type != "latent":
                reconstructions, images = (
                    self.image_processor.postprocess(part, output_type=output_type)
                    for part in (reconstructions, images)
                )
        self.maybe_free_model_hooks()
        if not return_dict:
            return images, reconstructions
        return ArtifactInjectionOutput(
            images=images,
            reconstructions=reconstructions,
            image_indices=image_indices,
            inverted_latents=inverted,
            num_function_evaluations=loop.num_function_evaluations,
            token_evaluations=loop.token_evaluations,
            cache_bytes=state.cache_bytes,
            timings=timings,
        )

    @torch.no_grad()
    def invert(
        self,
        image: ImageInput,
        prompt: str | list[str] = "",
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        solver: str = "fireflow",
        allow_distilled: bool = False,
        max_sequence_length: int | None = None,
        prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        prompt_embeds_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        r"""
        Invert images to noise as [`__call__`] inverts photos, with a guidance scale of 1, and do nothing more.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or `list[PIL.Image.Image]`):
                One image, or several of one size; see [`__call__`].
            prompt (`str` or `list[str]`, *optional*, defaults to `""`): Caption of all images, or one for each.
            num_inference_steps (`int`, *optional*, defaults to 8): Number of steps.
            solver, allow_distilled, max_sequence_length, prompt_embeds, pooled_prompt_embeds, prompt_embeds_mask
                (*optional*): See [`__call__`].

        Returns:
            `torch.Tensor` of shape `(images, channels, height / 8, width / 8)`, float32: Latents at the highest noise
            level. Denoising them without injection gives the images again, within the solver's error.

        Raises:
            ValueError: An argument is not as described; the message names it.
        """
        family, device = self.family, self._execution_device
        photos = preprocess_images(image, family.patch_size)
        grid = (photos.shape[-2] // family.patch_size, photos.shape[-1] // family.patch_size)
        prompts = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt] * len(photos)
        encoded = (
            None if prompt_embeds is None else Conditioning(prompt_embeds, pooled_prompt_embeds, prompt_embeds_mask)
        )
        one_of("solver", solver, SOLVER_NAMES)
        self.check_model(allow_distilled, encodes_prompts=encoded is None)
        self._check_prompts(family, len(photos), prompts, "", encoded)
        if not isinstance(num_inference_steps, int) or num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` must be an integer of at least 1, got {num_inference_steps}")
        self._align_weights()
        conditions = (
            self._encode_prompts(prompts, max_sequence_length) if encoded is None else encoded.on(device).rows()
        )
        clean = family.pack(family.encode_images(photos.to(device), None)).float()
        inversion, _ = self._make_solvers(solver, num_inference_steps, clean.shape[1])
        self._num_timesteps = len(inversion.timesteps)
        loop = DenoisingLoop(family, grid, interrupted=lambda: self.interrupt)
        with self.progress_bar(total=self.num_timesteps) as progress:

            def end_step(timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
                progress.update()
                return tokens

            guidance = torch.ones(len(photos), device=device)
            noise = loop.invert(inversion, clean, Conditioning.stack(conditions), guidance, end_step)
        self.maybe_free_model_hooks()
        return family.unpack(noise, grid)

    def check_inputs(
        self,
        num_images: int,
        prompts: Sequence[str],
        negative_prompt: str,
        num_inference_steps: int,
        solver: str,
        position_steps: int | None,
        value_steps: int | None,
        position_blocks: Sequence[int] | None,
        value_blocks: Sequence[int] | None,
        guidance_scale: float,
        inversion_guidance_scale: float,
        value_source: ValueSource,
        rule: InjectionRule,
        cache_device: CacheDevice,
        hold_background: bool,
        confine: Confinement,
        compute: ComputeMode,
        outlines: Sequence[np.ndarray] | None,
        outline_shape: tuple[int, int, int],
        output_type: str,
        allow_distilled: bool,
        encoded: Conditioning | None,
        callback_on_step_end_tensor_inputs: Sequence[str],
    ) -> None:
        """
        Check the arguments of [`__call__`], except photos and mappings, which are checked where they are converted.

        Args:
            num_images (`int`): Number of photos.
            prompts (`Sequence[str]`): Prompt of each photo.
            outline_shape (`tuple[int, int, int]`): Number of artifact images, their height and their width.
            encoded (`Conditioning`, *optional*): Prompts that were encoded before, a row for each photo.
            others: As in [`__call__`], with defaults filled in.

        Raises:
            ValueError: An argument is not as [`__call__`] describes it; the message names it.
        """
        one_of("solver", solver, SOLVER_NAMES)
        one_of("value_source", value_source, VALUE_SOURCES)
        one_of("rule", rule, INJECTION_RULES)
        one_of("cache_device", cache_device, CACHE_DEVICES)
        one_of("confine", confine, CONFINEMENTS)
        one_of("compute", compute, COMPUTE_MODES)
        one_of("output_type", output_type, OUTPUT_TYPES)
        family = self.family
        guided = family.needs_negative(torch.tensor([guidance_scale, inversion_guidance_scale]))
        self.check_model(allow_distilled, encodes_prompts=encoded is None or guided, rule=rule)
        self._check_prompts(family, num_images, prompts, negative_prompt, encoded)
        if not isinstance(num_inference_steps, int) or num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` must be an integer of at least 1, got {num_inference_steps}")
        for name, steps in (("position_steps", position_steps), ("value_steps", value_steps)):
            if steps is not None and not 0 <= steps <= num_inference_steps:
                raise ValueError(f"`{name}` must be from 0 to {num_inference_steps}, got {steps}")
        if position_blocks is not None and family.position_blocks_reason:
            raise ValueError(
                f"`position_blocks` must be None for {family.transformer_class}, because "
                f"{family.position_blocks_reason}, got {position_blocks}; use `position_steps`"
            )
        for name, blocks in (("position_blocks", position_blocks), ("value_blocks", value_blocks)):
            outside = [block for block in blocks or () if not 0 <= block < family.num_blocks]
            if outside:
                raise ValueError(f"`{name}` must be block indices from 0 to {family.num_blocks - 1}, got {outside[0]}")
        if rule == "released" and value_source != "inversion":
            raise ValueError(
                "`value_source` must be 'inversion' with `rule='released'`, whose values are those of the inversion, "
                f"got {value_source!r}"
            )
        if hold_background and not may_hold_background(value_source):
            raise ValueError(
                "`hold_background` must be False with `value_source='inversion'`, because the inversion has no "
                "queries at the same evaluations, got True"
            )
        if compute == "target" and not hold_background:
            raise ValueError(
                "`compute` must be 'full' where the background is not held, because it then reacts to the target, got "
                "'target'; pass `hold_background=True`, or leave `compute` out"
            )
        if confine in ("pixel", "visible") and output_type == "latent":
            raise ValueError(f"`confine` must be 'none' or 'latent' with `output_type='latent'`, got {confine!r}")
        if outlines is not None and confine != "visible":
            raise ValueError(f"`outlines` must be None unless `confine='visible'`, got them with {confine!r}")
        if outlines is not None and (len(outlines), *np.shape(outlines)[1:]) != outline_shape:
            raise ValueError(
                f"`outlines` must hold {outline_shape[0]} arrays of shape {outline_shape[1:]}, one for each mapping, "
                f"got shape {np.shape(outlines)}"
            )
        self._check_callback_inputs(callback_on_step_end_tensor_inputs)
        self._check_guidance(family, guidance_scale, inversion_guidance_scale, value_source)

    @staticmethod
    def _check_guidance(
        family: TransformerFamily, guidance_scale: float, inversion_guidance_scale: float, value_source: ValueSource
    ) -> None:
        scales = {"guidance_scale": guidance_scale, "inversion_guidance_scale": inversion_guidance_scale}
        for name, scale in scales.items():
            family.check_guidance_scale(name, scale)
        # The negative prompt's values are cached only if the inversion evaluates it.
        unseen = family.guidance_kind == "true" and guidance_scale != 1 and inversion_guidance_scale == 1
        if unseen and value_source == "inversion":
            raise ValueError(
                "`inversion_guidance_scale` must not be 1 with `value_source='inversion'` and a `guidance_scale` of "
                f"{guidance_scale}, got 1; set it, or use `value_source='reconstruction'`"
            )

    @staticmethod
    def _start(
        inverted: torch.Tensor, sources: list[int], mappings: list[PatchMapping], transfer_noise: bool
    ) -> torch.Tensor:
        noise = inverted[sources]
        if transfer_noise:
            for row, mapping in zip(range(len(inverted), len(sources)), mappings, strict=True):
                noise[row, list(mapping.targets)] = inverted[sources[row], list(mapping.references)]
        return noise
