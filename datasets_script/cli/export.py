"""`artiagent export`: pairs for trainers that want another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..pairs.export import FORMATS, ExportSettings, export_pairs
from ..utils.errors import UserError
from ..vlm.conventions import CONVENTIONS, QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS, BoxFormat, find_convention


_MEANINGS = "\n".join(f"  {name:<10}  {find_convention(name).meaning}" for name in CONVENTIONS)
_EPILOG = f"""\
formats:
  coco        images/ and annotations.json: a category for each type of artifact, masks as run-length
              encoding; clean images have no annotations
  webdataset  tars of <key>.clean.png, <key>.flawed.png, <key>.source.png and <key>.json
  sharegpt    data.json, dataset_info.json and images/: a conversation for each image, as LLaMA-Factory
              reads it with dataset_dir: DEST and dataset: artiagent

coordinates of boxes in sharegpt's conversations:
{_MEANINGS}
The default is pixel. With qwen2.5 give --min-pixels and --max-pixels as the processor is set.

DEST also gets info.json with settings, versions and seeds. It is whole or absent.

examples:
  artiagent export out/ out-coco/ --format coco
  artiagent export out/ out-chat/ --format sharegpt --coordinates qwen2.5 --max-pixels 1003520
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export",
        help="pairs as COCO, WebDataset or ShareGPT conversations",
        description="Writes the pairs of a completed `artiagent synthesize` in another format.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", help="folder written by `artiagent synthesize`, or a pattern for its Parquet files")
    parser.add_argument("dest", type=Path, help="folder to write; missing or empty")
    parser.add_argument("--format", required=True, choices=FORMATS, help="see below")
    parser.add_argument("--coordinates", default="pixel", choices=CONVENTIONS, help="see below")
    parser.add_argument("--min-pixels", type=int, default=QWEN2_5_MIN_PIXELS, help="default: %(default)s")
    parser.add_argument("--max-pixels", type=int, default=QWEN2_5_MAX_PIXELS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the conversations' questions (default: 0)")
    parser.add_argument("--shard-size", type=int, default=1000, help="pairs in a tar (default: 1000)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.shard_size < 1:
        raise UserError(f"--shard-size must be at least 1, got {args.shard_size}")
    box_format = BoxFormat(args.coordinates, args.min_pixels, args.max_pixels)
    settings = ExportSettings(box_format, args.seed, args.shard_size)
    count = export_pairs(args.out, args.dest, args.format, settings)
    print(f"{count} pairs in {args.dest}")
    return 0
