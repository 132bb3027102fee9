"""Parts of a vision-language model that a recipe may freeze: vision tower, projector and language model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from datasets_script.utils.errors import UserError


PARTS = ("vision", "projector", "language")

# Parts by prefix of the module name. The longest matching prefix counts, because Qwen's projector, the merger, is
# inside its vision tower.
_QWEN2 = {"model.visual": "vision", "model.visual.merger": "projector", "model.language_model": "language"}
_LLAVA = {
    "model.vision_tower": "vision",
    "model.multi_modal_projector": "projector",
    "model.language_model": "language",
}
_IDEFICS = {"model.vision_model": "vision", "model.connector": "projector", "model.text_model": "language"}
_FAMILIES: Mapping[str, Mapping[str, str]] = {
    "qwen2_vl": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen3_vl": _QWEN2 | {"model.visual.deepstack_merger_list": "projector"},
    "internvl": _LLAVA,
    "llava": _LLAVA,
    "fast_vlm": _LLAVA,
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
}


def part_of(name: str, model_type: str) -> str:
    """
    Return the part that a parameter or module belongs to.

    Args:
        name (`str`): Dotted name as in `named_parameters`.
        model_type (`str`): Name of the architecture in transformers, e.g. `"qwen3_vl"`.

    Returns:
        `str`: One of `PARTS`.

    Raises:
        UserError: The parts of the architecture are not known.
    """
    if model_type not in _FAMILIES:
        raise UserError(
            f"--freeze must be unset except for {', '.join(_FAMILIES)}, got a model of '{model_type}'; leave it out"
        )
    prefixes = _FAMILIES[model_type]
    fitting = [prefix for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
    # Only the output head has no prefix; it belongs to the language model.
    return prefixes[max(fitting, key=len)] if fitting else "language"


def freeze(model: Any, parts: Sequence[str]) -> None:
    """
    Turn off the gradients of parts of a model, in place. A frozen vision tower also stays in evaluation mode, because
    batch normalisation would still update its running means, which are not parameters.

    Raises:
        UserError: Nothing is left to train, or the parts of the architecture are not known.
    """
    if not parts:
        return
    for name, parameter in model.named_parameters():
        if part_of(name, model.config.model_type) in parts:
            parameter.requires_grad_(False)
    tower = getattr(model.model, "vision_tower", None)
    if "vision" in parts and tower is not None:
        tower.register_forward_pre_hook(_evaluate)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"--freeze must leave a part to train, got {', '.join(parts)}; leave one out")


def _evaluate(module: nn.Module, inputs: Any) -> None:
    # The trainer puts the whole model in training mode before each step.
    module.eval()


def exclude_from_lora(peft_config: Any, parts: Sequence[str], model_type: str) -> None:
    """Exclude parts of a model from LoRA, whatever its target modules are; `peft_config` is changed in place."""
    if not parts:
        return
    part_of("", model_type)
    prefixes = _FAMILIES[model_type]
    patterns = [_inside(prefix, prefixes, parts) for prefix, part in prefixes.items() if part in parts]
    peft_config.exclude_modules = "|".join(patterns)


def _inside(prefix: str, prefixes: Mapping[str, str], parts: Sequence[str]) -> str:
    """Return a pattern for the modules that begin with `prefix`, except those of parts that are not in `parts`."""
    others = [re.escape(p) for p, part in prefixes.items() if p.startswith(f"{prefix}.") and part not in parts]
    return (rf"(?!(?:{'|'.join(others)})\b)" if others else "") + rf"{re.escape(prefix)}\..*"
