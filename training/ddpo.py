# /// script
# dependencies = [
#     "artiagent[train]",
# ]
# ///

"""
Train a text-to-image model with rewards of its images: DDPO (SynArtifact), and Flow-GRPO for rectified flows. Draw
several images of a prompt, score them, and make the noisy steps more probable that led to the better ones, in a LoRA
that loads into the stock pipeline.

# Stable Diffusion 1.5 as in SynArtifact, on one GPU
```bash
python -m training.ddpo --config synartifact_sd15 --prompts animals.txt --guard_detector me/pixel-detector \
    --real_images photos/ --rewards bertscore=runs/synartifact_qwen3_vl_8b_projector
```

# The model of this package on a CPU, from noised photos
```bash
python -m training.ddpo --config ddpo_cpu_small --start_photos photos/ --real_images photos/
```

RECIPE is a name from the list of `artiagent train`, or a YAML file of your own. Every value of it can be overridden on
the command line. A reward is KIND=MODEL with options after commas; of several, the weighted sum is trained on:

    no=VLM                       P("No") when asked whether the image has artifacts
    classes=VLM,per_class=0.1    whether a model names no class of artifacts, and how many if it does
    bertscore=VLM                SynArtifact's reward, by how alike the answer is to "No artifacts"
    reward=MODEL                 a reward model, as of `artiagent generate --reward`
    detector=MODEL               a pixel detector, as of `artiagent generate --detector`
    function=PACKAGE.MODULE:NAME a function of yours, from images and prompts to numbers

VLM is a folder or an id on the Hub, or the name of a model behind `endpoint=URL`.

**A reward that is trained on rises, whether images get better or not.** So the run is guarded, by a detector that is
no reward, sharpness, the grid of tokens, diversity, and the model's own loss on real images. It stops when one leaves
its band, and keeps the best step before.

After Ctrl-C or a crash, the same command continues from the last checkpoint. `pictures/` shows the same prompts and
seeds at each reading, `log.jsonl` every step. `training.json` beside the LoRA records recipe, base model, rewards,
guards, artifact frequencies before and after, and why the run ended.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl import TrlParser

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.detection.scoring import DetectorScorer
from training.arguments import given_arguments, parse_arguments, recipe_record, with_recipe_paths
from training.denoiser.arguments import DenoiserArguments, GuardArguments
from training.denoiser.loop import LoopArguments
from training.denoiser.policy import scheduler_of_policy
from training.denoiser.policy_objective import PolicyArguments, PolicyObjective
from training.denoiser.preparation import LOADED, check_judges, prepare
from training.denoiser.rewards.base import OfImages, RewardSpec
from training.denoiser.rewards.registry import REWARDS, WeightedSum, load_rewards, parse_rewards
from training.denoiser.run import outcome, train
from training.run_folder import check_run
from training.script import run_script


@dataclass
class RewardArguments:
    """
    Arguments of what is trained on.

    Args:
        rewards (`list[str]`): Rewards: in a recipe `{kind: classes, model: runs/vlm, weight: 2, per_class: 0.1}`, on
            the command line `classes=runs/vlm,weight=2,per_class=0.1`.
    """

    rewards: list[str] = field(
        default_factory=list,
        metadata={"help": f"Rewards: KIND=MODEL, KIND one of {', '.join(REWARDS)}, then after commas NAME=VALUE."},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    model_args, specs, policy_args, guard_args, loop_args, recipe = parse(arguments)
    check_run(Path(loop_args.output_dir), recipe, later=LOADED)
    prepared = prepare(model_args, guard_args, loop_args, scheduler_of_policy)
    rewards = load_rewards(specs, str(prepared.accelerator.device))
    objective = PolicyObjective(prepared.denoiser, prepared.train, rewards, policy_args)
    trained = train(
        prepared,
        objective,
        loop_args,
        script="training/ddpo.py",
        recipe=recipe,
        data={"rewards": rewards.identity(), "noisy_steps": list(objective.noisy_steps.steps)},
        opponents=detectors_of(rewards, prepared.judges),
        images=policy_args.images,
        made_of=f"{policy_args.prompts_per_step} prompts x {policy_args.group_size}",
        trained_by=f"rewards: {', '.join(rewards.rewards)}; ",
    )
    if trained is not None:
        before, kept = trained.result.before.score, trained.result.kept.score
        print(f"reward of held-out prompts: {before:.4f} -> {kept:.4f}")
        print(outcome(trained.record, Path(loop_args.output_dir)))


def detectors_of(rewards: WeightedSum, judges: Mapping[str, PixelDetector]) -> dict[str, PixelDetector]:
    """
    Return the pixel detectors among rewards, by their names.

    Args:
        rewards (`WeightedSum`): The rewards.
        judges (`Mapping[str, PixelDetector]`): Detectors that must be others.

    Raises:
        UserError: One is a judge too.
    """
    found = {
        name: reward.scorer.detector
        for name, (_, reward) in rewards.rewards.items()
        if isinstance(reward, OfImages) and isinstance(reward.scorer, DetectorScorer)
    }
    check_judges(judges, found, "--rewards")
    return found


def make_parser() -> TrlParser:
    return TrlParser(
        (DenoiserArguments, RewardArguments, PolicyArguments, GuardArguments, LoopArguments),
        usage="python -m training.ddpo --config RECIPE [--NAME VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(
    arguments: Sequence[str] | None = None,
) -> tuple[DenoiserArguments, list[RewardSpec], PolicyArguments, GuardArguments, LoopArguments, dict[str, Any]]:
    """
    Parse and check a command line.

    Args:
        arguments (`Sequence[str]`, *optional*): Arguments of the command line. Defaults to those of the process.

    Returns:
        `tuple`: Arguments of the model, rewards, arguments of the policy, of the guards and of the loop, and the
            values given on the command line and in the recipe, as `training.json` records them.

    Raises:
        UserError: An argument is unknown, missing or out of range.
    """
    arguments = with_recipe_paths(sys.argv[1:] if arguments is None else arguments)
    given = given_arguments(make_parser(), arguments)
    model_args, reward_args, policy_args, guard_args, loop_args = parse_arguments(make_parser(), arguments)
    for args in (model_args, guard_args, loop_args):
        args.check()
    specs = parse_rewards(reward_args.rewards)
    recipe = recipe_record({**given, "rewards": [spec.to_dict() for spec in specs]})
    return model_args, specs, policy_args, guard_args, loop_args, recipe


if __name__ == "__main__":
    run_script(main, "the same command continues from the last checkpoint")
