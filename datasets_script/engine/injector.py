"""Loading of a diffusion model, and injection of artifacts into photos with it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image

from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionOutput, ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.presets import EMBEDDED, PRESETS

from ..utils.errors import UserError
from ..utils.files import check_model_name, fingerprint
from ..utils.memory import free_unused, is_out_of_memory
from .settings import InjectionSettings


logger = logging.getLogger(__name__)


class ModelLoadError(UserError, OSError):
    """Error for a diffusion model that cannot be loaded or used."""


class NonFiniteError(RuntimeError):
    """Error for images that hold NaN or infinity: a failure of the machine, not of the photo."""


@dataclass(frozen=True, eq=False)
class InjectionJob:
    """
    Input of the injection for one photo.

    Attributes:
        photo (`PIL.Image.Image`): Photo as the model sees it, RGB.
        mappings (`Sequence[PatchMapping]`): Patch mapping of each artifact variant.
        caption (`str`): Caption of the photo.
    """

    photo: Image.Image
    mappings: Sequence[PatchMapping]
    caption: str


@dataclass(frozen=True, eq=False)
class Injected:
    """Clean image of one photo and its artifact variants, all RGB and of the photo's size."""

    clean: Image.Image
    flawed: list[Image.Image]


class Injector:
    """
    Loaded pipeline with its settings.

    Args:
        model (`str`): `"embedded"`, a folder, or the id of a repository on the Hub.
        settings (`InjectionSettings`): Settings for all images.
        revision (`str`, *optional*): Branch, tag or commit of a Hub repository.
        device (`str`, *optional*): Device; by default CUDA if available, else the CPU. On CUDA, all models but the
            embedded one run in bfloat16.

    Raises:
        ModelLoadError: The checkpoint does not exist, cannot be downloaded, or does not work with the pipeline.
    """

    def __init__(
        self, model: str, settings: InjectionSettings, revision: str | None = None, device: str | None = None
    ):
        self.model = model
        embedded = model == EMBEDDED
        folder = EMBEDDED_MODEL if embedded else Path(model)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if embedded or device == "cpu" else torch.bfloat16
        try:
            if not embedded:
                check_model_name(model)
            if folder.is_dir():
                self.revision = fingerprint(folder)
            else:
                folder = Path(DiffusionPipeline.download(model, revision=revision))
                self.revision = folder.name  # a snapshot's folder is named by its commit
            with _without_progress_bar():
                pipeline = ArtifactInjectionPipeline.from_pretrained(folder, dtype=dtype)
        except OSError as error:
            raise ModelLoadError(
                f"`model` must be 'embedded', a folder with a checkpoint, or a Hub id, got {model!r}: {error}"
            ) from error
        try:
            pipeline.check_model(settings.allow_distilled)
        except ValueError as error:
            raise ModelLoadError(f"`model` must be one that the pipeline can use, got {model!r}: {error}") from error
        try:
            self.pipeline = pipeline.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ModelLoadError(f"`device` must be available to torch, got {device!r}: {error}") from error
        self.pipeline.set_progress_bar_config(disable=True)
        self.settings = settings
        default = EMBEDDED if embedded else "paper"
        self.preset_name = default if settings.preset == "auto" else settings.preset
        self.preset = PRESETS[self.preset_name]
        self.num_inference_steps = settings.num_inference_steps or self.preset.num_inference_steps
        self.sample_size: int | None = self.pipeline.vae.config.sample_size if embedded else None
        """Side, in pixels, of the square images that the model is limited to, or `None`."""
        self.num_function_evaluations = 0
        """NFE so far."""

    def inject(self, jobs: Sequence[InjectionJob]) -> list[Injected]:
        """
        Make the images of several jobs. Photos of the same size go through the pipeline in one batch. If a single
        photo with all its variants does not fit into memory, its variants are injected in halves.

        Args:
            jobs (`Sequence[InjectionJob]`): Photos with the mappings of their variants.

        Returns:
            `list[Injected]`: Images of each job, in order.

        Raises:
            torch.OutOfMemoryError: Several photos, or one with one variant, do not fit into the device's memory.
        """
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, job in enumerate(jobs):
            by_size[job.photo.size].append(index)
        results: dict[int, Injected] = {}
        for indices in by_size.values():
            results.update(zip(indices, self._inject_of_one_size([jobs[i] for i in indices]), strict=True))
        return [results[index] for index in range(len(jobs))]

    def _inject_of_one_size(self, jobs: Sequence[InjectionJob]) -> list[Injected]:
        job, half = jobs[0], len(jobs[0].mappings) // 2
        output = None
        try:
            output = self.run([j.photo for j in jobs], [list(j.mappings) for j in jobs], [j.caption for j in jobs])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(jobs) > 1 or not half:
                raise
        if output is None:  # tried again out here, because the error holds on to what did not fit
            logger.warning("inject: out of memory with %d variants, injecting them in halves", len(job.mappings))
            free_unused()
            first, second = (
                self._inject_of_one_size([InjectionJob(job.photo, mappings, job.caption)])[0]
                for mappings in (job.mappings[:half], job.mappings[half:])
            )
            return [Injected(first.clean, first.flawed + second.flawed)]
        results = [Injected(clean, []) for clean in output.reconstructions]
        for index, flawed in zip(output.image_indices, output.images, strict=True):
            results[index].flawed.append(flawed)
        return results

    def run(
        self, photos: list[Image.Image], mappings: list[list[PatchMapping]], captions: list[str]
    ) -> ArtifactInjectionOutput:
        """
        Run the pipeline on photos of one size.

        Args:
            photos (`list[PIL.Image.Image]`): Photos, RGB, all of the same size.
            mappings (`list[list[PatchMapping]]`): Patch mappings of the variants of each photo.
            captions (`list[str]`): Caption of each photo; unused by models without text encoder.

        Returns:
            `ArtifactInjectionOutput`: Output of the pipeline.
        """
        steps = self.num_inference_steps
        output: ArtifactInjectionOutput = self.pipeline(
            photos,
            mappings,
            prompt=captions if self.pipeline.text_encoder is not None else "",
            num_inference_steps=steps,
            solver=self.settings.solver,
            value_source=self.settings.value_source,
            **self.preset.arguments(steps, self.pipeline.family.num_blocks, self.settings.value_source),
            confine=self.settings.confine,
            output_type="np",
            allow_distilled=self.settings.allow_distilled,
        )
        self.num_function_evaluations += output.num_function_evaluations
        for name in ("reconstructions", "images"):
            pixels = getattr(output, name)
            if not np.isfinite(pixels).all():
                raise NonFiniteError(
                    f"numbers overflowed in the model: {'clean' if name == 'reconstructions' else 'artifact'} images "
                    f"are not finite, on {self.pipeline.device} in {self.pipeline.dtype}"
                )
            setattr(output, name, self.pipeline.image_processor.numpy_to_pil(pixels))
        return output


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Hide diffusers' progress bar for loading, which would clutter the run's own."""
    enabled = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            diffusers_logging.enable_progress_bar()
