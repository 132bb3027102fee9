"""Numbers of parameters, as the records of all trainings state them."""

from __future__ import annotations

from typing import Any


def parameter_counts(model: Any) -> dict[str, int]:
    """Count the trainable parameters and all parameters, by the names that the record of a training uses."""
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        # Under ZeRO-3 each process holds a shard of a parameter, and DeepSpeed stores its full size.
        counts[parameter.requires_grad] += getattr(parameter, "ds_numel", parameter.numel())
    return {"trainable_parameters": counts[True], "parameters": counts[True] + counts[False]}
