"""`artiagent evaluate`: predictions against a benchmark, as the paper's table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.miou import EMPTY_POLICIES, PROTOCOLS
from evaluate_metrics.functional.regions import RESIZE_POLICIES

from ..benchmarks.loading import load_benchmark, load_sizes
from ..evaluation.prediction_files import read_predictions
from ..evaluation.published import published_tables
from ..evaluation.report import CASES, write_evaluation
from ..evaluation.scores import ScoringSettings, evaluate_predictions
from ..evaluation.tables import evaluation_text
from ..schema.image import BenchmarkImage
from ..utils.errors import UserError
from ..vlm.conventions import CONVENTIONS


# What the publications of a benchmark use; ArtiAgent's protocol and 0.5 for the others.
_PROTOCOLS = {"richhf": "menn", "synthscars": "legion", "x_aigd": "x_aigd"}
# Of heat maps; those of RichHF-18k are means over people, of which Menn et al. want two of three.
_TRUTH_THRESHOLDS = {("richhf", "artiagent"): 0.3, ("richhf", "legion"): 0.3}
_DEFAULT_CSS_MODEL = "sentence-transformers/paraphrase-MiniLM-L6-v2"


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score predictions on a benchmark, next to what is published",
        description="Scores predictions and prints the paper's table with the published rows, every score with its "
        "95 % bootstrap interval and its protocol. Answers that cannot be parsed are counted and listed, and are not "
        "taken for 'no'.",
        epilog='PREDICTIONS is JSON lines, one an image: {"id": ..., and "answer": the model\'s text, or any of '
        '"has_artifact", "boxes" ([[x_min, y_min, x_max, y_max], ...] in pixels), "mask" (path of a picture), '
        '"explanation"}. `artiagent predict` writes such files. Example: artiagent evaluate predictions.jsonl '
        "--benchmark artibench --out report.md",
    )
    parser.add_argument("predictions", type=Path, help="file of predictions, JSON lines")
    parser.add_argument(
        "--benchmark", required=True, help="name (see `artiagent prepare --help`), or a folder prepared or synthesized"
    )
    parser.add_argument("--split", help="default: the benchmark's test split, or its only one")
    parser.add_argument("--limit", type=int, help="only the first images, as in `artiagent predict --limit`")
    parser.add_argument("--model", help="name of the row (default: the file's own record, or its name)")
    parser.add_argument("--out", type=Path, help="report to write, e.g. report.md; its pictures go beside it")
    parser.add_argument(
        "--coordinates", choices=CONVENTIONS, help="boxes in answers (default: the file's own record, else pixel)"
    )
    meaning = parser.add_argument_group("what the numbers mean")
    meaning.add_argument(
        "--protocol", choices=PROTOCOLS, help="which mIoU (default: what the benchmark's publications use)"
    )
    meaning.add_argument(
        "--empty",
        choices=EMPTY_POLICIES,
        default="one",
        help="IoU and F1 where neither truth nor prediction has a pixel (default: one)",
    )
    meaning.add_argument(
        "--threshold", type=float, default=0.5, help="above which a predicted heat map says artifact (default: 0.5)"
    )
    meaning.add_argument(
        "--truth-threshold",
        type=float,
        help="the same for a benchmark of heat maps (default: 0.5, for richhf by the protocols "
        "artiagent and legion 0.3)",
    )
    meaning.add_argument(
        "--resize",
        choices=RESIZE_POLICIES,
        default="error",
        help="a predicted mask of another size than its image (default: an error)",
    )
    meaning.add_argument(
        "--css-model",
        default=_DEFAULT_CSS_MODEL,
        help="sentence embeddings, a Hub id or folder, or 'none' to leave CSS out (default: %(default)s)",
    )
    meaning.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default: 1000)")
    meaning.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = scoring_settings(args)
    file = read_predictions(args.predictions, load_sizes(args.benchmark, args.split), args.coordinates)
    if not file.predictions:
        raise UserError(f"PREDICTIONS must hold at least one, got none in '{args.predictions}'")
    try:
        evaluation = evaluate_predictions(images_of(args), file.predictions, settings, CASES if args.out else 0)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    model = args.model or file.model or args.predictions.stem
    published = published_tables().get(args.benchmark)
    text = evaluation_text(evaluation, model, Path(args.benchmark).name, published, settings)
    print(text)
    if args.out:
        recorded = {
            "benchmark": args.benchmark,
            "split": args.split,
            "limit": args.limit,
            "predictions": file.header,
            "settings": asdict(settings),
        }
        try:
            write_evaluation(args.out, text, evaluation, recorded, settings)
        except OSError as error:
            raise UserError(f"--out must be a file that can be written, got '{args.out}': {error}") from error
        print(f"\nwritten to {args.out}, with its numbers and pictures beside it")
    return 0


def scoring_settings(args: argparse.Namespace) -> ScoringSettings:
    for name in ("threshold", "truth_threshold"):
        value = getattr(args, name)
        if value is not None and not 0 < value < 1:
            raise UserError(f"--{name.replace('_', '-')} must lie between 0 and 1, got {value}")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be at least 1, got {args.limit}")
    if args.resamples < 0:
        raise UserError(f"--resamples must be at least 0, got {args.resamples}")
    if args.out and args.out.suffix != ".md":
        raise UserError(f"--out must end in .md, got '{args.out}'")
    protocol = args.protocol or _PROTOCOLS.get(args.benchmark, "artiagent")
    return ScoringSettings(
        protocol=protocol,
        empty=args.empty,
        threshold=args.threshold,
        truth_threshold=args.truth_threshold or _TRUTH_THRESHOLDS.get((args.benchmark, protocol), 0.5),
        resize=args.resize,
        css_model=None if args.css_model == "none" else args.css_model,
        bootstrap=Bootstrap(n_resamples=args.resamples, seed=args.seed),
    )


def images_of(args: argparse.Namespace) -> Iterator[BenchmarkImage]:
    images = islice(load_benchmark(args.benchmark, args.split), args.limit)
    yield from tqdm(images, desc=f"scoring {args.benchmark}", unit="image", leave=False)
