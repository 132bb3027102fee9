"""What goes to the workbench and comes from it: a photo, a wish for an artifact, and the artifact that was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..schema.pair import Artifact
from ..utils.photos import SourceTransform


@dataclass(frozen=True, eq=False)
class BenchPhoto:
    """
    A photo on the workbench.

    Attributes:
        name (`str`): File name, the source id of pairs that are kept.
        image (`PIL.Image.Image`): The photo as the model sees it, RGB.
        transform (`SourceTransform`): How it was cropped and resized.
        key (`str`): Hash of its pixels.
    """

    name: str
    image: Image.Image
    transform: SourceTransform
    key: str


@dataclass(frozen=True, eq=False)
class Wish:
    """
    What artifact a person wants where.

    Attributes:
        tool (`str`): `"add"`, `"remove"`, `"distort"` or `"fuse"`.
        region (`np.ndarray` of shape `(height, width)`, `bool`): The region, in pixels of the photo.
        other (`np.ndarray`, *optional*): For `"fuse"`, the region that it grows together with. Both are enlarged until
            they overlap.
        kernel (`str`): For `"distort"`, how patches change places.
        reach (`int`): How far in patches the tool reaches; 0 for its default. `"distort"` has none.
        entity, part, second (`str`): Names of the thing, its part, and the second thing of a fusion.
        seed (`int`): Seed of all choices.
    """

    tool: str
    region: np.ndarray
    other: np.ndarray | None = None
    kernel: str = "shuffle"
    reach: int = 0
    entity: str = "object"
    part: str = "part"
    second: str = "object"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Made:
    """
    An artifact that was made.

    Attributes:
        photo (`BenchPhoto`): The photo.
        clean, flawed (`PIL.Image.Image`): The clean and the artifact image.
        artifact (`Artifact`): The artifact with its label; the mask is empty if nothing is to be seen.
        seed (`int`): Seed of all choices.
        seconds (`float`): Time that it took.
        token_evaluations (`float`): See [`~diffusers_artifact.HeldArtifacts`].
    """

    photo: BenchPhoto
    clean: Image.Image
    flawed: Image.Image
    artifact: Artifact
    seed: int
    seconds: float
    token_evaluations: float

    def as_dict(self) -> dict[str, Any]:
        """Return what the artifact is and how it was made, JSON-serialisable."""
        one = self.artifact
        return {
            "type": one.type,
            "tool": one.tool,
            **({"kernel": one.kernel} if one.kernel else {}),
            "label": one.label,
            "explanation": one.explanation,
            "box": list(one.bbox),
            "visible_pixels": int(one.mask.sum()),
            "target_patches": len(one.mapping),
            "scores": {name: round(value, 4) for name, value in one.scores.items() if isinstance(value, float)},
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "token_evaluations": round(self.token_evaluations, 2),
        }
