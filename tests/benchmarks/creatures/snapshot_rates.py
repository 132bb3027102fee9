"""
Count artifacts in pictures of snapshots of `train.py`, by the oracle, with 95 % intervals.

    python tests/benchmarks/creatures/snapshot_rates.py --work runs/creatures --steps 3000 5000 6500 --json rates.json

All snapshots draw the same held-out prompts from the same seeds. Snapshots that are in the file are not drawn again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from datasets_script.utils.errors import UserError, check_at_least
from datasets_script.utils.files import write_json
from diffusers_artifact.autoencoder import AutoencoderPCA
from tests.benchmarks.creatures.export import pipeline_of, snapshot_path
from tests.benchmarks.creatures.measures import judge_all
from tests.benchmarks.creatures.shares import share
from tests.benchmarks.creatures.train import TRAINED_VAE
from tests.benchmarks.creatures.world import World
from training.embedded.export import load_part
from training.script import run_script


def rate_of(snapshot: Path, vae: AutoencoderPCA, world: World) -> dict[str, Any]:
    """
    Count artifacts in the pictures of a snapshot.

    Args:
        snapshot (`Path`): Its file.
        vae (`AutoencoderPCA`): The autoencoder.
        world (`World`): Number, steps and seed of the pictures. Nothing is kept in its folder.

    Returns:
        `dict[str, Any]`: `artifact_rate` and `conditions_met`, shares with their intervals.
    """
    pipe, prompts = pipeline_of(snapshot, vae), [words.prompt for words in world.words]
    pipe.set_progress_bar_config(disable=True)
    verdicts = judge_all(world.draw(pipe, prompts, world.seeds), world.words)
    return {
        "artifact_rate": share([verdict.has_artifact for verdict in verdicts]),
        "conditions_met": share([verdict.meets_words for verdict in verdicts]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the training")
    parser.add_argument("--vae", type=Path, help="folder of the autoencoder (default: vae_trained in --work)")
    parser.add_argument("--steps", type=int, nargs="+", required=True, help="steps of the snapshots")
    parser.add_argument("--number", type=int, default=200, help="pictures of each (default: %(default)s)")
    parser.add_argument("--picture-steps", type=int, default=8, help="steps of a picture (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of prompts and noise (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write, and to read what is there")
    args = parser.parse_args(arguments)
    check_at_least("number", args.number)
    torch.set_num_threads(args.threads)
    snapshots = {step: snapshot_path(args.work, step) for step in args.steps}
    vae = load_part(AutoencoderPCA, args.vae or args.work / TRAINED_VAE, "--vae")
    world = World(args.work, args.work, args.number, args.picture_steps, args.seed)
    settings = {"number": args.number, "picture_steps": args.picture_steps, "seed": args.seed}
    rates = _read(args.json, settings)
    for step, path in snapshots.items():
        if str(step) not in rates:
            rates[str(step)] = rate_of(path, vae, world)
            if args.json:
                write_json(args.json, {"settings": settings, "rates": rates})
        rate, met = rates[str(step)]["artifact_rate"], rates[str(step)]["conditions_met"]
        low, high = rate["interval"]
        print(
            f"step {step:,}: artifact rate {rate['share']:.3f} ({low:.3f} to {high:.3f}), words met in "
            f"{met['share']:.1%}, of {rate['number']} pictures",
            flush=True,
        )


def _read(path: Path | None, settings: dict[str, int]) -> dict[str, Any]:
    """
    Return the rates that a file holds.

    Raises:
        UserError: They are of other settings.
    """
    if path is None or not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["settings"] != settings:
        raise UserError(
            f"--json must be a new file or one of pictures with {settings}, got '{path}' with {content['settings']}; "
            "choose another file"
        )
    rates: dict[str, Any] = content["rates"]
    return rates


if __name__ == "__main__":
    run_script(main)
