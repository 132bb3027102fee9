"""Inverts photographs and denoises them again with structural flaws: the pipeline of the synthesis agent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from PIL import Image

from .family import Conditioning, TransformerFamily
from .family_flux import FluxFamily
from .family_sd3 import SD3Family
from .injection import (
    VALUE_SOURCES,
    InjectionState,
    ValueSource,
    default_position_blocks,
    default_value_blocks,
)
from .mapping import PatchMapping
from .schedulers import SOLVERS, FlowMatchSolverScheduler


FAMILIES: tuple[type[TransformerFamily], ...] = (FluxFamily, SD3Family)

ImageInput = Image.Image | np.ndarray | torch.Tensor | Sequence[Image.Image]
MappingInput = PatchMapping | Sequence[PatchMapping] | Sequence[Sequence[PatchMapping]]


@dataclass
class ArtifactInjectionOutput(BaseOutput):
    r"""
    Output of [`ArtifactInjectionPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`): Flawed images, one for each mapping. With
            `output_type="latent"`, latents of shape `(variants, channels, height / 8, width / 8)`.
        reconstructions (as `images`): Clean images, one for each image given: the same inversion and denoising without
            injection.
        image_indices (`list[int]`): For each flawed image, the index of its reconstruction.
        inverted_latents (`torch.Tensor` of shape `(images, tokens, channels)`): Packed noise that inversion ended at.
        num_function_evaluations (`int`): Evaluations of the transformer, each counted once for every row of its batch.
        cache_bytes (`int`): Most memory that cached values took, in bytes; 0 with `value_source="reconstruction"`.
        timings (`dict[str, float]`): Seconds spent in `encode`, `invert`, `denoise` and `decode`.
    """

    images: Any
    reconstructions: Any
    image_indices: list[int]
    inverted_latents: torch.Tensor
    num_function_evaluations: int
    cache_bytes: int
    timings: dict[str, float] = field(default_factory=dict)


class ArtifactInjectionPipeline(DiffusionPipeline):
    r"""
    Injects structural flaws into photographs (ArtiAgent, arXiv 2602.20951, §4.2).

    A photograph is inverted to noise along the model's flow and denoised again in one batch: once as it is, which
    gives the clean half of a pair, and once for every mapping. While denoising, each target token takes the
    *position* and the *value* of its reference, and all other tokens of a flawed row keep the clean image's values.

    Works with FLUX.1 and Stable Diffusion 3 / 3.5 checkpoints, and with the embedded default of the package.

    Args:
        transformer (`FluxTransformer2DModel` or `SD3Transformer2DModel`): The diffusion transformer.
        scheduler (`FlowMatchEulerDiscreteScheduler`): Its configuration gives the sigma grid of all solvers.
        vae (`AutoencoderKL` or a class of its interface): The autoencoder.
        text_encoder, tokenizer, text_encoder_2, tokenizer_2, text_encoder_3, tokenizer_3 (*optional*): As in the
            checkpoint's stock pipeline. All absent: the model is unconditional and `prompt` must be empty.
        image_encoder, feature_extractor (*optional*): Loaded where a checkpoint has them, unused.
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

    mapping_class = PatchMapping
    """The mapping type, within reach of those who load this file without installing the package."""

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
        self.vae_scale_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    @property
    def family(self) -> TransformerFamily:
        """Adapter of the loaded transformer's family."""
        name = type(self.transformer).__name__
        for family in FAMILIES:
            if family.transformer_class == name:
                return family(self.transformer, self.components)
        supported = ", ".join(family.transformer_class for family in FAMILIES)
        raise ValueError(f"`transformer` must be one of {supported}, got {name}")

    @property
    def patch_size(self) -> int:
        """Side of a token in pixels."""
        return self.vae_scale_factor * self.family.token_side

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        mapping: MappingInput,
        prompt: str | list[str] = "",
        negative_prompt: str = "",
        num_inference_steps: int = 25,
        solver: str = "fireflow",
        guidance_scale: float | None = None,
        inversion_guidance_scale: float = 1.0,
        position_steps: int | None = None,
        value_steps: int | None = None,
        position_blocks: Sequence[int] | None = None,
        value_blocks: Sequence[int] | None = None,
        value_source: ValueSource = "reconstruction",
        transfer_noise: bool = False,
        generator: torch.Generator | None = None,
        max_sequence_length: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ArtifactInjectionOutput | tuple[Any, Any]:
        r"""
        Makes the clean half and the flawed variants of one or several photographs.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or `list[PIL.Image.Image]`):
                One photograph, or several of one size. Arrays are `(batch, height, width, 3)` and tensors
                `(batch, 3, height, width)`, in [0, 1]. Sides must be multiples of `patch_size`.
            mapping (`PatchMapping` or (nested) `list[PatchMapping]`):
                For one photograph, a mapping for each flawed variant of it; for several, a list of these for each.
                Several artifacts of one variant are joined with `PatchMapping.union`.
            prompt (`str` or `list[str]`, *optional*, defaults to `""`):
                Caption of the photograph, or one for each; used to invert and to denoise.
            negative_prompt (`str`, *optional*, defaults to `""`):
                For families with true classifier-free guidance (SD3), where a guidance scale is not 1.
            num_inference_steps (`int`, *optional*, defaults to 25): Steps of inversion, and of denoising.
            solver (`str`, *optional*, defaults to `"fireflow"`):
                `"euler"`, `"midpoint"` (or `"rf_solver"`, the same), `"fireflow"` or `"uni_inv"`.
            guidance_scale (`float`, *optional*):
                Guidance of the flawed variants while denoising. Defaults to the paper's 5 for guidance-distilled
                models (FLUX.1-dev) and to 1 for all others.
            inversion_guidance_scale (`float`, *optional*, defaults to 1.0): Guidance of the inversion and the
                reconstruction.
            position_steps (`int`, *optional*):
                First denoising steps with position injection. Defaults to 20/25 of them, 24/25 for omissions.
            value_steps (`int`, *optional*): First denoising steps with value injection. Defaults to 15/25 of them.
            position_blocks (`Sequence[int]`, *optional*):
                Blocks with position injection, 0-based, FLUX's double-stream blocks first. Defaults to the first two
                thirds. Not available for SD3, whose positions enter all blocks at once.
            value_blocks (`Sequence[int]`, *optional*): Blocks with value injection. Defaults to the last third.
            value_source (`str`, *optional*, defaults to `"reconstruction"`):
                Where injected values come from: the reconstruction's row at the same evaluation, or, as in the paper,
                a cache of the `"inversion"`.
            transfer_noise (`bool`, *optional*, defaults to `False`):
                Start each target from the inverted noise of its reference as well. Ours, not the paper's: copies of
                a part come out sharper.
            generator (`torch.Generator`, *optional*):
                Samples the autoencoder's posterior. Without it the posterior's mode is used, and nothing is random.
            max_sequence_length (`int`, *optional*): Text tokens; defaults to that of the family's stock pipeline.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"`, `"pt"` or `"latent"`.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object.

        Returns:
            [`ArtifactInjectionOutput`], or the tuple `(images, reconstructions)` if `return_dict` is `False`.

        Raises:
            ValueError: an argument is not as described; the message names it, what was expected and what came.

        Example:

            >>> import torch
            >>> from diffusers import DiffusionPipeline
            >>> pipe = DiffusionPipeline.from_pretrained(
            ...     "black-forest-labs/FLUX.1-dev", custom_pipeline="ORG/artifact-injection",
            ...     trust_remote_code=True, dtype=torch.bfloat16,
            ... ).to("cuda")  # doctest: +SKIP
            >>> third_eye = pipe.mapping_class(targets=(580, 581), references=(516, 517), grid=(32, 32))
            >>> out = pipe(photo, third_eye, prompt="a portrait of a man")  # doctest: +SKIP
            >>> out.reconstructions[0], out.images[0]  # the clean and the flawed half  # doctest: +SKIP
        """
        family, device = self.family, self._execution_device
        photos = self._preprocess(image)
        grid = (photos.shape[-2] // self.patch_size, photos.shape[-1] // self.patch_size)
        mappings, image_indices = self._arrange_mappings(mapping, len(photos), grid)
        prompts = [prompt] * len(photos) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(photos):
            raise ValueError(f"`prompt` must be a string or one for each image, got {len(prompts)} for {len(photos)}")
        if guidance_scale is None:
            guidance_scale = 5.0 if family.has_guidance and not family.has_true_guidance else 1.0
        self._check_settings(num_inference_steps, solver, value_source, position_steps, value_steps)
        self._check_guidance(family, guidance_scale, inversion_guidance_scale, value_source)
        state = InjectionState(
            mappings,
            image_indices,
            len(photos),
            num_inference_steps,
            self._check_blocks(family, "position_blocks", position_blocks),
            self._check_blocks(family, "value_blocks", value_blocks),
            position_steps,
            value_steps,
            value_source,
            device,
        )
        timings: dict[str, float] = {}
        evaluations = Evaluations(family, state, grid)

        with self._timed(timings, "encode"):
            conditions = [family.encode_prompt(text, device, max_sequence_length) for text in prompts]
            negative = family.encode_prompt(negative_prompt, device, max_sequence_length)
            clean = family.pack(self._encode(photos.to(device), generator)).float()
        rows = [*range(len(photos)), *image_indices]
        timestep_arguments = family.timestep_arguments(num_inference_steps, clean.shape[1], self.scheduler)
        inversion, denoising = (SOLVERS[solver].from_config(self.scheduler.config) for _ in range(2))
        inversion.set_timesteps(**timestep_arguments, device=device, inverse=True)
        denoising.set_timesteps(**timestep_arguments, device=device)

        with (
            family.injecting(state),
            self.progress_bar(total=len(inversion.timesteps) + len(denoising.timesteps)) as progress,
        ):
            with self._timed(timings, "invert"):
                scales = [inversion_guidance_scale] * len(photos)
                evaluations.set_conditions(stack(conditions), negative, scales, device)
                inverted = evaluations.walk(inversion, clean, inverting=True, progress=progress)
            with self._timed(timings, "denoise"):
                scales += [guidance_scale] * len(mappings)
                evaluations.set_conditions(stack([conditions[row] for row in rows]), negative, scales, device)
                noise = self._start(inverted, rows, mappings, transfer_noise)
                tokens = evaluations.walk(denoising, noise, inverting=False, progress=progress)

        with self._timed(timings, "decode"):
            decoded = self._decode(family.unpack(tokens, grid), output_type)
        self.maybe_free_model_hooks()
        reconstructions, images = decoded[: len(photos)], decoded[len(photos) :]
        if not return_dict:
            return images, reconstructions
        return ArtifactInjectionOutput(
            images=images,
            reconstructions=reconstructions,
            image_indices=image_indices,
            inverted_latents=inverted,
            num_function_evaluations=evaluations.count,
            cache_bytes=state.cache_bytes,
            timings=timings,
        )

    def _preprocess(self, image: ImageInput) -> torch.Tensor:
        """Photographs as float32 `(images, 3, height, width)` in [-1, 1]."""
        sizes = {item.size for item in image} if isinstance(image, (list, tuple)) else set()
        if len(sizes) > 1:
            raise ValueError(f"`image` must hold photographs of one size, got {sorted(sizes)}")
        tensor = self.image_processor.pil_to_numpy(image) if isinstance(image, Image.Image) or sizes else image
        if isinstance(tensor, np.ndarray):
            tensor = self.image_processor.numpy_to_pt(tensor)
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4 or tensor.shape[1] != 3:
            shape = getattr(tensor, "shape", type(tensor).__name__)
            raise ValueError(f"`image` must be RGB photographs, (batch, 3, height, width) as a tensor, got {shape}")
        if tensor.min() < 0 or tensor.max() > 1:
            raise ValueError(f"`image` must lie in [0, 1], got [{tensor.min():.3g}, {tensor.max():.3g}]")
        for name, side in zip(("height", "width"), tensor.shape[-2:], strict=True):
            if side % self.patch_size or side == 0:
                below = side // self.patch_size * self.patch_size
                nearest = [legal for legal in (below, below + self.patch_size) if legal]
                raise ValueError(
                    f"`image` must have sides that are multiples of {self.patch_size}, got {name} {side}; "
                    f"the nearest legal {name}s are {' and '.join(map(str, nearest))}"
                )
        return 2 * tensor.float() - 1

    def _arrange_mappings(
        self, mapping: MappingInput, num_images: int, grid: tuple[int, int]
    ) -> tuple[list[PatchMapping], list[int]]:
        """One mapping for each variant, and the image each belongs to."""
        nested: Any = [mapping] if hasattr(mapping, "targets") else mapping
        if num_images == 1 and nested and hasattr(nested[0], "targets"):
            nested = [nested]
        if len(nested) != num_images or any(hasattr(variants, "targets") for variants in nested):
            raise ValueError(
                f"`mapping` must hold a list of mappings for each of {num_images} images, got {len(nested)} entries"
            )
        mappings, image_indices = [], []
        for index, variants in enumerate(nested):
            for variant in variants:
                if tuple(variant.grid) != grid:
                    raise ValueError(
                        f"`mapping` must be on the image's grid of {grid[0]}x{grid[1]} patches, got {variant.grid}"
                    )
                # Rebuilt, because one made by another copy of this package is of another class, and to check it.
                mappings.append(PatchMapping(variant.targets, variant.references, grid, variant.types))
                image_indices.append(index)
        if not mappings:
            raise ValueError("`mapping` must hold at least one mapping, got none")
        return mappings, image_indices

    @staticmethod
    def _check_settings(
        num_inference_steps: int,
        solver: str,
        value_source: str,
        position_steps: int | None,
        value_steps: int | None,
    ) -> None:
        if num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` must be at least 1, got {num_inference_steps}")
        if solver not in SOLVERS:
            raise ValueError(f"`solver` must be one of {', '.join(SOLVERS)}, got {solver!r}")
        if value_source not in VALUE_SOURCES:
            raise ValueError(f"`value_source` must be one of {', '.join(VALUE_SOURCES)}, got {value_source!r}")
        for name, steps in (("position_steps", position_steps), ("value_steps", value_steps)):
            if steps is not None and not 0 <= steps <= num_inference_steps:
                raise ValueError(f"`{name}` must be from 0 to {num_inference_steps}, got {steps}")

    @staticmethod
    def _check_guidance(
        family: TransformerFamily, guidance_scale: float, inversion_guidance_scale: float, value_source: str
    ) -> None:
        scales = (guidance_scale, inversion_guidance_scale)
        if not family.has_guidance and any(scale != 1 for scale in scales):
            raise ValueError(
                f"`guidance_scale` must be 1 for a checkpoint without guidance embedding, got {max(scales)}"
            )
        # The negative prompt's values are cached only where the inversion evaluates it.
        unseen = family.has_true_guidance and guidance_scale != 1 and inversion_guidance_scale == 1
        if unseen and value_source == "inversion":
            raise ValueError(
                "`inversion_guidance_scale` must not be 1 for `value_source='inversion'` with true guidance, got 1 "
                f"and a `guidance_scale` of {guidance_scale}"
            )

    @staticmethod
    def _check_blocks(family: TransformerFamily, name: str, blocks: Sequence[int] | None) -> Sequence[int]:
        if blocks is None:
            default = default_position_blocks if name == "position_blocks" else default_value_blocks
            return default(family.num_blocks)
        if name == "position_blocks" and family.position_blocks_reason:
            raise ValueError(
                f"`position_blocks` must be left out for {family.transformer_class}: {family.position_blocks_reason}"
            )
        outside = [block for block in blocks if not 0 <= block < family.num_blocks]
        if outside:
            raise ValueError(f"`{name}` must be from 0 to {family.num_blocks - 1}, got {outside[0]}")
        return blocks

    def _encode(self, photos: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        posterior = self.vae.encode(photos.to(self.vae.dtype)).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        return (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def _decode(self, latents: torch.Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return latents
        latents = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
        images = self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]
        return self.image_processor.postprocess(images.float(), output_type=output_type)

    @staticmethod
    def _start(
        inverted: torch.Tensor, rows: list[int], mappings: list[PatchMapping], transfer_noise: bool
    ) -> torch.Tensor:
        noise = inverted[rows]
        if transfer_noise:
            for row, mapping in zip(range(len(inverted), len(rows)), mappings, strict=True):
                noise[row, list(mapping.targets)] = inverted[rows[row], list(mapping.references)]
        return noise

    @contextmanager
    def _timed(self, timings: dict[str, float], phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._execution_device.type == "cuda":
            torch.cuda.synchronize(self._execution_device)
        timings[phase] = time.perf_counter() - start


class Evaluations:
    """Evaluates the transformer at the points a solver asks for, with guidance, and counts."""

    def __init__(self, family: TransformerFamily, state: InjectionState, grid: tuple[int, int]):
        self.family, self.state, self.grid = family, state, grid
        self.count = 0

    def set_conditions(
        self, positive: Conditioning, negative: Conditioning, scales: list[float], device: torch.device
    ) -> None:
        """Conditioning and guidance scale of every row of the next walk."""
        self.positive, self.negative = positive, negative
        self.guidance = torch.tensor(scales, device=device)  # (rows,)
        self.needs_negative = self.family.has_true_guidance and any(scale != 1 for scale in scales)

    def walk(
        self, scheduler: FlowMatchSolverScheduler, sample: torch.Tensor, inverting: bool, progress: Any
    ) -> torch.Tensor:
        """
        Follows the flow through all of the scheduler's timesteps, from `sample` of shape `(rows, tokens, channels)`.
        """
        for index, timestep in enumerate(scheduler.timesteps):
            step, updates = scheduler.step_of_evaluation[index], scheduler.updates_solution[index]
            velocity = self._velocity(sample, timestep, step, updates, inverting)
            sample = scheduler.step(velocity.float(), timestep, sample, return_dict=False)[0]
            progress.update()
        self.state.end()
        return sample

    def _velocity(
        self, sample: torch.Tensor, timestep: torch.Tensor, step: int, updates: bool, inverting: bool
    ) -> torch.Tensor:
        def evaluate(branch: str, condition: Conditioning) -> torch.Tensor:
            if inverting:
                self.state.begin_inversion(step, branch, updates)
            else:
                self.state.begin_denoising(step, branch)
            self.count += len(sample)
            return self.family.velocity(sample, timestep, condition, self.guidance, self.grid)

        conditional = evaluate("cond", self.positive)
        if not self.needs_negative:
            return conditional
        unconditional = evaluate("uncond", self.negative)
        return unconditional + self.guidance[:, None, None] * (conditional - unconditional)


def stack(conditions: list[Conditioning]) -> Conditioning:
    """Conditioning of several rows in one; all have the same number of text tokens."""
    return Conditioning(
        torch.cat([condition.prompt_embeds for condition in conditions]),
        torch.cat([condition.pooled for condition in conditions]),
    )
