"""`artiagent prepare`: convert a published benchmark, or pairs, to a dataset that `load_dataset` loads by name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..benchmarks.registry import BENCHMARKS, MODULES, PAIRS
from ..edits.layer import EDITS_FILE
from ..pairs.configurations import NAMES
from ..utils.errors import UserError
from ..vlm.conventions import CONVENTIONS, QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS
from .options import add_filter_options, pair_filter
from .parser import Parser, did_you_mean, positive_int, share


if TYPE_CHECKING:
    from ..benchmarks.survey import Survey
    from ..edits.planned import EditReport


DESCRIPTION = """\
Convert the published files of a benchmark to the columns that all benchmarks share, and check their counts. Unreadable
records are listed with the reason in skipped.jsonl. With the name artiagent, prepare pairs of `artiagent synthesize`
for training. Without a name, list the benchmarks and their licences.

Edits that people make in the tab Browse of `artiagent app` lie in edits.jsonl beside the data. Those beside --source
of pairs are applied; for a benchmark, --edits names the prepared folder in which they were made."""

EPILOG = """\
examples:
  artiagent prepare                                                 list the benchmarks and their licences
  artiagent prepare artibench                                       show where to download it, and its licence
  artiagent prepare artibench --source artibench-source             then: load_dataset("artibench")
  artiagent prepare richhf --source richhf-source --split test --num-proc 4
  artiagent prepare artibench --source KRAFTON/ArtiBench --out artibench-parquet
  artiagent prepare artiagent --source out --config vqa             then: load_dataset("artiagent", "vqa")
  artiagent prepare artiagent --source out --out pairs-parquet --coordinates qwen2.5 --test-share 0.1
  artiagent prepare artibench --source artibench-source --edits artibench-parquet --out artibench-corrected"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", choices=MODULES, metavar="NAME", help=f"one of {', '.join(MODULES)}")
    parser.add_argument(
        "--source",
        help="folder with the published files, or id of a dataset on the Hub (without it: show what to download, from "
        "where, and the licence)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder to write, with data files and a dataset card, ready to load or push to the Hub (default: the "
        "cache, from which load_dataset(NAME) reads)",
    )
    parser.add_argument("--split", help="comma-separated list of splits (default: all)")
    parser.add_argument("--num-proc", type=positive_int, default=1, help="parallel processes (default: 1)")
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="continue if the files do not match the published counts (default: stop with an error)",
    )
    parser.add_argument(
        "--edits",
        metavar="FOLDER",
        help=f"folder whose edits.jsonl is applied (default: for {PAIRS}, that of --source)",
    )
    parser.add_argument("--no-edits", action="store_true", help="leave the data as it is, whatever people edited")
    group = parser.add_argument_group(f"options for {PAIRS}, pairs in a form for training")
    group.add_argument(
        "--config",
        help=f"form of the data: {', '.join(NAMES[:-1])} or {NAMES[-1]} (default: {NAMES[0]}; all of them with --out)",
    )
    group.add_argument(
        "--coordinates",
        choices=CONVENTIONS,
        default="pixel",
        help="box coordinates in the texts of vqa and instructions (default: pixel)",
    )
    group.add_argument(
        "--min-pixels",
        type=int,
        default=QWEN2_5_MIN_PIXELS,
        help="min_pixels of the model's image processor, for qwen2.5 (default: %(default)s)",
    )
    group.add_argument(
        "--max-pixels",
        type=int,
        default=QWEN2_5_MAX_PIXELS,
        help="max_pixels of the model's image processor, for qwen2.5 (default: %(default)s)",
    )
    group.add_argument(
        "--test-share", type=share, default=0.0, help="share of the source photos held out as test split (default: 0)"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed for the questions of vqa, the order of images in comparisons, and the test split (default: "
        "0)",
    )

    add_filter_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.name is None:
        print("\n".join(listing()))
        return 0
    if args.edits is not None and args.no_edits:
        raise UserError("--edits and --no-edits must not be given together; leave one out")
    if args.edits is not None and not Path(args.edits, EDITS_FILE).is_file():
        raise UserError(
            f"--edits must be a folder with {EDITS_FILE}, got '{args.edits}'; edit it in `artiagent app --data`"
        )
    if args.out is not None and args.out.exists():
        raise UserError(f"--out must be a folder that does not exist yet, got '{args.out}'")
    return prepare_pairs(args) if args.name == PAIRS else prepare_benchmark(args)


def listing() -> list[str]:
    """Return a line for each benchmark: name, images per split, licence, and where it is published."""
    from ..benchmarks.registry import get_benchmark

    rows = [("name", "images", "licence", "published at")]
    for name in BENCHMARKS:
        benchmark = get_benchmark(name)
        counts = ", ".join(f"{split} {'?' if count is None else count}" for split, count in benchmark.splits.items())
        rows.append((name, counts, benchmark.license, benchmark.homepage))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def prepare_benchmark(args: argparse.Namespace) -> int:
    """Convert a benchmark, or tell what to download if `--source` is missing; return the exit status."""
    from ..benchmarks.base import BenchmarkError
    from ..benchmarks.prepare import cache_folder, prepare, prepare_folder
    from ..benchmarks.registry import get_benchmark
    from ..benchmarks.source import how_to_fetch
    from ..benchmarks.survey import SKIPPED_FILE

    if args.config:
        raise UserError(f"--config must only be given with {PAIRS}, got it with {args.name}; leave it out")
    if args.source is None:
        print(
            f"--source must be a folder with the files of {args.name}, got none; download them first.\n\n"
            f"{how_to_fetch(get_benchmark(args.name))}"
        )
        return 2
    options = {"splits": args.split, "allow_partial": args.allow_partial, "num_proc": args.num_proc}
    if args.edits is not None:
        options["edits"] = args.edits
    try:
        if args.out is None:
            builder = prepare(args.name, args.source, **options)
        else:
            builder = prepare_folder(args.name, args.source, args.out, **options)
    except BenchmarkError as error:
        raise UserError(str(error)) from error
    print(surveys_text(builder.surveys))
    tell_edits(builder.edits)
    skipped = (args.out or cache_folder(args.name)) / SKIPPED_FILE
    print(f"skipped records, with reasons: {skipped}")
    print(f'load_dataset("{args.out or args.name}")')
    return 0


def prepare_pairs(args: argparse.Namespace) -> int:
    """Prepare pairs for training; return the exit status."""
    from ..benchmarks.prepare import prepare
    from ..pairs.folders import prepared_edits
    from ..pairs.prepare import prepare_pairs_folder

    for option, value in (("--split", args.split), ("--allow-partial", args.allow_partial)):
        if value:
            raise UserError(f"{option} must only be given with a benchmark, got it with {PAIRS}; leave it out")
    if args.config not in (None, *NAMES):
        hint = did_you_mean(args.config, NAMES)
        raise UserError(f"--config must be one of {', '.join(NAMES)}, got '{args.config}'{hint}")
    if args.source is None:
        raise UserError("--source must be a folder written by `artiagent synthesize`, got none")
    options = {
        "coordinates": args.coordinates,
        "min_pixels": args.min_pixels,
        "max_pixels": args.max_pixels,
        "test_share": args.test_share,
        "seed": args.seed,
        "only": pair_filter(args),
    }
    if args.edits is not None or args.no_edits:
        options["edits"] = args.edits or False
    if args.out is None:
        builder = prepare(PAIRS, args.source, args.config, args.num_proc, **options)
        prepared = {builder.config.name: {split: info.num_examples for split, info in builder.info.splits.items()}}
        tell_edits(builder.edits)
    else:
        chosen = [args.config] if args.config else NAMES
        prepared = prepare_pairs_folder(Path(args.source), args.out, chosen, args.num_proc, **options)
        tell_edits(prepared_edits(args.out))
    for config, splits in prepared.items():
        counts = ", ".join(f"{split} {rows} rows" for split, rows in splits.items())
        print(f'load_dataset("{args.out or PAIRS}", "{config}"): {counts}')
    return 0


def tell_edits(report: EditReport) -> None:
    """Print what became of people's edits, if there are any."""
    if text := report.as_text():
        print(text)


def surveys_text(surveys: list[Survey]) -> str:
    """Return the counts of each split, how they differ from the publication, and what was left out, as text."""
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
