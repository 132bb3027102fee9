"""`artiagent evaluate`: score predictions on a benchmark, in the layout of the paper's table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate_metrics.functional.css import DEFAULT_MODEL
from evaluate_metrics.functional.grid import GRID_PROTOCOL
from evaluate_metrics.functional.miou import EMPTY_POLICIES, PROTOCOLS
from evaluate_metrics.functional.regions import RESIZE_POLICIES
from evaluate_metrics.functional.transforms import TRANSFORMS

from ..utils.errors import UserError
from ..vlm.conventions import CONVENTIONS
from .parser import Parser, between_0_and_1, non_negative_int, positive_int


if TYPE_CHECKING:
    from ..evaluation.scores import ScoringSettings
    from ..schema.image import BenchmarkImage


DESCRIPTION = """\
Score predictions on a benchmark. Print the paper's table with your model as its last row, then every score with its
95 % bootstrap interval and its protocol. Answers that cannot be parsed are counted and listed separately, and never
count as "no"."""

EPILOG = """\
Each line of PREDICTIONS is a JSON object for one image. It has the image's "id" and either "answer", the model's raw
text, or any of "has_artifact" (true or false), "score" (0 to 1), "boxes" ([[x_min, y_min, x_max, y_max], ...] in
pixels), "mask" and "artifact_map" (paths of image files) and "explanation". `artiagent predict` writes such files.
Images are ranked by their scores. Pixels are scored by the mask if there is one, else by the boxes. Maps are scored as
they are, by DiffDoctor's errors.

examples:
  artiagent evaluate predictions.jsonl --benchmark artibench
  artiagent evaluate predictions.jsonl --benchmark artibench --out report.md      also draw the best and worst
  artiagent evaluate masks.jsonl --benchmark richhf --protocol artiagent --css-model none"""

# Protocols of the benchmarks' own publications; the others use ArtiAgent's.
_PROTOCOLS = {"richhf": "menn", "synthscars": "legion", "x_aigd": "x_aigd"}
# Thresholds of ground-truth heat maps, 0.5 if not listed. A heat map of RichHF-18k is the mean of three annotators;
# Menn et al. count a pixel that two of them marked.
_TRUTH_THRESHOLDS = {("richhf", "artiagent"): 0.3, ("richhf", "legion"): 0.3}


def add_arguments(parser: Parser) -> None:
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="JSON Lines file, described below")
    parser.add_argument(
        "--benchmark",
        required=True,
        help="name (`artiagent prepare` lists them), or folder of `artiagent prepare --out` or `artiagent synthesize`",
    )
    parser.add_argument("--split", help="split to score (default: the benchmark's test split, or its only one)")
    parser.add_argument(
        "--limit", type=positive_int, help="score only the first N images, as in `artiagent predict --limit N`"
    )
    parser.add_argument("--model", help="name of the model in the table (default: as recorded, or the file's name)")
    parser.add_argument("--out", type=Path, help="Markdown report to write, e.g. report.md, with images next to it")
    parser.add_argument(
        "--coordinates",
        choices=CONVENTIONS,
        help="coordinates of the boxes in answers (default: as recorded in PREDICTIONS, else pixel)",
    )
    meaning = parser.add_argument_group("scoring")
    meaning.add_argument(
        "--protocol",
        choices=(*PROTOCOLS, GRID_PROTOCOL),
        help="definition of mIoU, and how masks are made; x_aigd also scores boxes by instances, viescore2 compares "
        "the cells of a grid of 16x16 (default: the one in the benchmark's publications)",
    )
    meaning.add_argument(
        "--transform",
        choices=TRANSFORMS,
        help="with --protocol x_aigd, compare what its detectors see: the centre of images of 256x256 px or with a "
        "short side of 518 px (default: whole images)",
    )
    meaning.add_argument(
        "--cell-share",
        type=between_0_and_1,
        help="with --protocol viescore2, a cell counts if more than this share of its pixels does (default: any "
        "pixel)",
    )
    meaning.add_argument(
        "--empty",
        choices=EMPTY_POLICIES,
        default="one",
        help="IoU and F1 of an image where neither truth nor prediction has a pixel: 1, 0, left out of the mean, or "
        "as in LEGION's code, IoU 0 and F1 1 (default: one)",
    )
    meaning.add_argument(
        "--threshold",
        type=between_0_and_1,
        default=0.5,
        help="a pixel of a predicted heat map above this value counts as artifact (default: 0.5)",
    )
    meaning.add_argument(
        "--truth-threshold",
        type=between_0_and_1,
        help="same for the benchmark's own heat maps (default: 0.5; 0.3 for richhf with the protocols artiagent and "
        "legion)",
    )
    meaning.add_argument(
        "--resize",
        choices=RESIZE_POLICIES,
        default="error",
        help="if the size of a predicted mask differs from its image, stop with an error or resize the prediction "
        "(default: error)",
    )
    meaning.add_argument(
        "--css-model",
        default=DEFAULT_MODEL,
        help="sentence-embedding model for CSS, the cosine similarity of explanations: a Hub id or folder, or 'none' "
        "to skip CSS (default: %(default)s)",
    )
    meaning.add_argument(
        "--resamples",
        type=non_negative_int,
        default=1000,
        help="number of bootstrap resamples (default: 1000)",
    )
    meaning.add_argument("--seed", type=int, default=0, help="random seed of the bootstrap (default: 0)")


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ..benchmarks.loading import load_sizes
    from ..evaluation.prediction_files import read_predictions
    from ..evaluation.published import published_tables
    from ..evaluation.report import CASES, write_evaluation
    from ..evaluation.scores import evaluate_predictions
    from ..evaluation.tables import evaluation_text

    settings = scoring_settings(args)
    file = read_predictions(args.predictions, load_sizes(args.benchmark, args.split), args.coordinates)
    if not file.predictions:
        raise UserError(f"PREDICTIONS must hold at least one prediction, got none in '{args.predictions}'")
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
            raise UserError(f"--out must be a writable file, got '{args.out}': {error}") from error
        print(f"\nreport in {args.out}, numbers in {args.out.with_suffix('.json')}, images next to them")
    return 0


def scoring_settings(args: argparse.Namespace) -> ScoringSettings:
    """
    Return the scoring settings that the options ask for.

    Raises:
        UserError: `--out` does not end in .md, or `--transform` or `--cell-share` comes with another protocol than its
            own.
    """
    from evaluate_metrics.functional.intervals import Bootstrap

    from ..evaluation.scores import ScoringSettings

    if args.out and args.out.suffix != ".md":
        raise UserError(f"--out must end in .md, got '{args.out}'")
    protocol = args.protocol or _PROTOCOLS.get(args.benchmark, "artiagent")
    if args.transform and protocol != "x_aigd":
        raise UserError(f"--transform must come with --protocol x_aigd, got the protocol {protocol}")
    if args.cell_share is not None and protocol != GRID_PROTOCOL:
        raise UserError(f"--cell-share must come with --protocol {GRID_PROTOCOL}, got the protocol {protocol}")
    return ScoringSettings(
        protocol=protocol,
        empty=args.empty,
        threshold=args.threshold,
        truth_threshold=args.truth_threshold or _TRUTH_THRESHOLDS.get((args.benchmark, protocol), 0.5),
        resize=args.resize,
        transform=args.transform,
        cell_share=args.cell_share or 0.0,
        css_model=None if args.css_model == "none" else args.css_model,
        bootstrap=Bootstrap(n_resamples=args.resamples, seed=args.seed),
    )


def images_of(args: argparse.Namespace) -> Iterator[BenchmarkImage]:
    """Yield the images of the benchmark, at most `--limit`, with a progress bar."""
    from itertools import islice

    from tqdm import tqdm

    from ..benchmarks.loading import load_benchmark

    images = islice(load_benchmark(args.benchmark, args.split), args.limit)
    yield from tqdm(images, desc=f"scoring {args.benchmark}", unit="image", leave=False)
