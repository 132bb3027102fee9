"""Loaded diffusion model that makes clean and artifact images: what the ways of making artifacts share."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
from PIL import Image

from diffusers_artifact.autoencoder import AutoencoderPCA
from diffusers_artifact.family import Conditioning

from ..schema.pair import Artifact
from ..utils.memory import free_unused, is_out_of_memory
from .card import Card
from .loading import check_loading, denoiser, offload_weights, resolved, usable_device
from .settings import LoadSettings, Offload


logger = logging.getLogger(__name__)

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class NonFiniteError(RuntimeError):
    """Error for images that hold NaN or infinity: a failure of the machine, not of the photo."""


@dataclass(frozen=True, eq=False)
class Job(ABC):
    """
    Work for one photo: its artifact variants.

    Attributes:
        photo (`PIL.Image.Image`): Photo as the model sees it, RGB.
    """

    photo: Image.Image

    @property
    @abstractmethod
    def num_variants(self) -> int:
        """Return the number of artifact variants."""

    @abstractmethod
    def part(self, variants: slice) -> Job:
        """Return the job of some of the variants."""


JobType = TypeVar("JobType", bound=Job)


@dataclass(frozen=True, eq=False)
class Injected:
    """Clean image of one photo and its artifact variants, all RGB and of the photo's size."""

    clean: Image.Image
    flawed: list[Image.Image]


class DiffusionModel(ABC, Generic[JobType]):
    """
    Loaded pipeline that makes a clean image and artifact images of photos.

    Args:
        model (`str`): `"embedded"`, a folder, or the id of a repository on the Hub.
        revision (`str`, *optional*): Branch, tag or commit of a Hub repository.
        device (`str`, *optional*): Device; by default CUDA if available, else the CPU.
        loading (`LoadSettings`, *optional*): How to load and run the model.
        offload (`str`, *optional*, defaults to `"none"`): Where its weights wait; see [`RunPlan`].
        card (`Card`, *optional*): Device that it shares with other models; by default it stays there alone.

    Attributes:
        pipeline: The pipeline.
        loading (`LoadSettings`): How it was loaded, with the dtype in effect.
        revision (`str`): Commit of the model, or the fingerprint of its files.

    Raises:
        ModelLoadError: The checkpoint does not exist, cannot be downloaded, or does not work with the pipeline.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        device: str | None = None,
        loading: LoadSettings | None = None,
        offload: Offload = "none",
        card: Card | None = None,
    ) -> None:
        self.model = model
        self.card = card or Card(usable_device(device), takes_turns=False)
        self.loading = resolved(loading or LoadSettings(), model, self.card.device)
        check_loading(self.loading, offload, self.card.device)
        self.pipeline, self.revision = self._load(revision)
        self._place(offload)
        vae = self.pipeline.vae
        # Models with the embedded model's autoencoder are, like it, of one size.
        self.sample_size: int | None = vae.config.sample_size if isinstance(vae, AutoencoderPCA) else None
        """Side, in pixels, of the square images that the model is limited to, or `None`."""
        self.num_function_evaluations = 0
        """NFE so far."""
        self.token_evaluations = 0.0
        """Tokens through the denoiser so far, divided by the tokens of an image."""

    @classmethod
    @abstractmethod
    def of(cls, settings: Any, device: str, offload: Offload, card: Card) -> DiffusionModel:
        """Load the model of a run with its settings, of the kind that choose this way of making artifacts."""

    @staticmethod
    @abstractmethod
    def evaluations(settings: Any) -> int:
        """Return the NFE of one attempt at a photo with the settings of a run, without loading the model."""

    @property
    @abstractmethod
    def num_inference_steps(self) -> int:
        """Return the number of steps of the solver."""

    @property
    @abstractmethod
    def solver(self) -> str:
        """Return the name of the solver."""

    @property
    @abstractmethod
    def about(self) -> str:
        """Return how artifacts are made, in a line."""

    @abstractmethod
    def job(
        self,
        photo: Image.Image,
        variants: Mapping[str, Sequence[Artifact]],
        encoded: Conditioning | None,
    ) -> JobType:
        """
        Return the job that makes the artifact variants of a photo.

        Args:
            photo (`PIL.Image.Image`): Photo as the model sees it, RGB.
            variants (`Mapping[str, Sequence[Artifact]]`): Planned artifacts of each variant, by its name, which all
                random choices depend on besides the seed of the run.
            encoded (`Conditioning`, *optional*): Caption of the photo as [`encode`] returns it.
        """

    @abstractmethod
    def _load(self, revision: str | None) -> tuple[Any, str]:
        """Load the pipeline into host memory; return it and the commit or fingerprint."""

    @abstractmethod
    def _make(self, jobs: Sequence[JobType]) -> list[Injected]:
        """Make the images of jobs with photos of one size, in one batch."""

    def _place(self, offload: Offload) -> None:
        pipeline, card = self.pipeline, self.card
        if offload != "none":
            offload_weights(pipeline, offload, card.device)
            # Its hooks bring it in by themselves.
            card.add("text encoders")
            card.add("transformer")
        elif card.takes_turns:
            text = [getattr(pipeline, name, None) for name in TEXT_ENCODERS]
            card.add("text encoders", [encoder for encoder in text if encoder is not None])
            stays = self.loading.quantization == "8bit"  # bitsandbytes cannot move it
            card.add("transformer", [pipeline.vae] if stays else [denoiser(pipeline), pipeline.vae])
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

    def inject(self, jobs: Sequence[JobType]) -> list[Injected]:
        """
        Make the images of several jobs. Photos of the same size go through the pipeline in one batch. If a single
        photo with all its variants does not fit into memory, its variants are made in halves.

        Args:
            jobs (`Sequence[Job]`): Photos with what to make of them.

        Returns:
            `list[Injected]`: Images of each job, in order.

        Raises:
            torch.OutOfMemoryError: Several photos, or one with one variant, do not fit into the device's memory.
            NonFiniteError: Numbers overflowed in the model.
        """
        self.card.enter("inject", "transformer")
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, job in enumerate(jobs):
            by_size[job.photo.size].append(index)
        results: dict[int, Injected] = {}
        for indices in by_size.values():
            results.update(zip(indices, self._inject_of_one_size([jobs[i] for i in indices]), strict=True))
        return [results[index] for index in range(len(jobs))]

    def _inject_of_one_size(self, jobs: Sequence[JobType]) -> list[Injected]:
        job, half = jobs[0], jobs[0].num_variants // 2
        try:
            return self._make(jobs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(jobs) > 1 or not half:
                raise
        # Tried again out here, because the error holds on to what did not fit.
        logger.warning("inject: out of memory with %d variants, injecting them in halves", job.num_variants)
        free_unused()
        parts = (cast(JobType, job.part(variants)) for variants in (slice(half), slice(half, None)))
        first, second = (self._inject_of_one_size([part])[0] for part in parts)
        return [Injected(first.clean, first.flawed + second.flawed)]

    def _to_pil(self, what: str, pixels: np.ndarray) -> list[Image.Image]:
        """Convert images of the pipeline, which are clean or artifact images, as `what` says."""
        if not np.isfinite(pixels).all():
            raise NonFiniteError(
                f"numbers overflowed in the model: {what} images are not finite, on {self.pipeline.device} in "
                f"{self.pipeline.dtype}"
            )
        return self.pipeline.image_processor.numpy_to_pil(pixels)


def text_arguments(encoded: Sequence[Conditioning | None]) -> dict[str, Any]:
    """Return the arguments of a pipeline for encoded captions; empty if its model takes no text."""
    captions = [caption for caption in encoded if caption is not None]
    if not captions:
        return {}
    text = Conditioning.stack(captions)
    return {
        "prompt_embeds": text.prompt_embeds,
        "pooled_prompt_embeds": text.pooled,
        "prompt_embeds_mask": text.mask,
    }
