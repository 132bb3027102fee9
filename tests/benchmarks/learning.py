"""Measure what a small model learns from pairs, and whether it could cheat. Runs on a CPU, in under four hours.

    python tests/benchmarks/learning.py --photos PHOTOS --json learning.json

1. Make pairs with the embedded model from views of the photos (`learning_data.py`). About a sixth of the photos is
   held out for evaluation.
2. For 250, 500, 1,000 and 2,000 pairs: train the vision tower of a small vision-language model
   (`training.vlm.small_model`) to tell which tokens have artifacts (`training.vlm.tower`), and score it by itself as
       the
   control; then train the model to answer, with its tower frozen (recipe `learning_cpu`).
3. Evaluate it on 400 pairs of held-out photos with `artiagent predict` and `artiagent evaluate`.
4. Check for shortcuts: train the same tower to tell clean from artifact images with the labelled masks hidden in both
   (`shortcut_accuracy`), or the target patches; its accuracy should be at chance. And tell them by the steepness of
   borders between tokens alone (`seam_auc`, `learning_seams.py`).

`detection_accuracy`, `detection_interval` and `localization_iou` are those of the model trained on the most pairs;
`constant_box_iou` is the IoU of answering the box that fits the training pairs best for every image. Finished results
in `--work` are reused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
import torch
from skimage.measure import label


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.pairs.storage import find_shards, read_rows
from datasets_script.utils.files import write_json
from evaluate_metrics.functional.versions import versions
from tests.benchmarks.best_box import best_box
from tests.benchmarks.intervals_by_photo import mean_of, with_interval
from tests.benchmarks.learning_data import SIDE, make_views
from tests.benchmarks.learning_seams import seam_auc
from tests.benchmarks.learning_towers import centred_crops, hide, image_scores, token_logits
from training.vlm.tower import (
    TOWER_FILE,
    PairArrays,
    TokenDetector,
    TowerTraining,
    detector_of,
    load_model,
    load_pairs,
    save_tower,
    train,
)


ROOT = Path(__file__).resolve().parents[2]
SIZES = (250, 500, 1000, 2000)
HELDOUT_PAIRS = 400
# Views of held-out photos; about 4.6 of the six variants of a view are kept.
HELDOUT_VIEWS = 96
TOWER = TowerTraining()

# What is hidden in both images, with a margin in px; `None` hides nothing. Chance gives accuracies within .035 of .5
# (95 % interval for 800 images).
_HIDDEN: dict[str, tuple[Literal["masks", "targets"], int] | None] = {
    "nothing hidden": None,
    "labelled masks hidden": ("masks", 0),
    "target patches hidden": ("targets", 0),
    "target patches and 16 px around them hidden": ("targets", 16),
}


def run(*command: str | Path | int | float) -> None:
    """Run a Python command in this checkout, with its output shown."""
    print("$", *command, flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *map(str, command)], check=True, env=environment, cwd=ROOT)


def artiagent(*arguments: str | Path | int) -> None:
    run("-m", "datasets_script.cli.main", *arguments)


def once(path: Path, make: Callable[[], None]) -> Path:
    """Call `make` unless `path` exists; `make` must write it in one go."""
    if not path.exists():
        make()
    return path


def make_pairs(photos: Path, work: Path, processes: int) -> dict[str, str]:
    """Make training and evaluation pairs. Training pairs are not added once there are enough."""
    views = once(work / "views", lambda: _make_views(photos, work / "views", processes))
    shards = work / "train" / "data"
    is_made = {
        "heldout": (work / "heldout" / "README.md").exists(),  # written last
        "train": sum(pq.read_metadata(path).num_rows for path in shards.glob("*.parquet")) >= max(SIZES),
    }
    limits = {"heldout": ("--limit", HELDOUT_VIEWS), "train": ()}
    for split in (split for split, made in is_made.items() if not made):
        artiagent(
            *("synthesize", views / split, work / split, "--annotations", views / f"{split}.json"),
            # Variants share an inversion, which costs as much as seven of them.
            *("--pairs-per-image", 6, "--max-rerolls", 0, "--max-artifacts", 1, "--balance", "shard"),
            *("--shard-size", 12, "--processes", processes, *limits[split]),
        )
    return {"train": str(shards / "*.parquet"), "heldout": str(work / "heldout")}


def _make_views(photos: Path, out: Path, processes: int) -> None:
    incomplete = out.with_name("views.incomplete")
    shutil.rmtree(incomplete, ignore_errors=True)
    make_views(photos, incomplete, 5, processes)
    incomplete.rename(out)


def evaluate(predictions: Path, heldout: str) -> dict[str, Any]:
    """Score predictions about the first held-out pairs."""
    report = predictions.with_suffix(".md")
    options = ("--limit", 2 * HELDOUT_PAIRS, "--css-model", "none")
    once(
        report,
        lambda: artiagent("evaluate", predictions, "--benchmark", heldout, *options, "--out", report),
    )
    scores: dict[str, Any] = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))["scores"]
    return scores


def patch_size(source: str) -> int:
    """Return the side of a token in pixels, of the model that pairs were made with."""
    row = next(read_rows(find_shards(source)))
    return SIDE // int(row["grid"][0])


def write_predictions(path: Path, predictions: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(prediction)}\n" for prediction in predictions), encoding="utf-8")


def constant_box(pairs: PairArrays, heldout: str, out: Path) -> dict[str, Any]:
    """Score the answer that fits the training pairs best, one box for every image."""
    box = best_box(list(pairs.masks))
    ids = [image.id for image in load_benchmark(heldout)][: 2 * HELDOUT_PAIRS]
    write_predictions(out, ({"id": name, "has_artifact": True, "boxes": [box]} for name in ids))
    return evaluate(out, heldout)


def control(detector: TokenDetector, pairs: PairArrays, heldout: str, judged: PairArrays, out: Path) -> dict[str, Any]:
    """Score the tower alone: an image has an artifact if its score is above the median of the training images."""
    seen = np.concatenate([pairs.images[:, 0], pairs.images[:, 1]])
    threshold = image_scores(token_logits(detector, seen[:: max(1, len(seen) // 1000)])).median()
    logits = token_logits(detector, judged.images.reshape(-1, *judged.images.shape[2:]))
    flawed = (image_scores(logits) > threshold).tolist()
    ids = [image.id for image in load_benchmark(heldout)][: len(flawed)]
    write_predictions(
        out,
        (
            {"id": name, "has_artifact": answer, "boxes": _token_boxes(grid) if answer else []}
            for name, answer, grid in zip(ids, flawed, logits, strict=True)
        ),
    )
    return evaluate(out, heldout)


def _token_boxes(logits: torch.Tensor) -> list[list[float]]:
    """Return the bounding box of the token with the highest logit and of connected tokens with positive logits."""
    grid = logits.numpy()
    labels = label(grid > min(0.0, float(grid.max()) - 1e-6), connectivity=1)
    rows, columns = np.nonzero(labels == labels[np.unravel_index(grid.argmax(), grid.shape)])
    side = SIDE / len(grid)
    return [[side * float(value) for value in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]]


def learn(
    work: Path, sources: dict[str, str], base: Path, size: int, all_pairs: PairArrays, judged: PairArrays
) -> Any:
    """Train on the first `size` pairs, and return the scores of the tower alone and of the whole model."""
    folder = work / f"pairs-{size}"
    folder.mkdir(exist_ok=True)
    pairs = PairArrays(all_pairs.images[:size], all_pairs.masks[:size], all_pairs.targets[:size])

    def make_tower() -> None:
        vlm, processor = load_model(base)
        detector = detector_of(vlm, processor, TOWER.seed)
        curve = train(detector, pairs, TOWER)
        control(detector, pairs, sources["heldout"], judged, folder / "control.jsonl")
        data = {"source": "train", "num_pairs": size}
        save_tower(folder / "tower", vlm, processor, TOWER, data, curve)

    once(folder / "tower" / TOWER_FILE, make_tower)
    once(
        folder / "vlm" / "training.json",
        lambda: run(
            *("-m", "training.sft_vlm", "--config", "learning_cpu", "--model_name_or_path", folder / "tower"),
            *("--dataset_name", sources["train"], "--num_pairs", size, "--output_dir", folder / "vlm"),
        ),
    )
    answers = folder / "answers.jsonl"
    options = ("--benchmark", sources["heldout"], "--limit", 2 * HELDOUT_PAIRS, "--tasks", "detection,localization")
    cache = ("--batch-size", 32, "--cache", folder / "cache")
    once(
        answers.with_suffix(".md"),
        lambda: artiagent("predict", folder / "vlm", *options, *cache, "--max-new-tokens", 64, "--out", answers),
    )
    return {
        "control": evaluate(folder / "control.jsonl", sources["heldout"]),
        "model": evaluate(answers, sources["heldout"]),
    }


def shortcuts(work: Path, base: Path, pairs: PairArrays, judged: PairArrays) -> dict[str, float]:
    """Return accuracies, on crops around the target, of towers trained to tell clean from artifact images."""
    accuracies = {}
    for name, hidden in _HIDDEN.items():
        path = work / "shortcuts" / f"{name.replace(' ', '-')}.json"
        path.parent.mkdir(exist_ok=True)
        seen, asked = (one if hidden is None else hide(one, *hidden) for one in (pairs, judged))
        once(path, partial(_write_shortcut, path, base, seen, asked))
        accuracies[name] = float(json.loads(path.read_text(encoding="utf-8"))["accuracy"])
        print(name, accuracies[name], flush=True)
    return accuracies


def _write_shortcut(path: Path, base: Path, seen: PairArrays, asked: PairArrays) -> None:
    settings = replace(TOWER, whole=True, steps=500)
    detector = detector_of(*load_model(base), settings.seed)
    train(detector, seen, settings)
    asked = centred_crops(asked, settings.crop)
    clean, flawed = (token_logits(detector, asked.images[:, side]).mean((1, 2)) for side in (0, 1))
    accuracy = float(((clean <= 0).float().mean() + (flawed > 0).float().mean()) / 2)
    write_json(path, {"accuracy": accuracy, "n": 2 * len(asked)})


def by_photo(predictions: Path, names: Sequence[str]) -> list[float]:
    """Return the 95 % interval of the accuracy from resampled photos, as pairs of a photo are not independent."""
    read = (json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines())
    answers = {row["id"]: row["answers"]["detection"] for row in read if "answers" in row}
    rights = [
        answers.get(name, "").strip().lower().startswith("yes" if name.endswith("#flawed") else "no") for name in names
    ]
    return with_interval([Path(name.partition(":")[0]).name for name in names], mean_of(rights))[1]


def draw(curve: dict[int, Any], constant: float, out: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    scores = {"detection accuracy": ("detection", "accuracy"), "mIoU (artiagent)": ("localization", "miou")}
    for panel, (title, (section, score)) in zip(panels, scores.items(), strict=True):
        for kind, name in {"model": "vision-language model", "control": "its vision tower alone"}.items():
            values = [curve[size][kind][section] for size in curve]
            middle = np.array([value[score] for value in values])
            low, high = np.array([value[f"{score}_interval"] for value in values]).T
            panel.errorbar(list(curve), middle, (middle - low, high - middle), marker="o", capsize=3, label=name)
        panel.axhline(0.5 if section == "detection" else constant, color="grey", linestyle="--", label="best constant")
        panel.set(xscale="log", xlabel="pairs", title=title)
        panel.set_xticks(list(curve), [f"{size:,}" for size in curve])
        panel.minorticks_off()
    panels[0].legend()
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos",
        type=Path,
        default=ROOT.parent / "shared/data/photos",
        help="folder of photos; 250 are enough (default: %(default)s)",
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/learning", help="folder for pairs and models (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--figure", type=Path, help="PNG file to write the curve to")
    parts = [*map(str, SIZES), "shortcuts"]
    parser.add_argument("--only", choices=parts, help="do one part and stop; parts can run at the same time")
    parser.add_argument(
        "--processes", type=int, default=2, help="number of processes that make pairs (default: %(default)s)"
    )
    args = parser.parse_args()
    if not args.photos.is_dir():
        parser.error(f"--photos must be a folder of photos, got '{args.photos}'")
    args.work.mkdir(parents=True, exist_ok=True)
    sources = make_pairs(args.photos, args.work, args.processes)
    base = once(
        args.work / "base",
        lambda: run("-m", "training.vlm.small_model", args.work / "base", "--dataset_name", sources["train"]),
    )
    pairs, judged = load_pairs(sources["train"], max(SIZES)), load_pairs(sources["heldout"], HELDOUT_PAIRS)
    if args.only != "shortcuts":
        sizes = [int(args.only)] if args.only else SIZES
        curve = {size: learn(args.work, sources, base, size, pairs, judged) for size in sizes}
    if args.only in (None, "shortcuts"):
        hidden = shortcuts(args.work, base, pairs, judged)
    if args.only:
        return
    constant = constant_box(pairs, sources["heldout"], args.work / "constant.jsonl")["localization"]["miou"]
    last = curve[max(SIZES)]["model"]
    seams, seam_interval = seam_auc(judged.images, patch_size(sources["heldout"]))
    names = [image.id for image in load_benchmark(sources["heldout"])][: 2 * HELDOUT_PAIRS]
    figures = {
        "detection_accuracy": last["detection"]["accuracy"],
        "detection_interval": last["detection"]["accuracy_interval"],
        "detection_interval_by_photograph": by_photo(args.work / f"pairs-{max(SIZES)}" / "answers.jsonl", names),
        "localization_iou": last["localization"]["miou"],
        "localization_interval": last["localization"]["miou_interval"],
        "constant_box_iou": constant,
        "shortcut_accuracy": hidden["labelled masks hidden"],
        "shortcuts": hidden,
        "seam_auc": seams,
        "seam_interval": seam_interval,
        "curve": curve,
        "versions": versions("torch", "transformers", "trl", "datasets"),
    }
    print(json.dumps({name: value for name, value in figures.items() if name != "curve"}, indent=1))
    if args.json:
        write_json(args.json, figures)
    if args.figure:
        draw(curve, constant, args.figure)


if __name__ == "__main__":
    main()
