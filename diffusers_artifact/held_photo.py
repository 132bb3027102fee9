"""
Photos that are held ready: inverted once, their clean row walked once, so that a further artifact costs its target.

With `compute="target"` the pipeline evaluates the clean row and the rows of targets in lockstep and keeps nothing.
Where a person tries one artifact after another on a photo, the inversion and the clean row are the same every time:
here what attentions computed for the clean row is kept for all evaluations, and an artifact replays it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from .choices import Confinement
from .confinement import confine_pixels, confine_to_visible, dilated_targets
from .decoding import decode_variants
from .denoising_loop import DenoisingLoop
from .family import Conditioning
from .injection import InjectionState, default_position_blocks, default_value_blocks
from .inputs import one_of, preprocess_images
from .mapping import PatchMapping
from .presets import NUM_INFERENCE_STEPS
from .target_rows import TargetInjectionState, TargetRows


if TYPE_CHECKING:
    from . import pipeline as pipelines
    from . import processors, schedulers

    ArtifactInjectionPipeline = pipelines.ArtifactInjectionPipeline
    Recording = processors.Recording
    FlowMatchSolverScheduler = schedulers.FlowMatchSolverScheduler


HELD_CONFINEMENTS: tuple[Confinement, ...] = ("latent", "pixel", "visible")
"""Ways to confine an artifact of a held photo; its tokens are confined to the target in any case."""


@dataclass(frozen=True)
class _Kept:
    """What one attention computed for the clean row in one evaluation; see [`~processors.Recording`]."""

    key: torch.Tensor
    value: torch.Tensor
    query: torch.Tensor | None  # (1, tokens, heads, head_dim), only where values are injected
    mask: torch.Tensor | None
    frequencies: torch.Tensor | None

    @property
    def num_bytes(self) -> int:
        parts = (self.key, self.value, self.query)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)


class _KeepingState(InjectionState):
    """State of the clean row's walk, which injects nothing and keeps what attentions compute in each evaluation."""

    def __init__(self, grid: tuple[int, int], value_steps: int, **settings: Any):
        super().__init__([PatchMapping.empty(grid)], [0], value_steps=value_steps, **settings)
        self.evaluations: list[dict[int, _Kept]] = []
        self._keeping = False

    def begin_inversion(self, step: int, branch: str, updates: bool) -> None:
        self._keeping = False
        super().begin_inversion(step, branch, updates)

    def begin_denoising(self, step: int, branch: str, updates: bool = True) -> None:
        super().begin_denoising(step, branch, updates)
        self._keeping = True
        self.evaluations.append({})

    def share(
        self,
        recording: Recording,
        takes_values: bool,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        text_first: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Keep the row's keys, values and queries; see [`InjectionState.share`]."""
        if self._keeping:
            start = key.shape[1] - self.num_tokens if text_first else 0
            wanted = takes_values and self._step < self._value_steps
            self.evaluations[-1][_place(self.recordings, recording)] = _Kept(
                # Contiguous, because a view would keep the whole output of a fused projection.
                key.contiguous(),
                value.contiguous(),
                query[:, start : start + self.num_tokens].contiguous() if wanted else None,
                None if mask is None else mask[:, :, -1:],
                recording.frequencies,
            )
        return query, key, value, mask


class _ReplayingState(TargetInjectionState):
    """State of rows of targets that attend to what was kept of the clean row, in place of a pass of it."""

    def replay(self, step: int, updates: bool, kept: dict[int, _Kept]) -> None:
        """Prepare for the rows' pass of an evaluation of denoising step `step`, 0-based."""
        self.begin_denoising(step, "cond", updates)
        for place, recording in enumerate(self.recordings):
            of_clean = kept[place]
            recording.key, recording.value, recording.mask = of_clean.key, of_clean.value, of_clean.mask
            recording.frequencies = of_clean.frequencies
            if of_clean.query is not None:
                recording.query = of_clean.query[self._rows.sources[:, None], self._own]
        self.begin_targets()


@dataclass(frozen=True, eq=False)
class HeldArtifacts:
    """
    Artifact images of a held photo.

    Attributes:
        images (`list[PIL.Image.Image]`): One for each mapping, RGB.
        token_evaluations (`float`): Tokens that went through the transformer for them, divided by the tokens of an
            image.
    """

    images: list[Image.Image]
    token_evaluations: float


class HeldPhoto:
    r"""
    A photo that is held ready for one artifact after another. The images are those of
    `ArtifactInjectionPipeline(photo, mapping, compute="target", ...)` with the same arguments.

    What is kept of the clean row takes memory, [`num_bytes`]: 0.2 GB for the embedded model, many GB for FLUX.1.

    Args:
        pipeline (`ArtifactInjectionPipeline`): Loaded pipeline. Its weights must stay as they are.
        photo (`PIL.Image.Image`): The photo, RGB; its sides must be multiples of `pipeline.patch_size`.
        prompt (`str`, *optional*, defaults to `""`): Caption of the photo.
        num_inference_steps (`int`, *optional*, defaults to 8): Steps of inversion, and of denoising.
        solver (`str`, *optional*, defaults to `"fireflow"`): As in the pipeline.
        position_steps, value_steps, position_blocks, value_blocks, transfer_noise (*optional*): As in the pipeline.
        allow_distilled (`bool`, *optional*, defaults to `False`): As in the pipeline.

    Attributes:
        clean (`PIL.Image.Image`): The clean image.
        grid (`tuple[int, int]`): Rows and columns of tokens.

    Raises:
        ValueError: An argument is not as in the pipeline, or the model needs a negative prompt for its guidance.
    """

    @torch.no_grad()
    def __init__(
        self,
        pipeline: ArtifactInjectionPipeline,
        photo: Image.Image,
        prompt: str = "",
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        solver: str = "fireflow",
        position_steps: int | None = None,
        value_steps: int | None = None,
        position_blocks: Sequence[int] | None = None,
        value_blocks: Sequence[int] | None = None,
        transfer_noise: bool = False,
        allow_distilled: bool = False,
    ):
        family, device = pipeline.family, pipeline._execution_device
        pixels = preprocess_images(photo, family.patch_size)
        self.grid = (pixels.shape[-2] // family.patch_size, pixels.shape[-1] // family.patch_size)
        self._pipeline, self._transfer_noise = pipeline, transfer_noise
        pipeline.check_inputs(
            num_images=1,
            prompts=[prompt],
            negative_prompt="",
            num_inference_steps=num_inference_steps,
            solver=solver,
            position_steps=position_steps,
            value_steps=value_steps,
            position_blocks=position_blocks,
            value_blocks=value_blocks,
            guidance_scale=family.default_guidance_scale,
            inversion_guidance_scale=1.0,
            value_source="reconstruction",
            rule="paper",
            cache_device="model",
            hold_background=True,
            confine="none",
            compute="target",
            outlines=None,
            outline_shape=(0, *pixels.shape[-2:]),
            output_type="pil",
            allow_distilled=allow_distilled,
            encoded=None,
            callback_on_step_end_tensor_inputs=("latents",),
        )
        self._guidance = family.default_guidance_scale
        if family.needs_negative(torch.tensor([self._guidance])):
            raise ValueError(
                f"`pipeline` must need no negative prompt, got {family.transformer_class} with a default guidance "
                f"scale of {self._guidance:g}; call the pipeline itself"
            )
        pipeline._align_weights()
        if position_blocks is None:
            position_blocks = default_position_blocks(family.num_blocks)
        self._settings: dict[str, Any] = {
            "num_inference_steps": num_inference_steps,
            "position_blocks": position_blocks,
            "value_blocks": default_value_blocks(family.num_blocks) if value_blocks is None else value_blocks,
            "hold_background": True,
            "device": device,
        }
        self._position_steps = position_steps
        state = _KeepingState(self.grid, num_inference_steps if value_steps is None else value_steps, **self._settings)
        self._value_steps = value_steps
        scales = torch.ones(1, device=device)
        self._conditioning = Conditioning.stack(pipeline._encode_prompts([prompt], None))
        clean = family.pack(family.encode_images(pixels.to(device), None)).float()
        inversion, self._denoising = pipeline._make_solvers(solver, num_inference_steps, clean.shape[1])
        untouched = copy.deepcopy(self._denoising)
        loop = DenoisingLoop(family, self.grid, None, observer=state)
        with family.injecting(state):
            self._noise = loop.invert(inversion, clean, self._conditioning, scales, _as_it_is)
            self._tokens = loop.denoise(self._denoising, self._noise, self._conditioning, scales, _as_it_is)
        self._denoising, self._kept = untouched, state.evaluations
        self._pixels = family.decode_latents(family.unpack(self._tokens, self.grid)).float()
        (self.clean,) = pipeline.image_processor.postprocess(self._pixels, output_type="pil")
        pipeline.maybe_free_model_hooks()

    @property
    def num_bytes(self) -> int:
        """Memory that what is kept of the clean row takes, in bytes."""
        return sum(kept.num_bytes for evaluation in self._kept for kept in evaluation.values())

    @torch.no_grad()
    def inject(
        self,
        mappings: Sequence[PatchMapping],
        confine: Confinement = "visible",
        outlines: Sequence[np.ndarray] | None = None,
    ) -> HeldArtifacts:
        r"""
        Make artifact images of the photo, at the cost of their targets.

        Args:
            mappings (`Sequence[PatchMapping]`): Mapping of each image, at least one.
            confine (`str`, *optional*, defaults to `"visible"`): `"latent"`, `"pixel"` or `"visible"`; see
                [`ArtifactInjectionPipeline.__call__`].
            outlines (`Sequence[np.ndarray]`, *optional*): With `confine="visible"`, how far each image may show, of
                shape `(height, width)`, in [0, 1].

        Raises:
            ValueError: There is no mapping, one is of another grid, or `confine` is unknown.
        """
        one_of("confine", confine, HELD_CONFINEMENTS)
        other = next((mapping.grid for mapping in mappings if mapping.grid != self.grid), None)
        if not mappings or other is not None:
            raise ValueError(f"`mappings` must be one or more of grid {self.grid}, got {other or 'none'}")
        family, device = self._pipeline.family, self._pipeline._execution_device
        sources = [0] * len(mappings)
        rows = TargetRows(mappings, sources, 1, family.target_row_multiple(self.grid), device)
        tokens = torch.cat([self._tokens, self._tokens[sources]])
        evaluated = 0.0
        if len(rows):
            state = _ReplayingState(
                rows,
                [PatchMapping.empty(self.grid), *mappings],
                [0, *sources],
                position_steps=self._position_steps,
                value_steps=self._value_steps,
                **self._settings,
            )
            targets = rows.split(self._start(mappings))[1]
            with family.injecting(state):
                tokens = rows.join(self._tokens, self._walk(state, targets, len(rows.tokens)))
            evaluated = len(self._kept) * targets.shape[0] * targets.shape[1] / (self.grid[0] * self.grid[1])
        inside = dilated_targets(mappings, device)
        cleans = self._pixels[sources]
        latents = family.unpack(tokens[1:], self.grid)
        images = decode_variants(family, latents, cleans.clone(), inside)
        if confine == "pixel":
            images = confine_pixels(images, cleans, list(mappings), family.patch_size)
        elif confine == "visible":
            images = confine_to_visible(images, cleans, mappings, outlines)
        self._pipeline.maybe_free_model_hooks()
        return HeldArtifacts(self._pipeline.image_processor.postprocess(images, output_type="pil"), evaluated)

    def _start(self, mappings: Sequence[PatchMapping]) -> torch.Tensor:
        """Return the noise that the clean row and the variants start from; see the pipeline's `transfer_noise`."""
        noise = self._noise[[0] * (1 + len(mappings))]
        if self._transfer_noise:
            for row, mapping in enumerate(mappings, start=1):
                noise[row, list(mapping.targets)] = self._noise[0, list(mapping.references)]
        return noise

    def _walk(self, state: _ReplayingState, targets: torch.Tensor, num_rows: int) -> torch.Tensor:
        """Denoise rows of targets, of shape `(rows, length, channels)`."""
        family, scheduler = self._pipeline.family, copy.deepcopy(self._denoising)
        texts = self._conditioning.select(torch.zeros(num_rows, dtype=torch.long)).without_text()
        scales = torch.full((num_rows,), self._guidance, device=targets.device)
        for index, timestep in enumerate(scheduler.timesteps):
            state.replay(scheduler.step_of_evaluation[index], scheduler.updates_solution[index], self._kept[index])
            velocity = family.velocity(targets, timestep, texts, scales, self.grid).float()
            targets = scheduler.step(velocity, timestep, targets, return_dict=False)[0]
        state.end()
        return targets


def _as_it_is(timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Continue from the tokens that a solver gives; see [`~denoising_loop.OnStepEnd`]."""
    return tokens


def _place(recordings: Sequence[Recording], recording: Recording) -> int:
    return next(place for place, one in enumerate(recordings) if one is recording)
