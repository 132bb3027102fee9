"""
What a reward model learns from pairs, judged on pairs of photos that it has not seen.

    python tests/benchmarks/reward.py --train "pairs=TRAIN,photos_by=name" --heldout "pairs=HELDOUT,photos_by=name" \
        --json FILE

trains by a recipe, by default `reward_embedded` (the trunk of the detector in the package), and scores the pairs of
`--heldout`. Written are:

- `pair_accuracy`: share of the pairs whose clean image scores higher (goal: at least .95);
- `cross_scene_auc`: the same of all pairs of a clean and an artifact image of different photos (goal: at least .75);
- `by_type`: both for each type of artifact;
- `controls`, which should be near .5: reconstructions against the photos that they were made from, and artifact images
  with the clean image's pixels in their labels;
- `recipe`, and `seconds` and `steps` of the training.

Intervals are 95 % bootstrap intervals over source photos. `photos_by=name` keeps views of a photo in several folders
together, as `learning.py` makes them. Which checkpoint is kept is chosen on some photos of `--train`, never on
`--heldout`. Options that this script does not know are passed to the training: `--num_train_epochs 2`. A training that
was interrupted continues in `--work`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.utils.files import write_json
from training import reward_report, train_reward


ROOT = Path(__file__).resolve().parents[2]
GOALS = {"pair_accuracy": 0.95, "cross_scene_auc": 0.75}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="pairs to train on, as `--sources` of training.train_reward")
    parser.add_argument("--heldout", required=True, help="pairs of other photos to score")
    parser.add_argument("--recipe", default="reward_embedded", help="recipe of the training (default: %(default)s)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/reward", help="folder of the model (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args, options = parser.parse_known_args()
    train_reward.main(["--config", args.recipe, "--sources", args.train, "--output_dir", str(args.work), *options])
    report = args.work / "heldout.json"
    reward_report.main([str(args.work), "--sources", args.heldout, "--json", str(report)])
    training = json.loads((args.work / "training.json").read_text())
    figures = json.loads(report.read_text()) | {
        "goals": GOALS,
        "recipe": training["recipe"],
        **{name: training[name] for name in ("steps", "seconds", "device", "seed")},
    }
    for name, goal in GOALS.items():
        print(f"{name} {figures[name]:.3f}, goal {goal}: {'reached' if figures[name] >= goal else 'missed'}")
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    main()
