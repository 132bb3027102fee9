"""
MediaPipe's models of people on LiteRT: locating their files, feeding them crops, and reading their detections.

Sources: BlazeFace (arXiv 1907.05047), MediaPipe Hands (arXiv 2006.10214), BlazePose (arXiv 2006.10204) and the models'
cards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .base import PerceptionModelError


# The last release whose wheel contains the models. It is never imported, only its data files are read, so its
# requirements (numpy<2 among others) need not be installed.
WHEEL = "mediapipe==0.10.21"
INSTALL = f"pip install 'artiagent[people]' and pip install --no-deps {WHEEL}"


@dataclass(frozen=True)
class ModelFile:
    """
    A model in the wheel.

    Attributes:
        path (`str`): Path below `mediapipe/modules`.
        sha256 (`str`): Hash of the file.
        low (`float`): Value of black in its input; white is 1.
    """

    path: str
    sha256: str
    low: float = 0.0

    def locate(self) -> Path:
        """
        Return the path of the model's file.

        Raises:
            ImportError: The wheel is not installed.
            PerceptionModelError: The file is missing, or not that of the expected release.
        """
        spec = find_spec("mediapipe")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"the models of people are in the wheel {WHEEL}, which is not installed: {INSTALL}")
        path = Path(spec.submodule_search_locations[0]) / "modules" / self.path
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        if found != self.sha256:
            raise PerceptionModelError(
                f"mediapipe/modules/{self.path} must be that of {WHEEL} (sha256 {self.sha256}), got {found}; "
                f"pip install --no-deps --force-reinstall {WHEEL}"
            )
        return path


class Model:
    """
    A model that takes one square crop. It runs on one thread, so that equal inputs give equal outputs.

    Attributes:
        size (`int`): Side of the crop in pixels.

    Raises:
        ImportError: `ai-edge-litert` or the wheel is not installed.
        PerceptionModelError: The wheel's file is not the expected one.
    """

    def __init__(self, file: ModelFile) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(f"the perception backend 'people' needs ai-edge-litert: {INSTALL}") from error
        self.file = file
        self._interpreter: Any = Interpreter(model_path=str(file.locate()), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self.size: int = int(self._input["shape"][1])

    def __call__(self, image: Image.Image, roi: Roi) -> list[np.ndarray]:
        """Run the model on a region of an image, and return its outputs without the batch axis."""
        pixels = np.asarray(roi.crop(image, self.size), dtype=np.float32) / 255
        self._interpreter.set_tensor(self._input["index"], (self.file.low + (1 - self.file.low) * pixels)[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"])[0] for output in self._outputs]


@dataclass(frozen=True)
class Roi:
    """
    A square region of an image, possibly rotated.

    Attributes:
        center (`tuple[float, float]`): `(x, y)` in pixels of the image.
        side (`float`): In pixels of the image.
        angle (`float`): Direction of its horizontal axis in radians, clockwise as seen.
    """

    center: tuple[float, float]
    side: float
    angle: float = 0.0

    @classmethod
    def upward(cls, center: np.ndarray, upward: np.ndarray, scale: float) -> Roi:
        """
        Create a region whose top points in a given direction.

        Args:
            center (`np.ndarray` of shape `(2,)`): Its centre in pixels of the image.
            upward (`np.ndarray` of shape `(2,)`): The direction, in pixels of the image.
            scale (`float`): Side of the region in lengths of `upward`.
        """
        angle = float(np.arctan2(upward[0], -upward[1]))
        return cls((float(center[0]), float(center[1])), scale * float(np.linalg.norm(upward)), angle)

    @classmethod
    def around(cls, points: np.ndarray, rightward: np.ndarray, margin: float) -> Roi:
        """
        Create a region around points, rotated to a given direction.

        Args:
            points (`np.ndarray` of shape `(count, 2)`): In pixels of the image.
            rightward (`np.ndarray` of shape `(2,)`): Direction of its horizontal axis.
            margin (`float`): Side of the region, relative to the smallest one that holds the points.
        """
        angle = float(np.arctan2(rightward[1], rightward[0]))
        axes = cls((0.0, 0.0), 1.0, angle).axes
        turned = points @ axes.T
        low, high = turned.min(axis=0), turned.max(axis=0)
        center = (low + high) / 2 @ axes
        return cls((float(center[0]), float(center[1])), margin * float((high - low).max()), angle)

    @property
    def axes(self) -> np.ndarray:
        """Return its sides as vectors in the image: the rows of a matrix of shape `(2, 2)`."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return self.side * np.array([[cos, sin], [-sin, cos]])

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Map points `(…, 2)` of the region, whose sides span 0 to 1, to pixels of the image."""
        return (points - 0.5) @ self.axes + self.center

    def corners(self) -> np.ndarray:
        """Return its corners in pixels of the image, of shape `(4, 2)`."""
        return self.to_image(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))

    def crop(self, image: Image.Image, size: int) -> Image.Image:
        """Crop the region and resize it to `size` × `size` pixels; black outside the image."""
        # An affine transform does not average what it shrinks, so most of the shrinking is done before it.
        factor = max(1, int(self.side / size))
        low = np.floor(self.corners().min(axis=0)).astype(int) - factor
        high = np.ceil(self.corners().max(axis=0)).astype(int) + factor
        x_min, y_min = (max(0, int(value)) for value in low)
        x_max, y_max = min(image.width, int(high[0])), min(image.height, int(high[1]))
        if x_min >= x_max or y_min >= y_max:
            return Image.new(image.mode, (size, size))
        reduced = image.reduce(factor, (x_min, y_min, x_max, y_max))
        to_right, to_bottom = self.axes / size / factor
        origin = (self.to_image(np.zeros(2)) - (x_min, y_min)) / factor
        matrix = (to_right[0], to_bottom[0], origin[0], to_right[1], to_bottom[1], origin[1])
        return reduced.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    def paste(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """
        Paste a map of the region into an image.

        Args:
            values (`np.ndarray` of shape `(n, n)`): The map.
            size (`tuple[int, int]`): `(width, height)` of the image.

        Returns:
            `np.ndarray` of shape `(height, width)`, `float32`: The values, 0 outside the region.
        """
        inverse = np.linalg.inv(self.axes) * len(values)
        origin = (-np.array(self.center)) @ inverse + 0.5 * len(values)
        matrix = (inverse[0, 0], inverse[1, 0], origin[0], inverse[0, 1], inverse[1, 1], origin[1])
        image = Image.fromarray(values.astype(np.float32))
        return np.asarray(image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


@dataclass(frozen=True, eq=False)
class BlazeDetection:
    """
    A detection, in pixels of the image.

    Attributes:
        score (`float`): Confidence in [0, 1].
        box (`np.ndarray` of shape `(4,)`): `(x_min, y_min, x_max, y_max)`.
        keypoints (`np.ndarray` of shape `(count, 2)`): `(x, y)` each.
    """

    score: float
    box: np.ndarray
    keypoints: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """Return the centre of the box, `(x, y)`."""
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def size(self) -> float:
        """Return the long side of the box."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class Detector:
    """
    A detector of the BlazeFace kind: anchors are the centres of the cells of grids, and boxes and keypoints are given
    by their offsets from them in pixels of the crop.

    Args:
        file (`ModelFile`): The model.
        grids (`Sequence[tuple[int, int]]`): Side of each grid in cells, and anchors per cell.
        threshold (`float`): Least score.
    """

    def __init__(self, file: ModelFile, grids: Sequence[tuple[int, int]], threshold: float) -> None:
        self.model = Model(file)
        self.threshold = threshold
        self._anchors = np.concatenate([_cell_centers(side, per_cell) for side, per_cell in grids])

    def __call__(self, image: Image.Image, rois: Sequence[Roi]) -> list[BlazeDetection]:
        """Detect things in any of the regions, best first, each thing once."""
        return suppress([found for roi in rois for found in self._in_region(image, roi)])

    def _in_region(self, image: Image.Image, roi: Roi) -> list[BlazeDetection]:
        boxes, logits = self.model(image, roi)
        scores = sigmoid(logits[:, 0])
        kept = scores >= self.threshold
        points = boxes[kept].reshape(-1, boxes.shape[1] // 2, 2) / self.model.size
        anchors = self._anchors[kept]
        centers, half = points[:, 0] + anchors, points[:, 1] / 2
        corners = np.stack([centers - half, centers + half], axis=1)
        keypoints = roi.to_image(points[:, 2:] + anchors[:, None])
        # Regions are rotated by multiples of 90° here, so boxes stay upright.
        corners = np.sort(roi.to_image(corners), axis=1).reshape(-1, 4)
        return suppress(
            [BlazeDetection(float(s), c, k) for s, c, k in zip(scores[kept], corners, keypoints, strict=True)]
        )


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Compute the logistic function, without overflow."""
    return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))


def suppress(detections: Sequence[BlazeDetection], max_overlap: float = 0.3) -> list[BlazeDetection]:
    """
    Merge overlapping detections as BlazeFace does: boxes with an intersection over union above `max_overlap` become
    their mean, weighted by score, with the best score. Best first.
    """
    rest = sorted(detections, key=lambda detection: -detection.score)
    merged = []
    while rest:
        overlaps = _overlaps(rest[0].box, np.stack([other.box for other in rest]))
        cluster = [other for other, overlap in zip(rest, overlaps, strict=True) if overlap > max_overlap] or rest[:1]
        rest = [other for other in rest[1:] if other not in cluster]
        weights = [one.score for one in cluster]
        merged.append(
            BlazeDetection(
                cluster[0].score,
                np.average([one.box for one in cluster], axis=0, weights=weights),
                np.average([one.keypoints for one in cluster], axis=0, weights=weights),
            )
        )
    return merged


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of a box with each of several."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return shared / np.maximum(areas - shared, 1e-9)


def _cell_centers(side: int, per_cell: int) -> np.ndarray:
    rows, columns = np.divmod(np.arange(side * side), side)
    return np.repeat((np.stack([columns, rows], axis=1) + 0.5) / side, per_cell, axis=0)
