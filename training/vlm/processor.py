"""Processors as the recipes use them: pixel bounds set, images never cropped, chat templates that mark the answers."""

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
    Sets how large a processor hands images to its model, in place; `save_pretrained` keeps it. What LLaVA-1.5's
    processor would cut off, its CLIP processor having been made for square images, is kept: images are padded to a
    square, as the LLaVA authors train and as its boxes are counted.

    Args:
        processor (`ProcessorMixin`): Of the model.
        convention (`str`): How boxes are written.
        min_pixels, max_pixels (`int`, *optional*): Least and most pixels of an image; by default what the processor
            came with. InternVL has as many of its tiles as fit into them.

    Returns:
        `BoxFormat`: What the answers have to be written with, so that their boxes are those of the images the model
            sees.

    Raises:
        UserError: the processor has no such bounds, or would crop images whose boxes are counted in padded ones.
    """
    if convention == "llava":
        _pad_to_square(processor)
    bounds = [value for value in (min_pixels, max_pixels) if value is not None]
    if any(value < 1 for value in bounds) or bounds != sorted(bounds):
        raise UserError(f"--min_pixels must be at least 1 and at most --max_pixels, got {min_pixels}, {max_pixels}")
    if bounds:
        _bound(processor, min_pixels, max_pixels)
    return BoxFormat(convention, *pixel_bounds(processor.image_processor))


def set_chat_template(processor: Any, model_type: str) -> None:
    """
    Sees to a chat template that marks answers, for the loss. Where there is one of ours for the architecture it
    replaces the processor's own and is saved with the model; for those that TRL knows (Qwen2-VL, Qwen2.5-VL, Qwen3-VL,
    Idefics3, SmolVLM) its trainer takes a marked twin, and the model keeps its own.

    Args:
        processor (`ProcessorMixin`): Of the model.
        model_type (`str`): Architecture by transformers' name.

    Raises:
        UserError: neither has one.
    """
    ours = CHAT_TEMPLATES / f"{model_type}.jinja"
    if ours.exists():
        processor.chat_template = ours.read_text(encoding="utf-8")
        # Ours write the first token themselves where there is one: whoever tokenizes them must not add another.
        processor.tokenizer.add_bos_token = False
        return
    try:
        get_training_chat_template(processor)
    except ValueError:
        raise UserError(
            f"no chat template with marked answers is known for the model's own ('{model_type}'); give one with "
            "{% generation %} around answers as --chat_template_path"
        ) from None


def find_chat_template(path: str) -> Path:
    """
    Return a chat template's file: as given, or else the one of that name beside this package's recipes.

    Args:
        path (`str`): Of a file. Recipes give theirs as it is in a checkout, where `trl sft` finds it too.

    Raises:
        UserError: there is neither.
    """
    given, ours = Path(path), CHAT_TEMPLATES / Path(path).name
    if not given.is_file() and not ours.is_file():
        known = ", ".join(sorted(template.name for template in CHAT_TEMPLATES.glob("*.jinja")))
        raise UserError(f"--chat_template_path must be a file, got '{path}'; there are also {known}")
    return given if given.is_file() else ours


def _pad_to_square(processor: Any) -> None:
    old = processor.image_processor
    if not isinstance(old, CLIPImageProcessor | LlavaImageProcessor):
        raise UserError(
            f"--coordinates llava needs the processor of LLaVA-1.5, got {type(old).__name__}: choose --coordinates "
            "normalized"
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
            "--min_pixels and --max_pixels are for Qwen2.5-VL, Qwen3-VL and InternVL; "
            f"{type(image_processor).__name__} has no bounds to set"
        )
