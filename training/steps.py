"""The length of a training in steps, which is fixed before it begins: the order of its data depends on it."""

from __future__ import annotations

from math import ceil

from transformers import TrainingArguments


def fix_steps(args: TrainingArguments, count: int) -> int:
    """
    Set the number of steps, if it is not given, from the number of epochs.

    Args:
        args (`transformers.TrainingArguments`): Arguments of the trainer, changed in place.
        count (`int`): Number of units to train on.

    Returns:
        `int`: Number of units that the whole training draws.
    """
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    if args.max_steps <= 0:
        args.max_steps = ceil(args.num_train_epochs * count / per_step)
    return args.max_steps * per_step
