"""Corruption of regions of photos with a loaded diffusion model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from diffusers_artifact import SOLVERS, ArtifactCorruptionPipeline
from diffusers_artifact.family import Conditioning

from ..schema.pair import Artifact
from ..utils.seeds import derive_seed
from .card import Card
from .diffusion_model import DiffusionModel, Injected, Job, text_arguments
from .loading import load_pipeline
from .planners.regions import SIGMA
from .settings import CorruptionRunSettings, CorruptionSettings, LoadSettings, Offload, corruption_preset


@dataclass(frozen=True, eq=False)
class CorruptionJob(Job):
    """
    Input of the corruption for one photo.

    Attributes:
        photo (`PIL.Image.Image`): Photo as the model sees it, RGB.
        masks (`Sequence[np.ndarray]`): Region of each variant, of shape `(height, width)`, `bool`.
        seeds (`Sequence[int]`): Seed of each variant's noise.
        method (`str`): One of `CORRUPTION_NAMES`.
        sigma (`float`): Level, in (0, 1].
        encoded (`Conditioning`, *optional*): Caption of the photo as [`DiffusionModel.encode`] returns it.
    """

    masks: Sequence[np.ndarray]
    seeds: Sequence[int]
    method: str
    sigma: float
    encoded: Conditioning | None = None

    @property
    def num_variants(self) -> int:
        return len(self.masks)

    def part(self, variants: slice) -> CorruptionJob:
        return replace(self, masks=self.masks[variants], seeds=self.seeds[variants])


class Corruptor(DiffusionModel[CorruptionJob]):
    """
    Loaded corruption pipeline with its settings.

    Args:
        model (`str`): `"embedded"`, a folder, or the id of a repository on the Hub.
        settings (`CorruptionSettings`): Settings for all images.
        seed (`int`, *optional*, defaults to 0): Seed from which, with the names of variants, their noise derives.
        revision, device, loading, offload, card (*optional*): See [`DiffusionModel`].

    Raises:
        ModelLoadError: The checkpoint does not exist, cannot be downloaded, or does not work with the pipeline.
    """

    def __init__(
        self,
        model: str,
        settings: CorruptionSettings,
        seed: int = 0,
        revision: str | None = None,
        device: str | None = None,
        loading: LoadSettings | None = None,
        offload: Offload = "none",
        card: Card | None = None,
    ) -> None:
        self.settings, self.seed = settings, seed
        super().__init__(model, revision, device, loading, offload, card)

    @classmethod
    def of(cls, settings: CorruptionRunSettings, device: str, offload: Offload, card: Card) -> Corruptor:
        """Load the model of a run."""
        return cls(
            settings.model,
            settings.corruption,
            settings.seed,
            settings.revision,
            device,
            settings.loading,
            offload,
            card,
        )

    @staticmethod
    def evaluations(settings: CorruptionRunSettings) -> int:
        corruption, preset = settings.corruption, corruption_preset(settings.model)
        solver = SOLVERS[corruption.solver]()
        solver.set_timesteps(corruption.num_inference_steps or preset.num_inference_steps)
        shares = solver.timesteps / solver.config.num_train_timesteps
        # Of a flow without a shift, and of the level that costs most.
        top = max(sigma for _, sigma in corruption.levels(settings.model))
        # A row for the inversion, one for the clean image, and one for each pair.
        return int((shares <= top).sum()) * (2 + settings.pairs_per_image)

    @property
    def num_inference_steps(self) -> int:
        return self.settings.num_inference_steps or corruption_preset(self.model).num_inference_steps

    @property
    def solver(self) -> str:
        return self.settings.solver if self.pipeline.unet is None else "ddim"

    @property
    def about(self) -> str:
        levels = ", ".join(f"{method} at sigma {sigma:.3g}" for method, sigma in self.settings.levels(self.model))
        return f"corruption: {levels}, {self.num_inference_steps} steps of {self.solver}"

    def _load(self, revision: str | None) -> tuple[ArtifactCorruptionPipeline, str]:
        return load_pipeline(
            ArtifactCorruptionPipeline,
            self.model,
            revision,
            self.loading,
            self.card.device,
            allow_distilled=self.settings.allow_distilled,
        )

    def job(
        self, photo: Image.Image, variants: Mapping[str, Sequence[Artifact]], encoded: Conditioning | None
    ) -> CorruptionJob:
        # The planner gives all variants of a photo one method and one level.
        first = next(iter(variants.values()))[0]
        return CorruptionJob(
            photo,
            [np.logical_or.reduce([artifact.part_mask for artifact in artifacts]) for artifacts in variants.values()],
            [derive_seed(self.seed, f"{name}:noise") for name in variants],
            first.kernel,
            first.parameters[SIGMA],
            encoded,
        )

    def _make(self, jobs: Sequence[CorruptionJob]) -> list[Injected]:
        alike: dict[tuple[str, float], list[int]] = defaultdict(list)
        for index, job in enumerate(jobs):
            alike[job.method, job.sigma].append(index)
        results: dict[int, Injected] = {}
        for indices in alike.values():
            results.update(zip(indices, self._corrupt([jobs[i] for i in indices]), strict=True))
        return [results[index] for index in range(len(jobs))]

    def _corrupt(self, jobs: Sequence[CorruptionJob]) -> list[Injected]:
        """Make the images of jobs with one method and level."""
        output = self.pipeline(
            [job.photo for job in jobs],
            [list(job.masks) for job in jobs],
            method=jobs[0].method,
            sigma=jobs[0].sigma,
            num_inference_steps=self.num_inference_steps,
            solver=self.settings.solver,
            confine=self.settings.confine,
            allow_distilled=self.settings.allow_distilled,
            generator=[torch.Generator().manual_seed(seed) for job in jobs for seed in job.seeds],
            **text_arguments([job.encoded for job in jobs]),
            output_type="np",
        )
        self.num_function_evaluations += output.num_function_evaluations
        self.token_evaluations += output.num_function_evaluations  # every row is computed whole
        results = [Injected(clean, []) for clean in self._to_pil("clean", output.reconstructions)]
        for index, flawed in zip(output.image_indices, self._to_pil("artifact", output.images), strict=True):
            results[index].flawed.append(flawed)
        return results
