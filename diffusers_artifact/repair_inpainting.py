"""How to inpaint with each pipeline class of diffusers: `AutoPipelineForInpainting` knows only some of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import nn


# Qwen-Image has no guidance without a negative prompt, and an empty one has no tokens.
_BLANK = " "


@dataclass(frozen=True)
class InpaintRecipe:
    """
    How one class of diffusers inpaints.

    Attributes:
        inpaints (`str`): Name of the class.
        made_from (`tuple[str, ...]`): Names of text-to-image or editing classes whose components it takes as they are.
        steps (`int`): Steps where the caller names none.
        guidance (`tuple[str, float]`): Name of the argument of the guidance scale, and its value where the caller
            names none.
        options (`Mapping[str, Any]`): Further arguments of each call.
        control (`str`): Name of the argument that takes the picture with the region greyed out; empty for none.
        mask (`str`): Name of the argument that takes the mask.
        takes_image, takes_strength (`bool`): Whether it takes the picture as `image`, and a strength.
    """

    inpaints: str
    made_from: tuple[str, ...] = ()
    steps: int = 28
    guidance: tuple[str, float] = ("guidance_scale", 7.0)
    options: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""
    mask: str = "mask_image"
    takes_image: bool = True
    takes_strength: bool = True


_QWEN: dict[str, Any] = {"steps": 50, "guidance": ("true_cfg_scale", 4.0), "options": {"negative_prompt": _BLANK}}

# Steps and guidance are the classes' own, but for FLUX.1 the checkpoint's 3.5, which the class doubles.
RECIPES = {
    recipe.inpaints: recipe
    for recipe in (
        InpaintRecipe("FluxInpaintPipeline", ("FluxPipeline", "FluxImg2ImgPipeline"), 28, ("guidance_scale", 3.5)),
        InpaintRecipe("FluxFillPipeline", (), 50, ("guidance_scale", 30.0)),
        InpaintRecipe("FluxControlNetInpaintPipeline", (), 28, ("guidance_scale", 3.5), control="control_image"),
        InpaintRecipe(
            "FluxKontextInpaintPipeline",
            ("FluxKontextPipeline",),
            28,
            ("guidance_scale", 3.5),
            options={"_auto_resize": False},
        ),
        InpaintRecipe("Flux2KleinInpaintPipeline", ("Flux2KleinPipeline",), 50, ("guidance_scale", 4.0)),
        InpaintRecipe("StableDiffusion3InpaintPipeline", ("StableDiffusion3Pipeline",), 50),
        InpaintRecipe("StableDiffusionXLInpaintPipeline", ("StableDiffusionXLPipeline",), 50, ("guidance_scale", 7.5)),
        InpaintRecipe("StableDiffusionInpaintPipeline", ("StableDiffusionPipeline",), 50, ("guidance_scale", 7.5)),
        InpaintRecipe("QwenImageInpaintPipeline", ("QwenImagePipeline",), **_QWEN),
        InpaintRecipe("QwenImageEditInpaintPipeline", ("QwenImageEditPipeline",), **_QWEN),
        InpaintRecipe(
            "QwenImageControlNetInpaintPipeline",
            **_QWEN,
            control="control_image",
            mask="control_mask",
            takes_image=False,
            takes_strength=False,
        ),
        InpaintRecipe("ZImageInpaintPipeline", ("ZImagePipeline",), 50, ("guidance_scale", 5.0)),
        InpaintRecipe(
            "ZImageControlNetInpaintPipeline",
            (),
            50,
            ("guidance_scale", 5.0),
            control="control_image",
            takes_strength=False,
        ),
        InpaintRecipe("ChromaInpaintPipeline", ("ChromaPipeline",), 28, ("guidance_scale", 5.0)),
    )
}
"""How to inpaint, by the name of the inpainting class."""

_BY_CLASS = {name: recipe for recipe in RECIPES.values() for name in (recipe.inpaints, *recipe.made_from)}

# Models distilled to few steps draw without guidance, in as many steps.
_FEW_STEPS = 4


def find_recipe(pipeline: Any) -> InpaintRecipe | None:
    """Return how a pipeline inpaints, or `None` for a class without an inpainting class."""
    return _BY_CLASS.get(type(pipeline).__name__)


class StockInpainter:
    r"""
    Inpainter by the inpainting class of diffusers that fits a pipeline.

    Text-to-image weights inpaint by blending: at each step, everything outside the region is replaced by the noisy
    picture. Classes with weights for inpainting or editing see the picture. Models of either kind are called with
    `height` and `width`, since many of them would otherwise return 1024×1024 px whatever they were given.

    Args:
        pipeline (`~diffusers.DiffusionPipeline`): A pipeline of one of the classes of [`RECIPES`], or of a class that
            one is made from, whose components it then shares.
        num_inference_steps (`int`, *optional*): Steps; by default the class's, or 4 if `few_steps`.
        guidance_scale (`float`, *optional*): Guidance scale, or the true one of Qwen-Image; by default the class's,
            or none if `few_steps`.
        few_steps (`bool`, *optional*, defaults to `False`): Whether the model was distilled to few steps, as schnell
            and turbo. They change much at any strength.

    Attributes:
        side, multiple, cell, evaluations: See [`DenoisingInpainter`]; an evaluation is a picture's.

    Raises:
        ValueError: The pipeline's class is not known to inpaint, or there are no steps.
    """

    takes_prompts = True

    def __init__(
        self,
        pipeline: Any,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        few_steps: bool = False,
    ):
        recipe = find_recipe(pipeline)
        if recipe is None:
            raise ValueError(
                f"`pipeline` must be of a class that inpaints, one of {', '.join(_BY_CLASS)}, got "
                f"{type(pipeline).__name__}"
            )
        self.recipe, self.pipeline = recipe, as_inpainting(pipeline, recipe)
        default = _FEW_STEPS if few_steps else recipe.steps
        self.num_inference_steps = default if num_inference_steps is None else num_inference_steps
        if self.num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` must be at least 1, got {num_inference_steps}")
        self.guidance_scale = (1.0 if few_steps else recipe.guidance[1]) if guidance_scale is None else guidance_scale
        self.cell = int(getattr(self.pipeline, "vae_scale_factor", 8)) * (2 if self._unet is None else 1)
        self.multiple = max(16, self.cell)
        self.side = self._native_side()
        self.evaluations = 0.0

    def __call__(
        self, image: Image.Image, mask: np.ndarray, prompt: str, strength: float, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Repair a region; see [`Inpainter`]. What a safety checker withholds is the picture as it was."""
        recipe, width, height = self.recipe, image.width, image.height
        shape = Image.fromarray(mask.astype(np.uint8) * 255)
        options: dict[str, Any] = {
            "prompt": prompt,
            "height": height,
            "width": width,
            "num_inference_steps": self.num_inference_steps,
            recipe.guidance[0]: self.guidance_scale,
            recipe.mask: shape,
            **recipe.options,
        }
        if recipe.takes_image:
            options["image"] = image
        if recipe.takes_strength and "strength" in inspect.signature(self.pipeline.__call__).parameters:
            # At least one step must be run, also where the product is rounded down.
            options["strength"] = min(1.0, max(strength, (1 + 1e-6) / self.num_inference_steps))
        if recipe.control:
            options[recipe.control] = Image.composite(Image.new("RGB", image.size, (128, 128, 128)), image, shape)
        if "max_area" in inspect.signature(self.pipeline.__call__).parameters:
            options["max_area"] = width * height
        pictures = []
        with _counting(self):
            for seed in seeds:
                output = self.pipeline(**options, generator=torch.Generator().manual_seed(seed))
                withheld = bool((getattr(output, "nsfw_content_detected", None) or [False])[0])
                pictures.append(image if withheld else output.images[0].convert("RGB"))
        wrong = {picture.size for picture in pictures} - {image.size}
        if wrong:
            raise RuntimeError(f"{recipe.inpaints} returned {wrong.pop()} px for a picture of {image.size} px")
        return pictures

    def identity(self) -> dict[str, Any]:
        """Return what its repairs depend on besides the model, JSON-serialisable."""
        return {
            "inpainter": self.recipe.inpaints,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
        }

    @property
    def _unet(self) -> Any:
        return self.pipeline.components.get("unet")

    @property
    def denoiser(self) -> nn.Module:
        """The network that is evaluated: U-Net or transformer."""
        network: nn.Module = self.pipeline.transformer if self._unet is None else self._unet
        return network

    def _native_side(self) -> int:
        if self._unet is not None:
            return int(self._unet.config.sample_size * self.pipeline.vae_scale_factor)
        return int(self.pipeline.vae.config.get("sample_size") or 1024)


class _counting:
    """Count the pictures that go through an inpainter's network within a `with` block."""

    def __init__(self, inpainter: StockInpainter):
        self.inpainter = inpainter

    def __enter__(self) -> None:
        def count(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first = (
                args[0] if args else next(kwargs[name] for name in ("hidden_states", "sample", "x") if name in kwargs)
            )
            self.inpainter.evaluations += len(first)

        self.handle = self.inpainter.denoiser.register_forward_pre_hook(count, with_kwargs=True)

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


def as_inpainting(pipeline: Any, recipe: InpaintRecipe) -> Any:
    """
    Return a pipeline in its inpainting class, which shares its components.

    Args:
        pipeline (`~diffusers.DiffusionPipeline`): The pipeline.
        recipe (`InpaintRecipe`): Its recipe; see [`find_recipe`].

    Raises:
        ValueError: This version of diffusers has no such class.
    """
    kind = getattr(diffusers, recipe.inpaints, None)
    if kind is None:
        raise ValueError(f"diffusers {diffusers.__version__} must have {recipe.inpaints}, and has not; upgrade it")
    if not isinstance(pipeline, kind):
        taken = inspect.signature(kind.__init__).parameters
        given = {name: part for name, part in pipeline.components.items() if name in taken}
        given |= {name: value for name, value in pipeline.config.items() if name in taken and name not in given}
        given = {name: value for name, value in given.items() if not isinstance(value, (list, tuple))}
        pipeline = kind(**given)
        pipeline.set_progress_bar_config(disable=True)
    if recipe.inpaints == "ChromaInpaintPipeline" and not hasattr(pipeline.transformer.config, "guidance_embeds"):
        # diffusers 0.42.1 asks Chroma for a setting of FLUX.1, which it lacks.
        pipeline.transformer.register_to_config(guidance_embeds=False)
    return pipeline
