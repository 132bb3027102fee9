"""The trainer of pixel detectors: one with a loss on pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction, PreTrainedModel

from datasets_script.detection.pixel.models import class_logits_to_artifact
from training.pixel.losses import OUTSIDE, pixel_loss
from training.pixel.metrics import PixelMetrics
from training.trunk_trainer import TrunkTrainer


class PixelTrainer(TrunkTrainer):
    """
    Trainer of a pixel detector.

    Args:
        model (`PreTrainedModel`): The network.
        loss (`str`): One of [`~training.pixel.losses.LOSSES`].
        kwargs: Further arguments of [`~training.trunk_trainer.TrunkTrainer`], whose held-out units are whole images.
    """

    def __init__(self, model: PreTrainedModel, loss: str, **kwargs: Any) -> None:
        self.network, self.loss_name, self.scores = model, loss, PixelMetrics()
        super().__init__(model=model, compute_metrics=self._score, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch, and with it, if asked for, logits of shape `(images, height, width)`."""
        labels = inputs["labels"]
        found = model(pixel_values=inputs["pixel_values"]).logits
        logits = class_logits_to_artifact(self.network, found, (labels.shape[1], labels.shape[2]))
        loss = pixel_loss(logits, labels, self.loss_name)
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, Any, Any]:
        """
        Return the loss of a batch of held-out units, and logits and labels of shape `(units, images, height, width)`.
        Units with fewer images, and images that are smaller than those of other processes, are filled up with
        [`~training.pixel.losses.OUTSIDE`].
        """
        loss, *found = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if prediction_loss_only:
            return loss, None, None
        logits, labels = (self._by_unit(maps, inputs["images"].tolist()) for maps in found)
        return loss, logits, labels

    def _by_unit(self, maps: torch.Tensor, images: Sequence[int]) -> torch.Tensor:
        # By unit, because the base class drops what is beyond the last unit, and not the last image.
        maps = pad_sequence(list(maps.split(images)), batch_first=True, padding_value=OUTSIDE)
        # The base class does the same for the images of a unit. The network has not seen this padding.
        for axis in (2, 3):
            maps = self.accelerator.pad_across_processes(maps, dim=axis, pad_index=OUTSIDE)
        return maps

    def _score(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        logits, labels = (
            torch.as_tensor(maps).flatten(0, 1) for maps in (prediction.predictions, prediction.label_ids)
        )
        shown = (labels >= 0).flatten(1).any(1)
        return self.scores(EvalPrediction(logits[shown], labels[shown]), compute_result)
