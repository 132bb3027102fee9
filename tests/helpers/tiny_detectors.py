"""Tiny pixel detectors of all trunks, and one that is trained to find red squares."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import PreTrainedModel

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.detection.pixel.models import artifact_logits, build_model
from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.detection.pixel.record import PixelRecord
from datasets_script.detection.pixel.trunks import TRUNKS
from datasets_script.schema.detection import DetectedRegion, Detection


_STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
TINY_TRUNKS: dict[str, dict[str, Any]] = {
    "efficientnet_lite0": {"backbone": "test_efficientnet"},
    "efficientnet_lite1": {"backbone": "test_efficientnet"},
    "convnext_tiny": _STAGES,
    "dinov3_convnext_tiny": _STAGES,
    "swin_tiny": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
    "mit_b0": {**_STAGES, "num_attention_heads": [1, 1, 2, 2]},
    "mit_b5": {**_STAGES, "num_attention_heads": [1, 1, 2, 2]},
}
SIZE = (64, 48)
"""Width and height of [`square`]'s images, px."""


def tiny_network(trunk: str = "convnext_tiny", **options: Any) -> PreTrainedModel:
    """Build a network with random weights, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(trunk, changes=TINY_TRUNKS[trunk], **{"hidden_size": 8, **options})


def tiny_record(**changes: Any) -> PixelRecord:
    trunk = TRUNKS["mit_b0"]
    record = PixelRecord(Preprocessing(length=64), trunk="mit_b0", license=trunk.license)
    return replace(record, **changes)


def square(box: tuple[int, int, int, int] | None, seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """Make a grey image with noise, and a red square in it if there is a box."""
    rng = np.random.default_rng(seed)
    pixels = np.repeat(rng.integers(60, 160, (size[1], size[0], 1)), 3, axis=2).astype(np.uint8)
    if box is not None:
        x_min, y_min, x_max, y_max = box
        pixels[y_min:y_max, x_min:x_max] = (220, 20, 20)
    return Image.fromarray(pixels)


@cache
def red_network() -> PreTrainedModel:
    """Train a network for some seconds to find red squares."""
    network, preprocessing = tiny_network("mit_b0", hidden_size=16), tiny_record().preprocessing
    boxes = [(8, 8, 24, 24), (36, 4, 56, 20), (20, 24, 40, 44), (44, 28, 60, 44), None, None]
    images = torch.stack(
        [torch.from_numpy(np.array(square(box, seed))).permute(2, 0, 1) / 255 for seed, box in enumerate(boxes)]
    )
    truth = torch.zeros(len(boxes), SIZE[1], SIZE[0])
    for mask, box in zip(truth, boxes, strict=True):
        if box is not None:
            mask[box[1] : box[3], box[0] : box[2]] = 1
    pixel_values, geometry = preprocessing(images)
    target = geometry.fit(truth)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    network.train()
    # Dropout must not depend on the tests that ran before.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(50):
            logits = artifact_logits(network, pixel_values)
            loss = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor(5.0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def red_detector(**options: Any) -> PixelDetector:
    """Return a detector of red squares."""
    return PixelDetector(red_network(), tiny_record(), **options)


def map_of(detection: Detection) -> np.ndarray:
    assert detection.artifact_map is not None
    return detection.artifact_map


def regions_of(detection: Detection) -> tuple[DetectedRegion, ...]:
    assert detection.regions is not None
    return detection.regions


def mask_of(region: DetectedRegion) -> np.ndarray:
    assert region.mask is not None
    return region.mask
