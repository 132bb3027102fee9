"""Compare the speed of `miou` with other implementations, and measure whether its memory grows with the dataset.

    python tests/benchmarks/metrics.py --json metrics.json

Inputs are pairs of a prediction and a reference at 512×512 px: three boxes each, and three ellipses each as one
compressed COCO RLE. Times are from these inputs to IoU, F1, precision and recall over the dataset, without intervals:
medians of three passes in one process with one thread, without imports and the making of inputs.

- `speedup_vs_torchmetrics`: the function `miou` against masks made from the same inputs (slices for boxes, pycocotools
  for RLE) and fed pair by pair to torchmetrics' binary Jaccard index, F1, precision and recall on the CPU. They share
  their counts where torchmetrics can, and do not check arguments.
- `speedup_vs_evaluate`: `compute` of the module `miou`, also through `evaluate`, against a module of `evaluate` that
  takes masks as `Array2D` or, as `mean_iou` of the Hub does, as lists of lists, whichever is faster, and counts pixels
  with numpy. The masks are made before timing. Because this needs much time and memory, it is timed per pair, on
  `--evaluate-pairs` pairs.

Each figure is given for boxes and for RLE; the name without a suffix is the lower of the two. Peak memory is the
maximum allocated by Python and numpy while `n` pairs of masks, made one at a time, are scored.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from datasets import Array2D, Features, List, Value
from pycocotools import mask as coco_mask
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex, BinaryPrecision, BinaryRecall

from evaluate_metrics import metric_path
from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.miou import miou, score_pixel_counts
from evaluate_metrics.functional.regions import pixel_counts


SIDE = 512
NO_INTERVALS = Bootstrap(n_resamples=0)
SCORES = ("miou", "f1", "precision", "recall")


def boxes_of(generator: np.random.Generator) -> list[list[float]]:
    corners = generator.uniform(0, SIDE * 0.75, (3, 2))
    return np.hstack([corners, corners + generator.uniform(16, SIDE * 0.25, (3, 2))]).tolist()


def rle_of(generator: np.random.Generator) -> list[dict[str, Any]]:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for (x, y), (width, height) in zip(
        generator.uniform(0, SIDE, (3, 2)), generator.uniform(16, 96, (3, 2)), strict=True
    ):
        mask |= ((columns - x) / width) ** 2 + ((rows - y) / height) ** 2 < 1
    rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    return [{"size": [SIDE, SIDE], "counts": rle["counts"].decode()}]


def mask_of_boxes(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for box in boxes:
        x_min, y_min, x_max, y_max = (round(edge) for edge in box)
        mask[y_min:y_max, x_min:x_max] = 1
    return mask


def mask_of_rle(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    return coco_mask.decode(rles[0])


KINDS: dict[str, tuple[Callable, Callable]] = {"boxes": (boxes_of, mask_of_boxes), "rle": (rle_of, mask_of_rle)}


class MasksThroughEvaluate(evaluate.Metric):
    """Metric on masks, in either of the features that `evaluate` has for them."""

    def _info(self) -> evaluate.MetricInfo:
        lists = self.config_name == "lists"
        masks = List(List(Value("uint8"))) if lists else Array2D((SIDE, SIDE), "uint8")
        return evaluate.MetricInfo(
            description="", citation="", features=Features({"predictions": masks, "references": masks})
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
        counts = [
            pixel_counts(np.asarray(predicted, np.uint8), np.asarray(true, np.uint8), (SIDE, SIDE))
            for predicted, true in zip(predictions, references, strict=True)
        ]
        return score_pixel_counts(np.array(counts), "x_aigd", bootstrap=NO_INTERVALS)


def by_torchmetrics(predictions: Sequence[Any], references: Sequence[Any], mask_of: Callable) -> dict[str, float]:
    kinds = (BinaryJaccardIndex, BinaryF1Score, BinaryPrecision, BinaryRecall)
    metrics = MetricCollection({name: kind(validate_args=False) for name, kind in zip(SCORES, kinds, strict=True)})
    for pair in zip(predictions, references, strict=True):
        metrics.update(*(torch.from_numpy(mask_of(region)) for region in pair))
    return {name: value.item() for name, value in metrics.compute().items()}


def timed(function: Callable[[], dict[str, Any]]) -> tuple[float, dict[str, Any]]:
    """Return the median seconds of three passes after a warm-up pass, and the scores."""
    scores, seconds = function(), []
    for _ in range(3):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), scores


def same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Check that both give the same scores; otherwise their speeds are not comparable."""
    assert np.allclose([first[name] for name in SCORES], [second[name] for name in SCORES], atol=1e-5), (first, second)


def speedups(kind: str, pairs: int, evaluate_pairs: int) -> Iterator[tuple[str, float]]:
    make, mask_of = KINDS[kind]
    generator = np.random.default_rng(0)
    predictions, references = ([make(generator) for _ in range(pairs)] for _ in range(2))
    sizes = [(SIDE, SIDE)] * pairs
    ours, scores = timed(lambda: miou(predictions, references, sizes, "x_aigd", bootstrap=NO_INTERVALS))
    theirs, expected = timed(lambda: by_torchmetrics(predictions, references, mask_of))
    same(scores, expected)
    yield f"pair_ms_{kind}", ours / pairs * 1000
    yield f"torchmetrics_pair_ms_{kind}", theirs / pairs * 1000
    yield f"speedup_vs_torchmetrics_{kind}", theirs / ours

    module = evaluate.load(metric_path("miou"), kind)
    inputs = {"predictions": predictions, "references": references, "sizes": sizes}
    ours, _ = timed(lambda: module.compute(**inputs, protocol="x_aigd", n_resamples=0))
    masks = {name: [mask_of(region) for region in inputs[name][:evaluate_pairs]] for name in list(inputs)[:2]}
    lists = {name: [mask.tolist() for mask in values] for name, values in masks.items()}
    array_seconds, scores = timed(lambda: MasksThroughEvaluate("arrays").compute(**masks))
    list_seconds, _ = timed(lambda: MasksThroughEvaluate("lists").compute(**lists))
    few = {name: values[:evaluate_pairs] for name, values in inputs.items()}
    same(scores, module.compute(**few, protocol="x_aigd", n_resamples=0))
    yield f"module_pair_ms_{kind}", ours / pairs * 1000
    yield f"evaluate_arrays_pair_ms_{kind}", array_seconds / evaluate_pairs * 1000
    yield f"evaluate_lists_pair_ms_{kind}", list_seconds / evaluate_pairs * 1000
    yield f"speedup_vs_evaluate_{kind}", min(array_seconds, list_seconds) / evaluate_pairs / (ours / pairs)


def peak_memory(pairs: int) -> float:
    """Return the peak of allocated memory in MiB while pairs of masks, made one at a time, are scored."""

    def masks(seed: int) -> Iterator[np.ndarray]:
        generator = np.random.default_rng(seed)
        return (mask_of_boxes(boxes_of(generator)) for _ in range(pairs))

    tracemalloc.start()
    miou(masks(0), masks(1), protocol="legion", bootstrap=NO_INTERVALS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def figures(pairs: int, evaluate_pairs: int) -> Iterator[tuple[str, float]]:
    found = {}
    for kind in KINDS:
        for name, value in speedups(kind, pairs, evaluate_pairs):
            found[name] = value
            yield name, value
    for name in ("speedup_vs_torchmetrics", "speedup_vs_evaluate"):
        yield name, min(found[f"{name}_{kind}"] for kind in KINDS)
    first, second = (peak_memory(count) for count in (pairs, 4 * pairs))
    yield f"peak_memory_mib_of_{pairs}", first
    yield f"peak_memory_mib_of_{4 * pairs}", second
    yield "peak_memory_ratio", second / first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--pairs", type=int, default=1_000, help="number of image pairs (default: 1000)")
    parser.add_argument(
        "--evaluate-pairs", type=int, default=50, help="number of mask pairs scored through evaluate (default: 50)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    results = {}
    for name, value in figures(args.pairs, args.evaluate_pairs):
        results[name] = round(value, 4)
        print(f"{name:36} {value:.4f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
