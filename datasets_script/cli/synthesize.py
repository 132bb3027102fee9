"""`artiagent synthesize`: make a dataset of pairs from a folder of photos."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers_artifact.choices import CONFINEMENTS, SOLVER_NAMES, VALUE_SOURCES
from diffusers_artifact.presets import EMBEDDED, PRESETS
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..engine.settings import BALANCES, PERCEPTUAL_METRICS, InjectionSettings, RunSettings
from ..utils.errors import UserError
from ..utils.faults import DONE, NOTHING_MADE
from .config import add_config_option, write_config
from .options import add_perception_options, add_vlm_options, perception_spec, vlm_spec
from .parser import Parser, at_least, names_among, non_negative_int, positive_int


if TYPE_CHECKING:
    from ..engine.plan import RunPlan


CONTINUES = "what is finished is kept; the same command again continues."
EXECUTORS = ("local", "slurm", "ray")

DESCRIPTION = """\
Makes a dataset of pairs from a folder of photos. Each row has the source photo, its clean reconstruction, and a
version with injected artifacts, with boxes, masks and explanations. Interrupt it at any time; the same command again
continues. The options in effect are kept in OUT/config.yaml, which --config reads."""

EPILOG = """\
examples:
  artiagent synthesize photos/ out/ --annotations instances.json --tools add,remove
  artiagent synthesize portraits/ out/ --perception people
  artiagent synthesize photos/ out/ --model black-forest-labs/FLUX.1-dev --perception grounded-sam \\
      --vlm Qwen/Qwen2.5-VL-7B-Instruct --processes 4
  artiagent synthesize photos/ out-2/ --config out/config.yaml --seed 1
  artiagent status out/                                       see how far it is
  artiagent show out/                                         draw the pairs"""


def add_artifact_options(parser: Parser) -> None:
    group = parser.add_argument_group("artifacts: which are made, and which are kept")
    group.add_argument(
        "--tools",
        type=names_among(ARTIFACT_TYPE_OF_TOOL),
        metavar="NAMES",
        default=",".join(ARTIFACT_TYPE_OF_TOOL),
        help="comma-separated list of the tools to use (default: %(default)s)",
    )
    group.add_argument(
        "--max-artifacts", type=positive_int, default=3, help="most artifacts in one image (default: 3)"
    )
    group.add_argument(
        "--pairs-per-image", type=positive_int, default=1, help="pairs to make of each photo (default: 1)"
    )
    group.add_argument(
        "--balance",
        default="sample",
        choices=BALANCES,
        help="how types take turns; sample: the artifacts of a photo depend on the photo and the seed alone "
        "(default); shard: types that are rare so far in the photo's shard come first",
    )
    group.add_argument(
        "--max-rerolls",
        type=non_negative_int,
        default=1,
        help="how often a rejected artifact is tried again, at another place or otherwise (default: 1)",
    )
    group.add_argument(
        "--perceptual-metric",
        default="stlpips",
        choices=PERCEPTUAL_METRICS,
        help="what judges distortions; stlpips works offline; lpips is the paper's and needs AlexNet's weights "
        "(default: stlpips)",
    )


def add_model_options(parser: Parser) -> None:
    group = parser.add_argument_group("diffusion model: how artifacts are injected")
    group.add_argument(
        "--model",
        default=EMBEDDED,
        help="'embedded', a folder, or a Hub id such as black-forest-labs/FLUX.1-dev (default: %(default)s)",
    )
    group.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    group.add_argument("--device", help="device of models, such as cuda:1 (default: cuda if there is one, else cpu)")
    group.add_argument(
        "--max-long-side",
        type=at_least(480),
        default=1024,
        help="shrink photos whose long side has more pixels (default: 1024; the embedded model takes 256)",
    )
    group.add_argument(
        "--num-inference-steps",
        type=positive_int,
        help="steps of inversion, and of denoising (default: the preset's; 8 for the embedded model, 25 for others)",
    )
    group.add_argument(
        "--solver", default="fireflow", choices=sorted(SOLVER_NAMES), help="solver of the flow (default: fireflow)"
    )
    group.add_argument(
        "--value-source",
        default="reconstruction",
        choices=VALUE_SOURCES,
        help="where injected attention values come from: the clean image denoised beside it, or a cache of the "
        "inversion as in the paper (default: reconstruction)",
    )
    group.add_argument(
        "--confine",
        default="none",
        choices=CONFINEMENTS,
        help="keep the clean image's tokens (latent) or pixels (pixel) everywhere but in the artifact and the patches "
        "around it (default: none)",
    )
    group.add_argument(
        "--allow-distilled",
        action="store_true",
        help="run few-step models (schnell, turbo) all the same, although they invert poorly",
    )
    group.add_argument(
        "--preset",
        default="auto",
        choices=("auto", *PRESETS),
        help="strength of the injection (default: auto, that is embedded for the embedded model, paper for others)",
    )


def add_run_options(parser: Parser) -> None:
    group = parser.add_argument_group("running: how the work is divided")
    group.add_argument("--shard-size", type=positive_int, default=32, help="photos in a shard (default: 32)")
    group.add_argument("--batch-size", type=positive_int, default=1, help="photos injected together (default: 1)")
    group.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        help="worker processes on this machine, a device each (default: 1)",
    )
    group.add_argument(
        "--rank", type=int, help="number of this process, from 0, if a scheduler of yours starts --world-size of them"
    )
    group.add_argument("--world-size", type=positive_int, default=1, help="processes that share the run (default: 1)")
    group.add_argument(
        "--force-new", action="store_true", help="if OUT holds another run, start beside it: OUT-2, OUT-3, ..."
    )
    group.add_argument(
        "--executor", choices=EXECUTORS, help="hand the run to a datatrove executor (extra: cluster), see --tasks"
    )
    group.add_argument("--tasks", type=positive_int, default=1, help="ranks that an executor starts (default: 1)")
    group.add_argument(
        "--executor-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the executor, e.g. partition=gpu, time=24:00:00, gpus_per_task=1, workers=8; repeatable",
    )


def add_arguments(parser: Parser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of photos, searched recursively")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; a run already there is continued")
    add_config_option(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")
    parser.add_argument("--limit", type=positive_int, help="take the first N photos of the folder alone")
    add_perception_options(parser)
    add_vlm_options(parser)
    add_artifact_options(parser)
    add_model_options(parser)
    add_run_options(parser)
    parser.set_defaults(interrupted=CONTINUES)


def run(args: argparse.Namespace) -> int:
    check_division(args)
    plan = run_plan(args)
    if args.force_new:
        plan = plan.beside_existing()
        print(f"writing to {plan.out}; give that folder, without --force-new, to continue")
    if args.executor or plan.processes > 1:
        return run_in_others(args, plan)
    run = plan.open(args.rank or 0, args.world_size)
    write_config(plan.out, args.shown_options)
    return report(plan.out, run.execute(show_progress=args.rank is None and not args.quiet))


def run_in_others(args: argparse.Namespace, plan: RunPlan) -> int:
    """Let worker processes or the tasks of an executor do the work."""
    plan.check()
    # Whether they can continue the run that is there, only they find out.
    if not (plan.out / "run.json").exists():
        write_config(plan.out, args.shown_options)
    if args.executor:
        return run_on_executor(args, plan)
    from ..engine.workers import execute_in_processes

    return execute_in_processes(plan, show_progress=not args.quiet) or report(plan.out, read_run(plan.out))


def check_division(args: argparse.Namespace) -> None:
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
    from ..engine.plan import RunPlan

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
        tools=args.tools,
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
    from ..engine.ledger import read_totals
    from ..engine.summary import summary_table

    print(summary_table(read_totals(out)))
    if not run["pairs"]:
        print(f"No pair was made; the reasons are in {out / 'rejected.jsonl'}", file=sys.stderr)
        return NOTHING_MADE
    print(f"{run['pairs']} pairs in {out}, images in {out / 'contact_sheet.png'}")
    return DONE
