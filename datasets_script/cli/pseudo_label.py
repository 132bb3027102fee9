"""`artiagent pseudo-label`: label images with a pixel detector, for the training of the next one."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from .parser import Parser, positive_int, share


DESCRIPTION = """\
Label a folder of images with a pixel detector, for the training of the next one: images whose map stays low everywhere
are clean, those whose map exceeds a high threshold keep the map as a soft label, and others are left out. You can
interrupt it at any time; rerun the same command to continue."""

EPILOG = """\
OUT is read by `python -m training.train_pixel_detector` as a source of kind benchmark, and by everything else that
reads a benchmark. Each label records that it comes from a detector, from which, and the round.
  data/                the labelled images, as Parquet files
  confidences.jsonl    for each image: id, category (its folder), verdict, smoothed maximum and mean of the map;
                       `--hard_cases OUT` of the training draws categories with unusual means more often
  pseudo_labels.json   detector, thresholds, versions and counts

Rounds: train on human and pseudo labels, with --teacher_decay, and label again with the mean teacher.

examples:
  artiagent pseudo-label generated/ runs/pseudo_1 --model runs/detector
  artiagent train diffdoctor_mit_b5_stage_d
  artiagent pseudo-label generated/ runs/pseudo_2 --model runs/diffdoctor_mit_b5_stage_d/teacher --round 2"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of images, searched recursively")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; new, or of an interrupted run")
    parser.add_argument("--model", required=True, help="folder or Hub id of a pixel detector")
    parser.add_argument("--revision", help="branch, tag or commit of a detector on the Hub")
    parser.add_argument(
        "--low",
        type=share,
        default=0.2,
        help="images whose smoothed maximum is below are clean (default: %(default)s)",
    )
    parser.add_argument(
        "--high",
        type=share,
        default=0.8,
        help="images whose smoothed maximum is above have artifacts (default: %(default)s)",
    )
    parser.add_argument(
        "--round", type=positive_int, default=1, help="number of the round, which labels record (default: 1)"
    )
    parser.add_argument(
        "--shard-size", type=positive_int, default=256, help="images of a shard (default: %(default)s)"
    )
    parser.add_argument("--tile", type=positive_int, help="side of the tiles that larger images are divided into")
    parser.add_argument("--device", help="device, such as cuda:1 (default: cuda if available, else cpu)")
    parser.set_defaults(interrupted="complete shards are kept; rerun the command to continue.")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from training.pixel.pseudo_labels import PseudoLabels, PseudoLabelSettings

    from ..detection.pixel.detector import PixelDetector

    settings = PseudoLabelSettings(args.low, args.high, args.round, args.shard_size)
    detector = PixelDetector.from_pretrained(args.model, revision=args.revision, device=args.device, tile=args.tile)
    labels = PseudoLabels(args.images, args.out, detector, settings)
    found: Counter[str] = Counter()
    with tqdm(desc="labelling", total=len(labels), unit="image") as bar:
        for verdict in labels.run():
            found[verdict] += 1
            bar.set_postfix(found)
            bar.update()
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.items()))
    print(
        f"{len(labels)} images: {told}\nlabels in {args.out}; train on them with `--sources benchmark={args.out}`, "
        "beside human labels"
    )
    return 0
