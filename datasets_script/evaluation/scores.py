"""Scoring of predictions on a benchmark: one pass over its images, then the scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluate_metrics.functional.artifact_map import map_statistics, score_map_statistics
from evaluate_metrics.functional.classification import artifact_classification, find_class
from evaluate_metrics.functional.css import css
from evaluate_metrics.functional.detection import artifact_detection
from evaluate_metrics.functional.grid import GRID_PROTOCOL, cell_counts, score_cell_counts
from evaluate_metrics.functional.instances import match_instances, score_instances
from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.miou import score_pixel_counts
from evaluate_metrics.functional.ranking import image_ranking
from evaluate_metrics.functional.regions import pixel_counts
from evaluate_metrics.functional.rouge import count_unread, rouge

from ..schema.image import BenchmarkImage
from ..schema.prediction import Prediction
from .protocol_masks import Compared, compared, truth_map, truth_region


MISSING = "there is no prediction for it"


@dataclass(frozen=True)
class ScoringSettings:
    """
    Settings of the scoring.

    Attributes:
        protocol (`str`): Definition of mIoU, see [`evaluate_metrics.functional.miou.miou`], and how masks are made,
            see [`truth_region`]; or `"viescore2"`, which compares cells, see
            [`evaluate_metrics.functional.grid.grid_iou`].
        empty (`str`): IoU and F1 of an image where neither truth nor prediction has a pixel, see the same function.
        threshold (`float`): Value in [0, 1] above which a pixel of a predicted heat map counts as artifact.
        truth_threshold (`float`): Same for heat maps of the benchmark.
        resize (`str`): What to do with a predicted mask whose size differs from its image, see
            [`evaluate_metrics.functional.regions.pixel_counts`].
        transform (`str`, *optional*): What X-AIGD's detectors see of an image, a key of
            [`evaluate_metrics.functional.transforms.TRANSFORMS`]; `None` compares whole images.
        cell_share (`float`): With `"viescore2"`, share of a cell's pixels that must be exceeded.
        css_model (`str`, *optional*): Sentence-embedding model for CSS; `None` skips CSS.
        bootstrap (`Bootstrap`): Settings of the confidence intervals.
    """

    protocol: str = "artiagent"
    empty: str = "one"
    threshold: float = 0.5
    truth_threshold: float = 0.5
    resize: str = "error"
    transform: str | None = None
    cell_share: float = 0.0
    css_model: str | None = None
    bootstrap: Bootstrap = field(default_factory=Bootstrap)


@dataclass(frozen=True)
class Located:
    """
    Localization result of one image with artifacts.

    Attributes:
        id (`str`): Id of the image.
        iou (`float`): IoU of predicted and true pixels, or cells.
        area (`float`): Share of the image that the true artifacts cover, in [0, 1].
        is_predicted (`bool`): Whether any pixel was predicted.
        classes (`tuple[str, ...]`): Classes of the true artifacts.
    """

    id: str
    iou: float
    area: float
    is_predicted: bool
    classes: tuple[str, ...]

    @property
    def rank(self) -> tuple[float, bool, str]:
        """Return the sort key from worst to best; of two IoUs of 0, a wrong place comes before no place."""
        return self.iou, not self.is_predicted, self.id


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """Image of the benchmark with its prediction and localization result."""

    image: BenchmarkImage
    prediction: Prediction
    located: Located


@dataclass(frozen=True)
class Evaluation:
    """
    Scores of predictions, and what they were computed from.

    Attributes:
        n (`int`): Number of images.
        sections (`dict[str, dict]`): Results of the metrics `"detection"`, `"ranking"`, `"localization"`,
            `"instances"` (under the protocol `"x_aigd"`), `"artifact_map"`, `"rouge"`, `"css"` and
            `"classification"`, without those that neither predictions nor failures concern.
        located (`tuple[Located, ...]`): Localization result of each image with artifacts in known places.
        failures (`tuple[tuple[str, str], ...]`): Image id and reason, for every answer that could not be used.
        unscored_classes (`tuple[str, ...]`): Classes of the benchmark that SynArtifact does not have, if predictions
            name classes; there is then no `"classification"`.
        worst, best (`tuple[ScoredImage, ...]`): Images of `located` with the lowest and with the highest IoU, worst or
            best first; as many as [`evaluate_predictions`] was asked to keep.
    """

    n: int
    sections: dict[str, dict[str, Any]]
    located: tuple[Located, ...]
    failures: tuple[tuple[str, str], ...]
    unscored_classes: tuple[str, ...] = ()
    worst: tuple[ScoredImage, ...] = ()
    best: tuple[ScoredImage, ...] = ()

    def score(self, name: str) -> Any:
        """Return the score named `"section.score"`, usually a number, or `None` if it was not computed."""
        section, _, key = name.partition(".")
        return self.sections.get(section, {}).get(key)

    def ious_by_class(self) -> dict[str, list[float]]:
        """Return the IoU of all located images, grouped by class of artifact."""
        by_class = defaultdict(list)
        for located in self.located:
            for name in located.classes:
                by_class[name].append(located.iou)
        return dict(sorted(by_class.items()))


def evaluate_predictions(
    images: Iterable[BenchmarkImage],
    predictions: Mapping[str, Prediction],
    settings: ScoringSettings,
    cases: int = 0,
) -> Evaluation:
    """
    Score predictions on a benchmark. An image without a prediction counts as an unparsable answer, not as a "no".
    Images are read one by one in a single pass, so that memory does not grow with their number.

    Args:
        images (`Iterable[BenchmarkImage]`): Images of the benchmark, each once.
        predictions (`Mapping[str, Prediction]`): Predictions by image id.
        settings (`ScoringSettings`): Settings of the scoring.
        cases (`int`, *optional*, defaults to 0): Number of worst and of best located images to keep.

    Returns:
        `Evaluation`: The scores.

    Raises:
        ValueError: There is no image, or the size of a mask differs from its image.
        ImportError, OSError: The package or the model of a metric is missing.
    """
    tables = _Tables(cases)
    for image in images:
        prediction = predictions.get(image.id) or Prediction(image.id, failures=(MISSING,))
        tables.add(image, prediction, settings)
    return tables.evaluation(settings)


@dataclass
class _Tables:
    """Rows of all images, collected in one pass, and the worst and best images so far."""

    cases: int
    predictions: list[Prediction] = field(default_factory=list)
    labels: list[bool | None] = field(default_factory=list)
    classes: list[tuple[str, ...]] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)
    located: list[Located] = field(default_factory=list)
    instances: list[tuple[int, int, int]] = field(default_factory=list)
    maps: list[tuple[float, float, float, float]] = field(default_factory=list)
    texts: list[tuple[str | None, str]] = field(default_factory=list)
    worst: list[ScoredImage] = field(default_factory=list)
    best: list[ScoredImage] = field(default_factory=list)

    def add(self, image: BenchmarkImage, prediction: Prediction, settings: ScoringSettings) -> None:
        self.predictions.append(prediction)
        self.labels.append(image.has_artifact)
        self.classes.append(tuple(sorted({region.name for region in image.regions if region.name})))
        if image.explanation and image.has_artifact is not False:
            self.texts.append((prediction.explanation, image.explanation))
        # An image with artifacts but without regions cannot be scored by place.
        if image.regions or image.has_artifact is False:
            self._locate(image, prediction, settings)

    def _locate(self, image: BenchmarkImage, prediction: Prediction, settings: ScoringSettings) -> None:
        try:
            counts = _counts(compared(image, prediction, settings), settings)
            if prediction.artifact_map is not None:
                self.maps.append(map_statistics(prediction.artifact_map.read_bytes(), truth_map(image)))
        except ValueError as error:
            raise ValueError(f"image {image.id!r}: {error}") from error
        self.counts.append(counts)
        if settings.protocol == "x_aigd" and (prediction.mask is None or prediction.boxes is not None):
            found, missed, false = match_instances(
                prediction.boxes or (), truth_region(image, settings.truth_threshold, settings.protocol), image.size
            )
            # Boxes that are none, or lie outside the image, are not in `boxes` any more; they are false, too.
            unread = sum(reason.startswith("boxes: ") for reason in prediction.failures)
            self.instances.append((found, missed, false + unread))
        hits, false, missed, _ = counts
        if hits + missed:
            iou = float(hits / (hits + false + missed))
            area = float((hits + missed) / counts.sum())
            located = Located(image.id, iou, area, bool(hits + false), self.classes[-1])
            self.located.append(located)
            self._keep(ScoredImage(image, prediction, located))

    def _keep(self, scored: ScoredImage) -> None:
        for kept, reverse in ((self.worst, False), (self.best, True)):
            kept.append(scored)
            kept.sort(key=lambda case: case.located.rank, reverse=reverse)
            del kept[self.cases :]

    def evaluation(self, settings: ScoringSettings) -> Evaluation:
        if not self.predictions:
            raise ValueError("`images` must hold at least one image, got none")
        sections = {
            "detection": self._detection(settings),
            "ranking": self._ranking(settings),
            "localization": self._localization(settings),
            "instances": self._instances(settings),
            "artifact_map": self._artifact_map(settings),
            **self._explanation(settings),
            "classification": self._classification(settings),
        }
        return Evaluation(
            n=len(self.predictions),
            sections={name: section for name, section in sections.items() if section is not None},
            located=tuple(self.located),
            failures=tuple((given.id, reason) for given in self.predictions for reason in given.failures),
            unscored_classes=self._foreign_classes() if self._names_classes() else (),
            worst=tuple(self.worst),
            best=tuple(self.best),
        )

    def _failed(self, *questions: str) -> bool:
        """Return whether any answer to these questions failed; what was asked is scored even if all answers fail."""
        return any(not given.failed_questions.isdisjoint(questions) for given in self.predictions)

    def _detection(self, settings: ScoringSettings) -> dict[str, Any] | None:
        known = [index for index, label in enumerate(self.labels) if label is not None]
        said = any(given.has_artifact is not None for given in self.predictions)
        if not known or not (said or self._failed("detection", "answer")):
            return None
        return artifact_detection(
            [_as_label(self.predictions[index].has_artifact) for index in known],
            [int(bool(self.labels[index])) for index in known],
            [self.classes[index] for index in known],
            settings.bootstrap,
        )

    def _ranking(self, settings: ScoringSettings) -> dict[str, Any] | None:
        """Score the ranking of images, if every one that is known to be clean or not has a score."""
        known = [
            (given.score, label)
            for given, label in zip(self.predictions, self.labels, strict=True)
            if label is not None
        ]
        scores = [score for score, _ in known if score is not None]
        if len(scores) < len(known) or len({label for _, label in known}) < 2:
            return None
        return image_ranking(scores, [int(label) for _, label in known], settings.bootstrap)

    def _localization(self, settings: ScoringSettings) -> dict[str, Any] | None:
        said = any(given.boxes is not None or given.mask is not None for given in self.predictions)
        if not self.located or not (said or self._failed("localization", "boxes")):
            return None
        counts = np.stack(self.counts)
        if settings.protocol == GRID_PROTOCOL:
            return score_cell_counts(counts, settings.cell_share, empty=settings.empty, bootstrap=settings.bootstrap)
        return score_pixel_counts(counts, settings.protocol, empty=settings.empty, bootstrap=settings.bootstrap)

    def _instances(self, settings: ScoringSettings) -> dict[str, Any] | None:
        """Score boxes by X-AIGD's instances, if all predictions are boxes, of one class, since they have no other."""
        boxes = any(given.boxes is not None for given in self.predictions)
        if not self.located or not boxes or len(self.instances) < len(self.counts):
            return None
        failed = [False] * len(self.instances)
        return score_instances(np.array(self.instances), failed, settings.bootstrap)

    def _artifact_map(self, settings: ScoringSettings) -> dict[str, Any] | None:
        """Score maps as DiffDoctor does, if there is one for every image whose artifacts are in known places."""
        if not self.maps or len(self.maps) < len(self.counts):
            return None
        return score_map_statistics(self.maps, bootstrap=settings.bootstrap)

    def _explanation(self, settings: ScoringSettings) -> dict[str, dict[str, Any]]:
        said = any(given.explanation is not None for given in self.predictions)
        if not self.texts or not (said or self._failed("explanation")):
            return {}
        predicted, true = (list(column) for column in zip(*self.texts, strict=True))
        sections = {"rouge": rouge(predicted, true, bootstrap=settings.bootstrap)}
        if unread := count_unread(true):
            sections["rouge"]["n_unread"] = unread
        if settings.css_model is not None:
            sections["css"] = css(predicted, true, model=settings.css_model, bootstrap=settings.bootstrap)
        return sections

    def _classification(self, settings: ScoringSettings) -> dict[str, Any] | None:
        if not self._names_classes() or self._foreign_classes():
            return None
        # Images with artifacts but without a class are not scored; clean ones have the class "no artifacts".
        known = [index for index, label in enumerate(self.labels) if self.classes[index] or label is False]
        if not known:
            return None
        return artifact_classification(
            [self.predictions[index].classes for index in known],
            [self.classes[index] for index in known],
            bootstrap=settings.bootstrap,
        )

    def _names_classes(self) -> bool:
        return any(given.classes is not None for given in self.predictions) or self._failed("classification")

    def _foreign_classes(self) -> tuple[str, ...]:
        names = {name for classes in self.classes for name in classes}
        return tuple(sorted(name for name in names if find_class(name) is None))


def _counts(regions: Compared, settings: ScoringSettings) -> np.ndarray:
    if settings.protocol == GRID_PROTOCOL:
        return cell_counts(
            regions.prediction,
            regions.truth,
            regions.size,
            threshold=settings.threshold,
            cell_share=settings.cell_share,
            resize=settings.resize,
        )
    return pixel_counts(
        regions.prediction, regions.truth, regions.size, threshold=settings.threshold, resize=settings.resize
    )


def _as_label(answer: bool | None) -> int | None:
    return None if answer is None else int(answer)
