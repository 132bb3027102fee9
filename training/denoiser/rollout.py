"""
Rollouts of stock text-to-image pipelines through which gradients pass.

The loop is our own, on the adapters of `diffusers_artifact/family*.py` and the pipeline's own scheduler, and not the
pipeline's `__call__` without `no_grad`: RL and preference training evaluate the model at single steps and times, which
`__call__` does not offer, and a gradient that begins in the middle of a loop needs hooks in six pipelines that change
with each release. Tests hold the images equal to those of the stock pipelines.

Latents have the shape `(batch, channels, height, width)` everywhere and are float32; what a family packs is packed
inside. Reduced precision is that of the model's weights alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from diffusers.utils.torch_utils import randn_tensor

from datasets_script.utils.errors import ArgumentError, check_at_least
from diffusers_artifact.family import Conditioning, ModelFamily, TransformerFamily
from diffusers_artifact.family_unet import UNetFamily
from diffusers_artifact.pipeline_common import find_family


KOLORS = "KolorsPipeline"  # which diffusers offers only where sentencepiece is installed
PIPELINES = (
    "FluxPipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionPipeline",
    KOLORS,
)
"""Classes of the stock pipelines that are supported."""

SCHEDULERS = (FlowMatchEulerDiscreteScheduler, EulerDiscreteScheduler, DDIMScheduler, PNDMScheduler)
"""Schedulers whose steps draw no noise."""


@dataclass(frozen=True)
class SamplingSettings:
    """
    How images are drawn, in the words of the stock pipelines.

    Args:
        num_inference_steps (`int`): Steps.
        guidance_scale (`float`): Scale of the classifier-free guidance, or of the guidance-distilled model; at most 1
            is no classifier-free guidance.
        height, width (`int`): Size in pixels, multiples of the side of a token.
        negative_prompt (`str`, *optional*): What classifier-free guidance leads away from; by default nothing, in the
            form that the pipeline gives it.
        max_sequence_length (`int`, *optional*): Text tokens; by default as many as in the stock pipeline.
        start_sigma (`float`, *optional*): Noise level in (0, 1] that drawing starts from, for rectified flows that
            begin with noised images; the sigmas then fall evenly to 0. By default, drawing starts from pure noise.

    Raises:
        ArgumentError: A value is out of range.
    """

    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    negative_prompt: str | None = None
    max_sequence_length: int | None = None
    start_sigma: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_inference_steps", "height", "width"):
            check_at_least(name, getattr(self, name))
        if self.start_sigma is not None and not 0 < self.start_sigma <= 1:
            raise ArgumentError(f"`start_sigma` must lie in (0, 1], got {self.start_sigma}")


@dataclass(frozen=True)
class Conditions:
    """
    Encoded prompts.

    Args:
        positive (`Conditioning`): A row for each prompt.
        negative (`Conditioning`, *optional*): The negative prompt as a single row; `None` without classifier-free
            guidance.
    """

    positive: Conditioning
    negative: Conditioning | None = None

    def __len__(self) -> int:
        return len(self.positive.prompt_embeds)

    def select(self, rows: Sequence[int]) -> Conditions:
        """Return the prompts at some rows, in this order; a row may come more than once."""
        index = torch.tensor(list(rows), device=self.positive.prompt_embeds.device)
        return Conditions(self.positive.select(index), self.negative)

    def on(self, device: torch.device | str) -> Conditions:
        """Move everything to a device."""
        return Conditions(self.positive.on(device), None if self.negative is None else self.negative.on(device))


class Denoiser:
    r"""
    A stock pipeline taken apart: what it does between a prompt with a seed and an image, in calls that gradients pass.

    ```python
    denoiser = Denoiser(pipe, SamplingSettings(num_inference_steps=4, guidance_scale=0.0, height=512, width=512))
    conditions = denoiser.encode_prompts(["a cat", "a dog"])
    denoiser.drop_text_encoders()
    latents = denoiser.rollout(denoiser.noise([0, 1]), conditions, gradient_steps=1)
    loss = detector.artifact_map(denoiser.decode(latents)).mean()
    ```

    Its weights take no gradients; `training.denoiser.lora` adds those that do.

    Args:
        pipeline (`~diffusers.DiffusionPipeline`): One of [`PIPELINES`], with its weights on one device.
        settings (`SamplingSettings`): How images are drawn.
        scheduler (`~diffusers.SchedulerMixin`, *optional*): Another scheduler than the pipeline's, such as
            `DDIMScheduler.from_config(pipe.scheduler.config)`. It is copied.
        vae_dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Precision of the autoencoder, whose
            activations and gradients exceed float16.

    Attributes:
        pipeline, settings: As given.
        family (`ModelFamily`): Adapter of the model.
        scheduler (`~diffusers.SchedulerMixin`): Copy of the scheduler.
        timesteps (`torch.Tensor` of shape `(steps,)`): Timestep of each evaluation.
        sigmas (`torch.Tensor` of shape `(steps + 1,)`): Noise levels in [0, 1], falling to 0; of rectified flows
            alone.

    Raises:
        ArgumentError: Pipeline, scheduler or settings are not supported.
    """

    def __init__(
        self,
        pipeline: Any,
        settings: SamplingSettings,
        scheduler: Any = None,
        vae_dtype: torch.dtype = torch.float32,
    ):
        self.pipeline, self.settings, self._dropped = pipeline, settings, False
        self.scheduler = copy.deepcopy(scheduler or pipeline.scheduler)
        _check_pipeline(pipeline, self.scheduler)
        self.family = _family_of(pipeline)
        self._check_settings()
        if settings.start_sigma is not None:
            # The stock shift would move the level that the images were noised to.
            self.scheduler = type(self.scheduler).from_config(
                self.scheduler.config, shift=1.0, use_dynamic_shifting=False, shift_terminal=None
            )
        self.model.requires_grad_(False).eval()
        self.vae.requires_grad_(False).eval()
        if self.vae.dtype != vae_dtype:
            self.vae.to(vae_dtype)
        self.begin()

    # What it is made of

    @property
    def model(self) -> Any:
        """The transformer or U-Net."""
        return self.family.model

    @property
    def vae(self) -> Any:
        return self.family.vae

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def is_flow(self) -> bool:
        """Whether the model is a rectified flow, which predicts velocity; others predict noise, or v."""
        return isinstance(self.family, TransformerFamily)

    @property
    def component(self) -> str:
        """Name of the pipeline's component that is trained: `"transformer"` or `"unet"`."""
        return self.family.component

    @property
    def token_pixels(self) -> int:
        """Side in pixels of what one token stands for; of a U-Net, of one latent pixel."""
        return self.family.patch_size

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image's latents."""
        side = self.family.patch_size // self.family.token_side
        return self.vae.config.latent_channels, self.settings.height // side, self.settings.width // side

    @property
    def num_evaluations(self) -> int:
        """Evaluations of the model in a rollout, one for each of `timesteps`."""
        return len(self.timesteps)

    @property
    def uses_negative(self) -> bool:
        """Whether each step also evaluates the negative prompt."""
        return self.family.guidance_kind == "true" and self.settings.guidance_scale > 1

    def enable_checkpointing(self) -> None:
        """Compute activations of model and autoencoder again for the gradient, where they support that."""
        for part in (self.model, self.vae):
            if part._supports_gradient_checkpointing:
                part.enable_gradient_checkpointing()

    # Prompts and noise

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], device: torch.device | None = None) -> Conditions:
        """
        Encode prompts as the stock pipeline does, one by one.

        Args:
            prompts (`Sequence[str]`): At least one.
            device (`torch.device`, *optional*): Device of the text encoders. Defaults to that of the model.

        Returns:
            `Conditions`: On the CPU, from where batches go to the model's device.

        Raises:
            ValueError: The pipeline has no text encoders and a prompt is not empty.
            RuntimeError: The text encoders were dropped.
        """
        if self._dropped:
            raise RuntimeError("prompts must be encoded before `drop_text_encoders`, got some after it")
        encoded = [self._encode(prompt, device or self.device).on("cpu") for prompt in prompts]
        negative = self._encode_negative(device or self.device).on("cpu") if self.uses_negative else None
        return Conditions(Conditioning.stack(encoded), negative)

    def drop_text_encoders(self) -> None:
        """Remove the text encoders from the pipeline; prompts can be encoded no longer."""
        self._dropped = True
        for name in self.pipeline.components:
            if name.startswith("text_encoder"):
                setattr(self.pipeline, name, None)
                self.family.components[name] = None

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """
        Draw the noise that the stock pipeline starts from, with a CPU generator of each seed.

        Args:
            seeds (`Sequence[int]`): A seed for each image.

        Returns:
            `torch.Tensor` of shape `(len(seeds), channels, height, width)`: Standard normal, in the precision of the
            model and converted to float32.
        """
        drawn = [
            randn_tensor(
                (1, *self.latent_shape),
                generator=torch.Generator().manual_seed(seed),
                device=self.device,
                dtype=self.model.dtype,
            )
            for seed in seeds
        ]
        return torch.cat(drawn).float()

    def start(self, noise: torch.Tensor, clean: torch.Tensor | None = None) -> torch.Tensor:
        """
        Return the latents that a rollout starts from.

        Args:
            noise (`torch.Tensor`): Result of [`noise`].
            clean (`torch.Tensor` of the same shape, *optional*): Latents of images to start from, for `start_sigma`.
        """
        if self.settings.start_sigma is None:
            # 1 of rectified flows, DDIM and PNDM.
            return noise * float(getattr(self.scheduler, "init_noise_sigma", 1.0))
        if clean is None:
            raise ValueError("`clean` must be given with `start_sigma`, the images to start from, got None")
        return (1 - self.settings.start_sigma) * clean + self.settings.start_sigma * noise

    # Steps

    def rollout(self, latents: torch.Tensor, conditions: Conditions, gradient_steps: int = 0) -> torch.Tensor:
        """
        Denoise from start to end. Gradients go through the last steps alone (DiffDoctor §3.3, DRaFT-K): the gradient
        is that of the whole loop with the predictions of the earlier steps held constant.

        Args:
            latents (`torch.Tensor` of shape `(batch, channels, height, width)`): Result of [`start`].
            conditions (`Conditions`): Of as many prompts.
            gradient_steps (`int`, *optional*, defaults to 0): Number of evaluations at the end that gradients go
                through, at most `num_evaluations`; 0 is none.

        Returns:
            `torch.Tensor` of the shape of `latents`: Clean latents.
        """
        if not 0 <= gradient_steps <= self.num_evaluations:
            raise ValueError(
                f"`gradient_steps` must lie between 0 and {self.num_evaluations}, the evaluations of a rollout, got "
                f"{gradient_steps}"
            )
        self.begin()
        conditions = conditions.on(self.device)
        first = self.num_evaluations - gradient_steps
        for index in range(self.num_evaluations):
            with torch.set_grad_enabled(index >= first and torch.is_grad_enabled()):
                latents = self.step(self.predict(latents, index, conditions), index, latents)
        return latents

    def begin(self) -> None:
        """
        Set the schedule, as the stock pipeline does at the start of each call. [`rollout`] does it; who calls
        [`step`] does it before the first one.
        """
        settings = self.settings
        if isinstance(self.family, TransformerFamily):
            side = self.family.token_side
            tokens = self.latent_shape[1] * self.latent_shape[2] // side**2
            if settings.start_sigma is None:
                options = self.family.timestep_arguments(settings.num_inference_steps, tokens, self.scheduler)
            else:
                ends = settings.start_sigma, settings.start_sigma / settings.num_inference_steps
                options = {"sigmas": np.linspace(*ends, settings.num_inference_steps)}
            self.scheduler.set_timesteps(device=self.device, **options)
            self.sigmas: torch.Tensor = self.scheduler.sigmas
        else:
            # On the CPU, where these schedulers look sigmas and alphas up; the U-Net moves a timestep by itself.
            self.scheduler.set_timesteps(settings.num_inference_steps)
        if hasattr(self.scheduler, "set_begin_index"):  # spares a look at the device
            self.scheduler.set_begin_index(0)
        self.timesteps: torch.Tensor = self.scheduler.timesteps

    def predict(self, latents: torch.Tensor, index: int, conditions: Conditions) -> torch.Tensor:
        """
        Predict velocity, noise or v at a step of the schedule, with guidance.

        Args:
            latents (`torch.Tensor` of shape `(batch, channels, height, width)`): The scheduler's sample.
            index (`int`): Index of the evaluation, from 0.
            conditions (`Conditions`): Of as many prompts, on the model's device.

        Returns:
            `torch.Tensor` of the shape of `latents`, float32.
        """
        timestep = self.timesteps[index]
        return self.evaluate(self._scaled(latents, timestep), timestep, conditions)

    def step(self, prediction: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """
        Take the scheduler's step. Steps follow one another from 0 on, as in [`rollout`], because schedulers count.

        Args:
            prediction (`torch.Tensor`): Result of [`predict`].
            index (`int`): Index of the evaluation.
            latents (`torch.Tensor`): What was evaluated.
        """
        return self.scheduler.step(prediction, self.timesteps[index], latents, return_dict=False)[0]

    def evaluate(
        self, sample: torch.Tensor, timestep: torch.Tensor, conditions: Conditions, guided: bool = True
    ) -> torch.Tensor:
        """
        Evaluate the model at any time.

        Args:
            sample (`torch.Tensor` of shape `(batch, channels, height, width)`): Input of the model: of a rectified
                flow (1 - σ)·clean + σ·noise, else √ᾱ·clean + √(1 - ᾱ)·noise.
            timestep (`torch.Tensor` of shape `()` or `(batch,)`): From 0 to 1000; of a rectified flow 1000·σ.
            conditions (`Conditions`): Of as many prompts, on the model's device.
            guided (`bool`, *optional*, defaults to `True`): Whether classifier-free guidance is applied, where the
                settings have it. A guidance-distilled model always gets its scale.

        Returns:
            `torch.Tensor` of the shape of `sample`, float32: Velocity (noise - clean), noise, or v.
        """
        positive = conditions.positive
        if not guided or not self.uses_negative:
            return self._evaluate(sample, timestep, positive)
        assert conditions.negative is not None, "encoded with the prompts"
        rows = Conditioning.stack([conditions.negative.expand(len(sample)), positive])
        times = timestep if timestep.ndim == 0 else torch.cat([timestep, timestep])
        negative, wanted = self._evaluate(torch.cat([sample, sample]), times, rows).chunk(2)
        return negative + self.settings.guidance_scale * (wanted - negative)

    # Images

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """
        Decode latents to images of shape `(batch, 3, height, width)`, float32 in [0, 1]. As in the stock pipelines
        they are clamped, so that no gradient comes from pixels that are saturated.
        """
        images: torch.Tensor = (self.family.decode_latents(latents).float() / 2 + 0.5).clamp(0, 1)
        return images

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """
        Encode images to latents, the mode of their posterior.

        Args:
            images (`torch.Tensor` of shape `(batch, 3, height, width)`): In [0, 1], with sides that are
                multiples of `token_pixels`.

        Returns:
            `torch.Tensor` of shape `(batch, channels, height, width)`, float32, on the model's device.
        """
        return self.family.encode_images(images.to(self.device) * 2 - 1, None).float()

    # The loss that the model was trained with

    def draw_times(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """
        Draw times for [`noised`]: of a rectified flow uniform noise levels, shifted as the stock schedule shifts them
        at this size; else uniform timesteps.

        Args:
            count (`int`): How many.
            generator (`torch.Generator`): On the CPU.

        Returns:
            `torch.Tensor` of shape `(count,)`: Noise levels in (0, 1), or timesteps from 0 to 999; on the model's
            device.
        """
        if not self.is_flow:
            last = self.scheduler.config.num_train_timesteps
            return torch.randint(last, (count,), generator=generator).to(self.device)
        even = torch.rand(count, generator=generator).clamp(1e-3, 1 - 1e-3)
        return self._shifted(even).to(self.device)

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Noise clean latents.

        Args:
            clean, noise (`torch.Tensor` of shape `(batch, channels, height, width)`): Latents and standard noise.
            times (`torch.Tensor` of shape `(batch,)`): Result of [`draw_times`].

        Returns:
            `tuple`: Input of the model, its timestep, for [`evaluate`], and what it should predict.
        """
        if self.is_flow:
            sigma = times[:, None, None, None]
            return (1 - sigma) * clean + sigma * noise, 1000 * times, noise - clean
        share = self._alphas_cumprod[times][:, None, None, None]
        signal, rest = share.sqrt(), (1 - share).sqrt()
        wanted = noise if self.scheduler.config.prediction_type == "epsilon" else signal * noise - rest * clean
        return signal * clean + rest * noise, times, wanted

    def denoising_loss(
        self, clean: torch.Tensor, conditions: Conditions, noise: torch.Tensor, times: torch.Tensor
    ) -> torch.Tensor:
        """
        Compute the flow-matching loss, or that of noise or v, of each image, without classifier-free guidance.

        Args:
            clean, noise, times: See [`noised`].
            conditions (`Conditions`): Of as many prompts.

        Returns:
            `torch.Tensor` of shape `(batch,)`: Mean squared errors.
        """
        sample, timestep, wanted = self.noised(clean, noise, times)
        found = self.evaluate(sample, timestep, conditions.on(self.device), guided=False)
        return (found - wanted).square().mean((1, 2, 3))

    # Inside

    def _scaled(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return latents if self.is_flow else self.scheduler.scale_model_input(latents, timestep)

    def _evaluate(self, sample: torch.Tensor, timestep: torch.Tensor, rows: Conditioning) -> torch.Tensor:
        if isinstance(self.family, UNetFamily):
            return self.family.output(sample, timestep, rows).float()
        assert isinstance(self.family, TransformerFamily)
        height, width = sample.shape[-2:]
        grid = height // self.family.token_side, width // self.family.token_side
        guidance = torch.full((len(sample),), float(self.settings.guidance_scale), device=sample.device)
        tokens = self.family.velocity(self.family.pack(sample), timestep, rows, guidance, grid)
        return self.family.unpack(tokens, grid).float()

    def _shifted(self, sigmas: torch.Tensor) -> torch.Tensor:
        """Shift noise levels as the pipeline's own schedule does, also where drawing starts from noised images."""
        assert isinstance(self.family, TransformerFamily)
        stock = self.pipeline.scheduler
        tokens = self.latent_shape[1] * self.latent_shape[2] // self.family.token_side**2
        mu = self.family.timestep_arguments(1, tokens, stock).get("mu")
        if mu is not None:
            return stock.time_shift(mu, 1.0, sigmas)
        return stock.shift * sigmas / (1 + (stock.shift - 1) * sigmas)

    @property
    def _alphas_cumprod(self) -> torch.Tensor:
        return self.scheduler.alphas_cumprod.to(self.device)

    def _encode(self, prompt: str, device: torch.device) -> Conditioning:
        if type(self.pipeline).__name__ == KOLORS:
            embeds, _, pooled, _ = self._encode_of_kolors(prompt, None, device)
            return Conditioning(embeds, pooled)
        return self.family.encode_prompt(prompt, device, self.settings.max_sequence_length)

    def _encode_negative(self, device: torch.device) -> Conditioning:
        if type(self.pipeline).__name__ == KOLORS:
            _, embeds, _, pooled = self._encode_of_kolors("", self.settings.negative_prompt, device)
            return Conditioning(embeds, pooled)
        words = self.settings.negative_prompt or ""
        return self.family.encode_negative(words, device, self.settings.max_sequence_length)

    def _encode_of_kolors(self, prompt: str, negative: str | None, device: torch.device) -> tuple[torch.Tensor, ...]:
        return self.pipeline.encode_prompt(
            prompt,
            device=device,
            do_classifier_free_guidance=True,
            negative_prompt=negative,
            max_sequence_length=self.settings.max_sequence_length or 256,
        )

    def _check_settings(self) -> None:
        settings, side = self.settings, self.family.patch_size
        if settings.height % side or settings.width % side:
            raise ArgumentError(
                f"`height` and `width` must be multiples of {side}, got {settings.height} and {settings.width}"
            )
        if settings.start_sigma is not None and not self.is_flow:
            raise ArgumentError(
                f"`start_sigma` must be left out for {type(self.pipeline).__name__}, since only rectified flows start "
                f"from noised images here, got {settings.start_sigma}"
            )
        try:
            self.family.check(encodes_prompts=False)
        except ValueError as error:
            raise ArgumentError(str(error)) from error


def _check_pipeline(pipeline: Any, scheduler: Any) -> None:
    if (name := type(pipeline).__name__) not in PIPELINES:
        raise ArgumentError(f"`pipeline` must be one of {', '.join(PIPELINES)}, got {name}")
    if not isinstance(scheduler, SCHEDULERS) or scheduler.config.get("stochastic_sampling"):
        names = ", ".join(kind.__name__ for kind in SCHEDULERS)
        raise ArgumentError(
            f"`scheduler` must be one of {names} without `stochastic_sampling`, got {type(scheduler).__name__}; steps "
            "that draw noise cannot be repeated from a seed"
        )
    if isinstance(scheduler, PNDMScheduler) and not scheduler.config.skip_prk_steps:
        raise ArgumentError("`scheduler` must have `skip_prk_steps=True`, got a PNDMScheduler without")
    if pipeline.vae.config.get("latents_mean") is not None:
        raise ArgumentError("`pipeline.vae` must have no `latents_mean`, which is not supported, got one")


def _family_of(pipeline: Any) -> ModelFamily:
    components = dict(pipeline.components)
    if components.get("unet") is None:
        return find_family(components["transformer"], components)
    zeros = bool(pipeline.config.get("force_zeros_for_empty_prompt", False))
    return UNetFamily(components["unet"], components, zeros)
