"""
List of the trunks that reward models are built on: the vision transformers here, and those of pixel detectors. A new
vision transformer is a line in `VISION_TRUNKS`, and one in `features.py` if it is of another family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...utils.errors import check_choice
from ..pixel.preprocessing import Preprocessing
from ..pixel.trunks import TRUNKS, find_trunk, of_transformers


if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class VisionTrunk:
    """
    A vision transformer as a trunk.

    Attributes:
        config_class (`str`): Its configuration class of transformers.
        weights (`str`): Id on the Hub of its pretrained weights.
        license (`str`): Licence of these weights.
        preprocessing (`Preprocessing`): What these weights expect to see of an image.
        values (`Mapping[str, Any]`): Values of the configuration that differ from the class's.
    """

    config_class: str
    weights: str
    license: str
    preprocessing: Preprocessing
    values: Mapping[str, Any] = field(default_factory=dict)


_HALVES = (0.5, 0.5, 0.5)
# Squares of one size, with padding where an image is none: position embeddings are those of the pretrained weights.
_CLIP = Preprocessing(
    224, "long", 224, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
_SIGLIP = Preprocessing(224, "long", 224, mean=_HALVES, std=_HALVES)
# Any aspect ratio, in whole patches.
_NAFLEX = Preprocessing(256, "long", 16, mean=_HALVES, std=_HALVES)
_DINO = Preprocessing(256, "long", 16)

VISION_TRUNKS: Mapping[str, VisionTrunk] = {
    "clip_vit_b16": VisionTrunk(
        "CLIPVisionConfig", "openai/clip-vit-base-patch16", "mit", _CLIP, values={"patch_size": 16}
    ),
    "siglip_base": VisionTrunk("SiglipVisionConfig", "google/siglip-base-patch16-224", "apache-2.0", _SIGLIP),
    "siglip2_base": VisionTrunk("Siglip2VisionConfig", "google/siglip2-base-patch16-naflex", "apache-2.0", _NAFLEX),
    "dinov3_vits16": VisionTrunk(
        "DINOv3ViTConfig",
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "dinov3-license",
        _DINO,
        values={"num_register_tokens": 4},
    ),
    "dinov3_vitb16": VisionTrunk(
        "DINOv3ViTConfig",
        "facebook/dinov3-vitb16-pretrain-lvd1689m",
        "dinov3-license",
        _DINO,
        values={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_register_tokens": 4},
    ),
}

REWARD_TRUNKS: tuple[str, ...] = (*VISION_TRUNKS, *TRUNKS)
"""Names of all trunks."""


def trunk_config(name: str, changes: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """
    Return the configuration of a trunk.

    Args:
        name (`str`): One of `REWARD_TRUNKS`.
        changes (`Mapping[str, Any]`, *optional*): Values to change, such as the depth of a smaller one.

    Raises:
        ArgumentError: There is no such trunk.
    """
    check_choice("trunk", name, REWARD_TRUNKS)
    if name in TRUNKS:
        return find_trunk(name).config(changes or {})
    trunk = VISION_TRUNKS[name]
    return of_transformers(trunk.config_class, **trunk.values)(changes or {})
