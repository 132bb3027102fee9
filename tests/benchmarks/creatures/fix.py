"""
Measure how many artifacts a generator draws, by the oracle, and what helps against them.

    python tests/benchmarks/creatures/fix.py --generator runs/creatures/middle --work runs/fix --json fix.json

Each part writes a block of the JSON file; `--only base` does one. Parts that are done are read from `--work`, and a
part that was interrupted continues with the pictures that are there. All parts draw the same held-out prompts from the
same seeds, so that they are compared in pairs.

- `base`: `artifact_rate` of the generator as it is, by type; share of pictures that meet their words; diversity and
  sharpness as shares of those of clean renders.
- `first_result`: whether synthetic artifacts teach a detector the generator's own. `auc_vs_oracle` of detectors that
  were trained on artifacts injected into clean renders with this generator, on corruptions by it, on both, on its
  own pictures with the oracle's verdicts, few and many, and on artifact images alone, without clean ones.
- `best_of_32`: of 63 pictures of each prompt, in rounds of 1 to 32, the one in which a detector sees the fewest
  artifacts; `curve` is the artifact rate after each round.
- `guided`: pictures that are guided by detectors while they are drawn.
- `best_of_4_guided`: of 7 guided pictures the best.
- `ddpo`: pictures of a LoRA that was trained with a detector's reward.
- `ddpo_by_the_oracle`: the same with the oracle's.
- `treated`: pictures of a LoRA that `training/treat_lora.py` trained against two detectors of many labels.
- `treated_guided`: the same, guided by a third.
- `pair_dpo`: pictures of the generator with a LoRA of `training/pair_dpo.py`, which prefers corrections of its
  own; `preference` is of pairs that were held out.
- `pair_dpo_injected`: the same with clean renders and renders that artifacts were injected into.
- `failures`: what papers warn of: treating with a detector that never saw a clean image, of all pixels, or without
  real images, and rewards without a divergence from the model before. Each is trained `unguarded` to its end, and
  `guarded`, where `training` says which guard stopped it, when and why; beside them what is recommended, at the same
  high learning rate.

Of these trainings, `settings` are arguments and `training` says how they ended.

What changes pictures is compared with `base` in pairs: `relative_reduction` of the artifact rate and
`conditions_met_change`. `frequency` is the share of pictures that each detector flags, before and after: a detector
that chose or guided the pictures is no witness. One that is known to be hackable, since it never saw a clean image,
chooses and guides as well.
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

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import fingerprint, write_json
from evaluate_metrics.functional.versions import versions
from tests.benchmarks.creatures.parts import PARTS
from tests.benchmarks.creatures.world import World
from training.script import run_script


SETTINGS = "settings.json"


def settings_of(world: World) -> dict[str, Any]:
    """Return what all parts depend on."""
    return {
        "generator": fingerprint(world.generator),
        "pictures": world.number,
        "steps": world.steps,
        "seed": world.seed,
    }


def begin(world: World) -> dict[str, Any]:
    """
    Record what a folder of results belongs to.

    Raises:
        UserError: It belongs to another generator or other settings.
    """
    path, settings = world.work / SETTINGS, settings_of(world)
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != settings:
        name = next(name for name in settings if settings[name] != before.get(name))
        raise UserError(
            f"--work must be a folder of results with {name} = {settings[name]}, got '{world.work}' with "
            f"{before.get(name)}; choose another folder"
        )
    write_json(path, settings)
    return settings


def run_part(name: str, world: World) -> dict[str, Any]:
    """Return the block of a part, from its file if it is done."""
    path = world.work / f"{name}.json"
    if not path.exists():
        print(f"part {name}", flush=True)
        write_json(path, PARTS[name](world))
    block: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return block


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, required=True, help="folder of the generator")
    parser.add_argument("--work", type=Path, required=True, help="folder of results; those in it are reused")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts (default: all)")
    parser.add_argument("--number", type=int, default=500, help="pictures (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="steps of a picture (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of prompts and noise (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    world = World(args.generator, args.work, args.number, args.steps, args.seed)
    settings = begin(world)
    blocks = {name: run_part(name, world) for name in args.only}
    if args.json:
        packages = ("torch", "diffusers", "transformers", "scipy")
        write_json(args.json, {"settings": settings, "versions": versions(*packages), **blocks})


if __name__ == "__main__":
    run_script(main)
