"""Scores of a pixel detector during training, kept as sums, so that no map of a whole dataset is in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional
from transformers import EvalPrediction


LEVELS = 256
"""Levels of probability that curves are computed on."""

# Side of the square that a map is averaged over before its maximum is taken: single pixels decide no score.
_SMOOTHED = 9


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
        smoothed = functional.avg_pool2d((probabilities * counts)[None, None], _SMOOTHED, 1, _SMOOTHED // 2)
        self._scores.append((float(smoothed.max()), bool(true.any())))
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
        values, is_artifact = np.array(self._scores, dtype=np.float64).reshape(-1, 2).T
        if 0 < is_artifact.sum() < len(is_artifact):
            ranks = np.unique(values, return_inverse=True)[1]
            negatives, positives = (
                np.bincount(ranks[is_artifact == kind], minlength=ranks.max() + 1) for kind in (0, 1)
            )
            scores["image_auc"] = area_under_curve(negatives, positives)
        if self._clean:
            frequency, area = np.mean(np.array(self._clean, dtype=np.float64), axis=0)
            scores |= {"clean_frequency": float(frequency), "clean_area": float(area)}
        return scores


def area_under_curve(negatives: np.ndarray, positives: np.ndarray) -> float:
    """
    Compute the area under the ROC curve from histograms; ties count half.

    Args:
        negatives, positives (`np.ndarray` of shape `(levels,)`): Number of negatives and positives at each level, from
            the lowest.
    """
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / (negatives.sum() * positives.sum()))
