"""What the scripts share that train on a mixture of sources with `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from transformers import Trainer, TrainingArguments

from datasets_script.utils.errors import UserError
from training.arguments import recipe_record
from training.pixel.data import Mixture
from training.pixel.sources.registry import parse_sources
from training.pixel.sources.spec import SourceSpec


class MixtureArguments(Protocol):
    """
    Arguments that every such script has.

    Attributes:
        model_name_or_path (`str`): Model that training begins with.
        sources (`list[str]`): Entries of the mixture.
        test_share (`float`): Share of the photos to hold out.
    """

    model_name_or_path: str
    sources: list[str]
    test_share: float


def settle(
    script_args: MixtureArguments,
    training_args: TrainingArguments,
    given: Mapping[str, Any],
    *,
    kind: str,
    metric: str,
) -> tuple[list[SourceSpec], dict[str, Any]]:
    """
    Check the arguments that all these scripts have, and set those of the trainer that a script decides, in place: a
    batch keeps its columns, and the order is that of the mixture.

    Args:
        script_args (`MixtureArguments`): Arguments of the script.
        training_args (`transformers.TrainingArguments`): Arguments of the trainer.
        given (`Mapping[str, Any]`): Values given on the command line and in the recipe.
        kind (`str`): What `artiagent push` calls the model.
        metric (`str`): Score that chooses the best checkpoint, unless another is given; greater is better.

    Returns:
        `tuple[list[SourceSpec], dict[str, Any]]`: The entries of the mixture, and the values as `training.json`
        records them.

    Raises:
        UserError: An argument is missing or out of range.
    """
    for name, value in (("model_name_or_path", script_args.model_name_or_path), ("sources", script_args.sources)):
        if not value:
            raise UserError(f"--{name} must be set, got none; give it in the recipe or on the command line")
    if not 0 <= script_args.test_share < 1:
        raise UserError(f"--test_share must be at least 0 and below 1, got {script_args.test_share}")
    if training_args.push_to_hub:
        raise UserError(
            "--push_to_hub must be false, as training_args.bin holds paths of this machine, got true; leave it out, "
            f"then run `artiagent push {kind} {training_args.output_dir} REPO`"
        )
    specs = parse_sources(script_args.sources)
    training_args.remove_unused_columns = False
    training_args.label_names = ["labels"]
    training_args.train_sampling_strategy = "sequential"
    if training_args.load_best_model_at_end and "metric_for_best_model" not in given:
        training_args.metric_for_best_model, training_args.greater_is_better = metric, True
    return specs, recipe_record({**given, "sources": [spec.to_dict() for spec in specs]})


def announce(trainer: Trainer, mixture: Mixture, counts: Mapping[str, int], unit: str, more: str = "") -> None:
    """
    Print what will be trained, on what, and the effective batch size.

    Args:
        trainer (`transformers.Trainer`): The trainer.
        mixture (`Mixture`): What is trained on.
        counts (`Mapping[str, int]`): Numbers of parameters, see [`~training.parameter_counts.parameter_counts`].
        unit (`str`): What a batch is made of, in the plural.
        more (`str`, *optional*, defaults to `""`): What else is to be said of the data.
    """
    args = trainer.args
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    trainer.accelerator.print(
        f"{mixture.count('train'):,} {unit}, {mixture.count('test'):,} held out{more}\n"
        f"{counts['trainable_parameters']:,} of {counts['parameters']:,} parameters are trained\n"
        f"{args.max_steps:,} steps of {batch} {unit} = {args.per_device_train_batch_size} per device x "
        f"{args.gradient_accumulation_steps} accumulated x {args.world_size} devices"
    )
