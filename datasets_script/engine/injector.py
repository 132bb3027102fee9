"""Injection of artifacts into photos with a loaded diffusion model."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffusers_artifact import ArtifactInjectionOutput, PatchMapping
from diffusers_artifact.choices import ValueSource
from diffusers_artifact.family import Conditioning
from diffusers_artifact.presets import EMBEDDED, PRESETS, may_hold_background, preset_name

from ..utils.errors import ArgumentError
from ..utils.memory import free_unused, is_out_of_memory
from .card import Card
from .loading import check_loading, load_pipeline, offload_weights, resolved, usable_device
from .settings import InjectionSettings, LoadSettings, Offload


logger = logging.getLogger(__name__)

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class NonFiniteError(RuntimeError):
    """Error for images that hold NaN or infinity: a failure of the machine, not of the photo."""


@dataclass(frozen=True, eq=False)
class InjectionJob:
    """
    Input of the injection for one photo.

    Attributes:
        photo (`PIL.Image.Image`): Photo as the model sees it, RGB.
        mappings (`Sequence[PatchMapping]`): Patch mapping of each artifact variant.
        encoded (`Conditioning`, *optional*): Caption of the photo as [`Injector.encode`] returns it.
        outlines (`Sequence[np.ndarray]`, *optional*): For each variant how far it may show at every pixel, of shape
            `(height, width)`, in [0, 1]; used with `confine="visible"`. By default fully.
    """

    photo: Image.Image
    mappings: Sequence[PatchMapping]
    encoded: Conditioning | None = None
    outlines: Sequence[np.ndarray] = ()


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
        device (`str`, *optional*): Device; by default CUDA if available, else the CPU.
        loading (`LoadSettings`, *optional*): How to load and run the model.
        offload (`str`, *optional*, defaults to `"none"`): Where its weights wait; see [`RunPlan`].
        card (`Card`, *optional*): Device that it shares with other models; by default it stays there alone.

    Attributes:
        loading (`LoadSettings`): How it was loaded, with the dtype in effect.

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
    ):
        self.model, self.settings = model, settings
        self.preset_name = preset_name(model, settings.preset)
        self.preset = PRESETS[self.preset_name]
        self._check_compute()
        self.card = card or Card(usable_device(device), takes_turns=False)
        self.loading = resolved(loading or LoadSettings(), model, self.card.device)
        check_loading(self.loading, offload, self.card.device)
        self.pipeline, self.revision = load_pipeline(
            model, revision, self.loading, self.card.device, settings.allow_distilled, self.preset.rule
        )
        self._place(offload)
        self.num_inference_steps = settings.num_inference_steps or self.preset.num_inference_steps
        embedded = model == EMBEDDED
        self.sample_size: int | None = self.pipeline.vae.config.sample_size if embedded else None
        """Side, in pixels, of the square images that the model is limited to, or `None`."""
        self.num_function_evaluations = 0
        """NFE so far."""
        self.token_evaluations = 0.0
        """Tokens through the transformer so far, divided by the tokens of an image."""

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

    def _place(self, offload: Offload) -> None:
        pipeline, card = self.pipeline, self.card
        if offload != "none":
            offload_weights(pipeline, offload, card.device)
            # Its hooks bring it in by themselves.
            card.add("text encoders")
            card.add("transformer")
        elif card.takes_turns:
            text = [getattr(pipeline, name) for name in TEXT_ENCODERS]
            card.add("text encoders", [encoder for encoder in text if encoder is not None])
            stays = self.loading.quantization == "8bit"  # bitsandbytes cannot move it
            card.add("transformer", [pipeline.vae] if stays else [pipeline.transformer, pipeline.vae])
        else:
            pipeline.to(card.device)

    def encode(self, captions: Sequence[str]) -> list[Conditioning | None]:
        """
        Encode captions, equal ones once, so that the text encoders are not needed while artifacts are injected.

        Args:
            captions (`Sequence[str]`): The captions.

        Returns:
            `list[Conditioning | None]`: For each caption one row in host memory, or `None` if the model takes no text.
        """
        if self.pipeline.text_encoder is None:
            return [None] * len(captions)
        self.card.enter("encode", "text encoders")
        encoded = {
            text: Conditioning(*self.pipeline.encode_prompt(text, self.card.device)).on("cpu")
            for text in dict.fromkeys(captions)
        }
        self.pipeline.maybe_free_model_hooks()
        return [encoded[text] for text in captions]

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
        self.card.enter("inject", "transformer")
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
            output = self.run(
                [j.photo for j in jobs],
                [list(j.mappings) for j in jobs],
                [j.encoded for j in jobs],
                [outline for j in jobs for outline in j.outlines],
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(jobs) > 1 or not half:
                raise
        if output is None:  # tried again out here, because the error holds on to what did not fit
            logger.warning("inject: out of memory with %d variants, injecting them in halves", len(job.mappings))
            free_unused()
            parts = (
                InjectionJob(job.photo, job.mappings[part], job.encoded, job.outlines[part])
                for part in (slice(half), slice(half, None))
            )
            first, second = (self._inject_of_one_size([part])[0] for part in parts)
            return [Injected(first.clean, first.flawed + second.flawed)]
        results = [Injected(clean, []) for clean in output.reconstructions]
        for index, flawed in zip(output.image_indices, output.images, strict=True):
            results[index].flawed.append(flawed)
        return results

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
        captions = [caption for caption in encoded if caption is not None]
        if captions:
            text = Conditioning.stack(captions)
            strength |= {
                "prompt_embeds": text.prompt_embeds,
                "pooled_prompt_embeds": text.pooled,
                "prompt_embeds_mask": text.mask,
            }
        output = self.pipeline(
            photos,
            mappings,
            num_inference_steps=steps,
            solver=self.settings.solver,
            **strength,
            confine=self.settings.confine,
            compute=self.settings.compute,
            outlines=outlines if outlines and self.settings.confine == "visible" else None,
            output_type="np",
            allow_distilled=self.settings.allow_distilled,
        )
        assert isinstance(output, ArtifactInjectionOutput)  # because of `return_dict`
        self.num_function_evaluations += output.num_function_evaluations
        self.token_evaluations += output.token_evaluations
        for name in ("reconstructions", "images"):
            pixels = getattr(output, name)
            if not np.isfinite(pixels).all():
                raise NonFiniteError(
                    f"numbers overflowed in the model: {'clean' if name == 'reconstructions' else 'artifact'} images "
                    f"are not finite, on {self.pipeline.device} in {self.pipeline.dtype}"
                )
            setattr(output, name, self.pipeline.image_processor.numpy_to_pil(pixels))
        return output
