"""Scores of a pixel detector during training, kept as sums, so that no map of a whole dataset is in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import EvalPrediction

from datasets_script.detection.pixel.reading import smoothed_maximum
from datasets_script.detection.pixel.record import ScoreCalibration
from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.ranking import area_under_curve, image_ranking


LEVELS = 256
"""Levels of probability that curves are computed on."""

_WINDOW = ScoreCalibration().window
_WITHOUT_INTERVAL = Bootstrap(n_resamples=0)


@dataclass(eq=False)
class PixelMetrics:
    """
    Sums over images, which `Trainer` fills batch by batch (`batch_eval_metrics`).

    Args:
        threshold (`float`, *optional*, defaults to 0.5): Probability above which a pixel counts as an artifact.
    """

    threshold: float = 0.5
    _pixels: np.ndarray = field(default_factory=lambda: np.zeros((2, LEVELS), dtype=np.int64))
    _ious: list[float] = field(default_factory=list)
    _scores: list[tuple[float, bool]] = field(default_factory=list)
    _clean: list[tuple[bool, float]] = field(default_factory=list)

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """
        Add a batch, and return the scores after the last.

        Args:
            prediction (`EvalPrediction`): Logits of the class "artifact" and labels, of shape `(images, height,
                width)`.
            compute_result (`bool`, *optional*, defaults to `True`): Whether this is the last batch.
        """
        for logits, labels in zip(prediction.predictions, prediction.label_ids, strict=True):
            self.add(torch.as_tensor(logits).float().sigmoid(), torch.as_tensor(labels))
        if not compute_result:
            return {}
        scores = self.compute()
        self._pixels[:] = 0
        for kept in (self._ious, self._scores, self._clean):
            kept.clear()
        return scores

    def add(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """
        Add an image.

        Args:
            probabilities (`torch.Tensor` of shape `(height, width)`): Probability of each pixel.
            labels (`torch.Tensor` of shape `(height, width)`): Labels in [0, 1]; below 0 for pixels that do not count.
        """
        counts = labels >= 0
        true, predicted = (labels >= 0.5) & counts, (probabilities > self.threshold) & counts
        levels = (probabilities[counts] * (LEVELS - 1)).round().long()
        for index, part in enumerate((~true[counts], true[counts])):
            self._pixels[index] += torch.bincount(levels[part], minlength=LEVELS).numpy(force=True)
        shown = (probabilities * counts).numpy(force=True)
        self._scores.append((smoothed_maximum(shown, _WINDOW), bool(true.any())))
        if true.any():
            self._ious.append(float((true & predicted).sum() / (true | predicted).sum()))
        else:
            self._clean.append((bool(predicted.any()), float(predicted.sum() / counts.sum())))

    def compute(self) -> dict[str, float]:
        """
        Return the scores of the images so far. Those that need images of another kind are left out.

        Returns:
            `dict`: `pixel_iou` (mean over the artifact images of the intersection over union, protocol artiagent),
                `pixel_auc`, `pixel_recall` (of all artifact pixels), `image_auc` (of the smoothed maximum),
                `clean_frequency` (share of the clean images with a pixel above the threshold) and `clean_area` (their
                mean share of such pixels).
        """
        scores: dict[str, float] = {}
        if self._ious:
            above = np.arange(LEVELS) / (LEVELS - 1) > self.threshold
            scores["pixel_iou"] = float(np.mean(self._ious))
            scores["pixel_recall"] = float(self._pixels[1, above].sum() / self._pixels[1].sum())
        if self._pixels.any(axis=1).all():
            scores["pixel_auc"] = area_under_curve(*self._pixels)
        if self._ious and self._clean:
            values, is_artifact = zip(*self._scores, strict=True)
            scores["image_auc"] = image_ranking(values, is_artifact, _WITHOUT_INTERVAL)["auroc"]
        if self._clean:
            frequency, area = np.mean(np.array(self._clean, dtype=np.float64), axis=0)
            scores |= {"clean_frequency": float(frequency), "clean_area": float(area)}
        return scores
