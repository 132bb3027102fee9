"""What a stock pipeline predicts at each step of its loop, for guidance: clean latents, in the shape of an image."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.utils.torch_utils import unwrap_module

from .family import ModelFamily, TransformerFamily
from .family_unet import UNetFamily
from .pipeline_common import FlowPipelineMixin, find_family


SCHEDULERS = (
    FlowMatchEulerDiscreteScheduler,  # and with it the solvers of this package
    DDIMScheduler,
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    PNDMScheduler,  # evaluates its first step twice, and the second evaluation forgets the shift of the first
)
"""Schedulers of which the clean latents that a step predicts are known."""

_NOT_GUIDED = (
    "the pipeline must be called with `callback_on_step_end=guidance` inside `guidance.attached(pipe)`, and was "
    "called without: its images are not guided"
)


class StepObserver:
    """
    Observer of a pipeline's steps.

    Velocity or noise are taken where the pipeline passes them to its scheduler: after its own classifier-free
    guidance, in any precision, at the first step too.

    Args:
        pipeline (`~diffusers.DiffusionPipeline`): A stock pipeline.

    Attributes:
        family (`ModelFamily`): Adapter of the pipeline's model.

    Raises:
        ValueError: The pipeline, its scheduler or the way it is offloaded is not supported.
    """

    def __init__(self, pipeline: Any):
        _check_pipeline(pipeline)
        self.family = _find_family(pipeline)
        _check_vae(self.family)
        self._scheduler = pipeline.scheduler
        self._prediction: tuple[torch.Tensor, float] | None = None
        self._positions: dict[str, Any] = {}

    @contextmanager
    def observing(self) -> Iterator[None]:
        """
        Observe the steps of a `with` block.

        Raises:
            RuntimeError: A prediction was not taken before the next step, or at all.
        """
        scheduler = self._scheduler
        stock = scheduler.step

        @functools.wraps(stock)  # pipelines look at the signature
        def step(
            model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True, **kwargs: Any
        ) -> Any:
            self._check_taken()
            output = stock(model_output, timestep, sample, return_dict=True, **kwargs)
            clean = _predicted_clean(scheduler, output, model_output, timestep, sample)
            self._prediction = clean, _next_signal(scheduler, timestep)
            return output if return_dict else output.to_tuple()

        def keep_positions(model: Any, args: Any, kwargs: dict[str, Any]) -> None:
            self._positions = {name: kwargs[name] for name in ("img_ids", "img_shapes") if name in kwargs}

        scheduler.step = step
        handle = self.family.model.register_forward_pre_hook(keep_positions, with_kwargs=True)
        try:
            yield
            self._check_taken()
        finally:
            handle.remove()
            del scheduler.step

    def take(self) -> tuple[torch.Tensor, float]:
        """
        Return what the last step predicted.

        Returns:
            `tuple[torch.Tensor, float]`: Clean latents of shape `(batch, channels, height, width)` in float32, and the
            factor with which clean latents enter the next sample, by which a shift of them is scaled.

        Raises:
            RuntimeError: There was no step since the last call.
        """
        if self._prediction is None:
            raise RuntimeError("the callback must be called once after each step of the attached pipeline's scheduler")
        (clean, signal), self._prediction = self._prediction, None
        return self._unpack(clean), signal

    def pack(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return latents of shape `(batch, channels, height, width)` in the shape in which the pipeline keeps them."""
        return latents if like.ndim == 4 else self._packing.pack(latents)

    @property
    def _packing(self) -> TransformerFamily:
        assert isinstance(self.family, TransformerFamily), "latents of U-Nets are images"
        return self.family

    def _check_taken(self) -> None:
        if self._prediction is not None:
            raise RuntimeError(_NOT_GUIDED)

    def _unpack(self, latents: torch.Tensor) -> torch.Tensor:
        return latents if latents.ndim == 4 else self._packing.unpack(latents, self._grid(latents.shape[1]))

    def _grid(self, tokens: int) -> tuple[int, int]:
        """Return rows and columns of the image; reference images, whose tokens come after, have grids of their own."""
        if "img_shapes" in self._positions:
            _, rows, columns = self._positions["img_shapes"][0][0]
            return rows, columns
        positions = self._positions["img_ids"]  # (tokens, axes) or (batch, tokens, axes): image, row, column, ...
        rows, columns = (1 + int(last) for last in positions.flatten(0, -2)[:tokens, 1:3].amax(0).tolist())
        if rows * columns != tokens:  # row numbers above 256 are not exact in bfloat16
            raise RuntimeError(f"the {tokens} tokens of an image must fill rows and columns, got {rows} by {columns}")
        return rows, columns


def _predicted_clean(
    scheduler: Any, output: Any, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor
) -> torch.Tensor:
    """Return the clean latents that a step predicted, in the scheduler's own way; in float32."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        sigma = scheduler.sigmas[scheduler.step_index - 1].to(sample.device)  # `step` has counted on
        return sample.float() - sigma * model_output.float()
    if not isinstance(scheduler, PNDMScheduler):
        clean: torch.Tensor = output.pred_original_sample
        return clean.float()
    alpha = float(scheduler.alphas_cumprod[int(timestep)])
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    if scheduler.config.prediction_type == "v_prediction":
        return signal * sample.float() - noise * model_output.float()
    return (sample.float() - noise * model_output.float()) / signal


def _next_signal(scheduler: Any, timestep: Any) -> float:
    """
    Return the factor of clean latents in the next sample.

    Rectified flows take a shift as it is, as published: with the velocity held, the prediction moves as the sample
    does. So it does with the Euler schedulers, whose samples are clean latents plus noise.
    """
    if isinstance(scheduler, PNDMScheduler):
        following = [*scheduler.timesteps.tolist(), -1][scheduler.counter]  # `step` has counted on
    elif isinstance(scheduler, DDIMScheduler):
        following = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    else:
        return 1.0
    alpha = scheduler.alphas_cumprod[following] if following >= 0 else scheduler.final_alpha_cumprod
    return float(alpha) ** 0.5


def _check_pipeline(pipeline: Any) -> None:
    name = type(pipeline).__name__
    if isinstance(pipeline, FlowPipelineMixin):
        raise ValueError(
            f"`pipeline` must be a stock pipeline, which draws images, got {name}, which inverts photos with solvers "
            "of its own; give the model to its stock pipeline"
        )
    if not isinstance(pipeline.scheduler, SCHEDULERS):
        supported = ", ".join(kind.__name__ for kind in SCHEDULERS)
        raise ValueError(
            f"`pipeline.scheduler` must be one of {supported}, got {type(pipeline.scheduler).__name__}; for a U-Net, "
            "set `pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)`"
        )
    if isinstance(pipeline.scheduler, PNDMScheduler) and not pipeline.scheduler.config.skip_prk_steps:
        raise ValueError(
            "`pipeline.scheduler` must have `skip_prk_steps=True`, because Runge-Kutta steps forget shifts, got False"
        )
    if pipeline.components.get("vae") is None:
        raise ValueError(f"`pipeline` must have an autoencoder, got a {name} without")


def _find_family(pipeline: Any) -> ModelFamily:
    unet = pipeline.components.get("unet")
    if unet is None:
        return find_family(pipeline.components.get("transformer"), pipeline.components)
    if (name := type(unwrap_module(unet)).__name__) != "UNet2DConditionModel":
        raise ValueError(f"`pipeline.unet` must be a UNet2DConditionModel, got {name}")
    return UNetFamily(unet, pipeline.components)


def _check_vae(family: ModelFamily) -> None:
    vae = family.vae
    if isinstance(family, UNetFamily) and vae.config.get("latents_mean") is not None:
        raise ValueError("`pipeline.vae` of a U-Net must have no `latents_mean`, which is not supported, got one")
    if _is_group_offload_enabled(vae):
        raise ValueError(
            "`pipeline.vae` must not be offloaded by groups, which moves its weights away before gradients are taken; "
            "leave it out, or offload models as a whole with `enable_model_cpu_offload`"
        )
    if vae.dtype == torch.float16 and any(parameter.is_meta for parameter in vae.parameters()):
        raise ValueError(
            "`pipeline.vae` must be float32 or bfloat16 with sequential offload, because gradients need more range "
            "than float16, got float16"
        )
