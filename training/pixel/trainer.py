"""The trainer of pixel detectors: one with a loss on pixels."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from datasets_script.detection.pixel.models import class_logits_to_artifact
from training.pixel.losses import pixel_loss
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
        super().__init__(
            model=model,
            compute_loss_func=partial(_loss, model, loss),
            compute_metrics=PixelMetrics(),
            preprocess_logits_for_metrics=partial(_artifact_logits, model),
            **kwargs,
        )
        # The loss is a mean over a batch, so that the trainer divides it by the number of accumulated batches.
        self.loss_is_scaled_for_ga = False


def _loss(
    model: PreTrainedModel, name: str, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None
) -> torch.Tensor:
    return pixel_loss(_artifact_logits(model, outputs.logits, labels), labels, name)


def _artifact_logits(model: PreTrainedModel, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return class_logits_to_artifact(model, logits, (labels.shape[1], labels.shape[2]))
