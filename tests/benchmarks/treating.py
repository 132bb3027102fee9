"""
Treat the model of this package with the detector of this package, judged by a detector of another trunk; on a CPU.

    python tests/benchmarks/treating.py --photos PHOTOS --real-images OTHERS --judge DETECTOR --json treating.json

Each run trains by the recipe `treat_cpu_small` from photos of `--photos` noised to .6, keeps to real images of the
other folder, and is judged on `--held-out` photos that it did not train on, at the same noise before and after:

- `recipe`: the recipe as it is;
- `without_real_images`: the same with `--gamma 0`;
- `twice`: the recipe at twice the rate and for twice the steps, which a guard must stop.

Of each are written the artifact frequencies and mean maps of both detectors before and after, with paired intervals;
the guards' values, with their bands; the step that was kept; and which guard stopped the run, if one did.
`map_reduction` is the share of the mean map that is gone, by the detector that was trained against and by the judge.
Training that was interrupted continues in `--work`, where `RUN/pictures/` shows the held-out photos at each reading.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.utils.files import write_json
from training import treat_lora


ROOT = Path(__file__).resolve().parents[2]
RUNS: dict[str, tuple[str, ...]] = {
    "recipe": (),
    "without_real_images": ("--gamma", "0"),
    "twice": ("--learning_rate", "1e-3", "--max_steps", "48"),
}


def figures_of(folder: Path) -> dict[str, Any]:
    """Read what a training says of itself in its record."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    data = record["data"]
    reductions = {
        "trained_against" if one["trained_against"] else "judge": round(1 - second / first, 4)
        for one in data["frequencies"]
        if (first := one["mean_map"]["first"]) and (second := one["mean_map"]["second"]) is not None
    }
    return {
        "map_reduction": reductions,
        **{name: data[name] for name in ("frequencies", "guards", "kept_step", "stopped")},
        **{name: record[name] for name in ("recipe", "steps", "seconds", "seed", "versions", "device")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos to start from")
    parser.add_argument("--real-images", type=Path, required=True, help="folder of other photos, to keep to")
    parser.add_argument("--judge", required=True, help="detector of another trunk, a folder or an id on the Hub")
    parser.add_argument("--held-out", type=int, default=16, help="photos to judge by (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=[*RUNS], help="runs to do (default: all)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/treating", help="folder of the runs (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    figures = {}
    for name in args.only:
        folder = args.work / name
        if not (folder / "training.json").exists():  # written last
            treat_lora.main(
                [
                    *("--config", "treat_cpu_small", "--output_dir", str(folder), *RUNS[name]),
                    *("--start_photos", str(args.photos), "--real_images", str(args.real_images)),
                    *("--guard_detector", args.judge, "--guard_images", "16"),
                    *("--held_out", str(args.held_out), "--pictures_per_prompt", "1"),
                ]
            )
        figures[name] = figures_of(folder)
        print(name, json.dumps({key: figures[name][key] for key in ("map_reduction", "kept_step", "stopped")}))
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    main()
