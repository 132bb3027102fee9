# /// script
# dependencies = [
#     "artiagent[train]",
# ]
# ///

"""
Train a reward model, which gives an image one score, higher for fewer artifacts, with `transformers.Trainer`: the
Bradley-Terry loss on pairs of a clean image and an artifact image, and on pairs across photos.

# A small reward model on a CPU, on the trunk of the detector in the package
```bash
python -m training.train_reward --config reward_cpu_small --sources pairs=runs/demo
```

# ArtiAgent's, on one GPU
```bash
python -m training.train_reward --config reward_clip_vit_b16 --sources pairs=out/
```

RECIPE is a name from the list of `artiagent train`, or a YAML file of your own. Every value of it can be overridden on
the command line. After Ctrl-C or a crash, the same command continues from the last checkpoint. `training.json` beside
the model records recipe, base model, data, versions, losses and scores; `reward_report.json` says how good the model
is on the pairs that were held out, by type of artifact and with controls for shortcuts.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, set_seed
from trl import TrlParser

from datasets_script.detection.reward.heads import AGGREGATIONS, HEADS
from datasets_script.detection.reward.model import RewardModel, check_fit
from datasets_script.detection.reward.preprocessing import RewardPreprocessing
from datasets_script.detection.reward.record import RewardRecord
from datasets_script.detection.reward.trunks import REWARD_TRUNKS
from datasets_script.schema.training_record import TrainingMethod, TrainingRecord
from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_json
from evaluate_metrics.functional.versions import versions
from training.arguments import given_arguments, parse_arguments, with_recipe_paths
from training.mixture_script import announce, settle
from training.parameter_counts import parameter_counts
from training.pixel.data import AugmentationPolicy, Mixture
from training.pixel.freezing import PARTS, freeze
from training.pixel.sources.registry import read_source
from training.pixel.sources.spec import SourceSpec
from training.reward.base import RewardBase, base_revision, load_reward_base
from training.reward.data import PairCollator, PairUnits, check_pair_sources
from training.reward.head_inputs import HeadCollator, HeadInputs
from training.reward.report import held_out_pairs, reward_report
from training.reward.report_table import REPORT_FILE, report_table
from training.reward.trainer import RewardTrainer
from training.run_facts import run_facts
from training.run_folder import begin_run
from training.script import run_script
from training.source_files import without_paths
from training.steps import fix_steps


DTYPES = ("float32", "bfloat16")
_HEAD = ("head", "aggregation", "temperature", "worst_share", "tiles", "hidden_size", "self_similarity")


@dataclass
class RewardArguments:
    """
    Arguments of this script, besides those of `transformers.TrainingArguments`.

    Args:
        model_name_or_path (`str`): Name of a trunk, whose pretrained weights are loaded; or a folder or an id on the
            Hub of a reward model to train on, of CLIP, SigLIP, SigLIP 2 or DINOv3, or of a pixel detector, whose trunk
            is taken; `embedded` is the detector of this package.
        model_revision (`str`, *optional*): Branch, tag or commit of the model.
        sources (`list`): Pairs: in a recipe `{kind: pairs, source, weight, limit, role, split, photos_by}`, on the
            command line `pairs=SOURCE`, with more values after commas: `pairs=runs/held_out,role=test`.
        test_share (`float`, *optional*, defaults to 0): Share of the photos of the training sources to hold out, at
            least 0 and below 1.
        test_limit (`int`, *optional*): Number of held-out pairs to score. Defaults to all.
        head, aggregation, temperature, worst_share, tiles, hidden_size, self_similarity (*optional*): See
            [`~datasets_script.detection.reward.heads.HeadSettings`]. Unset for a reward model, whose head is trained.
        length, side, multiple (*optional*): Size of the input, see
            [`~datasets_script.detection.pixel.preprocessing.Preprocessing`]. Default to the trunk's.
        freeze (`list[str]`, *optional*, defaults to `["trunk"]`): `trunk`, `trunk_statistics`, or `nothing`.
        trunk_learning_rate (`float`, *optional*): Learning rate of the trunk, unless it is frozen. Defaults to
            `learning_rate`.
        cross_scene (`int`, *optional*, defaults to 2): Number of pairs of a clean and an artifact image of different
            photos in each batch on a device.
        l2 (`float`, *optional*, defaults to 1e-4): Factor of the squared norm of the head, which is added to the loss.
        augmented_share (`float`, *optional*, defaults to 0): Share of the batches that are augmented, both images of
            a pair alike.
        save_dtype (`str`, *optional*, defaults to `"float32"`): Precision of the saved weights.
    """

    model_name_or_path: str = field(
        default="",
        metadata={
            "help": f"Trunk ({', '.join(REWARD_TRUNKS)}), embedded, or folder or Hub id of a reward model, a vision "
            "transformer or a pixel detector."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    sources: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Pairs to train on: pairs=SOURCE, then after commas NAME=VALUE of role (train or test), weight, "
            "limit, split, revision and photos_by."
        },
    )
    test_share: float = field(default=0.0, metadata={"help": "Share of the photos to hold out."})
    test_limit: int | None = field(default=None, metadata={"help": "Number of held-out pairs to score. Default: all."})
    head: str | None = field(default=None, metadata={"help": "Head. Default: pooled.", "choices": [*HEADS]})
    aggregation: str | None = field(
        default=None,
        metadata={
            "help": "How one score is made of those of tokens or tiles. Default: worst_mean.",
            "choices": [*AGGREGATIONS],
        },
    )
    temperature: float | None = field(default=None, metadata={"help": "Of soft_minimum. Default: 1."})
    worst_share: float | None = field(
        default=None, metadata={"help": "Share of the scores that worst_mean is taken of. Default: 0.05."}
    )
    tiles: int | None = field(default=None, metadata={"help": "Tiles along each side. Default: 2."})
    hidden_size: int | None = field(default=None, metadata={"help": "Units of the head's hidden layer. Default: 256."})
    self_similarity: bool | None = field(
        default=None, metadata={"help": "Whether the head sees how much places look like others. Default: false."}
    )
    length: int | None = field(default=None, metadata={"help": "Length in pixels that a side is resized to."})
    side: str | None = field(default=None, metadata={"help": "The side that gets this length: long or short."})
    multiple: int | None = field(default=None, metadata={"help": "Both sides are padded to a multiple of this."})
    freeze: list[str] = field(
        default_factory=lambda: ["trunk"], metadata={"help": f"Parts to freeze, from {', '.join(PARTS)}; or nothing."}
    )
    trunk_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the trunk. Default: --learning_rate."}
    )
    cross_scene: int = field(default=2, metadata={"help": "Number of pairs across photos in each batch."})
    l2: float = field(default=1e-4, metadata={"help": "Factor of the squared norm of the head in the loss."})
    augmented_share: float = field(default=0.0, metadata={"help": "Share of the batches that are augmented."})
    save_dtype: str = field(
        default="float32", metadata={"help": "Precision of the saved weights.", "choices": [*DTYPES]}
    )


def main(arguments: Sequence[str] | None = None) -> None:
    script_args, training_args, specs, recipe = parse(arguments)
    output_dir = Path(training_args.output_dir)

    # Data
    mixture = Mixture(
        [read_source(spec, training_args.seed) for spec in specs], script_args.test_share, training_args.seed
    )
    # Of other data, a checkpoint would continue with another order; and it may not hold the frozen trunk.
    revision = base_revision(script_args.model_name_or_path, script_args.model_revision)
    identity = {"data": mixture.fingerprint, "base": revision}
    checkpoint = begin_run(output_dir, {**recipe, **identity}, training_args.should_save)
    set_seed(training_args.seed)
    train, test = training_pairs(mixture, script_args, training_args), held_out(mixture, script_args.test_limit)
    if training_args.eval_strategy != "no" and test is None:
        raise UserError("--sources must hold pairs out for --eval_strategy, got none; set --test_share, e.g. to 0.1")

    # Model
    base = load_reward_base(script_args.model_name_or_path, script_args.model_revision, head_of(script_args))
    frozen = [part for part in script_args.freeze if part != "nothing"]
    freeze(base.network, frozen)
    record = record_of(base, script_args)
    check_fit(base.network, record)

    # Training
    trainer = RewardTrainer(
        l2=script_args.l2,
        trunk_learning_rate=script_args.trunk_learning_rate,
        args=training_args,
        **what_is_trained(base, record, script_args, training_args, train, test),
    )
    counts = parameter_counts(base.network)
    announce(trainer, mixture, counts, "pairs")
    # Before training, so that it describes the data trained on, and errors in the data show early.
    data = mixture.record(train.units) if trainer.is_world_process_zero() else {}
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    scores = trainer.evaluate() if test is not None else {}

    # Saving
    if trainer.is_world_process_zero():
        model = save(base, record, getattr(torch, script_args.save_dtype), output_dir)
        TrainingRecord(
            script="training/train_reward.py",
            recipe=without_paths(recipe),
            base=base.origin,
            method=TrainingMethod(peft=False, frozen=tuple(frozen), **counts),
            data={
                **data,
                "trunk": base.trunk,
                "trunk_license": base.license,
                "preprocessing": record.preprocessing.to_dict(),
                "head": base.network.head.settings.to_dict(),
                "scores": {name: value for name, value in scores.items() if isinstance(value, float)},
            },
            versions=versions("torch", "torchvision", "transformers", "timm", "accelerate", "datasets"),
            **run_facts(trainer, begun, checkpoint),
        ).write(output_dir)
        if test is not None:
            write_report(model, test, output_dir)
    trainer.accelerator.print(
        f"reward model saved to {output_dir}; RewardModel.from_pretrained('{output_dir}') loads it, "
        f"`artiagent push reward {output_dir} REPO` publishes it"
    )


def make_parser() -> TrlParser:
    return TrlParser(
        (RewardArguments, TrainingArguments),
        usage="python -m training.train_reward --config RECIPE [--NAME VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(
    arguments: Sequence[str] | None = None,
) -> tuple[RewardArguments, TrainingArguments, list[SourceSpec], dict[str, Any]]:
    """
    Parse and check a command line.

    Args:
        arguments (`Sequence[str]`, *optional*): Arguments of the command line. Defaults to those of the process.

    Returns:
        `tuple`: Arguments of this script and of the trainer, the sources, and the values given on the command line and
            in the recipe, as `training.json` records them.

    Raises:
        UserError: An argument is unknown, missing or out of range.
    """
    arguments = with_recipe_paths(sys.argv[1:] if arguments is None else arguments)
    given = given_arguments(make_parser(), arguments)
    script_args, training_args = parse_arguments(make_parser(), arguments)
    check(script_args, training_args)
    specs, recipe = settle(script_args, training_args, given, kind="reward", metric="cross_scene_auc")
    check_pair_sources(specs)
    return script_args, training_args, specs, recipe


def check(script_args: RewardArguments, training_args: TrainingArguments) -> None:
    if unknown := sorted(set(script_args.freeze).difference(PARTS, ["nothing"])):
        raise UserError(f"--freeze must be among {', '.join(PARTS)}, nothing, got '{unknown[0]}'")
    if script_args.trunk_learning_rate is not None and "trunk" in script_args.freeze:
        raise UserError(
            "--trunk_learning_rate must be unset for a frozen trunk, which does not learn, got "
            f"{script_args.trunk_learning_rate}; leave it out, or set --freeze to trunk_statistics or nothing"
        )
    if not 0 <= script_args.augmented_share <= 1:
        raise UserError(f"--augmented_share must lie between 0 and 1, got {script_args.augmented_share}")
    for name in ("cross_scene", "l2"):
        if getattr(script_args, name) < 0:
            raise UserError(f"--{name} must be at least 0, got {getattr(script_args, name)}")
    if script_args.cross_scene and training_args.per_device_train_batch_size < 2:
        raise UserError(
            "--per_device_train_batch_size must be at least 2 for pairs across photos, which are made of a batch, got "
            f"{training_args.per_device_train_batch_size}; or set --cross_scene to 0"
        )


def head_of(script_args: RewardArguments) -> dict[str, Any]:
    """Return the arguments that are given for the head."""
    given = {name: getattr(script_args, name) for name in _HEAD}
    return {"kind" if name == "head" else name: value for name, value in given.items() if value is not None}


def record_of(base: RewardBase, script_args: RewardArguments) -> RewardRecord:
    """Return what the model records: sizes of the recipe or the trunk, normalization of the trunk's weights."""
    given = {name: getattr(script_args, name) for name in ("length", "side", "multiple")}
    view = replace(base.view, **{name: value for name, value in given.items() if value is not None})
    settings = base.network.head.settings
    preprocessing = RewardPreprocessing(view, settings.tiles if settings.kind == "tiled" else 1)
    return RewardRecord(preprocessing, trunk=base.trunk or None, license=base.license or None)


def training_pairs(mixture: Mixture, script_args: RewardArguments, training_args: TrainingArguments) -> PairUnits:
    """Draw the pairs of the whole training, and set the number of steps that they make."""
    policy = AugmentationPolicy(
        share=script_args.augmented_share,
        units_per_batch=training_args.per_device_train_batch_size,
        seed=training_args.seed,
    )
    length = fix_steps(training_args, mixture.count("train"))
    return PairUnits(mixture.train(length, policy), mixture.parts("train"))


def held_out(mixture: Mixture, limit: int | None) -> PairUnits | None:
    """Return the pairs that are held out, or some of them; `None` without any."""
    units = mixture.test(limit)
    return None if units is None else PairUnits(units, mixture.parts("test"))


def what_is_trained(
    base: RewardBase,
    record: RewardRecord,
    script_args: RewardArguments,
    training_args: TrainingArguments,
    train: PairUnits,
    test: PairUnits | None,
) -> dict[str, Any]:
    """Return model, data and collators for the trainer: of the head alone, if what it sees of an image is fixed."""
    collator = PairCollator(record.preprocessing)
    cross_scene = {"cross_scene": script_args.cross_scene, "seed": training_args.seed}
    # A head that scores tokens sees megabytes of each image.
    is_fixed = "trunk" in script_args.freeze and not script_args.augmented_share
    if not is_fixed or base.network.head.settings.kind == "token":
        return {
            "model": base.network,
            "data_collator": replace(collator, **cross_scene),
            "eval_collator": collator,
            "train_dataset": train,
            "eval_dataset": test,
        }
    network, quiet = base.network.to(training_args.device), training_args.disable_tqdm
    return {
        "model": network.head,
        "data_collator": HeadCollator(**cross_scene),
        "eval_collator": HeadCollator(),
        "train_dataset": HeadInputs(train, network, collator, quiet),
        "eval_dataset": None if test is None else HeadInputs(test, network, collator, quiet),
    }


def save(base: RewardBase, record: RewardRecord, dtype: torch.dtype, folder: Path) -> RewardModel:
    """Write the model, and return it as it will be loaded: with weights of the precision that they are stored in."""
    base.network.to(dtype).float()
    model = RewardModel(base.network, record, name=str(folder))
    model.save_pretrained(folder, dtype=dtype)
    return model


def write_report(model: RewardModel, test: PairUnits, folder: Path) -> None:
    """Score the model on held-out pairs, write the report, and print it."""
    pairs = (
        pair for part, ids in zip(test.parts, test.ids(), strict=True) for pair in held_out_pairs(part.source, ids)
    )
    report = reward_report(model, pairs)
    write_json(folder / REPORT_FILE, report)
    print(report_table(report))


if __name__ == "__main__":
    run_script(main, "the same command continues from the last checkpoint")
