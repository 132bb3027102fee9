"""
Measure how well the labels of pairs cover what visibly changed. Runs on a CPU, in seconds.

    python tests/benchmarks/labels.py RUN [RUN ...] --json labels.json

The visible change of an artifact is |clean - artifact|, mean over channels, smoothed by a Gaussian of 1.5 px, above
.05: the components (with diagonals) that touch the artifact's target patches. It is computed here by SciPy and not by
the package. `box_iou` compares the stored box with the hull of that change, `mask_iou` the stored mask with the change
itself, both as medians by type; an artifact without visible change counts as 0. `psnr_outside_labels` is the median
over pairs of the PSNR outside all boxes and masks, dB; an image without change there counts as 120 dB.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy import ndimage


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.agents.curation.measures import MAX_PSNR, target_pixels
from datasets_script.pairs.storage import find_shards, read_rows
from datasets_script.pairs.views.stored_rows import read_artifacts
from datasets_script.schema.pair import Artifact
from datasets_script.utils.files import write_json
from datasets_script.utils.stored_images import stored_pixels
from diffusers_artifact.mapping import ARTIFACT_TYPES
from evaluate_metrics.functional.versions import versions


SMOOTHING, THRESHOLD = 1.5, 0.05


def change(clean: np.ndarray, flawed: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the visible change that touches `targets`, a mask, between two images of `uint8`."""
    difference = np.abs(clean.astype(float) - flawed.astype(float)).mean(axis=2) / 255
    components, _ = ndimage.label(ndimage.gaussian_filter(difference, SMOOTHING) > THRESHOLD, np.ones((3, 3)))
    return np.isin(components, np.setdiff1d(components[targets], 0))


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the IoU of two masks, 0 if both are empty."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def box_mask(bbox: tuple[float, float, float, float], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    x_min, y_min, x_max, y_max = (round(value) for value in bbox)
    mask[y_min:y_max, x_min:x_max] = True
    return mask


def hull(mask: np.ndarray) -> np.ndarray:
    filled = np.zeros_like(mask)
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return filled


def psnr_outside(clean: np.ndarray, flawed: np.ndarray, artifacts: list[Artifact]) -> float:
    outside = ~np.any([artifact.mask | box_mask(artifact.bbox, artifact.mask.shape) for artifact in artifacts], axis=0)
    error = float(np.square((clean[outside].astype(float) - flawed[outside]) / 255).mean())
    return MAX_PSNR if error == 0 else min(MAX_PSNR, float(-10 * np.log10(error)))


def read(runs: list[Path]) -> Iterator[tuple[np.ndarray, np.ndarray, list[Artifact]]]:
    """Yield the clean image, the artifact image and the artifacts of each pair."""
    for out in runs:
        for row in read_rows(find_shards(out)):
            yield stored_pixels(row["clean"]), stored_pixels(row["flawed"]), read_artifacts(row)


def measure(runs: list[Path]) -> dict[str, Any]:
    boxes, masks = defaultdict(list), defaultdict(list)
    outside, unlabelled = [], []
    for clean, flawed, artifacts in read(runs):
        outside.append(psnr_outside(clean, flawed, artifacts))
        patch_size = clean.shape[0] // artifacts[0].mapping.grid[0]
        everywhere = change(clean, flawed, np.ones(clean.shape[:2], dtype=bool))
        unlabelled.append(int((everywhere & ~np.any([artifact.mask for artifact in artifacts], axis=0)).sum()))
        for artifact in artifacts:
            seen = change(clean, flawed, target_pixels([artifact.mapping], patch_size))
            boxes[artifact.type].append(iou(box_mask(artifact.bbox, seen.shape), hull(seen)))
            masks[artifact.type].append(iou(artifact.mask, seen))
    kinds = [kind for kind in ARTIFACT_TYPES if boxes[kind]]
    return {
        "pairs": len(outside),
        "artifacts": {kind: len(boxes[kind]) for kind in kinds},
        "box_iou": {kind: median(boxes[kind]) for kind in kinds},
        "mask_iou": {kind: median(masks[kind]) for kind in kinds},
        "psnr_outside_labels": median(outside),
        "least_psnr_outside_labels": min(outside),
        "pairs_with_visible_change_outside_masks": sum(pixels > 0 for pixels in unlabelled),
        "change": {"smoothing": SMOOTHING, "threshold": THRESHOLD},
        "versions": versions("numpy", "scipy"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder written by `artiagent synthesize`")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    figures = measure(args.runs)
    print(json.dumps(figures, indent=1))
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    main()
