"""`artiagent predict`: run a vision-language model or a pixel detector on a benchmark and record its answers."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..detection.questions import TASKS, Task
from ..utils.errors import UserError
from .options import add_answer_options, add_tile_option, add_vlm_run_options, make_pixel_detector, make_vlm
from .parser import Parser, names_among, positive_int


if TYPE_CHECKING:
    from tqdm import tqdm

    from ..schema.image import BenchmarkImage
    from ..schema.prediction import Prediction


DESCRIPTION = """\
Ask a vision-language model about every image of a benchmark: whether it has artifacts, where they are and what is
wrong. Or let a pixel detector, which a folder with pixel_detector.json is, find them. Write the raw answers to a file,
or regions, masks and maps, which `artiagent evaluate` scores. You can interrupt it at any time; rerun the same command
to continue."""

EPILOG = """\
The model is asked for boxes in the coordinates it was trained on: those in its training.json if it has one, else those
of its family. Qwen2.5-VL, Qwen3-VL, InternVL and LLaVA are recognized by name or architecture; other models are asked
for fractions from 0 to 1.

Set ARTIAGENT_API_KEY to the API key of the endpoint. HF_TOKEN is only sent to Hugging Face, OPENAI_API_KEY only to
OpenAI.

examples:
  artiagent predict Qwen/Qwen2.5-VL-7B-Instruct --benchmark artibench --out qwen.jsonl
  artiagent predict my-pixel-detector --benchmark artibench --out maps.jsonl
  artiagent predict my-model --endpoint http://localhost:8000/v1 --benchmark out/ --out mine.jsonl
  artiagent evaluate qwen.jsonl --benchmark artibench                 score the answers"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "vlm",
        metavar="MODEL",
        help="Hub id or folder of a local model or a pixel detector, or the model's name at --endpoint",
    )
    parser.add_argument(
        "--benchmark",
        required=True,
        help="name (`artiagent prepare` lists them), or folder of `artiagent prepare --out` or `artiagent synthesize`",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON Lines file to write, e.g. predictions.jsonl")
    parser.add_argument("--split", help="split to ask about (default: the benchmark's test split, or its only one)")
    parser.add_argument(
        "--limit", type=positive_int, help="ask only about the first N images; rerun with a larger N to add more"
    )
    asked = parser.add_argument_group("questions")
    asked.add_argument(
        "--tasks",
        type=names_among(TASKS),
        metavar="NAMES",
        help=f"comma-separated list from {', '.join(TASKS)} (default: the first three; all for synartifact)",
    )
    add_answer_options(asked)
    add_tile_option(asked)
    add_vlm_run_options(parser.add_argument_group("running the model"))
    parser.set_defaults(interrupted="the answers so far are kept; rerun the command to continue.", device=None)


def run(args: argparse.Namespace) -> int:
    from itertools import islice

    from tqdm import tqdm

    _check(args)
    images = islice(_images(args), args.limit)
    found: Counter[str] = Counter()
    with tqdm(desc=f"asking about {_benchmark(args)}", total=args.limit, unit="image") as bar:
        seen = _counting(images, bar, done := Counter[str]())
        for prediction in _predictions(args, seen):
            found["asked"] += 1
            found["unparsable"] += bool(prediction.failures)
            bar.set_postfix(found)
    print(
        f"{done['images']} images in {args.out}: {found['asked']} asked about now, {found['unparsable']} of them with "
        f"an unparsable answer\n"
        f"score them with: artiagent evaluate {args.out} --benchmark {args.benchmark}"
    )
    return 0


def _predictions(args: argparse.Namespace, images: Iterator[BenchmarkImage]) -> Iterator[Prediction]:
    """Load the model and predict the images that are not in the file yet."""
    if (detector := make_pixel_detector(args)) is not None:
        from ..evaluation.predict_maps import predict_maps

        return predict_maps(detector, images, _benchmark(args), args.split, args.out)
    from ..evaluation.predict import PredictionSettings, predict

    vlm = make_vlm(args)
    assert vlm is not None  # MODEL is required
    form = vlm.box_format(args.coordinates, args.min_pixels, args.max_pixels)
    settings = PredictionSettings(_benchmark(args), args.split, _tasks(args), form, args.max_new_tokens)
    return predict(vlm, images, settings, args.out, args.vlm_concurrency if args.vlm_endpoint else args.vlm_batch_size)


def _benchmark(args: argparse.Namespace) -> str:
    return Path(args.benchmark).name if Path(args.benchmark).is_dir() else args.benchmark


def _check(args: argparse.Namespace) -> None:
    if args.out.is_dir():
        raise UserError(f"--out must be a file, got the folder '{args.out}'")
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out must be in a folder that can be created, got '{args.out}': {error.strerror}"
        ) from error


def _tasks(args: argparse.Namespace) -> tuple[Task, ...]:
    if args.tasks is None:
        return TASKS if args.benchmark == "synartifact" else TASKS[:3]
    return tuple(task for task in TASKS if task in args.tasks)


def _images(args: argparse.Namespace) -> Iterator[BenchmarkImage]:
    """Open the benchmark's images; check that there is one before a model is loaded, which takes minutes."""
    from itertools import chain

    from ..benchmarks.base import BenchmarkError
    from ..benchmarks.loading import load_benchmark

    try:
        images = iter(load_benchmark(args.benchmark, args.split))
        return chain([next(images)], images)
    except StopIteration:
        raise UserError(f"--benchmark must have images, found none in '{args.benchmark}'") from None
    except (BenchmarkError, OSError) as error:
        raise UserError(str(error)) from error


def _counting(images: Iterator[BenchmarkImage], bar: tqdm, done: Counter[str]) -> Iterator[BenchmarkImage]:
    for image in images:
        yield image
        bar.update()
        # Counted here, since a disabled bar does not count.
        done["images"] += 1
