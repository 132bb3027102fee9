"""Scores of images by a trained vision tower, and pairs with hidden artifacts."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.vlm.tower import PairArrays, TokenDetector


# Number of tokens that the score of an image is the mean of, about those of a small artifact.
_TOP_TOKENS = 4


def hide(pairs: PairArrays, what: Literal["masks", "targets"], margin: int) -> PairArrays:
    """Return pairs whose labelled masks or target patches, and `margin` px around them, are grey in both images."""
    size = 2 * margin + 1
    region = torch.from_numpy(getattr(pairs, what)).float()[:, None]
    wider = functional.max_pool2d(region, size, stride=1, padding=margin)
    hidden = (wider[:, 0] > 0).numpy()
    images = np.where(hidden[:, None, :, :, None], np.uint8(128), pairs.images)
    return PairArrays(images, pairs.masks, pairs.targets)


@torch.no_grad()
def token_logits(model: TokenDetector, images: np.ndarray, batch_size: int = 32) -> Tensor:
    """Map images of shape `(images, height, width, 3)`, `uint8`, to logits of shape `(images, rows, columns)`."""
    model.eval()
    batches = torch.from_numpy(images).split(batch_size)
    return torch.cat([model(batch) for batch in batches])


def image_scores(logits: Tensor) -> Tensor:
    """Score each image by the mean of its highest logits."""
    return logits.flatten(1).topk(_TOP_TOKENS).values.mean(1)


def centred_crops(pairs: PairArrays, side: int) -> PairArrays:
    """Crop each pair around the middle of its target, within the image."""
    kept = []
    for target in pairs.targets:
        middle = np.argwhere(target).mean(0)
        corners = zip(middle, target.shape, strict=True)
        kept.append([int(min(max(m - side / 2, 0), length - side)) for m, length in corners])
    crops = [np.s_[y : y + side, x : x + side] for y, x in kept]
    return PairArrays(
        np.stack([images[:, crop[0], crop[1]] for images, crop in zip(pairs.images, crops, strict=True)]),
        np.stack([mask[crop] for mask, crop in zip(pairs.masks, crops, strict=True)]),
        np.stack([target[crop] for target, crop in zip(pairs.targets, crops, strict=True)]),
    )
