"""Injection of artifacts into photos with a loaded diffusion model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from diffusers_artifact import SOLVERS, ArtifactInjectionOutput, ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.choices import ValueSource
from diffusers_artifact.confinement import soft_outline
from diffusers_artifact.family import Conditioning
from diffusers_artifact.presets import PRESETS, may_hold_background, preset_name, preset_of

from ..schema.pair import Artifact
from ..utils.errors import ArgumentError
from ..utils.memory import free_unused, is_out_of_memory
from .card import Card
from .diffusion_model import DiffusionModel, Injected, Job, NonFiniteError, text_arguments
from .loading import load_pipeline
from .settings import InjectionSettings, LoadSettings, Offload, RunSettings


@dataclass(frozen=True, eq=False)
class InjectionJob(Job):
    """
    Input of the injection for one photo.

    Attributes:
        photo (`PIL.Image.Image`): Photo as the model sees it, RGB.
        mappings (`Sequence[PatchMapping]`): Patch mapping of each artifact variant.
        encoded (`Conditioning`, *optional*): Caption of the photo as [`DiffusionModel.encode`] returns it.
        outlines (`Sequence[np.ndarray]`, *optional*): For each variant how far it may show at every pixel, of shape
            `(height, width)`, in [0, 1]; used with `confine="visible"`. By default fully.
    """

    mappings: Sequence[PatchMapping]
    encoded: Conditioning | None = None
    outlines: Sequence[np.ndarray] = ()

    @property
    def num_variants(self) -> int:
        return len(self.mappings)

    def part(self, variants: slice) -> InjectionJob:
        return replace(self, mappings=self.mappings[variants], outlines=self.outlines[variants])


class Injector(DiffusionModel[InjectionJob]):
    """
    Loaded pipeline with its settings.

    Args:
        model (`str`): `"embedded"`, a folder, or the id of a repository on the Hub.
        settings (`InjectionSettings`): Settings for all images.
        revision, device, loading, offload, card (*optional*): See [`DiffusionModel`].

    Raises:
        ModelLoadError: The checkpoint does not exist, cannot be downloaded, or does not work with the pipeline.
        ArgumentError: The settings compute targets only, but do not hold the background.
    """

    def __init__(
        self,
        model: str,
        settings: InjectionSettings,
        revision: str | None = None,
        device: str | None = None,
        loading: LoadSettings | None = None,
        offload: Offload = "none",
        card: Card | None = None,
    ) -> None:
        self.settings = settings
        self.preset_name = preset_name(model, settings.preset)
        self.preset = PRESETS[self.preset_name]
        self._check_compute()
        super().__init__(model, revision, device, loading, offload, card)

    @classmethod
    def of(cls, settings: RunSettings, device: str, offload: Offload, card: Card) -> Injector:
        """Load the model of a run."""
        return cls(settings.model, settings.injection, settings.revision, device, settings.loading, offload, card)

    @staticmethod
    def evaluations(settings: RunSettings) -> int:
        preset = preset_of(settings.model, settings.injection.preset)
        solver = SOLVERS[settings.injection.solver]()
        solver.set_timesteps(settings.injection.num_inference_steps or preset.num_inference_steps)
        # A row for the inversion, one for the clean image, and one for each pair. All images but the photo may be
        # inverted after that.
        stored = 1 + settings.pairs_per_image if settings.store_noise else 0
        return len(solver.timesteps) * (2 + settings.pairs_per_image + stored)

    @property
    def num_inference_steps(self) -> int:
        return self.settings.num_inference_steps or self.preset.num_inference_steps

    @property
    def solver(self) -> str:
        return self.settings.solver

    @property
    def about(self) -> str:
        return f"preset: {self.preset_name}, {self.num_inference_steps} steps of {self.solver}"

    @property
    def holds_background(self) -> bool:
        """Whether tokens outside the target take the clean image's queries: as set, else as the preset says."""
        wanted = self.settings.hold_background
        holds = self.preset.hold_background if wanted is None else wanted
        return holds and may_hold_background(self.value_source)

    @property
    def value_source(self) -> ValueSource:
        """Source of the injected values: as set, else as the preset says."""
        return self.settings.value_source or self.preset.value_source

    def _check_compute(self) -> None:
        if self.settings.compute == "target" and not self.holds_background:
            raise ArgumentError(
                "`compute` must be 'full' unless the background is held and values come from the reconstruction, got "
                f"'target' with preset {self.preset_name!r}, `hold_background` {self.settings.hold_background}, "
                f"`value_source` {self.value_source!r}; set `hold_background`"
            )

    def _load(self, revision: str | None) -> tuple[ArtifactInjectionPipeline, str]:
        return load_pipeline(
            ArtifactInjectionPipeline,
            self.model,
            revision,
            self.loading,
            self.card.device,
            allow_distilled=self.settings.allow_distilled,
            rule=self.preset.rule,
        )

    def job(
        self, photo: Image.Image, variants: Mapping[str, Sequence[Artifact]], encoded: Conditioning | None
    ) -> InjectionJob:
        return InjectionJob(
            photo,
            [PatchMapping.union(artifact.mapping for artifact in artifacts) for artifacts in variants.values()],
            encoded,
            [np.max([soft_outline(one.part_mask, one.type) for one in of], axis=0) for of in variants.values()],
        )

    def _make(self, jobs: Sequence[InjectionJob]) -> list[Injected]:
        output = self.run(
            [job.photo for job in jobs],
            [list(job.mappings) for job in jobs],
            [job.encoded for job in jobs],
            [outline for job in jobs for outline in job.outlines],
        )
        results = [Injected(clean, []) for clean in output.reconstructions]
        for index, flawed in zip(output.image_indices, output.images, strict=True):
            results[index].flawed.append(flawed)
        return results

    def invert(self, images: Sequence[Image.Image], encoded: Conditioning | None) -> np.ndarray:
        """
        Invert images of one photo to noise, with the solver and the steps of the injection.

        Args:
            images (`Sequence[PIL.Image.Image]`): Images of one size, RGB.
            encoded (`Conditioning`, *optional*): Their caption as [`encode`] returns it.

        Returns:
            `np.ndarray` of shape `(images, channels, height, width)`, float16: Latents at the highest noise level.

        Raises:
            torch.OutOfMemoryError: A single image does not fit into the device's memory.
            NonFiniteError: Numbers overflowed in the model.
        """
        self.card.enter("invert", "transformer")
        try:
            noise = self._invert(images, encoded)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(images) == 1:
                raise
            noise = None
        if noise is None:
            # Tried again out here, because the error holds on to what did not fit.
            free_unused()
            noise = np.concatenate([self._invert([image], encoded) for image in images])
        if not np.isfinite(noise).all():
            raise NonFiniteError(
                f"numbers overflowed in the model: inverted noise is not finite, on {self.pipeline.device} in "
                f"{self.pipeline.dtype}"
            )
        return noise

    def _invert(self, images: Sequence[Image.Image], encoded: Conditioning | None) -> np.ndarray:
        noise = self.pipeline.invert(
            list(images),
            num_inference_steps=self.num_inference_steps,
            solver=self.settings.solver,
            allow_distilled=self.settings.allow_distilled,
            **text_arguments([encoded] * len(images)),
        )
        self.num_function_evaluations += self.pipeline.num_timesteps * len(images)
        self.token_evaluations += self.pipeline.num_timesteps * len(images)
        return noise.to(torch.float16).cpu().numpy()

    def run(
        self,
        photos: list[Image.Image],
        mappings: list[list[PatchMapping]],
        encoded: Sequence[Conditioning | None] = (),
        outlines: list[np.ndarray] | None = None,
    ) -> ArtifactInjectionOutput:
        """
        Run the pipeline on photos of one size.

        Args:
            photos (`list[PIL.Image.Image]`): Photos, RGB, all of the same size.
            mappings (`list[list[PatchMapping]]`): Patch mappings of the variants of each photo.
            encoded (`Sequence[Conditioning]`, *optional*): Encoded caption of each photo; by default they have none.
            outlines (`list[np.ndarray]`, *optional*): How far each variant may show; see [`InjectionJob`].

        Returns:
            `ArtifactInjectionOutput`: Output of the pipeline.
        """
        steps = self.num_inference_steps
        strength = self.preset.arguments(steps, self.pipeline.family.num_blocks, self.value_source)
        strength["hold_background"] = self.holds_background
        output = self.pipeline(
            photos,
            mappings,
            num_inference_steps=steps,
            solver=self.settings.solver,
            **strength,
            **text_arguments(encoded),
            confine=self.settings.confine,
            compute=self.settings.compute,
            outlines=outlines if outlines and self.settings.confine == "visible" else None,
            output_type="np",
            allow_distilled=self.settings.allow_distilled,
        )
        assert isinstance(output, ArtifactInjectionOutput)  # because of `return_dict`
        self.num_function_evaluations += output.num_function_evaluations
        self.token_evaluations += output.token_evaluations
        for name, what in (("reconstructions", "clean"), ("images", "artifact")):
            setattr(output, name, self._to_pil(what, getattr(output, name)))
        return output
