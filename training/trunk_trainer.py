"""What trainers of networks with a trunk and a head share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer

from training.pixel.base import trunk_of


class TrunkTrainer(Trainer):
    """
    Trainer of a network with a trunk, which may have a learning rate of its own, and with other batches in evaluation.
    A class that inherits from it computes a loss that is a mean over a batch.

    Args:
        eval_collator (`Callable`): Function that makes a batch of held-out units.
        trunk_learning_rate (`float`, *optional*): Learning rate of the trunk. Defaults to that of the head.
        kwargs: Further arguments of [`transformers.Trainer`].
    """

    # Assigned by the base class, without a type.
    data_collator: Any
    optimizer: Any

    def __init__(
        self, eval_collator: Callable[[Any], dict[str, Any]], trunk_learning_rate: float | None = None, **kwargs: Any
    ) -> None:
        self.eval_collator = eval_collator
        self.trunk_learning_rate = trunk_learning_rate
        super().__init__(**kwargs)
        # A loss is a mean over a batch: the trainer then divides it by the number of accumulated batches, and does not
        # multiply it by that of processes.
        self.model_accepts_loss_kwargs = False

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
