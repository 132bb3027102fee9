"""`artiagent synthesize`: make a data set of pairs from a folder of photos."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from diffusers_artifact.choices import CONFINEMENTS, SOLVER_NAMES, VALUE_SOURCES
from diffusers_artifact.presets import EMBEDDED, PRESETS
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..agents.curation.verdicts import CurationSettings
from ..engine.injector import InjectionSettings, Injector
from ..engine.ledger import read_totals
from ..engine.run import Run
from ..engine.settings import BALANCES, RunSettings
from ..engine.shards import Shards, read_sources
from ..engine.summary import summary_table
from ..engine.synthesizer import Synthesizer
from ..engine.workers import WorkerPool, device_of_worker
from ..utils.errors import UserError
from ..utils.photos import list_sources
from .faults import guarded
from .options import (
    add_perception_options,
    add_vlm_options,
    annotations_file,
    at_least,
    make_perception,
    make_vlm,
    perception_batch_size,
)


CONTINUES = "what is finished is kept; the same command again continues."


EXECUTORS = ("local", "slurm", "ray")


def add_flaw_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("flaws: what is made, and what is kept of it")
    group.add_argument(
        "--tools", default=",".join(ARTIFACT_TYPE_OF_TOOL), help="comma-separated, default: %(default)s"
    )
    group.add_argument("--max-artifacts", type=int, default=3, help="most flaws in an image (default: 3)")
    group.add_argument(
        "--pairs-per-image", type=int, default=1, help="flawed variants of each photograph (default: 1)"
    )
    group.add_argument(
        "--balance",
        default="sample",
        choices=BALANCES,
        help="sample: a photograph's flaws depend on itself and the seed alone (default); shard: types that are rare "
        "so far in its shard come first",
    )
    group.add_argument(
        "--max-rerolls",
        type=int,
        default=1,
        help="times a rejected flaw is tried elsewhere or otherwise before it is left out (default: 1)",
    )
    group.add_argument(
        "--perceptual-metric",
        default="stlpips",
        choices=("stlpips", "lpips"),
        help="stlpips works offline; lpips is the paper's and needs AlexNet's weights (default: stlpips)",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("diffusion model: how flaws are injected")
    group.add_argument(
        "--model", default=EMBEDDED, help="'embedded', a folder or a Hub id such as black-forest-labs/FLUX.1-dev"
    )
    group.add_argument("--revision", help="branch, tag or commit of a Hub model")
    group.add_argument("--device", help="default: cuda if there is one, else cpu")
    group.add_argument(
        "--max-long-side", type=int, default=1024, help="shrink longer photographs, px (default: 1024; embedded: 256)"
    )
    group.add_argument(
        "--num-inference-steps", type=int, help="default: the preset's, 8 for the embedded model and 25 for others"
    )
    group.add_argument("--solver", default="fireflow", choices=sorted(SOLVER_NAMES), help="default: fireflow")
    group.add_argument(
        "--value-source",
        default="reconstruction",
        choices=VALUE_SOURCES,
        help="where injected values come from: the clean row of the batch (default), or the paper's cache",
    )
    group.add_argument(
        "--confine",
        default="none",
        choices=CONFINEMENTS,
        help="guarantee the clean image outside the target and the patches around it: its tokens, or its pixels "
        "(default: none)",
    )
    group.add_argument(
        "--allow-distilled",
        action="store_true",
        help="run few-step models (schnell, turbo) all the same, although they do not invert well",
    )
    group.add_argument(
        "--preset",
        default="auto",
        choices=("auto", *PRESETS),
        help="strength of the injection; default: 'embedded' for the embedded model, 'paper' for others",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running: how the work is divided")
    group.add_argument("--shard-size", type=int, default=32, help="photographs a shard (default: 32)")
    group.add_argument("--batch-size", type=int, default=1, help="photographs injected together (default: 1)")
    group.add_argument(
        "--processes", type=int, default=1, help="worker processes on this machine, a device each (default: 1)"
    )
    group.add_argument("--rank", type=int, help="of this process, where a scheduler of yours starts --world-size")
    group.add_argument("--world-size", type=int, default=1, help="processes that share the run (default: 1)")
    group.add_argument(
        "--force-new", action="store_true", help="if OUT holds another run, start beside it: OUT-2, OUT-3, ..."
    )
    group.add_argument(
        "--executor", choices=EXECUTORS, help="hand the run to a datatrove executor (extra: cluster), see --tasks"
    )
    group.add_argument("--tasks", type=int, default=1, help="ranks that an executor starts (default: 1)")
    group.add_argument(
        "--executor-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the executor, e.g. partition=gpu, time=24:00:00, gpus_per_task=1, workers=8; repeatable",
    )


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "synthesize",
        help="make a data set of pairs from a folder of photographs",
        description="Makes a data set of clean/flawed pairs from a folder of photographs. Interrupt it at any time; "
        "the same command again continues.",
        epilog="examples: artiagent synthesize photos/ out/ --annotations instances.json --tools add,remove; "
        "artiagent synthesize portraits/ out/ --perception people",
    )
    parser.add_argument("source", type=Path, help="folder of photographs, searched recursively")
    parser.add_argument("out", type=Path, help="folder to write; a run already there is continued")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--limit", type=int, help="only the first photographs of the folder")
    add_perception_options(parser)
    add_vlm_options(parser)
    add_flaw_options(parser)
    add_model_options(parser)
    add_run_options(parser)
    parser.set_defaults(run=run, interrupted=CONTINUES)


def run(args: argparse.Namespace) -> int:
    if not args.source.is_dir():
        raise UserError(f"SOURCE must be a folder of photographs, got '{args.source}'")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"OUT must be a folder, got the file '{args.out}'")
    if args.source.resolve() in (out := args.out.resolve(), *out.parents):
        raise UserError(f"OUT must lie outside SOURCE, whose files are taken for photographs, got '{args.out}'")
    check_division(args)
    if args.force_new:
        args.out, args.force_new = free_name(args.out), False
        print(f"writing to {args.out}; give that folder, without --force-new, to continue")
    settings, sources = run_settings(args), source_ids(args)
    if args.executor:
        return run_on_executor(args)
    if args.processes == 1:
        run = make_run(args, settings, sources)
        return report(args.out, run.execute(show_progress=args.rank is None))
    recorded = args.out / "sources.jsonl"
    shards = Shards(list(read_sources(args.out)) if recorded.exists() else sources, settings.shard_size)
    pool = WorkerPool(args.out, shards, partial(start_worker, args), args.processes)
    return pool.execute() or report(args.out, read_run(args.out))


def check_division(args: argparse.Namespace) -> None:
    for name in ("processes", "world_size", "tasks", "batch_size", "vlm_batch_size", "vlm_concurrency"):
        at_least(f"--{name.replace('_', '-')}", getattr(args, name))
    if args.perception_batch_size is not None:
        at_least("--perception-batch-size", args.perception_batch_size)
    if args.rank is None and args.world_size > 1:
        raise UserError(f"--world-size {args.world_size} needs --rank, the number of this process from 0")
    if args.rank is not None and not 0 <= args.rank < args.world_size:
        raise UserError(f"--rank must be from 0 to --world-size - 1, {args.world_size - 1}, got {args.rank}")
    if args.rank is not None and (args.processes > 1 or args.executor or args.force_new):
        raise UserError(
            "--rank is for processes that another scheduler starts, without --processes, --executor and --force-new"
        )
    if args.executor and args.processes > 1:
        raise UserError("--executor starts --tasks of its own, without --processes")
    if not args.executor and (args.tasks > 1 or args.executor_option):
        raise UserError("--tasks and --executor-option need --executor")


def run_settings(args: argparse.Namespace) -> RunSettings:
    return RunSettings(
        tools=parse_tools(args.tools),
        max_artifacts=at_least("--max-artifacts", args.max_artifacts),
        pairs_per_image=at_least("--pairs-per-image", args.pairs_per_image),
        max_rerolls=at_least("--max-rerolls", args.max_rerolls, 0),
        balance=args.balance,
        max_long_side=at_least("--max-long-side", args.max_long_side, 480),
        seed=args.seed,
        shard_size=at_least("--shard-size", args.shard_size),
        perceptual_metric=args.perceptual_metric,
        model=args.model,
        revision=args.revision,
        injection=InjectionSettings(
            num_inference_steps=(
                None if (steps := args.num_inference_steps) is None else at_least("--num-inference-steps", steps)
            ),
            solver=args.solver,
            value_source=args.value_source,
            confine=args.confine,
            allow_distilled=args.allow_distilled,
            preset=args.preset,
        ),
        curation=CurationSettings(),
    )


def source_ids(args: argparse.Namespace) -> list[str]:
    """The files of the folder but for its annotations."""
    annotations = annotations_file(args, args.source) if args.perception == "annotations" else None
    sources = [name for name in list_sources(args.source) if args.source / name != annotations]
    odd = next((name for name in sources if _has_half_characters(name)), None)
    if odd is not None:
        raise UserError(f"names of photographs must be UTF-8, rename {odd!r}")
    if args.limit is not None:
        if (args.out / "sources.jsonl").exists():  # what the run began with may have vanished since
            sources = sorted({*sources, *read_sources(args.out)})
        sources = sources[: at_least("--limit", args.limit)]
    if not sources:
        raise UserError(f"SOURCE must hold photographs, found no file in '{args.source}'")
    return sources


def _has_half_characters(name: str) -> bool:
    """Whether a file's name has bytes that are no UTF-8, which Python keeps as half characters."""
    return any("\ud800" <= character <= "\udfff" for character in name)


def make_run(args: argparse.Namespace, settings: RunSettings, sources: Sequence[str]) -> Run:
    """Loads the models and opens the run."""
    vlm = make_vlm(args)
    perception = make_perception(args, args.source, vlm)
    injector = Injector(settings.model, settings.injection, settings.revision, args.device)
    synthesizer = Synthesizer.of(
        args.source, perception, injector, settings, vlm, args.batch_size, perception_batch_size(args)
    )
    return Run(args.out, args.source, sources, synthesizer, args.rank or 0, args.world_size)


def start_worker(args: argparse.Namespace, rank: int, one_by_one: bool) -> BaseProcess:
    """Starts one of `--processes` workers, with a device and its share of the cores."""
    changes = {
        "rank": rank,
        "world_size": args.processes,
        "processes": 1,
        "device": device_of_worker(rank, args.device),
    }
    if one_by_one:
        changes |= {"batch_size": 1, "perception_batch_size": 1}
    threads = max(1, (os.cpu_count() or 1) // args.processes)
    # A process that was forked cannot use CUDA.
    process = multiprocessing.get_context("spawn").Process(
        target=work, args=(argparse.Namespace(**{**vars(args), **changes}), threads), daemon=True
    )
    process.start()
    return process


def work(args: argparse.Namespace, num_threads: int) -> None:
    """What a worker does: its rank of the run, ending with the status that the command would."""
    torch.set_num_threads(num_threads)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        status = guarded(args)
    # Nothing made by one rank is nothing to stop the others for; a traceback ends with 1 too.
    sys.exit(0 if status == 1 else status)


def run_on_executor(args: argparse.Namespace) -> int:
    from ..engine.cluster import run_executor

    options = dict(parse_option(option) for option in args.executor_option)
    # Jobs may begin in another folder.
    paths = {name: path.absolute() for name, path in vars(args).items() if isinstance(path, Path)}
    ranks = argparse.Namespace(**{**vars(args), **paths, "executor": None})
    logs = args.out.absolute() / "logs" / "datatrove"
    run_executor(args.executor, partial(make_rank, ranks), args.tasks, logs, options)
    if args.executor == "local":
        return report(args.out, read_run(args.out))
    print(f"handed to the {args.executor} executor; `artiagent status {args.out}` tells how far it is")
    return 0


def read_run(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def make_rank(args: argparse.Namespace, rank: int, world_size: int) -> Run:
    """The run as one task of an executor sees it."""
    changes = {"rank": rank, "world_size": world_size, "device": device_of_worker(rank, args.device)}
    args = argparse.Namespace(**{**vars(args), **changes})
    return make_run(args, run_settings(args), source_ids(args))


def parse_option(text: str) -> tuple[str, str | int]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"--executor-option must be NAME=VALUE, got '{text}'")
    return name, int(value) if value.isdecimal() else value


def report(out: Path, run: dict[str, Any]) -> int:
    """Tells what a run made; the exit status."""
    if run["status"] != "complete":
        print(f"this rank is done, others are not; `artiagent status {out}` tells how far they are")
        return 0
    print(summary_table(read_totals(out)))
    if not run["pairs"]:
        print(f"No pair was made; the reasons are in {out / 'rejected.jsonl'}", file=sys.stderr)
        return 1
    print(f"{run['pairs']} pairs in {out}, pictures in {out / 'contact_sheet.png'}")
    return 0


def free_name(out: Path) -> Path:
    """`out` if it holds no run, else the first of out-2, out-3, … that is not there."""
    out = out.resolve()
    if not (out / "run.json").exists():
        return out
    return next(path for n in count(2) if not (path := out.with_name(f"{out.name}-{n}")).exists())


def parse_tools(text: str) -> tuple[str, ...]:
    tools = tuple(tool.strip() for tool in text.split(","))
    unknown = [tool for tool in tools if tool not in ARTIFACT_TYPE_OF_TOOL]
    if unknown:
        raise UserError(f"--tools must be among {', '.join(ARTIFACT_TYPE_OF_TOOL)}, got '{unknown[0]}'")
    return tools
