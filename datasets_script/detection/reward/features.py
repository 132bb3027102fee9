"""
What a trunk gives the head of a reward model: a vector for each place of the input, and one for the whole of it.

Vectors are normalized over their channels, so that heads begin alike on every trunk. The maps of a convolutional trunk
are normalized one by one before they are put together, on the grid of the second, at 1/8 of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoBackbone, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ...utils.errors import ArgumentError


VISION_TYPES = ("clip_vision_model", "siglip_vision_model", "siglip2_vision_model", "dinov3_vit")
"""Types of vision transformers, as their configurations name them."""

_NAFLEX = "siglip2_vision_model"
_SEGFORMER = "segformer"
_GRID = 1


@dataclass(frozen=True, eq=False)
class TrunkFeatures:
    """
    Features of a batch.

    Attributes:
        tokens (`torch.Tensor` of shape `(batch, channels, rows, columns)`): A vector for each place.
        inside (`torch.Tensor` of shape `(batch, rows, columns)`, `bool`): Which places show some of the image.
        pooled (`torch.Tensor` of shape `(batch, pooled channels)`): A vector for the whole: of a vision transformer
            its pooled output, of a convolutional trunk mean and maximum of each map.
        maps (`tuple[torch.Tensor, ...]`): Parts of `tokens` that are fine enough to compare places by: all of a vision
            transformer, of a convolutional trunk each map but the coarsest.
    """

    tokens: torch.Tensor
    inside: torch.Tensor
    pooled: torch.Tensor
    maps: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Channels:
    """
    Sizes of the features of a trunk.

    Attributes:
        tokens, pooled (`int`): Channels of the tokens, and of the pooled vector.
        maps (`int`): Number of the maps that places are compared by.
    """

    tokens: int
    pooled: int
    maps: int


def build_trunk(config: PreTrainedConfig | Mapping[str, Any]) -> PreTrainedModel:
    """
    Build a trunk with random weights, offline.

    Args:
        config (`PreTrainedConfig` or `Mapping`): Its configuration, or the content of that with its `model_type`.

    Returns:
        `PreTrainedModel`: In float32 and in evaluation mode.

    Raises:
        ArgumentError: transformers knows no such type.
    """
    if not isinstance(config, PreTrainedConfig):
        kind = config.get("model_type")
        if kind not in CONFIG_MAPPING:
            raise ArgumentError(f"`config` must have a model_type that transformers knows, got {kind!r}")
        config = CONFIG_MAPPING[kind].from_dict(dict(config))
    maker = AutoModel if config.model_type in (*VISION_TYPES, _SEGFORMER) else AutoBackbone
    trunk: PreTrainedModel = maker.from_config(config)
    return trunk.eval()


def channels_of(trunk: PreTrainedModel) -> Channels:
    """Return the sizes of a trunk's features."""
    config = trunk.config
    if config.model_type in VISION_TYPES:
        return Channels(config.hidden_size, config.hidden_size, 1)
    channels = config.hidden_sizes if config.model_type == _SEGFORMER else trunk.channels
    return Channels(sum(channels), 2 * sum(channels), len(channels) - 1)


def patch_of(trunk: PreTrainedModel) -> int:
    """Return the length in pixels that both sides of the input must be a multiple of."""
    return trunk.config.patch_size if trunk.config.model_type in VISION_TYPES else 1


def trunk_features(trunk: PreTrainedModel, pixel_values: torch.Tensor, inside: torch.Tensor) -> TrunkFeatures:
    """
    Compute the features of a batch. Gradients pass to `pixel_values`.

    Args:
        trunk (`PreTrainedModel`): The trunk.
        pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`): Input, normalized as the trunk expects.
        inside (`torch.Tensor` of shape `(batch, height, width)`, `bool`): Which pixels show the image, not padding.
    """
    if trunk.config.model_type in VISION_TYPES:
        return _of_transformer(trunk, pixel_values, inside)
    if trunk.config.model_type == _SEGFORMER:
        return _of_maps(trunk(pixel_values, output_hidden_states=True).hidden_states, inside)
    return _of_maps(trunk(pixel_values).feature_maps, inside)


def _of_transformer(trunk: PreTrainedModel, pixel_values: torch.Tensor, inside: torch.Tensor) -> TrunkFeatures:
    patch = trunk.config.patch_size
    rows, columns = (side // patch for side in pixel_values.shape[2:])
    if trunk.config.model_type == _NAFLEX:
        outputs = trunk(**_naflex(pixel_values, patch))
    elif trunk.config.model_type == "dinov3_vit":
        outputs = trunk(pixel_values)
    else:
        outputs = trunk(pixel_values, interpolate_pos_encoding=True)
    # Those of the image are last, after a class token and registers.
    tokens = outputs.last_hidden_state[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
    tokens = _normalized(tokens)
    return TrunkFeatures(tokens, _shrunk(inside, (rows, columns)), _normalized(outputs.pooler_output), (tokens,))


def _naflex(pixel_values: torch.Tensor, patch: int) -> dict[str, torch.Tensor]:
    """Cut images into patches, which SigLIP 2's NaFlex models take in place of images: rows, columns, channels."""
    batch, _, height, width = pixel_values.shape
    cut = pixel_values.unflatten(3, (width // patch, patch)).unflatten(2, (height // patch, patch))
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    shapes = torch.tensor([[height // patch, width // patch]] * batch, device=pixel_values.device)
    mask = torch.ones(patches.shape[:2], dtype=torch.long, device=pixel_values.device)
    return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": shapes}


def _of_maps(maps: Sequence[torch.Tensor], inside: torch.Tensor) -> TrunkFeatures:
    normalized = [_normalized(one) for one in maps]
    seen = [_shrunk(inside, (one.shape[2], one.shape[3])) for one in maps]
    shape = (maps[_GRID].shape[2], maps[_GRID].shape[3])
    pooled = [part for one, where in zip(normalized, seen, strict=True) for part in _pooled(one, where[:, None])]
    on_grid = [_on_grid(one, shape) for one in normalized]
    return TrunkFeatures(torch.cat(on_grid, 1), seen[_GRID], torch.cat(pooled, 1), tuple(on_grid[:-1]))


def _pooled(values: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    total = (values * inside).sum((2, 3)) / inside.sum((2, 3))
    return total, values.masked_fill(~inside, -torch.inf).amax((2, 3))


def _on_grid(values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    if values.shape[2] > shape[0]:
        return functional.adaptive_avg_pool2d(values, shape)
    return functional.interpolate(values, shape, mode="bilinear", align_corners=False)


def _shrunk(inside: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return functional.adaptive_max_pool2d(inside[:, None].float(), shape)[:, 0] > 0


def _normalized(values: torch.Tensor) -> torch.Tensor:
    """Normalize over channels, which are the second axis."""
    return functional.layer_norm(values.movedim(1, -1), values.shape[1:2]).movedim(-1, 1)
