"""Processors as the recipes use them: with pixel bounds, without cropping, with chat templates that mark answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPImageProcessor, LlavaImageProcessor
from trl.chat_template_utils import get_training_chat_template

from datasets_script.utils.errors import UserError
from datasets_script.vlm.conventions import BoxFormat, pixel_bounds


CHAT_TEMPLATES = Path(__file__).parents[1] / "chat_templates"


def prepare_processor(
    processor: Any, convention: str, min_pixels: int | None = None, max_pixels: int | None = None
) -> BoxFormat:
    """
    Set the size of the images that a processor gives to its model, in place; `save_pretrained` saves it. LLaVA-1.5's
    CLIP processor, which would crop images to a square, is replaced by one that pads them, as the LLaVA authors train
    and as LLaVA's boxes are defined.

    Args:
        processor (`ProcessorMixin`): Processor of the model.
        convention (`str`): Name of a box convention.
        min_pixels, max_pixels (`int`, *optional*): Minimum and maximum number of pixels of an image. Defaults to the
            processor's own. For InternVL they become numbers of tiles, rounded down.

    Returns:
        `BoxFormat`: Format to write answers with, so that their boxes match the images that the model sees.

    Raises:
        UserError: The processor has no such bounds, or LLaVA's convention is used with another family's processor.
    """
    if convention == "llava":
        _pad_to_square(processor)
    bounds = [value for value in (min_pixels, max_pixels) if value is not None]
    if any(value < 1 for value in bounds) or bounds != sorted(bounds):
        raise UserError(f"--min_pixels must be at least 1 and at most --max_pixels, got {min_pixels} and {max_pixels}")
    if bounds:
        _bound(processor, min_pixels, max_pixels)
    return BoxFormat(convention, *pixel_bounds(processor.image_processor))


def set_chat_template(processor: Any, model_type: str) -> None:
    """
    Set a chat template that marks answers for the loss, in place. For InternVL and LLaVA, a template of this package
    replaces the processor's and is saved with the model. For Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Idefics3 and SmolVLM,
    TRL's trainer has a marked version of the model's own template, which stays unchanged.

    Args:
        processor (`ProcessorMixin`): Processor of the model.
        model_type (`str`): Name of the architecture in transformers, e.g. `"internvl"`.

    Raises:
        UserError: Neither this package nor TRL has a template for the architecture.
    """
    ours = CHAT_TEMPLATES / f"{model_type}.jinja"
    if ours.exists():
        processor.chat_template = ours.read_text(encoding="utf-8")
        # Our templates write the BOS token themselves, so the tokenizer must not add another.
        processor.tokenizer.add_bos_token = False
        return
    try:
        get_training_chat_template(processor)
    except ValueError:
        raise UserError(
            f"--chat_template_path must be set for '{model_type}', whose template marks no answers, got "
            "none; give one with {% generation %} around answers"
        ) from None


def find_chat_template(path: str) -> Path:
    """
    Return the file of a chat template: the given file, or the one of the same name in this package.

    Args:
        path (`str`): Path of a file. Recipes give the path within a checkout, which `trl sft` finds too.

    Raises:
        UserError: There is neither.
    """
    given, ours = Path(path), CHAT_TEMPLATES / Path(path).name
    if not given.is_file() and not ours.is_file():
        known = ", ".join(sorted(template.name for template in CHAT_TEMPLATES.glob("*.jinja")))
        raise UserError(f"--chat_template_path must be a file, got '{path}'; give one or one of {known}")
    return given if given.is_file() else ours


def _pad_to_square(processor: Any) -> None:
    old = processor.image_processor
    if not isinstance(old, CLIPImageProcessor | LlavaImageProcessor):
        raise UserError(
            f"--coordinates must be 'llava' only for models with LLaVA-1.5's processor, got {type(old).__name__}; "
            "choose --coordinates normalized"
        )
    side = old.crop_size["height"]
    processor.image_processor = LlavaImageProcessor(
        do_pad=True,
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        resample=old.resample,
        image_mean=old.image_mean,
        image_std=old.image_std,
    )


def _bound(processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
    image_processor = processor.image_processor
    if hasattr(image_processor, "merge_size"):
        least, most = pixel_bounds(image_processor)
        image_processor.size = {"shortest_edge": min_pixels or least, "longest_edge": max_pixels or most}
    elif hasattr(image_processor, "max_patches"):
        tile = image_processor.size["height"] * image_processor.size["width"]
        image_processor.min_patches = max(1, (min_pixels or 0) // tile)
        image_processor.max_patches = max(1, (max_pixels or tile * image_processor.max_patches) // tile)
    else:
        raise UserError(
            "--min_pixels and --max_pixels must be unset except for Qwen2-VL, Qwen2.5-VL, Qwen3-VL and InternVL, got "
            f"{type(image_processor).__name__}; leave them out"
        )
