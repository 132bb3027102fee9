"""
The networks of pixel detectors: UperNet and SegFormer of transformers.

UperNet has two classes, "clean" and "artifact", and is trained by cross-entropy (Menn et al.). SegFormer has one
channel, "artifact", and is trained by a loss on its sigmoid (DiffDoctor). [`artifact_logits`] makes the two alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerForSemanticSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from ...utils.errors import ArgumentError, check_at_least
from .trunks import find_trunk


ARTIFACT = "artifact"
CLEAN = "clean"

# Names that transformers gives classes without names; of two, the second is the positive one.
_UNNAMED = {0: "LABEL_0", 1: "LABEL_1"}
_FAMILIES = ("upernet", "segformer")


def build_model(
    trunk: str, *, hidden_size: int | None = None, changes: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """
    Build a network with random weights, offline. Its size follows from the trunk and from `hidden_size`.

    Args:
        trunk (`str`): One of [`~datasets_script.detection.pixel.trunks.TRUNKS`].
        hidden_size (`int`, *optional*): Channels of the head; by default the trunk's.
        changes (`Mapping[str, Any]`, *optional*): Values of the trunk's configuration to change, such as the depths of
            a smaller one.

    Returns:
        `PreTrainedModel`: `UperNetForSemanticSegmentation` with two classes, or `SegformerForSemanticSegmentation`
        with one channel, in float32 and in evaluation mode.

    Raises:
        ArgumentError: There is no such trunk, or `hidden_size` is below 1.
    """
    entry = find_trunk(trunk)
    check_at_least("hidden_size", hidden_size)
    hidden_size = hidden_size or entry.hidden_size
    if entry.head == "segformer":
        names = {"id2label": {0: ARTIFACT}, "label2id": {ARTIFACT: 0}}
        config = entry.config({**(changes or {}), "decoder_hidden_size": hidden_size, **names})
        return SegformerForSemanticSegmentation(config).eval()
    backbone = entry.config(changes or {})
    config = UperNetConfig(
        backbone_config=backbone,
        hidden_size=hidden_size,
        use_auxiliary_head=False,
        id2label={0: CLEAN, 1: ARTIFACT},
        label2id={CLEAN: 0, ARTIFACT: 1},
    )
    return UperNetForSemanticSegmentation(config).eval()


def load_model(
    model: str, *, revision: str | None = None, dtype: torch.dtype = torch.float32, new_classes: bool = False
) -> PreTrainedModel:
    """
    Load a network that was saved with `save_pretrained`.

    Args:
        model (`str`): A folder, or the id of a repository on the Hub, with safetensors.
        revision (`str`, *optional*): Branch, tag or commit of a repository.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Precision of the weights.
        new_classes (`bool`, *optional*, defaults to `False`): Whether to replace the classes, which is how training
            starts from a network for other classes, e.g. those of ADE20K: the last layer of the head is random then.

    Returns:
        `PreTrainedModel`: In evaluation mode.

    Raises:
        ArgumentError: It is no UperNet or SegFormer, its classes are others (see [`artifact_index`]), or weights are
            missing.
        OSError: It does not exist, cannot be reached, or has no safetensors.
    """
    options: dict[str, Any] = {"revision": revision, "dtype": dtype, "use_safetensors": True}
    if new_classes:
        # UperNet refuses to train one class; SegFormer's loss for one class is that of a map.
        family = _check_family(model, PreTrainedConfig.get_config_dict(model, revision=revision)[0]["model_type"])
        names = [ARTIFACT] if family == "segformer" else [CLEAN, ARTIFACT]
        options |= {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "ignore_mismatched_sizes": True,
        }
    network, loaded = AutoModelForSemanticSegmentation.from_pretrained(model, output_loading_info=True, **options)
    _check_family(model, network.config.model_type)
    replaced = {name for name, *_ in loaded["mismatched_keys"]} if new_classes else set()
    # transformers would only warn, and go on with random weights.
    if missing := sorted(set(loaded["missing_keys"]) - replaced):
        raise ArgumentError(f"`model` must hold all weights, got '{model}' without {', '.join(missing[:5])}")
    artifact_index(network)
    return network.eval()


def artifact_index(model: PreTrainedModel) -> int:
    """
    Return the index of the class "artifact". Of two classes without names it is the second.

    Raises:
        ArgumentError: The network has neither one channel nor two classes of which one is "artifact".
    """
    names: dict[int, str] = model.config.id2label
    if len(names) == 1:
        return 0
    found = [index for index, name in names.items() if name == ARTIFACT]
    if len(names) == 2 and (found or names == _UNNAMED):
        return found[0] if found else 1
    raise ArgumentError(
        f"`model` must have one channel, or two classes of which one is named {ARTIFACT!r}, got the classes "
        f"{', '.join(list(names.values())[:5])}{', ...' if len(names) > 5 else ''}; train it for artifacts first"
    )


def artifact_logits(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """
    Compute for every pixel of the input the logit of being part of an artifact. The sigmoid of it is the probability:
    of two classes it is the softmax, since the difference of their logits is returned. Logits are enlarged to the size
    of the input before any sigmoid is applied, for both heads.

    Args:
        model (`PreTrainedModel`): UperNet with two classes or SegFormer with one channel. The mode it is in is not
            changed: a frozen critic must be in evaluation mode, as both heads have batch normalization and dropout.
        pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`): Input, as
            [`~datasets_script.detection.pixel.preprocessing.Preprocessing`] makes it.

    Returns:
        `torch.Tensor` of shape `(batch, height, width)`: Logits. Gradients pass to `pixel_values`.

    Raises:
        ArgumentError: The model's classes are others, see [`artifact_index`].
    """
    height, width = pixel_values.shape[2:]
    return class_logits_to_artifact(model, model(pixel_values=pixel_values).logits, (height, width))


def class_logits_to_artifact(model: nn.Module, logits: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """
    Compute the logits of [`artifact_logits`] from a network's output, e.g. in a loss.

    Args:
        model (`PreTrainedModel`): The network.
        logits (`torch.Tensor` of shape `(batch, classes, rows, columns)`): Its output.
        shape (`tuple[int, int]`): Height and width of the input.

    Returns:
        `torch.Tensor` of shape `(batch, height, width)`.
    """
    index = artifact_index(model)
    of_artifact = logits[:, index : index + 1]
    if logits.shape[1] == 2:
        of_artifact = of_artifact - logits[:, 1 - index : 2 - index]
    if of_artifact.shape[2:] != shape:
        of_artifact = functional.interpolate(of_artifact, shape, mode="bilinear", align_corners=False)
    return of_artifact[:, 0]


def _check_family(model: str, model_type: str) -> str:
    if model_type not in _FAMILIES:
        raise ArgumentError(f"`model` must be a network of {' or '.join(_FAMILIES)}, got '{model}', a {model_type}")
    return model_type
