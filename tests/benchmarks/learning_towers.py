"""Reading a trained vision tower: how it scores images, and pairs whose targets are hidden from it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.vlm.tower import PairArrays, TokenDetector


# An image is as flawed as the tokens of about one small artifact.
_TOP_TOKENS = 4


def hide_targets(pairs: PairArrays, margin: int) -> PairArrays:
    """Pairs whose target patches, and `margin` px around them, are grey in both images: what is left is the rest."""
    size = 2 * margin + 1
    wider = functional.max_pool2d(torch.from_numpy(pairs.targets).float()[:, None], size, stride=1, padding=margin)
    hidden = (wider[:, 0] > 0).numpy()
    images = np.where(hidden[:, None, :, :, None], np.uint8(128), pairs.images)
    return PairArrays(images, pairs.masks, pairs.targets)


@torch.no_grad()
def token_logits(model: TokenDetector, images: np.ndarray, batch_size: int = 32) -> Tensor:
    """Logits of shape `(images, rows, columns)` for images of shape `(images, height, width, 3)`, `uint8`."""
    model.eval()
    batches = torch.from_numpy(images).split(batch_size)
    return torch.cat([model(batch) for batch in batches])


def image_scores(logits: Tensor) -> Tensor:
    """How flawed each image is: the mean of its most flawed tokens."""
    return logits.flatten(1).topk(_TOP_TOKENS).values.mean(1)


def centred_crops(pairs: PairArrays, side: int) -> PairArrays:
    """Each pair about the middle of its target, as far as the image reaches."""
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
