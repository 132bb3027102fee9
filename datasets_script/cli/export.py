"""`artiagent export`: pairs for trainers that want another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..pairs.export.formats import FORMATS
from ..vlm.conventions import CONVENTIONS, QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS, BoxFormat, find_convention
from .parser import Parser, positive_int


DESCRIPTION = """\
Writes the pairs of a completed `artiagent synthesize` in another format."""

_MEANINGS = "\n".join(f"  {name:<10}  {find_convention(name).meaning}" for name in CONVENTIONS)
EPILOG = f"""\
formats:
  coco        images/ and annotations.json: a category for each type of artifact, masks as run-length
              encoding; clean images have no annotations
  webdataset  tars of <key>.clean.png, <key>.flawed.png, <key>.source.png and <key>.json
  sharegpt    data.json, dataset_info.json and images/: a conversation for each image, as LLaMA-Factory
              reads it with dataset_dir: DEST and dataset: artiagent

coordinates of boxes in sharegpt's conversations:
{_MEANINGS}
The default is pixel. With qwen2.5, give --min-pixels and --max-pixels the values that the model's image processor has.

DEST also gets info.json with settings, versions and seeds. It is whole or absent.

examples:
  artiagent export out/ out-coco/ --format coco
  artiagent export out/ out-chat/ --format sharegpt --coordinates qwen2.5 --max-pixels 1003520"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "out", metavar="OUT", help="folder written by `artiagent synthesize`, or a pattern for its Parquet files"
    )
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder to write; missing or empty")
    parser.add_argument("--format", required=True, choices=tuple(FORMATS), help="what to write, see below")
    parser.add_argument(
        "--coordinates", default="pixel", choices=CONVENTIONS, help="how sharegpt writes boxes, see below"
    )
    parser.add_argument(
        "--min-pixels",
        type=int,
        default=QWEN2_5_MIN_PIXELS,
        help="least pixels of an image after qwen2.5's image processor (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=QWEN2_5_MAX_PIXELS,
        help="most pixels of an image after qwen2.5's image processor (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the questions of conversations (default: 0)")
    parser.add_argument(
        "--shard-size", type=positive_int, default=1000, help="pairs in a tar of webdataset (default: 1000)"
    )


def run(args: argparse.Namespace) -> int:
    from ..pairs.export.common import ExportSettings
    from ..pairs.export.export_pairs import export_pairs

    box_format = BoxFormat(args.coordinates, args.min_pixels, args.max_pixels)
    settings = ExportSettings(box_format, args.seed, args.shard_size)
    count = export_pairs(args.out, args.dest, args.format, settings, show_progress=not args.quiet)
    print(f"{count} pairs in {args.dest}")
    return 0
