# /// script
# dependencies = [
#     "artiagent[train]",
#     "deepspeed; sys_platform == 'linux'",
# ]
# ///

"""
Fine-tune a vision-language model on conversations about artifacts with TRL's `SFTTrainer`. Unlike `trl sft`, this
script freezes parts of the model, writes boxes for the model's own processor, and sets pixel bounds for both.

# Full training (ArtiAgent's two stages, on 8 GPUs)
```bash
accelerate launch --config_file training/accelerate_configs/zero3.yaml -m training.sft_vlm \
    --config qwen2_5_vl_7b_stage1 --dataset_name runs/pairs
accelerate launch --config_file training/accelerate_configs/zero3.yaml -m training.sft_vlm \
    --config qwen2_5_vl_7b_stage2 --dataset_name runs/pairs
```

# LoRA (one 24 GB GPU)
```bash
python -m training.sft_vlm --config qwen2_5_vl_7b_lora_24gb --dataset_name runs/pairs
```

RECIPE is a name from the list of `artiagent train`, or a YAML file of your own. Every value of it can be overridden on
the command line. After Ctrl-C or a crash, the same command continues from the last checkpoint. `training.json` beside
the model records recipe, base model, data, versions and losses. `artiagent push model FOLDER REPO` publishes the
model.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, set_seed
from trl import (
    ModelConfig,
    ScriptArguments,
    SFTConfig,
    SFTTrainer,
    TrlParser,
    get_peft_config,
    get_quantization_config,
)

from datasets_script.schema.training_record import BaseModel, TrainingMethod, TrainingRecord
from datasets_script.utils.errors import UserError
from datasets_script.vlm.conventions import CONVENTIONS, convention_for
from datasets_script.vlm.local import recorded_coordinates
from evaluate_metrics.functional.versions import versions
from training.arguments import find_base, given_arguments, parse_arguments, recipe_record, with_recipe_paths
from training.parameter_counts import parameter_counts
from training.run_facts import run_facts
from training.run_folder import begin_run
from training.script import run_script
from training.vlm.data import CONVERSATIONS, Conversations
from training.vlm.freezing import PARTS, exclude_from_lora, freeze
from training.vlm.processor import find_chat_template, prepare_processor, set_chat_template


@dataclass
class SFTVLMArguments(ScriptArguments):
    """
    Arguments of this script, besides those of TRL.

    Args:
        conversations (`list[str]`, *optional*): Kinds of conversations, from `CONVERSATIONS`. Defaults to the one that
            `dataset_config` names, or to `vqa` and `instructions`.
        coordinates (`str`, *optional*): Convention for boxes. Defaults to the one in the model's training record, or
            to that of its family.
        min_pixels, max_pixels (`int`, *optional*): Bounds on the number of pixels of an image that the model sees.
            They are set on the processor and saved with it, and answers are written for them.
        test_share (`float`, *optional*, defaults to 0): Share of the source photos to hold out for the evaluation
            loss, at least 0 and below 1.
        num_pairs (`int`, *optional*): Number of pairs to train on, the first of the dataset. Defaults to all.
        dataset_revision (`str`, *optional*): Branch, tag or commit of a dataset on the Hub.
        freeze (`list[str]`, *optional*): Parts of the model to freeze, from `vision`, `projector` and `language`.
    """

    conversations: list[str] | None = field(
        default=None,
        metadata={
            "help": f"Kinds of conversations, from {', '.join(CONVERSATIONS)}. Default: the one that --dataset_config "
            "names, or vqa and instructions."
        },
    )
    coordinates: str | None = field(
        default=None,
        metadata={
            "help": "Convention for boxes. Default: the one in the model's training record, or that of its family.",
            "choices": [*CONVENTIONS],
        },
    )
    min_pixels: int | None = field(
        default=None,
        metadata={"help": "Minimum number of pixels of an image that the model sees. Default: its processor's."},
    )
    max_pixels: int | None = field(
        default=None,
        metadata={
            "help": "Maximum number of pixels of an image that the model sees, in InternVL of all tiles together. "
            "Default: its processor's."
        },
    )
    test_share: float = field(
        default=0.0,
        metadata={"help": "Share of the source photos to hold out for the evaluation loss."},
    )
    num_pairs: int | None = field(
        default=None, metadata={"help": "Number of pairs to train on: the first ones. Default: all."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a dataset on the Hub."}
    )
    freeze: list[str] = field(
        default_factory=list,
        metadata={"help": f"Parts of the model to freeze, from {', '.join(PARTS)}."},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    script_args, training_args, model_args, recipe = parse(arguments)
    output_dir = Path(training_args.output_dir)
    checkpoint = begin_run(output_dir, recipe, training_args.should_save)
    set_seed(training_args.seed)

    # Processor and data
    inputs = prepare_inputs(script_args, training_args, model_args)
    dataset = inputs.conversations.load()
    if training_args.eval_strategy != "no" and "test" not in dataset:
        raise UserError(
            f"--test_share must be above 0 for --eval_strategy, got {script_args.test_share}; set it, e.g. to 0.02"
        )

    # Model
    # transformers saves the weights of these families under older names than it looks for when it resumes, so that it
    # would warn and train the base model again. So a checkpoint's weights are loaded here. The trainer finds adapters
    # and sharded weights itself.
    if checkpoint is not None and (checkpoint / "config.json").exists():
        model = load_model(str(checkpoint), model_args, training_args.device, inputs.options | {"revision": None})
    else:
        model = load_model(model_args.model_name_or_path, model_args, training_args.device, inputs.options)
    peft_config = get_peft_config(model_args)
    if peft_config is not None:
        exclude_from_lora(peft_config, script_args.freeze, inputs.config.model_type)
    else:
        freeze(model, script_args.freeze)

    # Training
    trainer = SFTTrainer(
        model=model,
        args=training_args,
        train_dataset=dataset["train"],
        eval_dataset=dataset.get("test"),
        processing_class=inputs.processor,
        peft_config=peft_config,
    )
    counts = parameter_counts(trainer.model)
    announce(trainer, recipe, inputs.conversations.box_format.coordinates, counts)
    # Before training, so that it describes the data trained on, and errors in the data show early.
    data = inputs.conversations.record() if trainer.is_world_process_zero() else {}
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if "test" in dataset:
        trainer.evaluate()

    # Saving
    trainer.save_model(training_args.output_dir)
    if trainer.is_world_process_zero():
        TrainingRecord(
            script="training/sft_vlm.py",
            recipe=recipe,
            base=inputs.base,
            method=TrainingMethod(peft=model_args.use_peft, frozen=tuple(script_args.freeze), **counts),
            data=data,
            versions=versions("torch", "transformers", "trl", "peft", "accelerate", "datasets"),
            **run_facts(trainer, begun, checkpoint),
        ).write(output_dir)
    trainer.accelerator.print(
        f"model saved to {output_dir}; `artiagent push model {output_dir} REPO` publishes it with a card"
    )
    trainer.end()


def make_parser() -> TrlParser:
    return TrlParser(
        (SFTVLMArguments, SFTConfig, ModelConfig),
        usage="python -m training.sft_vlm --config RECIPE [--NAME VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(
    arguments: Sequence[str] | None = None,
) -> tuple[SFTVLMArguments, SFTConfig, ModelConfig, dict[str, Any]]:
    """
    Parse and check a command line.

    Args:
        arguments (`Sequence[str]`, *optional*): Arguments of the command line. Defaults to those of the process.

    Returns:
        `tuple`: Arguments of this script, of the trainer and of the model, and the values given on the command line
            and in the recipe, as `training.json` records them.

    Raises:
        UserError: An argument is unknown, missing or out of range.
    """
    arguments = with_recipe_paths(sys.argv[1:] if arguments is None else arguments)
    given = given_arguments(make_parser(), arguments)
    if template := given.get("chat_template_path"):
        given["chat_template_path"] = str(find_chat_template(template))
    for name in ("packing", "padding_free", "max_length"):
        if given.get(name):
            raise UserError(
                f"--{name} must be unset, as it would truncate or join conversations, got {given[name]}; leave it out"
            )
    if not given.get("assistant_only_loss", True):
        raise UserError(
            "--assistant_only_loss must be true, as questions are not to be learned, got false; leave it out"
        )
    script_args, training_args, model_args = parse_arguments(make_parser(), arguments)
    check(script_args, training_args, model_args)
    if training_args.chat_template_path is not None:
        training_args.chat_template_path = str(find_chat_template(training_args.chat_template_path))
    training_args.max_length, training_args.assistant_only_loss = None, True
    if script_args.conversations is None:
        configuration = script_args.dataset_config
        script_args.conversations = [configuration] if configuration else ["vqa", "instructions"]
    return script_args, training_args, model_args, recipe_record(given)


def check(script_args: SFTVLMArguments, training_args: SFTConfig, model_args: ModelConfig) -> None:
    for name, value in (
        ("model_name_or_path", model_args.model_name_or_path),
        ("dataset_name", script_args.dataset_name),
    ):
        if not value:
            raise UserError(f"--{name} must be set, got none; give it in the recipe or on the command line")
    for name, values, known in (
        ("conversations", script_args.conversations or (), CONVERSATIONS),
        ("freeze", script_args.freeze, PARTS),
    ):
        if unknown := sorted(set(values).difference(known)):
            raise UserError(f"--{name} must be among {', '.join(known)}, got '{unknown[0]}'")
    if not 0 <= script_args.test_share < 1:
        raise UserError(f"--test_share must be at least 0 and below 1, got {script_args.test_share}")
    if script_args.num_pairs is not None and script_args.num_pairs < 1:
        raise UserError(f"--num_pairs must be at least 1, got {script_args.num_pairs}")
    if (model_args.load_in_4bit or model_args.load_in_8bit) and not model_args.use_peft:
        raise UserError(
            "--use_peft must be true for quantized weights, which cannot be trained, got false; set it to true"
        )
    if training_args.push_to_hub:
        raise UserError(
            "--push_to_hub must be false, as training_args.bin holds paths of this machine, got true; leave it out, "
            f"then run `artiagent push model {training_args.output_dir} REPO`"
        )


@dataclass(frozen=True, eq=False)
class Inputs:
    """
    Everything that training needs besides the model itself.

    Attributes:
        base (`BaseModel`): Record of the base model.
        options (`dict`): Keyword arguments to load the base model with, for `from_pretrained`.
        config (`PreTrainedConfig`): Configuration of the base model.
        processor (`ProcessorMixin`): Processor of the base model, with the recipe's pixel bounds and chat template.
        conversations (`Conversations`): Conversations to train on, with boxes written for the processor.
    """

    base: BaseModel
    options: dict[str, Any]
    config: Any
    processor: Any
    conversations: Conversations


def prepare_inputs(script_args: SFTVLMArguments, training_args: SFTConfig, model_args: ModelConfig) -> Inputs:
    """Load the processor of a recipe's base model, and set up the conversations for it; arguments from [`parse`]."""
    name = model_args.model_name_or_path
    base, revision, before = find_base(name, model_args.model_revision)
    options = {"revision": revision, "trust_remote_code": training_args.trust_remote_code}
    config = AutoConfig.from_pretrained(name, **options)
    processor = AutoProcessor.from_pretrained(name, **options)
    coordinates = script_args.coordinates or recorded_coordinates(before) or convention_for(config.model_type, name)
    conversations = Conversations(
        source=script_args.dataset_name,
        kinds=script_args.conversations or (),
        box_format=prepare_processor(processor, coordinates, script_args.min_pixels, script_args.max_pixels),
        test_share=script_args.test_share,
        seed=training_args.seed,
        num_pairs=script_args.num_pairs,
        revision=script_args.dataset_revision,
    )
    if training_args.chat_template_path is None:
        set_chat_template(processor, config.model_type)
    else:
        processor.chat_template = Path(training_args.chat_template_path).read_text(encoding="utf-8")
    return Inputs(base, options, config, processor, conversations)


def load_model(name: str, model_args: ModelConfig, device: torch.device, options: dict[str, Any]) -> Any:
    quantization = get_quantization_config(model_args)
    if quantization is not None:
        # Quantized weights cannot be moved, so each process loads them onto its own device.
        options = options | {"quantization_config": quantization, "device_map": {"": device}}
    dtype = model_args.dtype if model_args.dtype in ("auto", None) else getattr(torch, model_args.dtype)
    model, loaded = AutoModelForImageTextToText.from_pretrained(
        name,
        dtype=dtype,
        attn_implementation=model_args.attn_implementation,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    # transformers would only warn, and train random weights in their place.
    if missing := sorted(loaded["missing_keys"]):
        raise UserError(
            f"--model_name_or_path must have all weights, got '{name}' without {missing[0]}; download it again"
        )
    return model


def announce(trainer: SFTTrainer, recipe: dict[str, Any], coordinates: str, counts: dict[str, int]) -> None:
    """Print what will be trained, on what, and the effective batch size."""
    args = trainer.args
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    trainer.accelerator.print(
        f"{len(trainer.train_dataset):,} conversations, {len(trainer.eval_dataset or ()):,} held out; boxes: "
        f"{coordinates}\n{counts['trainable_parameters']:,} of {counts['parameters']:,} parameters are trained; "
        f"frozen: {', '.join(recipe.get('freeze', ())) or 'nothing'}\neffective batch {batch} = "
        f"{args.per_device_train_batch_size} per device x {args.gradient_accumulation_steps} accumulated x "
        f"{args.world_size} devices"
    )


if __name__ == "__main__":
    run_script(main, "the same command continues from the last checkpoint")
