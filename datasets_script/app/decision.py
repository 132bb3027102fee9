"""What a person decides on a detection: the mask that counts, accepted as it was found or edited."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from PIL import Image

from ..annotation.records import Mark
from ..schema.detection import Detection


@dataclass(frozen=True, eq=False)
class Examined:
    """
    An image with what a detector found in it.

    Attributes:
        name (`str`): File name.
        image (`PIL.Image.Image`): The upright image, RGB.
        detection (`Detection`): What was found.
        detector, revision (`str`): Model, and its commit or fingerprint.
    """

    name: str
    image: Image.Image
    detection: Detection
    detector: str
    revision: str

    @property
    def mask(self) -> np.ndarray:
        """Return the union of the regions that were found, of shape `(height, width)`, `bool`."""
        found = np.zeros(self.image.size[::-1], dtype=bool)
        for region in self.detection.regions or ():
            if region.mask is not None:
                found |= region.mask
            else:
                x_min, y_min, x_max, y_max = region.box
                found[int(y_min) : int(np.ceil(y_max)), int(x_min) : int(np.ceil(x_max))] = True
        return found

    def decide(self, mask: np.ndarray) -> Decision:
        """Return the decision that `mask`, of shape `(height, width)`, `bool`, is what is wrong; empty: nothing is."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return Decision(self, mask, not np.array_equal(mask, self.mask), at)


@dataclass(frozen=True, eq=False)
class Decision:
    """
    A person's decision. It holds what a repair needs: the image, and the mask of what is wrong in it.

    Attributes:
        examined (`Examined`): The image, and what was found.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): What is wrong; empty if nothing is.
        edited (`bool`): Whether the mask differs from what was found.
        at (`str`): When, ISO 8601, UTC.
    """

    examined: Examined
    mask: np.ndarray
    edited: bool
    at: str

    def as_dict(self) -> dict[str, Any]:
        """Return the decision with what it is based on, JSON-serialisable; the mask is COCO's run-length encoding."""
        one, image = self.examined, self.examined.image
        mark = Mark.of_mask("artifact", self.mask) if self.mask.any() else None
        return {
            "image": one.name,
            "pixels_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
            "detector": one.detector,
            "detector_revision": one.revision,
            "found": one.detection.to_dict(),
            "has_artifact": mark is not None,
            "edited": self.edited,
            "box": None if mark is None else list(mark.box),
            "mask": None if mark is None else {"size": list(image.size[::-1]), "counts": mark.counts},
            "at": self.at,
        }
