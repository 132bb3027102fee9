"""Loads a model and makes the clean image and the artifact variants of one photo, whatever the model is."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image

from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionOutput, ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.presets import EMBEDDED, PRESETS

from ..utils.errors import UserError
from ..utils.files import fingerprint
from .settings import InjectionSettings


logger = logging.getLogger(__name__)


class ModelLoadError(UserError, OSError):
    """The model named by the user could not be loaded."""


@dataclass(frozen=True, eq=False)
class InjectionJob:
    """One photo as the model sees it, the mapping of each artifact variant, and its caption."""

    photo: Image.Image
    mappings: Sequence[PatchMapping]
    caption: str


@dataclass(frozen=True, eq=False)
class Injected:
    """The clean image of one photo and its artifact variants, all RGB and of the photo's size."""

    clean: Image.Image
    flawed: list[Image.Image]


class Injector:
    """
    A loaded pipeline with its settings.

    Args:
        model (`str`): `"embedded"`, a folder, or the id of a repository on the Hub.
        settings (`InjectionSettings`): Used for every image.
        revision (`str`, *optional*): Branch, tag or commit of a Hub repository.
        device (`str`, *optional*): Defaults to CUDA where there is one, with bfloat16 for all but the embedded model.

    Raises:
        ModelLoadError: there is no such checkpoint, it cannot be had, or the pipeline cannot use it.
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
            if folder.is_dir():
                self.revision = fingerprint(folder)
            else:
                folder = Path(DiffusionPipeline.download(model, revision=revision))
                self.revision = folder.name  # a snapshot's folder is named by its commit
            with _without_progress_bar():
                pipeline = ArtifactInjectionPipeline.from_pretrained(folder, dtype=dtype)
        except OSError as error:
            raise ModelLoadError(
                "`model` must be 'embedded', a folder of a checkpoint or the id of one on the Hub, "
                f"got {model!r}: {error}"
            ) from error
        try:
            pipeline.check_model(settings.allow_distilled)
        except ValueError as error:
            raise ModelLoadError(f"`model` {model!r} cannot be used: {error}") from error
        try:
            self.pipeline = pipeline.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ModelLoadError(f"`device` must be one that torch can use, got {device!r}: {error}") from error
        self.pipeline.set_progress_bar_config(disable=True)
        self.settings = settings
        default = EMBEDDED if embedded else "paper"
        self.preset = PRESETS[default if settings.preset == "auto" else settings.preset]
        self.num_inference_steps = settings.num_inference_steps or self.preset.num_inference_steps
        self.sample_size: int | None = self.pipeline.vae.config.sample_size if embedded else None
        """Side of the square the model was trained on, in pixels, if it takes no other size."""
        self.num_function_evaluations = 0
        """Evaluations of the transformer so far, each counted once for every row of its batch."""

    def inject(self, jobs: Sequence[InjectionJob]) -> list[Injected]:
        """
        Runs the pipeline once for all jobs whose photos have one size. Where the accelerator's memory does not
        suffice for one photo with all its variants, they are taken in halves.

        Raises:
            torch.OutOfMemoryError: it does not suffice for several photos, or for one with one variant.
        """
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, job in enumerate(jobs):
            by_size[job.photo.size].append(index)
        results: dict[int, Injected] = {}
        for indices in by_size.values():
            results.update(zip(indices, self._inject_of_one_size([jobs[i] for i in indices]), strict=True))
        return [results[index] for index in range(len(jobs))]

    def _inject_of_one_size(self, jobs: Sequence[InjectionJob]) -> list[Injected]:
        try:
            output = self.run([j.photo for j in jobs], [list(j.mappings) for j in jobs], [j.caption for j in jobs])
        except torch.OutOfMemoryError:
            job, half = jobs[0], len(jobs[0].mappings) // 2
            if len(jobs) > 1 or not half:
                raise
            logger.warning("inject: out of memory with %d variants, taking them in halves", len(job.mappings))
            torch.cuda.empty_cache()
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
        Runs the pipeline for all variants of photos of one size; captions are dropped for models without text
        encoders.
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
            allow_distilled=self.settings.allow_distilled,
        )
        self.num_function_evaluations += output.num_function_evaluations
        return output


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Hide diffusers' bar of loaded components, which would stand above the run's own line of progress."""
    enabled = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            diffusers_logging.enable_progress_bar()
