"""`artiagent synthesize`: make a data set of pairs from a folder of photos."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from diffusers_artifact import SOLVERS
from diffusers_artifact.confinement import CONFINEMENTS
from diffusers_artifact.injection import VALUE_SOURCES
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..engine.ledger import read_totals
from ..engine.plan import RunPlan
from ..engine.settings import BALANCES, EMBEDDED, PERCEPTUAL_METRICS, PRESETS, InjectionSettings, RunSettings
from ..engine.summary import summary_table
from ..utils.errors import UserError, check_at_least
from ..utils.faults import DONE, NOTHING_MADE
from .options import add_perception_options, add_vlm_options, perception_spec, vlm_spec


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
        choices=PERCEPTUAL_METRICS,
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
    group.add_argument("--solver", default="fireflow", choices=sorted(SOLVERS), help="default: fireflow")
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
    check_division(args)
    plan = run_plan(args)
    if args.force_new:
        plan = plan.beside_existing()
        print(f"writing to {plan.out}; give that folder, without --force-new, to continue")
    if args.executor:
        return run_on_executor(args, plan)
    if plan.processes > 1:
        from ..engine.workers import execute_in_processes

        return execute_in_processes(plan) or report(plan.out, read_run(plan.out))
    run = plan.open(args.rank or 0, args.world_size)
    return report(plan.out, run.execute(show_progress=args.rank is None))


def check_division(args: argparse.Namespace) -> None:
    for name in ("world_size", "tasks", "vlm_batch_size", "vlm_concurrency"):
        check_at_least(name, getattr(args, name))
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


def run_plan(args: argparse.Namespace) -> RunPlan:
    """Read the plan of a run from the options of the command line."""
    return RunPlan(
        source=args.source,
        out=args.out,
        settings=run_settings(args),
        perception=perception_spec(args),
        vlm=vlm_spec(args),
        limit=args.limit,
        device=args.device,
        batch_size=args.batch_size,
        perception_batch_size=args.perception_batch_size,
        processes=args.processes,
    )


def run_settings(args: argparse.Namespace) -> RunSettings:
    return RunSettings(
        tools=tuple(tool.strip() for tool in args.tools.split(",")),
        max_artifacts=args.max_artifacts,
        pairs_per_image=args.pairs_per_image,
        max_rerolls=args.max_rerolls,
        balance=args.balance,
        max_long_side=args.max_long_side,
        seed=args.seed,
        shard_size=args.shard_size,
        perceptual_metric=args.perceptual_metric,
        model=args.model,
        revision=args.revision,
        injection=InjectionSettings(
            num_inference_steps=args.num_inference_steps,
            solver=args.solver,
            value_source=args.value_source,
            confine=args.confine,
            allow_distilled=args.allow_distilled,
            preset=args.preset,
        ),
    )


def run_on_executor(args: argparse.Namespace, plan: RunPlan) -> int:
    from ..engine.cluster import run_executor

    options = dict(parse_option(option) for option in args.executor_option)
    run_executor(args.executor, plan, args.tasks, options)
    if args.executor == "local":
        return report(plan.out, read_run(plan.out))
    print(f"handed to the {args.executor} executor; `artiagent status {plan.out}` tells how far it is")
    return DONE


def read_run(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def parse_option(text: str) -> tuple[str, str | int]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"--executor-option must be NAME=VALUE, got '{text}'")
    return name, int(value) if value.isdecimal() else value


def report(out: Path, run: dict[str, Any]) -> int:
    """Tell what a run made, and return the exit status."""
    if run["status"] != "complete":
        print(f"this rank is done, others are not; `artiagent status {out}` tells how far they are")
        return DONE
    print(summary_table(read_totals(out)))
    if not run["pairs"]:
        print(f"No pair was made; the reasons are in {out / 'rejected.jsonl'}", file=sys.stderr)
        return NOTHING_MADE
    print(f"{run['pairs']} pairs in {out}, pictures in {out / 'contact_sheet.png'}")
    return DONE
