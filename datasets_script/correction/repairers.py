"""Loading of repairers: the embedded model, diffusion models by folder or Hub id, and editing endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_artifact import ArtifactInjectionPipeline
from diffusers_artifact.family import FEW_STEP_NAMES
from diffusers_artifact.presets import EMBEDDED
from diffusers_artifact.repair import Inpainter, RegionRepairer, Repair
from diffusers_artifact.repair_denoising import DenoisingInpainter
from diffusers_artifact.repair_inpainting import StockInpainter, find_recipe

from ..engine.loading import ModelLoadError, check_loading, load_checkpoint, offload_weights, resolved, set_kernels
from ..engine.settings import LoadSettings, Offload
from ..utils.errors import ArgumentError
from ..utils.hub_ids import last_name


RepairMethod = Literal["auto", "inpaint", "denoise"]
REPAIR_METHODS: tuple[RepairMethod, ...] = get_args(RepairMethod)

# First and last strength. A region that is covered from its surroundings is only joined to them; of one that is drawn
# from a prompt, nothing is to be left in the end. Gentle repairs close small flaws (.35 to .6 on Stable Diffusion).
_COVERING, _DRAWING = (0.2, 0.4), (0.6, 1.0)


class Repairer(Protocol):
    """
    What repairs a region of an image; pixels outside the mask that it returns are the image's.

    Attributes:
        strengths (`tuple[float, float]`): Strength of the first and of the last round.
        takes_prompts (`bool`): Whether it can be told what to draw.
        evaluations (`float`): Pictures that went through its network so far; 0 for endpoints.
    """

    @property
    def strengths(self) -> tuple[float, float]: ...

    @property
    def takes_prompts(self) -> bool: ...

    @property
    def evaluations(self) -> float: ...

    def __call__(
        self, image: Image.Image, mask: np.ndarray, prompt: str, strength: float, seeds: Sequence[int], margin: int
    ) -> Repair:
        """Repair a region; see [`~diffusers_artifact.repair.RegionRepairer`]."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that repairs depend on, JSON-serialisable."""
        ...


class ModelRepairer:
    """
    Repairer by an inpainter.

    Args:
        inpainter (`Inpainter`): The inpainter.
        model (`str`, *optional*): What the repairs are recorded under.
        revision (`str`, *optional*): The same.
        crops (`bool`, *optional*, defaults to `True`): See [`~diffusers_artifact.RegionRepairer`].
    """

    def __init__(self, inpainter: Inpainter, model: str = "", revision: str = "", crops: bool = True) -> None:
        self.inpainter, self.model, self.revision = inpainter, model, revision
        self._repair = RegionRepairer(inpainter, crops)

    @property
    def strengths(self) -> tuple[float, float]:
        return _COVERING if getattr(self.inpainter, "source", "") == "surroundings" else _DRAWING

    @property
    def takes_prompts(self) -> bool:
        return self.inpainter.takes_prompts

    @property
    def evaluations(self) -> float:
        return self.inpainter.evaluations

    def __call__(
        self, image: Image.Image, mask: np.ndarray, prompt: str, strength: float, seeds: Sequence[int], margin: int
    ) -> Repair:
        """Repair a region; see [`Repairer`]."""
        return self._repair(image, mask, prompt, strength, seeds, margin)

    def identity(self) -> dict[str, Any]:
        """Return everything that repairs depend on."""
        named = {"model": last_name(self.model), "revision": self.revision, "crops": self._repair.crops}
        return {**named, **self.inpainter.identity()}


def check_method(model: str, method: str) -> None:
    """
    Refuse a method that is unknown or that the embedded model does not have.

    Args:
        model, method (`str`): See [`load_repairer`].

    Raises:
        ArgumentError: As above.
    """
    if method not in REPAIR_METHODS:
        raise ArgumentError(f"`repair_method` must be among {', '.join(REPAIR_METHODS)}, got '{method}'")
    if model == EMBEDDED and method == "inpaint":
        raise ArgumentError(
            "`repair_method` must be denoise for the embedded model, which has no prompts, got inpaint"
        )


def load_repairer(
    model: str = EMBEDDED,
    *,
    revision: str | None = None,
    method: RepairMethod = "auto",
    num_inference_steps: int | None = None,
    guidance: float | None = None,
    crops: bool = True,
    loading: LoadSettings | None = None,
    device: str = "cpu",
    offload: Offload = "none",
) -> ModelRepairer:
    """
    Load a repairer.

    Args:
        model (`str`, *optional*, defaults to `"embedded"`): Folder, or id on the Hub, of a diffusion model; or the
            embedded model, of 256×256 px.
        revision (`str`, *optional*): Branch, tag or commit of a repository.
        method (`str`, *optional*, defaults to `"auto"`): `"inpaint"`: by diffusers' inpainting class, see
            [`~diffusers_artifact.repair_inpainting.RECIPES`]. `"denoise"`: by re-denoising, see
            [`~diffusers_artifact.DenoisingInpainter`]. `"auto"`: inpaint where there is such a class.
        num_inference_steps (`int`, *optional*): Steps; by default the inpainter's.
        guidance (`float`, *optional*): Guidance scale; by default the inpainter's.
        crops (`bool`, *optional*, defaults to `True`): See [`~diffusers_artifact.RegionRepairer`].
        loading (`LoadSettings`, *optional*): How the model is loaded.
        device (`str`, *optional*, defaults to `"cpu"`): Device.
        offload (`str`, *optional*, defaults to `"none"`): Where its weights wait.

    Raises:
        ModelLoadError: The model does not exist, cannot be downloaded, or can do neither.
        ArgumentError: Settings do not go together.
    """
    check_method(model, method)
    loading = resolved(loading or LoadSettings(), model, device)
    check_loading(loading, offload, device)
    own = model == EMBEDDED or method == "denoise"
    kind = ArtifactInjectionPipeline if own else DiffusionPipeline
    pipeline, recorded = load_checkpoint(kind, model, revision, loading, device)
    if not own and find_recipe(pipeline) is None:
        if method == "inpaint":
            raise ModelLoadError(
                f"`repairer` must be a model that diffusers can inpaint with, got '{model}', a "
                f"{type(pipeline).__name__}; use the method denoise"
            )
        own = True
        pipeline, recorded = load_checkpoint(ArtifactInjectionPipeline, model, revision, loading, device)
    few_steps = FEW_STEP_NAMES.search(last_name(model)) is not None or pipeline.config.get("is_distilled") is True
    inpainter: StockInpainter | DenoisingInpainter
    try:
        if own:
            inpainter = DenoisingInpainter(
                pipeline, num_inference_steps=num_inference_steps, guidance_scale=guidance, allow_distilled=few_steps
            )
        else:
            inpainter = StockInpainter(pipeline, num_inference_steps, guidance, few_steps)
    except ValueError as error:
        raise ModelLoadError(f"`repairer` must be a model that can repair, got '{model}': {error}") from error
    set_kernels(inpainter.pipeline, loading)
    if offload == "none":
        inpainter.pipeline.to(device)
    else:
        offload_weights(inpainter.pipeline, offload, device)
    return ModelRepairer(inpainter, model, recorded, crops)
