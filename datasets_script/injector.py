"""Loads a model and makes the clean half and the flawed variants of one photograph, whatever the model is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionOutput, ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.confinement import Confinement
from diffusers_artifact.injection import ValueSource


EMBEDDED = "embedded"
"""Name of the default model, the one shipped inside the package."""


@dataclass(frozen=True)
class InjectionPreset:
    """
    How strongly a model is steered; see [`ArtifactInjectionPipeline.__call__`].

    Attributes:
        num_inference_steps (`int`): Steps of inversion, and of denoising.
        transfer_noise (`bool`): Start targets from the inverted noise of their reference.
        position_share (`float`, *optional*): Share of the steps with position injection; by default the
            paper's, by type.
        value_share (`float`, *optional*): Share of the steps with value injection; by default the paper's.
        value_in_all_blocks (`bool`): Inject values in every block, not only in the last third.
        hold_background (`bool`): Give what is no target the reconstruction's queries too, where values come from it.
    """

    num_inference_steps: int = 25
    transfer_noise: bool = False
    position_share: float | None = None
    value_share: float | None = None
    value_in_all_blocks: bool = False
    hold_background: bool = False


# The embedded model is small: with the paper's settings its copies are smears, and a flaw tints what resembles it
# elsewhere. Chosen by eye and by the change outside the target, steps by `tests/benchmarks/injection.py`; the tables
# are in the model's card and in the benchmarks' README.
PRESETS = {
    "paper": InjectionPreset(),
    "transfer_noise": InjectionPreset(transfer_noise=True),
    "embedded": InjectionPreset(
        num_inference_steps=8,
        transfer_noise=True,
        position_share=0.5,
        value_share=1.0,
        value_in_all_blocks=True,
        hold_background=True,
    ),
}


@dataclass(frozen=True)
class InjectionSettings:
    """
    How flaws are injected; see [`ArtifactInjectionPipeline.__call__`]. `preset="auto"` is `"embedded"` for the
    embedded model and `"paper"` for all others; without `num_inference_steps` the preset's are taken.
    """

    num_inference_steps: int | None = None
    solver: str = "fireflow"
    value_source: ValueSource = "reconstruction"
    confine: Confinement = "none"
    allow_distilled: bool = False
    preset: str = "auto"


class ModelLoadError(OSError):
    """The model named by the user could not be loaded."""


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
        self.pipeline = pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.settings = settings
        default = EMBEDDED if embedded else "paper"
        self.preset = PRESETS[default if settings.preset == "auto" else settings.preset]
        self.num_inference_steps = settings.num_inference_steps or self.preset.num_inference_steps
        self.sample_size: int | None = self.pipeline.vae.config.sample_size if embedded else None
        """Side of the square the model was trained on, in pixels, if it takes no other size."""

    def inject(self, image: Image.Image, mappings: Sequence[PatchMapping], caption: str) -> ArtifactInjectionOutput:
        """Runs the pipeline for all variants of one image; the caption is dropped for models without text encoders."""
        steps, preset = self.num_inference_steps, self.preset
        return self.pipeline(
            image,
            list(mappings),
            prompt=caption if self.pipeline.text_encoder is not None else "",
            num_inference_steps=steps,
            solver=self.settings.solver,
            value_source=self.settings.value_source,
            position_steps=None if preset.position_share is None else round(preset.position_share * steps),
            value_steps=None if preset.value_share is None else round(preset.value_share * steps),
            value_blocks=range(self.pipeline.family.num_blocks) if preset.value_in_all_blocks else None,
            transfer_noise=preset.transfer_noise,
            hold_background=preset.hold_background and self.settings.value_source == "reconstruction",
            confine=self.settings.confine,
            allow_distilled=self.settings.allow_distilled,
        )


def fingerprint(folder: Path) -> str:
    """Revision of a local model: a hash of its configurations and of the names and sizes of its weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors"):
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"
