"""Faces, hands, bodies and outlines of people in a photo, found with MediaPipe's models on LiteRT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffusers_artifact.tools import bbox_of_mask

from .blaze import BlazeDetection, Detector, Model, ModelFile, Roi, sigmoid, suppress
from .people_parts import Landmarks, trunk_length


MODELS = {
    "face_near": ModelFile(
        "face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        low=-1.0,
    ),
    "face_far": ModelFile(
        "face_detection/face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        low=-1.0,
    ),
    "face_mesh": ModelFile(
        "face_landmark/face_landmark.tflite", "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"
    ),
    "palm": ModelFile(
        "palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
    ),
    "hand": ModelFile(
        "hand_landmark/hand_landmark_full.tflite", "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"
    ),
    "body": ModelFile(
        "pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        low=-1.0,
    ),
    "pose": ModelFile(
        "pose_landmark/pose_landmark_full.tflite", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
    ),
    "outline": ModelFile(
        "selfie_segmentation/selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    ),
}

# Sides of the landmark models' regions, relative to the circle around the hips that holds a body, to the box of a
# detected face or palm, or to the landmarks of a first pass. A hand's region lies half a palm beyond the palm.
_BODY_MARGIN = 2.5
_FACE_MARGIN = 1.5
_PALM_MARGIN, _PALM_SHIFT, _HAND_MARGIN = 2.6, 0.5, 2.0
_OUTLINE_MARGIN = 1.2

# From a face to the body below it, in heights of the face: distance of the hips' centre, and side of the region.
_HIPS_BELOW_FACE, _BODY_SIDE = 3.6, 11.0

# Lower scores of the mesh and the hand model are mostly of other things, such as an ear or a ball.
_MIN_LANDMARK_SCORE = 0.8

_SEEN = 0.5


@dataclass(frozen=True, eq=False)
class Body:
    """
    A detected body.

    Attributes:
        landmarks (`Landmarks`): Its 33 points.
        probability (`np.ndarray` of shape `(height, width)`, `float32`): Probability of each pixel to belong to this
            body.
        outline (`np.ndarray` of shape `(height, width)`, `float32`): Probability of each pixel to belong to anybody,
            in finer resolution; 0 far from this body.
    """

    landmarks: Landmarks
    probability: np.ndarray
    outline: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Return the pixels that probably belong to this body."""
        return self.probability > 0.5

    @property
    def agreement(self) -> float:
        """Return the mean of the outline over the body."""
        return float(self.outline[self.mask].mean())

    def shared(self, other: Body) -> float:
        """Return the overlap of two bodies as a share of the smaller one."""
        return float((self.mask & other.mask).sum() / min(self.mask.sum(), other.mask.sum()))


class PeopleFinder:
    """
    Loaded models of people. Detections and landmarks are in pixels of the image.

    Args:
        min_score (`float`): Least score of a detection, and of a body's landmarks.

    Raises:
        ImportError: The extra `people` or the wheel with the models is not installed.
        PerceptionModelError: A model's file is not that of the expected wheel.
    """

    def __init__(self, min_score: float) -> None:
        self.min_score = min_score
        self._faces = (
            Detector(MODELS["face_near"], [(16, 2), (8, 6)], min_score),
            Detector(MODELS["face_far"], [(48, 1)], min_score),
        )
        self._palms = Detector(MODELS["palm"], [(24, 2), (12, 6)], min_score)
        self._bodies = Detector(MODELS["body"], [(28, 2), (14, 2), (7, 6)], min_score)
        self._mesh, self._hand, self._pose, self._outline = (
            Model(MODELS[name]) for name in ("face_mesh", "hand", "pose", "outline")
        )

    def faces(self, image: Image.Image, views: Sequence[Roi]) -> list[Landmarks]:
        """Find faces visible in any of the views, largest first. A second pass refines the region of the first."""
        detections = suppress([found for detector in self._faces for found in detector(image, views)])
        faces = []
        for detection in detections:
            eyes = detection.keypoints[1] - detection.keypoints[0]
            region = Roi(tuple(detection.middle), _FACE_MARGIN * detection.size, float(np.arctan2(eyes[1], eyes[0])))
            for _ in range(2):
                values, logit = self._mesh(image, region)
                points = region.to_image(values.reshape(-1, 3)[:, :2] / self._mesh.size)
                region = Roi.around(points, points[263] - points[33], _FACE_MARGIN)
            faces.append(Landmarks(points, float(sigmoid(logit).item()), np.ones(len(points))))
        return sorted(_unique(faces), key=lambda face: -face.size)

    def hands(self, image: Image.Image, views: Sequence[Roi]) -> list[Landmarks]:
        """Find hands visible in any of the views, best first."""
        hands = []
        for detection in self._palms(image, views):
            upward = detection.keypoints[2] - detection.keypoints[0]
            upward = upward / max(float(np.linalg.norm(upward)), 1e-6) * detection.size
            region = Roi.upward(detection.middle + _PALM_SHIFT * upward, upward, _PALM_MARGIN)
            for _ in range(2):
                values, score, *_ = self._hand(image, region)
                points = region.to_image(values.reshape(-1, 3)[:, :2] / self._hand.size)
                upward = points[[5, 9, 13, 17]].mean(axis=0) - points[0]
                region = Roi.around(points, np.array([-upward[1], upward[0]]), _HAND_MARGIN)
            hands.append(Landmarks(points, float(score[0]), np.ones(len(points))))
        return _unique(hands)

    def detect_bodies(self, image: Image.Image, views: Sequence[Roi]) -> list[BlazeDetection]:
        """Find bodies visible in any of the views, best first, without their landmarks."""
        return self._bodies(image, views)

    def body(self, image: Image.Image, region: Roi) -> Body | None:
        """Find the body in a region, which a first pass refines; return `None` if there is none."""
        for _ in range(2):
            used = region
            values, score, segmentation, *_ = self._pose(image, used)
            values = values.reshape(-1, 5)
            points = used.to_image(values[:, :2] / self._pose.size)
            # The last points are the centre of the hips and the circle around them.
            region = Roi.upward(points[33], points[34] - points[33], _BODY_MARGIN)
        probability = used.paste(sigmoid(segmentation[..., 0]), image.size)
        if score[0] < self.min_score or not (probability > 0.5).any():
            return None
        corners = np.array(bbox_of_mask(probability > 0.5)).reshape(2, 2)
        region = Roi.around(corners, np.array([1.0, 0.0]), _OUTLINE_MARGIN)
        outline = region.paste(self._outline(image, region)[0][..., 0], image.size)
        return Body(Landmarks(points[:33], float(score[0]), sigmoid(values[:33, 3])), probability, outline)


def body_region(detection: BlazeDetection) -> Roi:
    """Return the region of a detected body: the circle around the hips that holds it, with a margin."""
    hips, rim = detection.keypoints[:2]
    return Roi.upward(hips, rim - hips, _BODY_MARGIN)


def region_below(face: Landmarks) -> Roi:
    """Return the region of the body below a face, assuming an upright head."""
    upward = face.points[10] - face.points[152]
    # Foreshortened in a face that looks up or down.
    upward = upward * face.size / max(float(np.linalg.norm(upward)), 1e-6)
    return Roi.upward(face.points.mean(axis=0) - _HIPS_BELOW_FACE * upward, upward, _BODY_SIDE)


def wrist_regions(body: Landmarks) -> list[Roi]:
    """Return the regions where a body's hands should be, to find hands too small to be seen in the views."""
    points, regions = body.points, []
    for elbow, wrist in ((13, 15), (14, 16)):
        if body.visibility[wrist] > _SEEN:
            center = points[wrist] + 0.3 * (points[wrist] - points[elbow])
            regions.append(Roi((float(center[0]), float(center[1])), 1.2 * trunk_length(points)))
    return regions


def _unique(found: list[Landmarks]) -> list[Landmarks]:
    """Keep landmarks with a sufficient score, the best of each place."""
    kept: list[Landmarks] = []
    for landmarks in sorted(found, key=lambda one: -one.score):
        center = landmarks.points.mean(axis=0)
        apart = all(np.linalg.norm(other.points.mean(axis=0) - center) > 0.5 * landmarks.size for other in kept)
        if landmarks.score >= _MIN_LANDMARK_SCORE and apart:
            kept.append(landmarks)
    return kept
