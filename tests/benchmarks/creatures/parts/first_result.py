"""
Do synthetic artifacts teach a detector the generator's own?

Each detector of `detectors.py` is scored against the oracle on the pictures of `base`, which none of them has seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluate_metrics.functional.ranking import image_ranking
from tests.benchmarks.creatures.detectors import LESSONS, scores_of, trained
from tests.benchmarks.creatures.effects import WITNESSES
from tests.benchmarks.creatures.measures import judge_all
from tests.benchmarks.creatures.world import World


TOGETHER = "many_labelled and witness"
"""The mean of the scores of these two."""


def run(world: World) -> dict[str, Any]:
    """Train the detectors that are missing and score all."""
    pictures = world.pictures("base")
    flawed = np.array([verdict.has_artifact for verdict in judge_all(pictures, world.words)])
    blocks, each = {}, {name: scores_of(trained(world, name), pictures) for name in LESSONS}
    for name, scores in {**each, TOGETHER: np.mean([each[name] for name in WITNESSES], axis=0)}.items():
        ranking = image_ranking(scores.tolist(), flawed.astype(int).tolist())
        blocks[name] = {
            "auc_vs_oracle": round(ranking["auroc"], 4),
            "auc_vs_oracle_interval": [round(limit, 4) for limit in ranking["auroc_interval"]],
            # How much of what it flags is there, and what it flags without one.
            "flagged_with_artifact": round(float((scores[flawed] > 0.5).mean()), 4) if flawed.any() else None,
            "flagged_without": round(float((scores[~flawed] > 0.5).mean()), 4) if not flawed.all() else None,
        }
    return {
        "pictures": len(pictures),
        "with_artifact": int(flawed.sum()),
        "detector_auc_vs_oracle": blocks["mixture"]["auc_vs_oracle"],
        "detectors": blocks,
    }
