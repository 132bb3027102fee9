"""
The LoRA that is trained: added to a denoiser, left out for a reference, and saved so that the stock pipeline loads it.

Its weights are float32 on a base of any precision. A file without its alpha would be read as if alpha were the rank,
and give other images; it is saved with it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from datasets_script.utils.errors import ArgumentError, check_at_least
from datasets_script.utils.seeds import derive_seed
from training.denoiser.rollout import Denoiser


LORA_FILE = "pytorch_lora_weights.safetensors"
"""Name under which diffusers saves and looks for a LoRA."""

# Under this name, diffusers' helpers look for the metadata.
TRAINED, BASE = "default", "base"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class LoraSettings:
    """
    Form of a LoRA.

    Args:
        rank (`int`, *optional*, defaults to 16): Rank (DiffDoctor §4.1).
        alpha (`int`, *optional*): Its effect is scaled by alpha / rank. Defaults to `rank`.
        target_modules (`Sequence[str]`, *optional*): Endings of the names of the layers that get one; by default the
            projections of all attentions.

    Raises:
        ArgumentError: A value is out of range.
    """

    rank: int = 16
    alpha: int | None = None
    target_modules: Sequence[str] = ATTENTION

    def __post_init__(self) -> None:
        check_at_least("rank", self.rank)
        check_at_least("alpha", self.alpha)


def add_lora(denoiser: Denoiser, settings: LoraSettings, seed: int) -> dict[str, torch.nn.Parameter]:
    """
    Add a LoRA to the model, which it does not change yet, and return its weights.

    Args:
        denoiser (`Denoiser`): Whose other weights take no gradients.
        settings (`LoraSettings`): Form of the LoRA.
        seed (`int`): Seed of its weights.

    Returns:
        `dict[str, torch.nn.Parameter]`: The trainable weights by name, float32.

    Raises:
        ArgumentError: The model has no layers of these names.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or settings.rank,
        init_lora_weights="gaussian",
        target_modules=list(settings.target_modules),
    )
    model = denoiser.model
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "lora"))
        try:
            model.add_adapter(config, TRAINED)
        except ValueError as error:
            raise ArgumentError(
                f"`target_modules` must name layers of the {denoiser.component}, got "
                f"{', '.join(settings.target_modules)}: {error}"
            ) from error
    if BASE in model.peft_config:
        model.set_adapters([BASE, TRAINED])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{TRAINED}." in name)
    cast_training_params(model)
    return trained_parameters(denoiser)


def load_base_lora(denoiser: Denoiser, source: str) -> str:
    """
    Load a LoRA, such as one of DreamBooth, that stays as it is beneath the one that is trained. Call it first.

    Args:
        denoiser (`Denoiser`): The denoiser.
        source (`str`): Folder, or id on the Hub, of a LoRA that the stock pipeline loads.

    Returns:
        `str`: Hash of what it adds to the model and its text encoders.

    Raises:
        ArgumentError: It cannot be loaded.
    """
    try:
        denoiser.pipeline.load_lora_weights(source, adapter_name=BASE)
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentError(
            f"`base_lora` must be a LoRA for {type(denoiser.pipeline).__name__}, got '{source}': {error}"
        ) from error
    if BASE not in getattr(denoiser.model, "peft_config", {}):
        raise ArgumentError(f"`base_lora` must have weights for the {denoiser.component}, got '{source}' without")
    digest = hashlib.sha256()
    for name, part in denoiser.pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
            _update_with_base_lora(digest, name, part)
    return f"sha256:{digest.hexdigest()[:16]}"


def trained_parameters(denoiser: Denoiser) -> dict[str, torch.nn.Parameter]:
    """Return the weights of the LoRA that is trained, by name."""
    return {name: one for name, one in denoiser.model.named_parameters() if f".{TRAINED}." in name}


@contextmanager
def without_lora(denoiser: Denoiser) -> Iterator[None]:
    """
    Leave the trained LoRA out in a `with` block: the model is what it was before training, for the KL divergence from
    it. A LoRA of [`load_base_lora`] stays.
    """
    model = denoiser.model
    has_base = BASE in model.peft_config
    if has_base:
        model.set_adapters([BASE])
    else:
        model.disable_adapters()
    try:
        yield
    finally:
        if has_base:
            model.set_adapters([BASE, TRAINED])
        else:
            model.enable_adapters()
        for name, parameter in model.named_parameters():  # peft freezes what it switches off
            parameter.requires_grad_(f".{TRAINED}." in name)


def save_lora(denoiser: Denoiser, folder: Path) -> None:
    """
    Write the trained LoRA with its alpha, so that `pipe.load_lora_weights(folder)` of the stock pipeline gives the
    images of training.

    Args:
        denoiser (`Denoiser`): With a LoRA of [`add_lora`].
        folder (`Path`): Where [`LORA_FILE`] is written; created if it is missing.
    """
    model, name = denoiser.model, denoiser.component
    layers = get_peft_model_state_dict(model, adapter_name=TRAINED)
    contiguous = {key: value.detach().cpu().contiguous() for key, value in layers.items()}
    options: dict[str, Any] = {
        f"{name}_lora_layers": contiguous,
        f"{name}_lora_adapter_metadata": model.peft_config[TRAINED].to_dict(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".lora.") as temporary:
        type(denoiser.pipeline).save_lora_weights(temporary, **options)
        os.replace(Path(temporary) / LORA_FILE, folder / LORA_FILE)


def _update_with_base_lora(digest: hashlib._Hash, component: str, part: torch.nn.Module) -> None:
    """Hash the weights of a LoRA of [`load_base_lora`] and how strong they are. Ids on the Hub say neither."""
    config = getattr(part, "peft_config", {}).get(BASE)
    if config is None:
        return
    strength = config.r, config.lora_alpha, config.rank_pattern, config.alpha_pattern
    digest.update(json.dumps([component, *strength], sort_keys=True).encode())
    for name, weight in sorted(part.named_parameters(), key=itemgetter(0)):
        if f".{BASE}." in name:
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
            # numpy knows no bfloat16.
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
