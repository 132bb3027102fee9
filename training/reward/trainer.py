"""The trainer of reward models."""

from __future__ import annotations

from typing import Any

import torch
from transformers import EvalPrediction

from datasets_script.detection.reward.heads import RewardHead
from datasets_script.detection.reward.network import RewardNetwork
from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.pair_ranking import pair_ranking
from training.reward.loss import bradley_terry, squared_norm
from training.trunk_trainer import TrunkTrainer


_WITHOUT_INTERVAL = Bootstrap(n_resamples=0)


class RewardTrainer(TrunkTrainer):
    """
    Trainer with the loss of [`~training.reward.loss.bradley_terry`].

    Args:
        model (`RewardNetwork` or `RewardHead`): The network, or its head alone.
        l2 (`float`): Factor of the squared norm of the head that is added to the loss in training.
        kwargs: Further arguments of [`~training.trunk_trainer.TrunkTrainer`].
    """

    def __init__(self, model: RewardNetwork | RewardHead, l2: float, **kwargs: Any) -> None:
        self.l2, self.head = l2, model.head if isinstance(model, RewardNetwork) else model
        super().__init__(model=model, compute_metrics=pair_scores, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch, and with it, if asked for, the scores of shape `(pairs, 2)`, clean first."""
        scores = model(**inputs["inputs"])[inputs["places"]].float()
        clean, artifact = scores.chunk(2)
        loss = bradley_terry(clean, artifact, inputs["cross"])
        if model.training:
            loss = loss + self.l2 * squared_norm(self.head)
        return (loss, {"logits": torch.stack([clean, artifact], 1)}) if return_outputs else loss


def pair_scores(prediction: EvalPrediction) -> dict[str, float]:
    """Compute pair accuracy and cross-scene area from scores of shape `(pairs, 2)`, clean first, and photos."""
    clean, artifact = prediction.predictions.T
    scores = pair_ranking(clean, artifact, [str(photo) for photo in prediction.label_ids], _WITHOUT_INTERVAL)
    return {name: scores[name] for name in ("pair_accuracy", "cross_scene_auc")}
