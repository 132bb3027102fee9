# /// script
# dependencies = [
#     "artiagent[train]",
# ]
# ///

"""
Train a pixel detector, which gives every pixel of an image a probability of being part of an artifact, with
`transformers.Trainer`: UperNet with two classes or SegFormer with one channel, on a mixture of pairs, corruptions,
benchmarks, pseudo labels and real photos.

# A small detector on a CPU
```bash
python -m training.train_pixel_detector --config pixel_cpu_small --sources pairs=runs/demo
```

# Several GPUs
```bash
accelerate launch -m training.train_pixel_detector --config menn_swin_t_richhf
```

RECIPE is a name from the list of `artiagent train`, or a YAML file of your own. Every value of it can be overridden on
the command line. After Ctrl-C or a crash, the same command continues from the last checkpoint. A batch is made of
units: a unit is a pair with both of its halves, or a single image. `training.json` beside the model records recipe,
base model, data, origins of the labels, versions, losses and scores.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainingArguments, UperNetForSemanticSegmentation, set_seed
from trl import TrlParser

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.detection.pixel.preprocessing import SIDES, Preprocessing
from datasets_script.detection.pixel.record import PixelRecord
from datasets_script.detection.pixel.trunks import TRUNKS, find_trunk
from datasets_script.schema.training_record import TrainingMethod, TrainingRecord
from datasets_script.utils.errors import UserError
from evaluate_metrics.functional.versions import versions
from training.arguments import given_arguments, parse_arguments, with_recipe_paths
from training.mixture_script import announce, settle
from training.parameter_counts import parameter_counts
from training.pixel.base import Base, load_base, set_prior
from training.pixel.data import AugmentationPolicy, Collator, Mixture, TrainingUnits
from training.pixel.fitting import fit_detector
from training.pixel.freezing import PARTS, freeze
from training.pixel.hard_cases import HardCases
from training.pixel.losses import LOSSES
from training.pixel.sources.registry import read_source
from training.pixel.sources.spec import SourceSpec
from training.pixel.teacher import Teacher
from training.pixel.trainer import PixelTrainer
from training.run_facts import run_facts
from training.run_folder import begin_run
from training.script import run_script
from training.source_files import without_paths
from training.steps import fix_steps


DTYPES = ("float32", "bfloat16")
TEACHER = "teacher"
"""Folder of the detector with averaged weights, in that of the detector."""


@dataclass
class PixelDetectorArguments:
    """
    Arguments of this script, besides those of `transformers.TrainingArguments`.

    Args:
        model_name_or_path (`str`): Name of a trunk, whose pretrained weights are loaded, or a folder or an id on the
            Hub of a detector to train on, or of an UperNet or SegFormer for other classes.
        model_revision (`str`, *optional*): Branch, tag or commit of the model.
        sources (`list`): Entries of the mixture: in a recipe `{kind, source, weight, limit, role, split, labels}`, on
            the command line `KIND=SOURCE`, with more values after commas: `pairs=runs/held_out,role=test`.
        test_share (`float`, *optional*, defaults to 0): Share of the photos of the training sources to hold out, at
            least 0 and below 1.
        test_limit (`int`, *optional*): Number of held-out units to score. Defaults to all.
        loss (`str`, *optional*, defaults to `"bce"`): `"ce"` (two classes), `"bce"` or `"mse"` (soft labels).
        hidden_size (`int`, *optional*): Channels of a new head. Defaults to the trunk's.
        length, side, multiple: Size of the input, see
            [`~datasets_script.detection.pixel.preprocessing.Preprocessing`].
        freeze (`list[str]`, *optional*): `trunk`, or `trunk_statistics`.
        trunk_learning_rate (`float`, *optional*): Learning rate of the trunk, unless it is frozen. Defaults to
            `learning_rate`.
        augmented_share (`float`, *optional*, defaults to 0.5): Share of the batches that are augmented.
        shrink_share (`float`, *optional*, defaults to 0.5): Share of the clean pseudo-labelled images that are shrunk
            and padded.
        crop (`float`, *optional*, defaults to 1): Sides of the part of an image that is trained on, as a share of the
            image's, above 0. Its pixels keep their scale, so that a step is cheaper and not coarser. The part shows
            an artifact, if the image has one.
        prior (`float`, *optional*): Share of artifact pixels that the head begins with. Defaults to that of the data
            for a new head; other heads keep what they have learned.
        teacher_decay (`float`, *optional*): Decay of a moving average of the weights, saved in `teacher/`.
        hard_cases (`str`, *optional*): Folder of `artiagent pseudo-label`, whose hard categories are drawn more often.
        hard_case_factor (`float`, *optional*, defaults to 3): How much more often.
        clean_images (`bool`, *optional*, defaults to `True`): Whether to train on images without artifacts. `False`
            shows what they are for: the detector calls more clean images artifact images, and whatever it is used as a
            loss or a guide for exploits that.
        channels_last (`bool`, *optional*, defaults to `False`): Memory format, faster for convolutions on a CPU.
        false_alarms (`float`, *optional*, defaults to 0.1): Share of the held-out clean images that may be taken for
            artifact images; the threshold of the score is raised until it holds.
        save_dtype (`str`, *optional*, defaults to `"float32"`): Precision of the saved weights.
    """

    model_name_or_path: str = field(
        default="",
        metadata={"help": f"Trunk ({', '.join(TRUNKS)}), or folder or Hub id of a detector or a segmentation model."},
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    sources: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What to train on: KIND=SOURCE with a kind of pairs, benchmark or photos, then after commas "
            "NAME=VALUE of role (train or test), weight, limit, split, labels, revision and photos_by."
        },
    )
    test_share: float = field(default=0.0, metadata={"help": "Share of the photos to hold out."})
    test_limit: int | None = field(default=None, metadata={"help": "Number of held-out units to score. Default: all."})
    loss: str = field(default="bce", metadata={"help": "Loss on pixels.", "choices": [*LOSSES]})
    hidden_size: int | None = field(default=None, metadata={"help": "Channels of a new head. Default: the trunk's."})
    length: int = field(default=512, metadata={"help": "Length in pixels that a side of the image is resized to."})
    side: str = field(default="long", metadata={"help": "The side that gets this length.", "choices": [*SIDES]})
    multiple: int = field(default=32, metadata={"help": "Both sides are padded to a multiple of this."})
    freeze: list[str] = field(default_factory=list, metadata={"help": f"Parts to freeze, from {', '.join(PARTS)}."})
    trunk_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the trunk. Default: --learning_rate."}
    )
    augmented_share: float = field(default=0.5, metadata={"help": "Share of the batches that are augmented."})
    shrink_share: float = field(
        default=0.5, metadata={"help": "Share of clean pseudo-labelled images that are shrunk and padded."}
    )
    prior: float | None = field(
        default=None,
        metadata={"help": "Share of artifact pixels that a new head begins with. Default: that of the data."},
    )
    teacher_decay: float | None = field(
        default=None, metadata={"help": "Decay of an average of the weights, saved in teacher/. Default: none."}
    )
    hard_cases: str | None = field(
        default=None, metadata={"help": "Folder of `artiagent pseudo-label` to take hard categories from."}
    )
    hard_case_factor: float = field(default=3.0, metadata={"help": "How much more often hard ones are drawn."})
    false_alarms: float = field(
        default=0.1, metadata={"help": "Share of held-out clean images that may be taken for artifact images."}
    )
    crop: float = field(
        default=1.0, metadata={"help": "Sides of the part of an image that is trained on, as a share of its sides."}
    )
    clean_images: bool = field(default=True, metadata={"help": "Train on images without artifacts, too."})
    channels_last: bool = field(default=False, metadata={"help": "Memory format, faster on a CPU."})
    save_dtype: str = field(
        default="float32", metadata={"help": "Precision of the saved weights.", "choices": [*DTYPES]}
    )


def main(arguments: Sequence[str] | None = None) -> None:
    script_args, training_args, specs, recipe = parse(arguments)
    output_dir = Path(training_args.output_dir)

    # Data
    mixture = Mixture(
        [read_source(spec, training_args.seed) for spec in specs],
        script_args.test_share,
        training_args.seed,
        HardCases.read(Path(script_args.hard_cases), script_args.hard_case_factor) if script_args.hard_cases else None,
        script_args.clean_images,
    )
    # Of other data, a checkpoint would continue with another order.
    checkpoint = begin_run(output_dir, {**recipe, "data": mixture.fingerprint}, training_args.should_save)
    set_seed(training_args.seed)
    train, test = training_units(mixture, script_args, training_args), mixture.test(script_args.test_limit)
    if training_args.eval_strategy != "no" and test is None:
        raise UserError("--sources must hold units out for --eval_strategy, got none; set --test_share, e.g. to 0.1")

    # Model
    base = load_base(script_args.model_name_or_path, script_args.model_revision, script_args.hidden_size)
    check_batch(base, training_args)
    freeze(base.network, script_args.freeze)
    prior = script_args.prior or mixture.prior()
    if base.is_new or script_args.prior is not None:
        set_prior(base.network, prior)
    if script_args.channels_last:
        base.network.to(memory_format=torch.channels_last)

    # Training
    preprocessing = preprocessing_of(base, script_args)
    trainer = PixelTrainer(
        model=base.network,
        loss=script_args.loss,
        trunk_learning_rate=script_args.trunk_learning_rate,
        args=training_args,
        data_collator=Collator(cropped(preprocessing, script_args.crop)),
        eval_collator=Collator(preprocessing),
        train_dataset=train,
        eval_dataset=test,
    )
    teacher = None
    if script_args.teacher_decay is not None:
        teacher = Teacher(base.network, script_args.teacher_decay)
        trainer.add_callback(teacher)
        if checkpoint is not None:
            teacher.resume(checkpoint)
    counts = parameter_counts(base.network)
    announce(trainer, mixture, counts, "units", f"; {prior:.1%} of the pixels are artifacts")
    # Before training, so that it describes the data trained on, and errors in the data show early.
    data = mixture.record(train) if trainer.is_world_process_zero() else {}
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    scores = trainer.evaluate() if test is not None else {}

    # Saving
    if trainer.is_world_process_zero():
        fitted = save(base, base.network, preprocessing, script_args, test, output_dir)
        if teacher is not None:
            save(base, teacher.network, preprocessing, script_args, test, output_dir / TEACHER)
        TrainingRecord(
            script="training/train_pixel_detector.py",
            recipe=without_paths(recipe),
            base=base.origin,
            method=TrainingMethod(peft=False, frozen=tuple(script_args.freeze), **counts),
            data={
                **data,
                "prior": prior,
                "trunk": base.trunk,
                "trunk_license": base.license,
                "preprocessing": preprocessing.to_dict(),
                "scores": {name: value for name, value in scores.items() if isinstance(value, float)},
                "fitted": fitted,
            },
            versions=versions("torch", "torchvision", "transformers", "timm", "accelerate", "datasets"),
            **run_facts(trainer, begun, checkpoint),
        ).write(output_dir)
    trainer.accelerator.print(
        f"detector saved to {output_dir}; `artiagent detect IMAGE --model {output_dir}` uses it, "
        f"`artiagent push detector {output_dir} REPO` publishes it"
    )


def make_parser() -> TrlParser:
    return TrlParser(
        (PixelDetectorArguments, TrainingArguments),
        usage="python -m training.train_pixel_detector --config RECIPE [--NAME VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(
    arguments: Sequence[str] | None = None,
) -> tuple[PixelDetectorArguments, TrainingArguments, list[SourceSpec], dict[str, Any]]:
    """
    Parse and check a command line.

    Args:
        arguments (`Sequence[str]`, *optional*): Arguments of the command line. Defaults to those of the process.

    Returns:
        `tuple`: Arguments of this script and of the trainer, the entries of the mixture, and the values given on the
            command line and in the recipe, as `training.json` records them.

    Raises:
        UserError: An argument is unknown, missing or out of range.
    """
    arguments = with_recipe_paths(sys.argv[1:] if arguments is None else arguments)
    given = given_arguments(make_parser(), arguments)
    script_args, training_args = parse_arguments(make_parser(), arguments)
    check(script_args)
    specs, recipe = settle(script_args, training_args, given, kind="detector", metric="pixel_iou")
    # Scores are sums over batches.
    training_args.batch_eval_metrics = True
    return script_args, training_args, specs, recipe


def check(script_args: PixelDetectorArguments) -> None:
    if unknown := sorted(set(script_args.freeze).difference(PARTS)):
        raise UserError(f"--freeze must be among {', '.join(PARTS)}, got '{unknown[0]}'")
    if script_args.trunk_learning_rate is not None and "trunk" in script_args.freeze:
        raise UserError(
            "--trunk_learning_rate must be unset for a frozen trunk, which does not learn, got "
            f"{script_args.trunk_learning_rate}; leave it out, or set --freeze to trunk_statistics"
        )
    if not 0 < script_args.crop <= 1:
        raise UserError(f"--crop must be above 0 and at most 1, got {script_args.crop}")
    for name in ("augmented_share", "shrink_share"):
        if not 0 <= getattr(script_args, name) <= 1:
            raise UserError(f"--{name} must lie between 0 and 1, got {getattr(script_args, name)}")
    for name in ("prior", "teacher_decay", "false_alarms"):
        value = getattr(script_args, name)
        if value is not None and not 0 < value < 1:
            raise UserError(f"--{name} must lie between 0 and 1, both excluded, got {value}")


def check_batch(base: Base, training_args: TrainingArguments) -> None:
    is_upernet = isinstance(base.network, UperNetForSemanticSegmentation)
    if is_upernet and training_args.per_device_train_batch_size < 2:
        raise UserError(
            "--per_device_train_batch_size must be at least 2 for UperNet, whose head normalizes single values over a "
            f"batch, got {training_args.per_device_train_batch_size}; use --gradient_accumulation_steps instead"
        )


def training_units(
    mixture: Mixture, script_args: PixelDetectorArguments, training_args: TrainingArguments
) -> TrainingUnits:
    """Draw the units of the whole training, and set the number of steps that they make."""
    length = fix_steps(training_args, mixture.count("train"))
    policy = AugmentationPolicy(
        share=script_args.augmented_share,
        shrink_share=script_args.shrink_share,
        units_per_batch=training_args.per_device_train_batch_size,
        crop=script_args.crop,
        seed=training_args.seed,
    )
    return mixture.train(length, policy)


def preprocessing_of(base: Base, script_args: PixelDetectorArguments) -> Preprocessing:
    """Return what the detector sees of an image: sizes of the recipe, normalization of the trunk's weights."""
    preprocessing = Preprocessing(script_args.length, script_args.side, script_args.multiple)
    if not base.trunk:
        return preprocessing
    trunk = find_trunk(base.trunk)
    return replace(preprocessing, mean=trunk.mean, std=trunk.std)


def cropped(preprocessing: Preprocessing, crop: float) -> Preprocessing:
    """Return the preprocessing of a part of an image, by which its pixels keep the scale that they have in a whole."""
    return replace(preprocessing, length=max(1, round(preprocessing.length * crop)))


def save(
    base: Base,
    network: PreTrainedModel,
    preprocessing: Preprocessing,
    script_args: PixelDetectorArguments,
    test: TrainingUnits | None,
    folder: Path,
) -> dict[str, Any]:
    """Fit thresholds and calibration on held-out units, write the detector, and return its scores on them."""
    # Fitted as it will be loaded: with weights of the precision that they are stored in.
    dtype = getattr(torch, script_args.save_dtype)
    network.to(dtype).float()
    record = PixelRecord(preprocessing, trunk=base.trunk or None, license=base.license or None)
    detector, scores = PixelDetector(network, record), dict[str, Any]()
    if test is not None:
        detector.record, scores = fit_detector(detector, test, script_args.false_alarms)
    detector.save_pretrained(folder, dtype=dtype)
    return scores


if __name__ == "__main__":
    run_script(main, "the same command continues from the last checkpoint")
