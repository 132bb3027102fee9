"""
Guidance by artifact detectors: while an image is drawn, move its latents to where a detector sees fewer artifacts
(DIAMOND, arXiv 2602.00883). Nothing is trained, and no gradient goes through the denoising model.

```python
from diffusers_artifact import DetectorGuidance

guidance = DetectorGuidance(detector.artifact_map)
with guidance.attached(pipe):
    image = pipe("a portrait", callback_on_step_end=guidance).images[0]
guidance.steps[-1].losses
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers.callbacks import PipelineCallback

from .family import ModelFamily
from .guidance_gradients import Guide, artifact_losses, guiding_direction, reward_losses
from .guidance_observer import StepObserver


@dataclass(frozen=True)
class GuidanceSettings:
    r"""
    Strength of the guidance, step by step. The defaults are those that DIAMOND published for FLUX.1 and SDXL.

    Strengths are root mean squares: with .05, latent numbers move by .05, on average over squares. The published
    numbers are norms of the whole shift, 25 to 1 for the 262,144 latent numbers of a 1024×1024 image of FLUX.1.
    Divided by the root of their number they hold for all sizes and families, whose latents have about unit variance.

    Args:
        strength (`float`, *optional*, defaults to 0.05): Strength of the first step, at least 0; 0 is no guidance.
        final_strength (`float`, *optional*): Strength of the last step; by default 1/25 of `strength`.
        power (`float`, *optional*, defaults to 2.0): How strength falls between: with this power of the share of the
            steps that is left.
        exponent (`float`, *optional*, defaults to 2.0): Power of a detector's values whose mean is lowered, at least
            1. Higher ones attend to confident places only.
        start, end (`float`, *optional*, defaults to 0.0 and 1.0): Share of the steps before which, and from which on,
            there is no guidance.

    Raises:
        ValueError: A value is out of range.
    """

    strength: float = 0.05
    final_strength: float | None = None
    power: float = 2.0
    exponent: float = 2.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        for name in ("strength", "final_strength", "power"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"`{name}` must be at least 0 and finite, got {value}")
        if not 1 <= self.exponent < float("inf"):
            raise ValueError(f"`exponent` must be at least 1 and finite, got {self.exponent}")
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"`start` and `end` must be 0 <= start < end <= 1, got {self.start} and {self.end}")

    def strengths(self, num_steps: int) -> list[float]:
        """Return the strength of each of `num_steps` steps; 0 where guidance is off."""
        final = self.strength / 25 if self.final_strength is None else self.final_strength
        first, stop = round(self.start * num_steps), round(self.end * num_steps)
        left = [1 - step / max(num_steps - 1, 1) for step in range(num_steps)]
        falling = [final + (self.strength - final) * share**self.power for share in left]
        return [strength if first <= step < stop else 0.0 for step, strength in enumerate(falling)]


# 30 to 1 for 524,288 latent numbers at 1024×1024; the first 5 and the last 12 of 30 steps are off.
_PUBLISHED = {
    "Flux2Transformer2DModel": GuidanceSettings(
        strength=0.041, final_strength=0.0014, power=5.0, exponent=3.0, start=1 / 6, end=0.6
    )
}


def settings_for(pipeline: Any) -> GuidanceSettings:
    """
    Return the settings that DIAMOND published for the model of a pipeline: FLUX.2's own, and for all other families
    those of FLUX.1.

    Args:
        pipeline (`~diffusers.DiffusionPipeline`): A stock pipeline.

    Raises:
        ValueError: The pipeline is not supported; see [`DetectorGuidance.attached`].
    """
    return _published(StepObserver(pipeline).family)


@dataclass(frozen=True)
class GuidedStep:
    """
    Record of a guided step.

    Attributes:
        step (`int`): Its index in the loop, from 0.
        strength (`float`): Root mean square of the shift where all guides agree.
        losses (`tuple[tuple[float, ...], ...]`): For each guide, detectors first, and each image of the batch, what
            the step lowers: the mean of the map's values to the power `exponent`, or minus the reward. They are of the
            image that the step predicted, before the shift.
        agreement (`tuple[float, ...]`): For each image, norm of the mean of the guides' unit gradients: 1 if they
            agree, or there is one guide; 0 if none has a gradient, or they cancel.
    """

    step: int
    strength: float
    losses: tuple[tuple[float, ...], ...]
    agreement: tuple[float, ...]


class DetectorGuidance(PipelineCallback):
    r"""
    Callback that guides a stock pipeline of diffusers by detectors and rewards (DIAMOND, arXiv 2602.00883).

    After each step, the clean latents that it predicted are decoded and shown to each guide. The gradient of the loss
    goes through guide and decoder to the latents; it is divided by its norm, image by image, averaged over the guides,
    and subtracted from the next sample, scaled by the step's strength.

    **A guide is silenced before anything is repaired.** That it sees fewer artifacts in guided images says nothing.
    Judge them by a detector of another trunk and other data, or by people.

    Args:
        detectors (`Callable` or `Sequence[Callable]`, *optional*): Functions or modules from images to artifact maps
            of shape `(batch, height, width)` or `(batch, 1, height, width)`, or to scores of shape `(batch,)`, in
            [0, 1]; e.g. `PixelDetector.artifact_map`.
        rewards (`Callable` or `Sequence[Callable]`, *optional*): Functions or modules from images to one number for
            each, of shape `(batch,)`, that is higher for better images.
        settings (`GuidanceSettings`, *optional*): Strength of each step; by default those of [`settings_for`].
        checkpoint_vae (`bool`, *optional*, defaults to `True`): Whether the autoencoder recomputes activations while
            the gradient is taken. It is slower by one decoder pass, and the gradient is the same; without it,
            a decoder of 1024×1024 in float32 keeps 23 GiB. `AutoencoderKLQwenImage` has no such option.

    Attributes:
        steps (`list[GuidedStep]`): Guided steps of the pipeline's last call.
        used_settings (`GuidanceSettings`, *optional*): Settings of the pipeline that was attached last.

    Raises:
        ValueError: There is no guide, or one is not callable.
    """

    def __init__(
        self,
        detectors: Guide | Sequence[Guide] = (),
        rewards: Guide | Sequence[Guide] = (),
        settings: GuidanceSettings | None = None,
        checkpoint_vae: bool = True,
    ):
        super().__init__()
        self.detectors, self.rewards = _as_guides("detectors", detectors), _as_guides("rewards", rewards)
        if not self.detectors and not self.rewards:
            raise ValueError("`detectors` or `rewards` must hold at least one function, got none")
        self.settings, self.checkpoint_vae = settings, checkpoint_vae
        self.steps: list[GuidedStep] = []
        self.used_settings = settings
        self._observer: StepObserver | None = None

    @property
    def tensor_inputs(self) -> list[str]:
        return ["latents"]

    @contextmanager
    def attached(self, pipeline: Any) -> Iterator[DetectorGuidance]:
        """
        Observe a pipeline's steps for the duration of a `with` block, in which it is called with this callback.

        Args:
            pipeline (`~diffusers.DiffusionPipeline`): A stock pipeline of a supported family: FLUX.1, FLUX.2, Chroma,
                Stable Diffusion 3 and 3.5, Qwen-Image, Stable Diffusion, SDXL or Kolors; with its autoencoder, and one
                of [`~diffusers_artifact.guidance_observer.SCHEDULERS`].

        Raises:
            ValueError: The pipeline, its scheduler or the way it is offloaded is not supported, a guide is a module in
                training mode, or a pipeline is attached already.
            RuntimeError: In the block, the pipeline was called without this callback.
        """
        _check_modes([*self.detectors, *self.rewards])
        if self._observer is not None:
            raise ValueError("`attached` must not be nested, got a second pipeline; leave the first `with` block")
        observer = StepObserver(pipeline)
        self.used_settings = self.settings or _published(observer.family)
        self._observer = observer
        try:
            with observer.observing():
                yield self
        finally:
            self._observer = None

    def callback_fn(
        self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """
        Shift the latents that a step ended with; see [`~diffusers.callbacks.PipelineCallback`].

        Raises:
            RuntimeError: The pipeline is not attached.
            ValueError: A guide gives something else than the class describes.
        """
        if self._observer is None:
            raise RuntimeError("the pipeline must be called inside `with guidance.attached(pipe):`, got no such block")
        if step_index == 0:
            self.steps = []
        clean, signal = self._observer.take()
        settings = self.used_settings
        assert settings is not None, "`attached` sets them"
        strength = settings.strengths(pipeline.num_timesteps)[step_index]
        if strength == 0:
            return callback_kwargs
        losses = [*artifact_losses(self.detectors, settings.exponent), *reward_losses(self.rewards)]
        direction, values = guiding_direction(self._observer.family, clean, losses, self.checkpoint_vae)
        agreement = tuple(direction.flatten(1).norm(dim=1).tolist())
        self.steps.append(GuidedStep(step_index, strength, tuple(tuple(row) for row in values.tolist()), agreement))
        latents = callback_kwargs["latents"]
        shift = self._observer.pack(signal * strength * direction[0].numel() ** 0.5 * direction, like=latents)
        return {**callback_kwargs, "latents": (latents.float() - shift).to(latents.dtype)}

    def to_dict(self) -> dict[str, Any]:
        """Return settings and the steps of the last call, JSON-serialisable, for the record of a run."""
        return {
            "detectors": len(self.detectors),
            "rewards": len(self.rewards),
            "settings": None if self.used_settings is None else asdict(self.used_settings),
            "checkpoint_vae": self.checkpoint_vae,
            "steps": [asdict(step) for step in self.steps],
        }


def _published(family: ModelFamily) -> GuidanceSettings:
    return _PUBLISHED.get(family.model_class, GuidanceSettings())


def _as_guides(name: str, given: Guide | Sequence[Guide]) -> tuple[Guide, ...]:
    guides = (given,) if callable(given) else tuple(given)
    for guide in guides:
        if not callable(guide):
            raise ValueError(f"`{name}` must be functions or modules, got {type(guide).__name__}")
    return guides


def _check_modes(guides: Sequence[Guide]) -> None:
    for guide in guides:
        if isinstance(guide, torch.nn.Module) and guide.training:
            raise ValueError(
                f"`detectors` and `rewards` must be in evaluation mode, got {type(guide).__name__} in training mode, "
                "whose dropout and batch statistics change the gradient; call its `eval()`"
            )
