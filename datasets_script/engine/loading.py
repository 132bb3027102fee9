"""Loading of a diffusion model as the settings say: dtype, quantization, kernels, and where its weights wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
from diffusers import DiffusionPipeline, PipelineQuantizationConfig
from diffusers.utils import logging as diffusers_logging
from packaging.version import Version
from safetensors import SafetensorError

# diffusers makes parts only of modules that are imported already, and this is a part of the small models.
import diffusers_artifact.autoencoder  # noqa: F401
from diffusers_artifact import EMBEDDED_MODEL
from diffusers_artifact.presets import EMBEDDED

from ..utils.errors import ArgumentError, UserError
from ..utils.files import check_model_name, fingerprint
from ..utils.hub_access import why_not_loaded
from .settings import LoadSettings, Offload


PipelineType = TypeVar("PipelineType", bound=DiffusionPipeline)

# Pipelines of versions before 0.40 ignore `dtype`, and would be loaded in float32; later ones deprecate the other.
_DTYPE_OPTION = "dtype" if Version(diffusers.__version__) >= Version("0.40.0.dev0") else "torch_dtype"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ModelLoadError(UserError, OSError):
    """Error for a diffusion model that cannot be loaded or used."""


def usable_device(device: str | None = None) -> str:
    """
    Return the device to use, by default CUDA if available, else the CPU.

    Args:
        device (`str`, *optional*): Device that was asked for.

    Raises:
        ModelLoadError: torch cannot use it.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelLoadError(
            f"`device` must be available to torch, got {device!r}: {error}; choose another, such "
            "as cpu. Nothing was made yet"
        ) from error
    return device


def resolved(loading: LoadSettings, model: str, device: str) -> LoadSettings:
    """Return the settings with the dtype in effect."""
    narrow = model != EMBEDDED and torch.device(device).type != "cpu"
    return replace(loading, dtype=loading.dtype or ("bfloat16" if narrow else "float32"))


def check_loading(loading: LoadSettings, offload: Offload, device: str) -> None:
    """
    Check that these settings go together on a device, and that the package of the quantization is installed.

    Args:
        loading (`LoadSettings`): Settings of the model.
        offload (`str`): Where its weights wait; see [`RunPlan`].
        device (`str`): Device that it runs on.

    Raises:
        ArgumentError: They do not go together.
        ImportError: The extra `quantization` is missing.
    """
    on_cpu, bitsandbytes = torch.device(device).type == "cpu", loading.quantization in ("8bit", "4bit")
    if offload != "none" and on_cpu:
        raise ArgumentError(f"`offload` must be none on a CPU, where the weights are already, got '{offload}'")
    if bitsandbytes and on_cpu:
        raise ArgumentError(
            f"`quantization` must be none or float8 on a CPU, where bitsandbytes cannot quantize, got "
            f"'{loading.quantization}'"
        )
    if bitsandbytes and offload in ("group", "sequential"):
        raise ArgumentError(
            f"`offload` must be none or model with `quantization` {loading.quantization}, whose weights move only as "
            f"a whole, got '{offload}'; float8 can be moved by group"
        )
    if loading.quantization == "float8" and offload == "sequential":
        raise ArgumentError(
            "`offload` must be none, model or group with `quantization` float8, got 'sequential'; group needs as "
            "little memory"
        )
    _quantization_config(resolved(loading, "", device))


def load_pipeline(
    pipeline_class: type[PipelineType],
    model: str,
    revision: str | None,
    loading: LoadSettings,
    device: str,
    **accepts: Any,
) -> tuple[PipelineType, str]:
    """
    Load a diffusion model into one of this package's pipelines, as [`load_checkpoint`] does.

    Args:
        pipeline_class, model, revision, loading, device: See [`load_checkpoint`].
        accepts: Arguments of the pipeline's `check_model`: what the model must be able to do, and what it may be.

    Returns:
        `tuple[DiffusionPipeline, str]`: The pipeline, and the commit or the folder's fingerprint.

    Raises:
        ModelLoadError: The checkpoint does not exist, cannot be downloaded, or does not work with the pipeline.
        ImportError: The extra `quantization` is missing.
    """
    pipeline, recorded = load_checkpoint(pipeline_class, model, revision, loading, device)
    try:
        pipeline.check_model(**accepts)
    except ValueError as error:
        raise ModelLoadError(f"`model` must be one that the pipeline can use, got {model!r}: {error}") from error
    set_kernels(pipeline, loading)
    return pipeline, recorded


def load_checkpoint(
    pipeline_class: type[PipelineType], model: str, revision: str | None, loading: LoadSettings, device: str
) -> tuple[PipelineType, str]:
    """
    Load a diffusion model into host memory. Weights that bitsandbytes quantizes go to the accelerator.

    Args:
        pipeline_class (`type`): Class of the pipeline; `DiffusionPipeline` for the checkpoint's own.
        model (`str`): `"embedded"`, a folder, or the id of a repository on the Hub.
        revision (`str`, *optional*): Branch, tag or commit of a Hub repository.
        loading (`LoadSettings`): How to load it, with the dtype in effect.
        device (`str`): Device that it will run on.

    Returns:
        `tuple[DiffusionPipeline, str]`: The pipeline, and the commit or the folder's fingerprint.

    Raises:
        ModelLoadError: The checkpoint does not exist, cannot be downloaded, is damaged, or has parts that diffusers
            does not know.
        ImportError: The extra `quantization` is missing.
    """
    embedded = model == EMBEDDED
    folder = EMBEDDED_MODEL if embedded else Path(model)
    # Never pickled weights, which the fingerprint does not cover either.
    options: dict[str, Any] = {_DTYPE_OPTION: _DTYPES[loading.dtype or "float32"], "use_safetensors": True}
    quantization = _quantization_config(loading)
    try:
        if not embedded:
            check_model_name(model)
        if folder.is_dir():
            recorded = fingerprint(folder)
        else:
            folder = Path(DiffusionPipeline.download(model, revision=revision))
            recorded = folder.name  # a snapshot's folder is named by its commit
        if quantization is not None:
            # Text encoders are on the device only while captions are encoded, and keep their precision.
            options["quantization_config"] = PipelineQuantizationConfig(
                quant_mapping={"unet" if (folder / "unet").is_dir() else "transformer": quantization}
            )
        # bitsandbytes quantizes on the current accelerator.
        with _without_progress_bar(), torch.cuda.device(device if device.startswith("cuda") else -1):
            pipeline = _from_pretrained(pipeline_class, folder, model, options)
    except ModelLoadError:
        raise
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(
            f"`model` must be 'embedded', a folder with a checkpoint, or a Hub id, got {model!r}: "
            f"{why_not_loaded(error)}. Nothing was made yet, and what was downloaded stays in the cache; correct the "
            "name or mend the cause (a damaged file: remove it), and run the same command again"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, recorded


def _from_pretrained(
    pipeline_class: type[PipelineType], folder: Path, model: str, options: dict[str, Any]
) -> PipelineType:
    try:
        return pipeline_class.from_pretrained(folder, **options)
    except (ValueError, AttributeError, ImportError) as error:  # an unknown part, or an unknown class of the whole
        raise ModelLoadError(
            f"`model` must be one that diffusers can load, got {model!r}: {error}; a newer one than "
            f"{diffusers.__version__} may know it"
        ) from error


def offload_weights(pipeline: DiffusionPipeline, offload: Offload, device: str) -> None:
    """
    Let the weights of a pipeline wait in host memory, with diffusers' hooks.

    Args:
        pipeline (`DiffusionPipeline`): Pipeline in host memory.
        offload (`str`): `"model"`: one model on the device at a time. `"group"`: one layer, while the next is copied;
            the autoencoder stays on the device. `"sequential"`: one layer, without overlap.
        device (`str`): Device that it runs on.
    """
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "group":
        place = torch.device(device)
        pipeline.enable_group_offload(
            onload_device=place,
            offload_type="leaf_level",
            use_stream=place.type == "cuda",
            exclude_modules=["vae"],
        )
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)


def denoiser(pipeline: Any) -> Any:
    """Return the network of a pipeline that denoises: its transformer or U-Net."""
    transformer = getattr(pipeline, "transformer", None)
    return pipeline.unet if transformer is None else transformer


def set_kernels(pipeline: Any, loading: LoadSettings) -> None:
    """
    Set attention kernel, tiles of the autoencoder and compilation of a pipeline as the settings say.

    Raises:
        ModelLoadError: One of its models cannot do that.
    """
    transformer, vae = denoiser(pipeline), pipeline.vae
    if loading.attention_backend:
        try:
            transformer.set_attention_backend(loading.attention_backend)
        except (ValueError, RuntimeError) as error:  # an unknown name, or one whose package or device is missing
            raise ModelLoadError(
                f"`attention_backend` must be one that diffusers can use here, got '{loading.attention_backend}': "
                f"{error}"
            ) from error
    if loading.vae_tiling:
        if not hasattr(vae, "enable_tiling"):
            raise ModelLoadError(
                f"`vae_tiling` must be off for {type(vae).__name__}, which cannot decode in tiles; leave it out"
            )
        vae.enable_tiling()
        vae.enable_slicing()  # published autoencoders have tiles as large as an image, so this is what saves memory
    if loading.compile:
        try:
            transformer.compile_repeated_blocks()
        except ValueError as error:
            raise ModelLoadError(f"`compile` must be off for {type(transformer).__name__}: {error}") from error


def _quantization_config(loading: LoadSettings) -> Any:
    """Return diffusers' configuration of the denoiser's quantization, or `None` without one."""
    if loading.quantization == "none":
        return None
    from diffusers import BitsAndBytesConfig, TorchAoConfig

    package = "torchao" if loading.quantization == "float8" else "bitsandbytes"
    try:
        if package == "torchao":
            from torchao.quantization import Float8WeightOnlyConfig

            return TorchAoConfig(Float8WeightOnlyConfig())
        import bitsandbytes  # noqa: F401

        if loading.quantization == "8bit":
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=_DTYPES[loading.dtype or "bfloat16"],
        )
    except ImportError as error:
        raise ImportError(
            f"quantization '{loading.quantization}' needs the package {package} ({error}); run "
            "`pip install artiagent[quantization]`"
        ) from error


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
