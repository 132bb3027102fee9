# /// script
# dependencies = [
#     "artiagent[train]",
# ]
# ///

"""
Train a LoRA by which a text-to-image model prefers the clean image of a pair to the artifact image: localised,
margin-bounded DPO (ASAP) on the pairs of `artiagent synthesize`, each image with its own noise (PNAPO).

# On a CPU, with the model of this package
```bash
artiagent synthesize runs/demo/photos runs/pairs_with_noise --perception annotations --store-noise
python -m training.pair_dpo --config pair_dpo_cpu_small
```

# FLUX.1-dev, on one GPU
```bash
artiagent synthesize photos/ out/ --model black-forest-labs/FLUX.1-dev --perception grounded-sam \
    --vlm Qwen/Qwen2.5-VL-7B-Instruct --store-noise
python -m training.pair_dpo --config pair_dpo_flux_dev
```

RECIPE is a name from the list of `artiagent train`, or a YAML file of your own. Every value of it can be overridden on
the command line. After Ctrl-C or a crash, the same command continues from the last checkpoint. Some photos are held
out: on their pairs, the gap says whether the model prefers clean images, and the loss on the clean ones alone whether
it still draws what it drew before. Training stops when a guard leaves its band, and the best step is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from trl import TrlParser

from datasets_script.utils.errors import UserError, check_at_least
from diffusers_artifact.presets import EMBEDDED
from training.arguments import given_arguments, parse_arguments, recipe_record, with_recipe_paths
from training.denoiser.arguments import NONE, DenoiserArguments, GuardArguments
from training.denoiser.data import Item
from training.denoiser.guards import BANDS, Band, Guards
from training.denoiser.loop import LoopArguments
from training.denoiser.preference import FORMS, NOISE_SOURCES, PreferenceSettings
from training.denoiser.preference_data import LatentPairs, PairSet, fingerprint, load_pairs
from training.denoiser.preference_objective import HeldOut, PairPreference
from training.denoiser.preparation import prepare
from training.denoiser.run import finish, outcome
from training.run_folder import begin_run, check_run
from training.script import run_script


# The model's own loss on clean images may rise by a hundredth, where other trainings have two.
CLEAN_LOSS, CLEAN_BAND = "denoising_loss", Band(high=0.01)


@dataclass
class PairArguments:
    """
    Arguments of this script, besides those of the model, the guards and the loop.

    Args:
        pairs (`list[str]`): Pairs: folders of `artiagent synthesize`, `corrupt` or `prepare`, datasets on the Hub, or
            patterns of Parquet files.
        test_share (`float`, *optional*, defaults to 0.1): Share of the photos to hold out with all their pairs.
        test_limit (`int`, *optional*, defaults to 64): Number of held-out pairs that a reading sees.
        test_repeats (`int`, *optional*, defaults to 2): Times at which it sees each.
        form, mask_weight, margin, beta, noise, clean_weight (*optional*): See
            [`~training.denoiser.preference.PreferenceSettings`].
        batch_size (`int`, *optional*, defaults to 4): Pairs of a step on each device.
    """

    pairs: list[str] = field(
        default_factory=list, metadata={"help": "Runs, prepared folders, Hub datasets or patterns of Parquet files."}
    )
    test_share: float = field(default=0.1, metadata={"help": "Share of the photos to hold out."})
    test_limit: int = field(default=64, metadata={"help": "Number of held-out pairs that a reading sees."})
    test_repeats: int = field(default=2, metadata={"help": "Number of times at which it sees each."})
    form: str = field(
        default=PreferenceSettings.form,
        metadata={"help": "bounded: up to a margin (ASAP); sigmoid: Diffusion-DPO's.", "choices": [*FORMS]},
    )
    mask_weight: float = field(
        default=PreferenceSettings.mask_weight, metadata={"help": "Weight of errors within the artifact's mask."}
    )
    margin: float = field(default=PreferenceSettings.margin, metadata={"help": "Gap that bounded training reaches."})
    beta: float = field(default=PreferenceSettings.beta, metadata={"help": "Slope of sigmoid."})
    noise: str = field(
        default=PreferenceSettings.noise,
        metadata={
            "help": "own: each image with the noise that it inverts to, of pairs made with --store-noise; random: the "
            "same for both, drawn anew.",
            "choices": [*NOISE_SOURCES],
        },
    )
    clean_weight: float = field(
        default=PreferenceSettings.clean_weight,
        metadata={"help": "Factor of how far the error of the clean image exceeds the reference's, in the loss."},
    )
    batch_size: int = field(default=4, metadata={"help": "Pairs of a step on each device."})

    def check(self) -> None:
        """
        Check the values.

        Raises:
            UserError: One is missing or out of range.
        """
        if not self.pairs:
            raise UserError("--pairs must be given, folders of `artiagent synthesize` for example, got none")
        if not 0 < self.test_share < 1:
            raise UserError(f"--test_share must lie between 0 and 1, both excluded, got {self.test_share}")
        for name in ("test_limit", "test_repeats", "batch_size"):
            check_at_least(name, getattr(self, name))
        self.preference()

    def preference(self) -> PreferenceSettings:
        """Return the form of the loss."""
        return PreferenceSettings(
            form=self.form,  # type: ignore[arg-type]
            mask_weight=self.mask_weight,
            margin=self.margin,
            beta=self.beta,
            noise=self.noise,  # type: ignore[arg-type]
            clean_weight=self.clean_weight,
        )


@dataclass(frozen=True)
class Arguments:
    """Checked arguments of a command line, and the recipe as `training.json` records it."""

    pairs: PairArguments
    model: DenoiserArguments
    guards: GuardArguments
    loop: LoopArguments
    recipe: Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    folder, seed, settings = Path(args.loop.output_dir), args.loop.seed, args.pairs.preference()
    accelerator = Accelerator(cpu=args.loop.use_cpu)

    # Data
    with accelerator.main_process_first():  # the others read what it puts into the cache
        train, test = load_pairs(args.pairs.pairs, args.pairs.test_share, seed, args.pairs.test_limit)
    # Of other data, a checkpoint would continue with another order.
    identity = {**args.recipe, "data": fingerprint(train)}
    check_run(folder, identity, later=["base"])
    prompts = Prompts(args.model, train, test)

    # Model
    drawn = prompts.drawn(args.guards.held_out)
    prepared = prepare(args.model, args.guards, args.loop, items=(prompts.items(), drawn))
    identity |= {"base": prepared.identity({})["base"]}
    checkpoint = begin_run(folder, identity, accelerator.is_main_process)
    own_noise = settings.noise == "own"
    conditions = prepared.train.conditions
    pairs, held_out_pairs = (
        LatentPairs(some, prepared.denoiser, conditions, prompts.rows(some), own_noise) for some in (train, test)
    )
    held_out = HeldOut(prepared.denoiser, held_out_pairs, settings, seed, args.pairs.test_repeats)
    guards = Guards(
        {**prepared.guards.measures, CLEAN_LOSS: held_out.clean_measure},
        args.guards.bands({**BANDS, CLEAN_LOSS: CLEAN_BAND}),
    )
    prepared = replace(prepared, guards=guards)

    # Training
    objective = PairPreference(prepared.denoiser, pairs, held_out, settings, args.pairs.batch_size)
    loop = prepared.loop(objective, args.loop)
    begun = time.monotonic()
    result = loop.run(checkpoint)

    # Saving
    if accelerator.is_main_process:
        report = held_out.report()
        record = finish(
            prepared,
            result,
            script="training/pair_dpo.py",
            recipe=args.recipe,
            data={
                **train.origin(),
                "training_pairs": train.record(),
                "held_out_pairs": test.record(),
                "preference": report,
            },
            loop_args=args.loop,
            begun=begun,
            checkpoint=checkpoint,
            opponents={},
        )
        print(
            f"{report['pairs']} held-out pairs: mean gap {report['gap']:.5f}, above 0 in {report['preferred']:.0%}; "
            f"loss on their clean images {report['clean_loss_before']:.4f} -> {report['clean_loss']:.4f} "
            f"({report['clean_loss_rise']:+.2%})"
        )
        print(outcome(record, folder))


class Prompts:
    """
    Captions of pairs, each once, as what a model is asked to draw.

    Args:
        model_args (`DenoiserArguments`): The model, which may take no text.
        train, test (`PairSet`): Pairs to train on and held-out pairs.
    """

    def __init__(self, model_args: DenoiserArguments, train: PairSet, test: PairSet) -> None:
        self._takes_text = model_args.model_name_or_path != EMBEDDED
        self._from_images = model_args.start_sigma is not None
        self._test = test
        texts = [text for some in (train, test) for text in self._texts(some)]
        self._row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}

    def items(self) -> list[Item]:
        """Return the captions, to encode."""
        return [Item(f"caption {row}", text) for text, row in self._row_of.items()]

    def rows(self, pairs: PairSet) -> list[int]:
        """Return for each pair the number of its caption."""
        return [self._row_of[text] for text in self._texts(pairs)]

    def drawn(self, count: int) -> list[Item]:
        """
        Return what the pictures of the guards show: captions of held-out photos, and with `--start_sigma` the clean
        image to start from.
        """
        first: dict[str, int] = {}
        for index, photo in enumerate(self._test.column("source_id")):
            first.setdefault(photo, index)
        texts = self._texts(self._test)
        return [
            Item(photo, texts[index], self._test.image_path(index, "clean") if self._from_images else None)
            for photo, index in list(first.items())[:count]
        ]

    def _texts(self, pairs: PairSet) -> list[str]:
        captions = pairs.column("caption")
        return captions if self._takes_text else [""] * len(captions)


def make_parser() -> TrlParser:
    return TrlParser(
        (PairArguments, DenoiserArguments, GuardArguments, LoopArguments),
        usage="python -m training.pair_dpo --config RECIPE [--NAME VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(arguments: Sequence[str] | None = None) -> Arguments:
    """
    Parse and check a command line.

    Args:
        arguments (`Sequence[str]`, *optional*): Arguments of the command line. Defaults to those of the process.

    Raises:
        UserError: An argument is unknown, missing or out of range.
    """
    arguments = with_recipe_paths(sys.argv[1:] if arguments is None else arguments)
    given = given_arguments(make_parser(), arguments)
    pair_args, model_args, guard_args, loop_args = parse_arguments(make_parser(), arguments)
    pair_args.check()
    model_args.check(has_own_items=True)
    own = {
        "prompts": "captions",
        "prompt_limit": "captions",
        "start_photos": "clean images, with --start_sigma",
    }
    for name, use in own.items():
        if getattr(model_args, name) is not None:
            raise UserError(f"--{name} must be left out, because pictures begin with the {use} of held-out pairs")
    if guard_args.real_images not in ("", NONE):
        raise UserError(
            f"--real_images must be left out, because the clean images of held-out pairs take their place, got "
            f"'{guard_args.real_images}'"
        )
    for name in ("real_limit", "guard_images"):
        if name in given:
            raise UserError(
                f"--{name} must be left out, because held-out pairs take the place of real images, got "
                f"{given[name]}; --test_limit sets their number"
            )
    guard_args.real_images = NONE
    guard_args.guard_detector = guard_args.guard_detector or [NONE]
    guard_args.check()
    loop_args.check()
    return Arguments(pair_args, model_args, guard_args, loop_args, recipe_record(given))


if __name__ == "__main__":
    run_script(main, "the same command continues from the last checkpoint")
