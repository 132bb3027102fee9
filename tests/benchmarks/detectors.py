"""Measure a pixel detector on pairs of photos that it was not trained on. Runs on a CPU, in about five minutes.

    python tests/benchmarks/detectors.py --json detectors.json

Pairs are those of photos that `learning.py` holds out, and the detector is the embedded one. Written are:

- `image_auc`: area under the ROC curve of the image score, artifact images against clean images;
- `pixel_iou`: mean IoU of the regions that the detector answers, over the artifact images, as `artiagent evaluate` has
  it (protocol `artiagent`); beside it `map_iou`, that of the map above the high threshold, whether or not the image
  counts as one with artifacts, `constant_box_iou`, that of the box that fits these pairs best, and `seam_iou`, that of
  the steepness of borders between tokens at its best threshold;
- `clean_false_alarm`: share of clean images in which the detector sees an artifact; beside it
  `clean_false_alarm_without_negatives`, that of a detector trained without clean images (`--without-negatives`);
- `photo_false_alarm`: that of the photos that the pairs were made from, as they are and as JPEG-compressed, resized
  and blurred copies, and of the demo's photos;
- `by_type`: IoU and share of found artifacts for each type.

Intervals are 95 % bootstrap intervals over source photos, since pairs of one photo are not independent.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.demo.photos import write_demo_photos
from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.figures.detections import detection_picture
from datasets_script.pairs.storage import read_pairs
from datasets_script.schema.detection import Detection
from datasets_script.schema.pair import Pair
from datasets_script.utils.files import write_json
from evaluate_metrics.functional.ranking import area_under_curve
from evaluate_metrics.functional.versions import versions
from tests.benchmarks.best_box import best_box
from tests.benchmarks.intervals_by_photo import mean_of, with_interval
from tests.benchmarks.learning_seams import seam_map


ROOT = Path(__file__).resolve().parents[2]
NUM_PAIRS = 400
# Pairs on the sheets of the best and of the worst, and the height of their rows in px.
SHOWN = 20
ROW = 256


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def resized(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda image: image,
    "JPEG 50": lambda image: jpeg(image, 50),
    "JPEG 20": lambda image: jpeg(image, 20),
    "half the size": lambda image: resized(image, 0.5),
    "twice the size": lambda image: resized(image, 2.0),
    "blurred, 1 px": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
}


@dataclass(frozen=True, eq=False)
class Judged:
    """
    A pair with what the detector answered about its two images. Masks are Boolean and of the images' size: `mask` of
    the true artifacts, `found` of the regions in the artifact image, `above` of its map above the high threshold.
    """

    pair: Pair
    mask: np.ndarray
    found: np.ndarray
    above: np.ndarray
    clean_score: float
    flawed_score: float
    clean_alarm: bool
    flawed_alarm: bool

    @property
    def iou(self) -> float:
        """IoU of the regions that the detector answers."""
        return iou(self.found, self.mask)


def iou(found: np.ndarray, true: np.ndarray) -> float:
    union = (found | true).sum()
    return float((found & true).sum() / union) if union else 1.0


def masks_of(detection: Detection) -> list[np.ndarray]:
    return [region.mask for region in detection.regions or () if region.mask is not None]


def judge(detector: PixelDetector, pairs: Iterable[Pair]) -> list[Judged]:
    judged = []
    for pair in tqdm(pairs, desc="pairs", total=NUM_PAIRS):
        clean, flawed = detector([pair.clean, pair.flawed])
        assert flawed.artifact_map is not None and clean.score is not None and flawed.score is not None
        judged.append(
            Judged(
                pair=pair,
                mask=np.any([artifact.mask for artifact in pair.artifacts], axis=0),
                found=np.any([np.zeros(flawed.artifact_map.shape, dtype=bool), *masks_of(flawed)], axis=0),
                above=flawed.artifact_map > detector.record.thresholds.high,
                clean_score=clean.score,
                flawed_score=flawed.score,
                clean_alarm=bool(clean.has_artifact),
                flawed_alarm=bool(flawed.has_artifact),
            )
        )
    return judged


def photo_of(pair: Pair) -> str:
    """Return the photo that a pair's source is a view of: `learning_data.py` numbers the folders of views."""
    return pair.source_id.partition("/")[2]


def score(judged: Sequence[Judged]) -> dict[str, Any]:
    """Score the answers about pairs, with intervals."""
    groups = [photo_of(one.pair) for one in judged]
    # Rows are clean and artifact images; scores are ranked among all of them.
    scores_of_sides = np.array([[one.clean_score, one.flawed_score] for one in judged]).T
    ranks = np.unique(scores_of_sides, return_inverse=True)[1].reshape(scores_of_sides.shape)
    statistics = {
        "image_auc": lambda indices: area_under_curve(
            *(np.bincount(side[indices], minlength=ranks.max() + 1) for side in ranks)
        ),
        "pixel_iou": mean_of([one.iou for one in judged]),
        "map_iou": mean_of([iou(one.above, one.mask) for one in judged]),
        "clean_false_alarm": mean_of([one.clean_alarm for one in judged]),
        "flawed_found": mean_of([one.flawed_alarm for one in judged]),
    }
    scores: dict[str, Any] = {}
    for name, statistic in statistics.items():
        scores[name], scores[f"{name}_interval"] = with_interval(groups, statistic)
    return scores


def by_type(judged: Sequence[Judged]) -> dict[str, Any]:
    """Score the pairs with one artifact by its type."""
    of_type = defaultdict(list)
    for one in judged:
        if len(one.pair.artifacts) == 1:
            of_type[one.pair.artifacts[0].type].append(one)
    scores: dict[str, Any] = {}
    for name, those in sorted(of_type.items()):
        groups = [photo_of(one.pair) for one in those]
        value, interval = with_interval(groups, mean_of([one.iou for one in those]))
        found, found_interval = with_interval(groups, mean_of([one.flawed_alarm for one in those]))
        scores[name] = {"n": len(those), "pixel_iou": value, "pixel_iou_interval": interval}
        scores[name] |= {"flawed_found": found, "flawed_found_interval": found_interval}
    return scores


def constant_box_iou(judged: Sequence[Judged]) -> float:
    """Return the mean IoU of the box that fits these very pairs best."""
    left, top, right, bottom = map(round, best_box([one.mask for one in judged]))
    filled = np.zeros(judged[0].mask.shape, dtype=bool)
    filled[top:bottom, left:right] = True
    return float(np.mean([iou(filled, one.mask) for one in judged]))


def seam_iou(judged: Sequence[Judged]) -> float:
    """Return the mean IoU of the map of seams between tokens, at the threshold that fits these very pairs best."""
    maps, masks = [], []
    for one in judged:
        patch_size = one.mask.shape[0] // one.pair.grid[0]
        maps.append(np.kron(seam_map(np.asarray(one.pair.flawed), patch_size), np.ones((patch_size, patch_size))))
        half = patch_size // 2
        rows, columns = maps[-1].shape
        masks.append(one.mask[half : half + rows, half : half + columns])
    thresholds = np.quantile(np.stack(maps), np.linspace(0.5, 0.999, 40))
    return max(float(np.mean([iou(m > t, true) for m, true in zip(maps, masks, strict=True)])) for t in thresholds)


def false_alarms(detector: PixelDetector, photos: Sequence[Image.Image], name: str) -> dict[str, Any]:
    """Return the share of photos in which the detector sees an artifact, for each kind of copy."""
    alarms = {}
    for copy, change in COPIES.items():
        found = [bool(detector(change(photo)).has_artifact) for photo in tqdm(photos, desc=f"{name}, {copy}")]
        value, interval = with_interval([str(index) for index in range(len(found))], mean_of(found))
        alarms[copy] = {"n": len(found), "share": value, "interval": interval}
    return alarms


def demo_photos() -> list[Image.Image]:
    with TemporaryDirectory() as folder:
        return [Image.open(path).convert("RGB") for path in write_demo_photos(Path(folder))]


def sheet(detector: PixelDetector, images: Sequence[tuple[Image.Image, Image.Image, str]], out: Path) -> None:
    """Draw a row for each image: what is beside it, the image, its map, and what the detector found."""
    rows = []
    for image, beside, name in images:
        found = detector(image)
        assert found.artifact_map is not None
        heat = Image.fromarray((found.artifact_map * 255).astype(np.uint8)).convert("RGB")
        parts = (beside, image, heat, detection_picture(image, found, name))
        rows.append([part.resize((round(part.width * ROW / part.height), ROW)) for part in parts])
    canvas = Image.new("RGB", (max(sum(part.width for part in row) for row in rows), ROW * len(rows)), "white")
    for number, row in enumerate(rows):
        left = 0
        for part in row:
            canvas.paste(part, (left, number * ROW))
            left += part.width
    canvas.save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pairs",
        type=Path,
        default=ROOT / "runs/learning/heldout",
        help="run of photos that the detector was not trained on (default: %(default)s, made by learning.py)",
    )
    parser.add_argument("--detector", default="embedded", help="folder, Hub id or embedded (default: %(default)s)")
    parser.add_argument("--without-negatives", type=Path, help="the same detector, trained without clean images")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--sheets", type=Path, help="folder to write sheets of the best and the worst to")
    args = parser.parse_args()
    if not args.pairs.is_dir():
        parser.error(f"--pairs must be the folder of a run, got '{args.pairs}'; run learning.py first")
    detector = PixelDetector.from_pretrained(args.detector, device="cpu")
    judged = judge(detector, islice(read_pairs(args.pairs), NUM_PAIRS))
    figures: dict[str, Any] = {"detector": args.detector, "n": len(judged), **score(judged)}
    figures |= {"constant_box_iou": constant_box_iou(judged), "seam_iou": seam_iou(judged)}
    figures["by_type"] = by_type(judged)
    sources = list({one.pair.source_id: one.pair.source for one in judged}.values())
    figures["photo_false_alarm"] = {
        "held-out photos": false_alarms(detector, sources, "held-out photos"),
        "demo's photos": false_alarms(detector, demo_photos(), "demo's photos"),
    }
    if args.without_negatives:
        other = PixelDetector.from_pretrained(args.without_negatives, device="cpu")
        scores = score(judge(other, (one.pair for one in judged)))
        figures |= {f"{name}_without_negatives": value for name, value in scores.items()}
    figures["versions"] = versions("torch", "transformers", "timm")
    print(json.dumps(figures, indent=1))
    if args.json:
        write_json(args.json, figures)
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        ranked = sorted(judged, key=lambda one: one.iou)
        for name, those in {"worst": ranked[:SHOWN], "best": ranked[-SHOWN:]}.items():
            shown = [(one.pair.flawed, one.pair.clean, f"{one.iou:.2f}") for one in those]
            sheet(detector, shown, args.sheets / f"{name}.png")
        sheet(detector, [(source, source, "photo") for source in sources[:SHOWN]], args.sheets / "photos.png")


if __name__ == "__main__":
    main()
