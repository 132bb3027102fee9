"""Networks that the training of a reward model begins with: a reward model, a vision transformer, a pixel detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from datasets_script.detection.pixel.locating import find_folder, find_record
from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.detection.pixel.record import PixelRecord
from datasets_script.detection.pixel.trunks import TRUNKS, find_trunk
from datasets_script.detection.reward.features import patch_of
from datasets_script.detection.reward.heads import HeadSettings
from datasets_script.detection.reward.model import RewardModel
from datasets_script.detection.reward.network import RewardNetwork
from datasets_script.detection.reward.record import find_reward_record
from datasets_script.detection.reward.trunks import REWARD_TRUNKS, VISION_TRUNKS
from datasets_script.schema.training_record import BaseModel
from datasets_script.utils.errors import ArgumentError, UserError
from datasets_script.utils.files import resolve_revision
from datasets_script.utils.hub_access import why_not_loaded
from datasets_script.utils.hub_ids import is_hub_id
from evaluate_metrics.functional.versions import versions
from training.arguments import find_base
from training.pixel.base import load_base, trunk_of


# The vision part of each type of checkpoint, and the trunk whose preprocessing its family has.
_CLASSES: Mapping[str, tuple[str, str]] = {
    "clip": ("CLIPVisionModel", "clip_vit_b16"),
    "clip_vision_model": ("CLIPVisionModel", "clip_vit_b16"),
    "siglip": ("SiglipVisionModel", "siglip_base"),
    "siglip_vision_model": ("SiglipVisionModel", "siglip_base"),
    "siglip2": ("Siglip2VisionModel", "siglip2_base"),
    "siglip2_vision_model": ("Siglip2VisionModel", "siglip2_base"),
    "dinov3_vit": ("DINOv3ViTModel", "dinov3_vits16"),
}


@dataclass(frozen=True, eq=False)
class RewardBase:
    """
    A network to train, and where it comes from.

    Attributes:
        network (`RewardNetwork`): Trunk and head.
        view (`Preprocessing`): What its trunk expects to see of an image.
        origin (`BaseModel`): Its entry in the record.
        trunk (`str`): Name of the trunk, or of the model that it was taken from.
        license (`str`): Licence of the trunk's weights; empty if unknown.
    """

    network: RewardNetwork
    view: Preprocessing
    origin: BaseModel
    trunk: str
    license: str


def load_reward_base(name: str, revision: str | None = None, head: Mapping[str, Any] | None = None) -> RewardBase:
    """
    Load the network that training begins with.

    Args:
        name (`str`): Name of a trunk, whose pretrained weights are loaded; or a folder or the id on the Hub of a
            reward model, to train on, of CLIP, SigLIP, SigLIP 2 or DINOv3, or of a pixel detector, whose trunk is
            taken; `"embedded"` is the pixel detector of this package.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        head (`Mapping[str, Any]`, *optional*): Arguments of
            [`~datasets_script.detection.reward.heads.HeadSettings`] for a new head; none for a reward model.

    Raises:
        UserError: It does not exist, or is of another kind, or a value is out of range.
    """
    settings = HeadSettings(**(head or {}))
    try:
        if name in VISION_TRUNKS:
            trunk = VISION_TRUNKS[name]
            return _on_vision(trunk.weights, revision, settings, name, trunk.license)
        if name not in TRUNKS and find_reward_record(name, revision):
            return _continued(name, revision, head)
        if name not in TRUNKS and _type_of(find_folder(name), revision) in _CLASSES:
            return _on_vision(name, revision, settings)
    except (ArgumentError, OSError, ValueError) as error:
        raise _no_base(name, error) from error
    return _on_detector(find_folder(name), revision, settings)


def base_revision(name: str, revision: str | None = None) -> str | None:
    """
    Find what [`load_reward_base`] will load, without loading it: the commit on the Hub, the fingerprint of the folder,
    or the version of the package with the weights, `None` if that is not installed.

    Args:
        name, revision (`str`): See there.

    Raises:
        UserError: There is no such model.
    """
    trunk = VISION_TRUNKS.get(name) or TRUNKS.get(name)
    try:
        weights = trunk.weights if trunk else find_folder(name)
        if trunk and not is_hub_id(weights):
            return versions(weights).get(weights)
        return resolve_revision(weights, revision or "main")[1]
    except (OSError, ValueError) as error:
        raise _no_base(name, error) from error


def _no_base(name: str, error: Exception) -> UserError:
    return UserError(
        f"--model_name_or_path must be one of {', '.join(REWARD_TRUNKS)}, or a folder or an id on the Hub of a reward "
        f"model, a vision transformer or a pixel detector, got '{name}': {why_not_loaded(error)}"
    )


def _continued(name: str, revision: str | None, head: Mapping[str, Any] | None) -> RewardBase:
    if head:
        raise UserError(f"--{next(iter(head))} must be unset for '{name}', whose head is trained; leave it out")
    origin, commit, _ = find_base(name, revision or "main")
    model = RewardModel.from_pretrained(name, revision=commit, device="cpu")
    # A loaded model is frozen.
    network = model.network.requires_grad_(True)
    record = model.record
    return RewardBase(network, record.preprocessing.view, origin, record.trunk or "", record.license or "")


def _on_vision(
    weights: str, revision: str | None, head: HeadSettings, name: str = "", license: str = ""
) -> RewardBase:
    origin, commit, _ = find_base(weights, revision or "main")
    kind, family = _CLASSES[_type_of(weights, commit)]
    trunk, loaded = getattr(transformers, kind).from_pretrained(
        weights, revision=commit, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(loaded["missing_keys"]):
        raise ArgumentError(f"`model` must hold all weights of its vision part, got none of {missing[0]}")
    network = RewardNetwork(trunk, head)
    return RewardBase(
        network, _view_of(trunk, VISION_TRUNKS[family].preprocessing), origin, name or origin.id, license
    )


def _view_of(trunk: PreTrainedModel, view: Preprocessing) -> Preprocessing:
    """Return the preprocessing of a family in the size of one of its models."""
    if view.multiple != view.length:
        return replace(view, multiple=patch_of(trunk))
    side = trunk.config.image_size
    return replace(view, length=side, multiple=side)


def _on_detector(name: str, revision: str | None, head: HeadSettings) -> RewardBase:
    base = load_base(name, revision)
    trunk = trunk_of(base.network)
    assert isinstance(trunk, PreTrainedModel)
    view = Preprocessing()
    if base.trunk:
        view = replace(view, mean=find_trunk(base.trunk).mean, std=find_trunk(base.trunk).std)
    if name not in TRUNKS and (path := find_record(name, revision)):
        view = PixelRecord.read(path).preprocessing
    return RewardBase(RewardNetwork(trunk, head), view, base.origin, base.trunk or base.origin.id, base.license)


def _type_of(name: str, revision: str | None) -> str:
    return str(PreTrainedConfig.get_config_dict(name, revision=revision)[0].get("model_type", ""))
