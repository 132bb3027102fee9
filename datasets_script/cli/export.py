"""`artiagent export`: convert pairs to the formats of other trainers."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..pairs.export.formats import FORMATS, PREFERENCE_COLUMNS, TRAINERS
from ..vlm.conventions import CONVENTIONS, QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS, BoxFormat, find_convention
from .options import add_filter_options, pair_filter
from .parser import Parser, positive_int


DESCRIPTION = """\
Convert the pairs of a complete run of `artiagent synthesize` to another format."""

_MEANINGS = "\n".join(f"  {name:<10}  {find_convention(name).meaning}" for name in CONVENTIONS)
EPILOG = f"""\
formats:
  coco        images/ and annotations.json, with one category per artifact type and masks in run-length
              encoding; clean images have no annotations
  yolo        data.yaml, images/ and labels/ with a text file for each image, empty for clean images; classes are
              artifact types
  webdataset  tar files of <key>.clean.png, <key>.flawed.png (the artifact image), <key>.source.png and
              <key>.json
  sharegpt    data.json, dataset_info.json and images/, with one conversation per image; load it in
              LLaMA-Factory with dataset_dir: DEST and dataset: artiagent
  preference  data/train-*.parquet, with a row per pair: the clean image is preferred to the artifact image, and
              mask says where they differ; for trainers of diffusion models other than training.pair_dpo

columns of preference:
  chosen      prompt, chosen, rejected, mask, and chosen_noise and rejected_noise of runs with --store-noise
  pickapic    caption, jpg_0, jpg_1, label_0 (1 if jpg_0 is preferred, else 0), mask; what the scripts for
              Diffusion-DPO of diffusers and Salesforce read

box coordinates in the conversations of sharegpt:
{_MEANINGS}
The default is pixel. With qwen2.5, set --min-pixels and --max-pixels to the values of the model's image processor.
LLaMA-Factory shrinks images of more than 768 x 768 pixels before the processor sees them, and boxes are written for
what it makes of them; give its image_max_pixels as --trainer-max-pixels if you change that.

DEST also gets info.json with settings, versions and seeds. An interrupted export leaves no DEST.

examples:
  artiagent export out/ out-coco/ --format coco
  artiagent export out/ out-chat/ --format sharegpt --coordinates qwen2.5 --max-pixels 1003520
  artiagent export out/ out-dpo/ --format preference --preference-columns pickapic"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "out", metavar="OUT", help="folder written by `artiagent synthesize`, or a glob pattern of its Parquet files"
    )
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder to write; must be new or empty")
    parser.add_argument("--format", required=True, choices=tuple(FORMATS), help="output format, described below")
    parser.add_argument(
        "--coordinates",
        default="pixel",
        choices=CONVENTIONS,
        help="box coordinates in sharegpt, described below (default: pixel)",
    )
    parser.add_argument(
        "--min-pixels",
        type=int,
        default=QWEN2_5_MIN_PIXELS,
        help="min_pixels of the model's image processor, for qwen2.5 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=QWEN2_5_MAX_PIXELS,
        help="max_pixels of the model's image processor, for qwen2.5 (default: %(default)s)",
    )
    parser.add_argument(
        "--trainer",
        default="llama-factory",
        choices=tuple(TRAINERS),
        help="trainer of the conversations of sharegpt; other: one that does not shrink images (default: %(default)s)",
    )
    parser.add_argument(
        "--trainer-max-pixels",
        type=positive_int,
        help=f"image_max_pixels of LLaMA-Factory, for sharegpt (default: {TRAINERS['llama-factory']}, its own)",
    )
    parser.add_argument(
        "--preference-columns",
        default="chosen",
        choices=PREFERENCE_COLUMNS,
        help="columns of preference, described above (default: chosen)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed for the wording of questions in sharegpt, and for which image comes first in preference "
        "(default: 0)",
    )
    parser.add_argument(
        "--shard-size",
        type=positive_int,
        default=1000,
        help="pairs per tar file of webdataset or Parquet file of preference (default: 1000)",
    )

    add_filter_options(parser)


def run(args: argparse.Namespace) -> int:
    from ..pairs.export.common import ExportSettings
    from ..pairs.export.export_pairs import export_pairs

    box_format = BoxFormat(args.coordinates, args.min_pixels, args.max_pixels)
    settings = ExportSettings(
        box_format, args.seed, args.shard_size, args.trainer, args.trainer_max_pixels, args.preference_columns
    )
    count = export_pairs(
        args.out, args.dest, args.format, settings, show_progress=not args.quiet, only=pair_filter(args)
    )
    print(f"{count} pairs in {args.dest}")
    return 0
