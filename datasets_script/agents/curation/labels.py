"""Labels of artifacts: mask and box of what visibly changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from diffusers_artifact.tools import bbox_of_mask
from diffusers_artifact.visible_change import label_masks

from ...schema.pair import Artifact


def labelled(artifacts: Sequence[Artifact], clean: Image.Image, flawed: Image.Image) -> tuple[Artifact, ...]:
    """
    Return the artifacts of an image with the mask and box of their visible change.

    Args:
        artifacts (`Sequence[Artifact]`): All artifacts of the image; their mappings are used.
        clean, flawed (`PIL.Image.Image`): The clean and the artifact image, RGB, of one size.

    Returns:
        `tuple[Artifact, ...]`: In the same order. Where nothing is to be seen, the mask is empty and the box all 0.
    """
    masks = label_masks(np.asarray(clean), np.asarray(flawed), [artifact.mapping for artifact in artifacts])
    return tuple(
        replace(artifact, mask=mask, bbox=bbox_of_mask(mask) if mask.any() else (0.0,) * 4)
        for artifact, mask in zip(artifacts, masks, strict=True)
    )
