"""`artiagent prepare`: a published benchmark, or pairs, as a dataset that `load_dataset` gives by name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..benchmarks.registry import BENCHMARKS, MODULES, PAIRS
from ..pairs.configurations import NAMES
from ..utils.errors import UserError
from ..vlm.conventions import CONVENTIONS, QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS
from .parser import Parser, did_you_mean, positive_int, share


if TYPE_CHECKING:
    from ..benchmarks.survey import Survey


DESCRIPTION = """\
Reads the published files of a benchmark, checks their counts, and writes them in the columns that all benchmarks
share. Records that cannot be read are listed with the reason in skipped.jsonl. With the name artiagent it prepares
pairs of `artiagent synthesize` for a trainer. Without a name it lists the benchmarks and their licences."""

EPILOG = """\
examples:
  artiagent prepare                                                 the benchmarks and their licences
  artiagent prepare artibench                                       what to fetch, from where, and its licence
  artiagent prepare artibench --source artibench-source             then: load_dataset("artibench")
  artiagent prepare richhf --source richhf-source --split test --num-proc 4
  artiagent prepare artibench --source KRAFTON/ArtiBench --out artibench-parquet
  artiagent prepare artiagent --source out --config vqa             then: load_dataset("artiagent", "vqa")
  artiagent prepare artiagent --source out --out pairs-parquet --coordinates qwen2.5 --test-share 0.1"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", choices=MODULES, metavar="NAME", help=f"one of {', '.join(MODULES)}")
    parser.add_argument(
        "--source",
        help="folder with the published files, or the id of a dataset on the Hub (default: say what to fetch from "
        "where, and under which licence)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder to write, with data files and a card, to load or to push to the Hub (default: the cache, from "
        "where load_dataset(NAME) loads it)",
    )
    parser.add_argument("--split", help="comma-separated list of splits (default: all)")
    parser.add_argument("--num-proc", type=positive_int, default=1, help="processes that write (default: 1)")
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="go on if the files contradict the published counts, which is refused otherwise",
    )
    group = parser.add_argument_group(f"for {PAIRS}: pairs in the form a trainer takes")
    group.add_argument(
        "--config",
        help=f"{', '.join(NAMES[:-1])} or {NAMES[-1]} (default: {NAMES[0]}; with --out all of them)",
    )
    group.add_argument(
        "--coordinates",
        choices=CONVENTIONS,
        default="pixel",
        help="how vqa and instructions write boxes (default: pixel)",
    )
    group.add_argument(
        "--min-pixels",
        type=int,
        default=QWEN2_5_MIN_PIXELS,
        help="least pixels of an image after qwen2.5's image processor (default: %(default)s)",
    )
    group.add_argument(
        "--max-pixels",
        type=int,
        default=QWEN2_5_MAX_PIXELS,
        help="most pixels of an image after qwen2.5's image processor (default: %(default)s)",
    )
    group.add_argument(
        "--test-share", type=share, default=0.0, help="share of the source photos that form a test split (default: 0)"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        help="chooses the questions of vqa, the order of images in comparisons and the test split (default: 0)",
    )


def run(args: argparse.Namespace) -> int:
    if args.name is None:
        print("\n".join(listing()))
        return 0
    if args.out is not None and args.out.exists():
        raise UserError(f"--out must be a folder that is not there yet, got '{args.out}'")
    return prepare_pairs(args) if args.name == PAIRS else prepare_benchmark(args)


def listing() -> list[str]:
    """A line for each benchmark: name, images of its splits, licence, and where it is published."""
    from ..benchmarks.registry import get_benchmark

    rows = [("name", "images", "licence", "published at")]
    for name in BENCHMARKS:
        benchmark = get_benchmark(name)
        counts = ", ".join(f"{split} {'?' if count is None else count}" for split, count in benchmark.splits.items())
        rows.append((name, counts, benchmark.license, benchmark.homepage))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def prepare_benchmark(args: argparse.Namespace) -> int:
    from ..benchmarks.base import BenchmarkError
    from ..benchmarks.prepare import cache_folder, prepare, prepare_folder
    from ..benchmarks.registry import get_benchmark
    from ..benchmarks.source import how_to_fetch
    from ..benchmarks.survey import SKIPPED_FILE

    if args.config:
        raise UserError(f"--config is for {PAIRS} alone, {args.name} has one configuration")
    if args.source is None:
        print(f"{args.name} needs --source, a folder with its files.\n\n{how_to_fetch(get_benchmark(args.name))}")
        return 2
    options = {"splits": args.split, "allow_partial": args.allow_partial, "num_proc": args.num_proc}
    try:
        if args.out is None:
            builder = prepare(args.name, args.source, **options)
        else:
            builder = prepare_folder(args.name, args.source, args.out, **options)
    except BenchmarkError as error:
        raise UserError(str(error)) from error
    print(surveys_text(builder.surveys))
    skipped = (args.out or cache_folder(args.name)) / SKIPPED_FILE
    print(f"what was left out, and why: {skipped}")
    print(f'load_dataset("{args.out or args.name}")')
    return 0


def prepare_pairs(args: argparse.Namespace) -> int:
    from ..benchmarks.prepare import prepare
    from ..pairs.prepare import prepare_pairs_folder

    for option, value in (("--split", args.split), ("--allow-partial", args.allow_partial)):
        if value:
            raise UserError(f"{option} is for benchmarks, got it for {PAIRS}")
    if args.config not in (None, *NAMES):
        hint = did_you_mean(args.config, NAMES)
        raise UserError(f"--config must be one of {', '.join(NAMES)}, got '{args.config}'{hint}")
    if args.source is None:
        raise UserError(f"{PAIRS} needs --source, a folder written by `artiagent synthesize`")
    # Loads torch and diffusers, which the other commands and the help would wait for.

    options = {
        "coordinates": args.coordinates,
        "min_pixels": args.min_pixels,
        "max_pixels": args.max_pixels,
        "test_share": args.test_share,
        "seed": args.seed,
    }
    if args.out is None:
        builder = prepare(PAIRS, args.source, args.config, args.num_proc, **options)
        prepared = {builder.config.name: {split: info.num_examples for split, info in builder.info.splits.items()}}
    else:
        chosen = [args.config] if args.config else NAMES
        prepared = prepare_pairs_folder(Path(args.source), args.out, chosen, args.num_proc, **options)
    for config, splits in prepared.items():
        counts = ", ".join(f"{split} {rows} rows" for split, rows in splits.items())
        print(f'load_dataset("{args.out or PAIRS}", "{config}"): {counts}')
    return 0


def surveys_text(surveys: list[Survey]) -> str:
    """A line of counts for each split, what differs from the publication, and what was left out."""
    from ..benchmarks.survey import skipped_summary

    lines = []
    for survey in surveys:
        counts = f"{survey.with_artifact.get(True, 0)} with artifacts, {survey.with_artifact.get(False, 0)} without"
        unknown = survey.with_artifact.get(None, 0)
        lines.append(f"{survey.split}: {survey.images} images, {counts}{f', {unknown} not stated' if unknown else ''}")
        lines += [f"  differs from the publication: {problem}" for problem in survey.problems]
        if survey.skipped:
            lines.append(f"  {skipped_summary(survey.skipped)}")
    return "\n".join(lines)
