"""The trainer of pixel detectors: `transformers.Trainer` with a loss on pixels and a learning rate for the trunk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer

from datasets_script.detection.pixel.models import class_logits_to_artifact
from training.pixel.base import trunk_of
from training.pixel.losses import pixel_loss
from training.pixel.metrics import PixelMetrics


class PixelTrainer(Trainer):
    """
    Trainer of a pixel detector.

    Args:
        model (`PreTrainedModel`): The network.
        loss (`str`): One of [`~training.pixel.losses.LOSSES`].
        eval_collator (`Callable`): Function that makes a batch of held-out units, of whole images.
        trunk_learning_rate (`float`, *optional*): Learning rate of the trunk. Defaults to that of the head.
        kwargs: Further arguments of [`transformers.Trainer`].
    """

    # Assigned by the base class, without a type.
    data_collator: Any
    optimizer: Any

    def __init__(
        self,
        model: PreTrainedModel,
        loss: str,
        eval_collator: Callable[[Any], dict[str, torch.Tensor]],
        trunk_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.eval_collator = eval_collator
        self.trunk_learning_rate = trunk_learning_rate
        super().__init__(
            model=model,
            compute_loss_func=partial(_loss, model, loss),
            compute_metrics=PixelMetrics(),
            preprocess_logits_for_metrics=partial(_artifact_logits, model),
            **kwargs,
        )
        # The loss is a mean over a batch, so that the trainer divides it by the number of accumulated batches.
        self.loss_is_scaled_for_ga = False

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return the batches of held-out units."""
        training, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer, with groups of their own for the trunk if it has its own learning rate."""
        if self.optimizer is None and self.trunk_learning_rate is not None:
            decayed = set(self.get_decay_parameter_names(self.model))
            of_trunk = {id(parameter) for parameter in trunk_of(self.model).parameters()}
            groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((id(parameter) in of_trunk, name in decayed), []).append(parameter)
            optimizer, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            rates = {True: self.trunk_learning_rate, False: self.args.learning_rate}
            self.optimizer = optimizer(
                [
                    {
                        "params": parameters,
                        "lr": rates[is_trunk],
                        "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                    }
                    for (is_trunk, is_decayed), parameters in sorted(groups.items())
                ],
                **options,
            )
        return super().create_optimizer(model)


def _loss(
    model: PreTrainedModel, name: str, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None
) -> torch.Tensor:
    return pixel_loss(_artifact_logits(model, outputs.logits, labels), labels, name)


def _artifact_logits(model: PreTrainedModel, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return class_logits_to_artifact(model, logits, (labels.shape[1], labels.shape[2]))
