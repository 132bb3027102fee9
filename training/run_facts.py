"""What the record of every finished training says of its course, from its trainer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from training.run_folder import step_of


def run_facts(trainer: Trainer, begun: float, checkpoint: Path | None) -> dict[str, Any]:
    """
    Return the fields of [`~datasets_script.schema.training_record.TrainingRecord`] that a trainer knows.

    Args:
        trainer (`transformers.Trainer`): Trainer that has finished.
        begun (`float`): Time at which it began, of `time.monotonic`, in seconds.
        checkpoint (`Path`, *optional*): Checkpoint that it continued from.

    Returns:
        `dict[str, Any]`: `seed`, `device`, `devices`, `seconds`, `resumed_from_step`, `steps`, `loss` and `eval_loss`.
    """
    args, history = trainer.args, trainer.state.log_history
    return {
        "seed": args.seed,
        "device": _device_name(args.device),
        "devices": args.world_size,
        "seconds": round(time.monotonic() - begun, 1),
        "resumed_from_step": step_of(checkpoint) if checkpoint else None,
        "steps": trainer.state.global_step,
        "loss": tuple((entry["step"], entry["loss"]) for entry in history if "loss" in entry),
        "eval_loss": tuple((entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
