"""`artiagent predict`: a vision-language model's answers about a benchmark."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from ..benchmarks.base import BenchmarkError
from ..benchmarks.loading import load_benchmark
from ..detection.questions import TASKS, Task
from ..evaluation.predict import PredictionSettings, predict
from ..schema.image import BenchmarkImage
from ..utils.errors import UserError
from .options import add_answer_options, add_vlm_run_options, check_answer_options, make_vlm


_EPILOG = """\
examples:
  artiagent predict Qwen/Qwen2.5-VL-7B-Instruct --benchmark artibench --out qwen.jsonl
  artiagent predict my-model --endpoint http://localhost:8000/v1 --benchmark out/ --out mine.jsonl
then: artiagent evaluate qwen.jsonl --benchmark artibench

Boxes are asked for as the model was trained to write them: as its training.json says where it has one, else as its
family does, Qwen2.5-VL, Qwen3-VL, InternVL and LLaVA by name or architecture, fractions from 0 to 1 for others. An
endpoint's key is read from ARTIAGENT_API_KEY; HF_TOKEN is sent to servers of Hugging Face alone, OPENAI_API_KEY to
OpenAI's."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "predict",
        help="ask a vision-language model about every image of a benchmark",
        description="Asks a model about every image of a benchmark - are there artifacts, where, and what is wrong - "
        "and writes its answers as they are, for `artiagent evaluate`. Interrupt it at any time; the same command "
        "again continues.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("vlm", metavar="MODEL", help="Hub id or folder to run here, or its name at --endpoint")
    parser.add_argument(
        "--benchmark", required=True, help="name (see `artiagent prepare --help`), or a folder prepared or synthesized"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write, e.g. predictions.jsonl")
    parser.add_argument("--split", help="default: the benchmark's test split, or its only one")
    parser.add_argument("--limit", type=int, help="only the first images; a later run may ask for more")
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--tasks",
        help=f"comma-separated, of {', '.join(TASKS)} (default: the first three, for synartifact all)",
    )
    add_answer_options(asked)
    add_vlm_run_options(parser.add_argument_group("how the model is run"))
    parser.set_defaults(
        interrupted="the answers so far are kept; the same command again continues.", run=run, device=None
    )


def run(args: argparse.Namespace) -> int:
    _check(args)
    tasks = _tasks(args)
    images = islice(_images(args), args.limit)
    vlm = make_vlm(args)
    assert vlm is not None  # MODEL is no option
    form = vlm.box_format(args.coordinates, args.min_pixels, args.max_pixels)
    benchmark = Path(args.benchmark).name if Path(args.benchmark).is_dir() else args.benchmark
    settings = PredictionSettings(benchmark, args.split, tasks, form, args.max_new_tokens)
    group_size = args.vlm_concurrency if args.vlm_endpoint else args.vlm_batch_size
    found: Counter[str] = Counter()
    with tqdm(desc=f"asking about {benchmark}", total=args.limit, unit="image") as bar:
        seen = _counting(images, bar)
        for prediction in predict(vlm, seen, settings, args.out, group_size):
            found["asked"] += 1
            found["unparsable"] += bool(prediction.failures)
            bar.set_postfix(found)
    print(
        f"{bar.n} images in {args.out}: {found['asked']} asked about now, {found['unparsable']} of them with an "
        f"answer that could not be parsed\nscore them with: artiagent evaluate {args.out} --benchmark {args.benchmark}"
    )
    return 0


def _check(args: argparse.Namespace) -> None:
    check_answer_options(args, "limit")
    if args.out.is_dir():
        raise UserError(f"--out must be a file, got the folder '{args.out}'")
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out must be in a folder that can be made, got '{args.out}': {error.strerror}") from error


def _tasks(args: argparse.Namespace) -> tuple[Task, ...]:
    if args.tasks is None:
        return TASKS if args.benchmark == "synartifact" else TASKS[:3]
    names = {name.strip() for name in args.tasks.split(",")}
    if unknown := sorted(names.difference(TASKS)):
        raise UserError(f"--tasks must be among {', '.join(TASKS)}, got '{unknown[0]}'")
    return tuple(task for task in TASKS if task in names)


def _images(args: argparse.Namespace) -> Iterator[BenchmarkImage]:
    """The benchmark's images; that there are any is known before a model is loaded, which takes minutes."""
    try:
        images = iter(load_benchmark(args.benchmark, args.split))
        return chain([next(images)], images)
    except StopIteration:
        raise UserError(f"--benchmark must have images, found none in '{args.benchmark}'") from None
    except (BenchmarkError, OSError) as error:
        raise UserError(str(error)) from error


def _counting(images: Iterator[BenchmarkImage], bar: tqdm) -> Iterator[BenchmarkImage]:
    for image in images:
        yield image
        bar.update()
