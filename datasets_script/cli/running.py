"""What the commands that make pairs share: options of the model and of the run, and how a plan is carried out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers_artifact.presets import EMBEDDED

from ..engine.settings import (
    DTYPES,
    OFFLOADS,
    PERCEPTUAL_METRICS,
    QUANTIZATIONS,
    CommonSettings,
    LoadSettings,
)
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import UserError
from ..utils.faults import DONE, NOTHING_MADE
from .config import add_config_option, write_config
from .options import vlm_spec
from .parser import Parser, at_least, non_negative_int, positive_int


if TYPE_CHECKING:
    from ..agents.perception.backends import PerceptionSpec
    from ..engine.plan import RunPlan


CONTINUES = "finished photos are kept; rerun the command to continue."
EXECUTORS = ("local", "slurm", "ray")


def add_folder_arguments(parser: Parser) -> None:
    """Add the folders of a run, its seed, and how many photos to use."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of photos, searched recursively")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; an existing run there is resumed")
    add_config_option(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed of the run (default: 0)")
    parser.add_argument("--limit", type=positive_int, help="use only the first N photos of the folder; a run can grow")
    parser.set_defaults(interrupted=CONTINUES)


def add_acceptance_options(group: argparse._ArgumentGroup, what: str, judges: str) -> None:
    """
    Add the options for how many artifacts to make, and for accepting them.

    Args:
        group (`argparse._ArgumentGroup`): Group to add them to.
        what (`str`): What a rejected artifact is replaced by.
        judges (`str`): What the perceptual metric judges.
    """
    group.add_argument(
        "--min-part-patches",
        type=positive_int,
        default=2,
        help="leave parts alone that have no more pixels than this many patches of the model (default: 2)",
    )
    group.add_argument(
        "--pairs-per-image",
        type=positive_int,
        default=1,
        help="pairs to make from each photo; more of them can be added to a run (default: 1)",
    )
    group.add_argument(
        "--max-rerolls",
        type=non_negative_int,
        default=1,
        help=f"how many times to replace a rejected artifact by {what} (default: 1)",
    )
    group.add_argument(
        "--judge",
        metavar="MODEL",
        help="pixel detector whose second opinion is recorded: 'embedded' for the one of this package, a folder or a "
        "Hub id. What it does not see is kept, with detector_has_artifact 0 in its scores (default: none)",
    )
    group.add_argument(
        "--perceptual-metric",
        default="stlpips",
        choices=PERCEPTUAL_METRICS,
        help=f"metric that judges {judges}; stlpips works offline, lpips is the paper's and downloads AlexNet "
        "(default: stlpips)",
    )


def add_model_options(group: argparse._ArgumentGroup, steps: str) -> None:
    """
    Add the options for choosing the diffusion model.

    Args:
        group (`argparse._ArgumentGroup`): Group to add them to.
        steps (`str`): What the number of steps counts, and its default.
    """
    group.add_argument(
        "--model",
        default=EMBEDDED,
        help="folder or Hub id, such as black-forest-labs/FLUX.1-dev, or 'embedded' for the small model that comes "
        "with this package (default: %(default)s)",
    )
    group.add_argument("--revision", help="branch, tag or commit of --model on the Hub")
    group.add_argument(
        "--max-long-side",
        type=at_least(480),
        default=1024,
        help="shrink photos to this long side in pixels (default: 1024; the embedded model always uses 256x256)",
    )
    group.add_argument("--num-inference-steps", type=positive_int, help=steps)
    group.add_argument(
        "--allow-distilled",
        action="store_true",
        help="allow few-step models (schnell, turbo), although they invert poorly",
    )


def add_card_options(parser: Parser) -> None:
    """Add the options for fitting the models on a device."""
    group = parser.add_argument_group(
        "the model on your card (memory and speed)",
        'datasets_script/README.md, "Your card", has a command for each size of card.',
    )
    add_loading_options(group)
    group.add_argument(
        "--keep-loaded",
        action="store_true",
        help="keep all models on the device; by default VLM, detectors, text encoders and transformer take turns",
    )


def add_loading_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for fitting a diffusion model on a device."""
    group.add_argument("--device", help="device of the models, such as cuda:1 (default: cuda if available, else cpu)")
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        help="dtype of the diffusion model (default: float32 for the embedded model and on a CPU, else bfloat16)",
    )
    group.add_argument(
        "--offload",
        default="none",
        choices=OFFLOADS,
        help="where the diffusion model's weights wait; none: on the device; model: in host memory, all but the model "
        "at work; group: all but the next layers; sequential: all but one layer, slowest (default: none)",
    )
    group.add_argument(
        "--quantization",
        default="none",
        choices=QUANTIZATIONS,
        help="weights of the transformer or U-Net: float8 (torchao), 8bit or 4bit (bitsandbytes); requires `pip "
        "install artiagent[quantization]` (default: none)",
    )
    group.add_argument(
        "--attention-backend",
        metavar="NAME",
        help="attention kernel by diffusers' name, such as flash or _flash_3 (default: torch's own)",
    )
    group.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    group.add_argument(
        "--vae-tiling",
        action="store_true",
        help="encode and decode images one by one, large ones in overlapping tiles, whose borders are blended",
    )


def add_run_options(parser: Parser) -> None:
    """Add the options for dividing the work."""
    group = parser.add_argument_group("running (how to divide the work)")
    group.add_argument(
        "--shard-size",
        type=positive_int,
        default=32,
        help="photos per shard, which is a file of pairs (default: 32)",
    )
    group.add_argument("--batch-size", type=positive_int, default=1, help="photos per batch of injection (default: 1)")
    group.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        help="worker processes on this machine, one per device (default: 1)",
    )
    group.add_argument(
        "--rank", type=int, help="number of this process, from 0, if your own scheduler starts --world-size processes"
    )
    group.add_argument("--world-size", type=positive_int, default=1, help="processes that share the run (default: 1)")
    group.add_argument(
        "--force-new", action="store_true", help="if OUT holds a run, start a new one next to it: OUT-2, OUT-3, ..."
    )
    group.add_argument(
        "--estimate",
        action="store_true",
        help="try a few photos, print what the run will take (time, memory by phase, disk, questions to the VLM), and "
        "write nothing",
    )
    group.add_argument(
        "--executor",
        choices=EXECUTORS,
        help="run --tasks tasks on a datatrove executor (requires `pip install artiagent[cluster]`)",
    )
    group.add_argument("--tasks", type=positive_int, default=1, help="tasks that the executor starts (default: 1)")
    group.add_argument(
        "--executor-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the executor, such as partition=gpu, time=24:00:00, gpus_per_task=1 or workers=8; repeatable",
    )


def common_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of [`CommonSettings`] that the options of all runs describe."""
    return {
        "max_artifacts": args.max_artifacts,
        "min_part_patches": args.min_part_patches,
        "pairs_per_image": args.pairs_per_image,
        "max_rerolls": args.max_rerolls,
        "max_long_side": args.max_long_side,
        "seed": args.seed,
        "shard_size": args.shard_size,
        "perceptual_metric": args.perceptual_metric,
        "model": args.model,
        "revision": args.revision,
        "loading": LoadSettings(
            dtype=args.dtype,
            quantization=args.quantization,
            attention_backend=args.attention_backend,
            compile=args.compile,
            vae_tiling=args.vae_tiling,
        ),
    }


def make_plan(args: argparse.Namespace, settings: CommonSettings, perception: PerceptionSpec) -> RunPlan:
    """
    Return the plan of a run that the options describe.

    Args:
        args (`argparse.Namespace`): Parsed arguments.
        settings (`CommonSettings`): Settings of the run.
        perception (`PerceptionSpec`): Backend that finds entities, parts or regions.
    """
    from ..engine.plan import RunPlan

    return RunPlan(
        source=args.source,
        out=args.out,
        settings=settings,
        perception=perception,
        vlm=vlm_spec(args),
        judge=args.judge,
        limit=args.limit,
        device=args.device,
        batch_size=args.batch_size,
        perception_batch_size=args.perception_batch_size,
        processes=args.processes,
        offload=args.offload,
        keep_loaded=args.keep_loaded,
    )


def carry_out(args: argparse.Namespace, plan: RunPlan) -> int:
    """Carry out a plan as the options say, or estimate it; return the exit status."""
    if args.force_new:
        plan = plan.beside_existing()
        print(f"writing to {plan.out}; give that folder, without --force-new, to continue")
    if args.estimate:
        return print_estimate(plan)
    if args.executor or plan.processes > 1:
        return run_in_others(args, plan)
    run = plan.open(args.rank or 0, args.world_size)
    write_config(plan.out, args.shown_options, plan.settings.command)
    return report(plan.out, run.execute(show_progress=args.rank is None and not args.quiet))


def print_estimate(plan: RunPlan) -> int:
    """Print what a run will take; return the exit status."""
    from ..engine.estimate import estimate, estimate_text, title_of

    print(estimate_text(estimate(plan), title_of(plan)))
    return DONE


def run_in_others(args: argparse.Namespace, plan: RunPlan) -> int:
    """Run a plan in worker processes or on an executor; return the exit status."""
    plan.check()
    # Only the workers find out whether an existing run can be continued, so its options are left as they are.
    if not (plan.out / RUN_FILE).exists():
        write_config(plan.out, args.shown_options, plan.settings.command)
    if args.executor:
        return run_on_executor(args, plan)
    from ..engine.workers import execute_in_processes

    return execute_in_processes(plan, show_progress=not args.quiet) or report(plan.out, RunRecord.read(plan.out))


def check_division(args: argparse.Namespace) -> None:
    """
    Check the options that divide the work.

    Raises:
        UserError: They contradict each other, or one that another requires is missing.
    """
    last = args.world_size - 1
    if args.rank is None and last:
        raise UserError(f"--rank must be from 0 to {last} with --world-size {args.world_size}, got none")
    if args.rank is not None and not 0 <= args.rank <= last:
        raise UserError(f"--rank must be from 0 to {last}, below --world-size {args.world_size}, got {args.rank}")
    if args.rank is not None and (args.processes > 1 or args.executor or args.force_new):
        raise UserError(
            "--rank must be given without --processes, --executor and --force-new, got it with one of them; leave out "
            "--rank unless your own scheduler starts the processes"
        )
    if args.executor and args.processes > 1:
        raise UserError(f"--processes must be 1 with --executor, got {args.processes}; give --tasks instead")
    if not args.executor and (args.tasks > 1 or args.executor_option):
        raise UserError(
            f"--executor must be one of {', '.join(EXECUTORS)} with --tasks or --executor-option, got none"
        )


def run_on_executor(args: argparse.Namespace, plan: RunPlan) -> int:
    """Run a plan on the executor; return the exit status."""
    from ..engine.cluster import run_executor

    options = dict(parse_option(option) for option in args.executor_option)
    run_executor(args.executor, plan, args.tasks, options)
    if args.executor == "local":
        return report(plan.out, RunRecord.read(plan.out))
    print(f"submitted to the {args.executor} executor; `artiagent status {plan.out}` shows its progress")
    return DONE


def parse_option(text: str) -> tuple[str, str | int]:
    """
    Split NAME=VALUE, and convert the value if it is a whole number.

    Raises:
        UserError: The text has no name or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"--executor-option must be NAME=VALUE, got '{text}'")
    return name, int(value) if value.isdecimal() else value


def report(out: Path, run: RunRecord) -> int:
    """Print what a run has made; return the exit status."""
    if not run.is_complete:
        print(f"this rank is done, others are still working; `artiagent status {out}` shows their progress")
        return DONE
    from ..engine.ledger import read_totals
    from ..engine.summary import photos_summary, rejections_summary, summary_table

    told = [summary_table(read_totals(out)), "", photos_summary(out), rejections_summary(out)]
    print("\n".join(told).rstrip())
    if not run.pairs:
        print(f"no pair was made; the reasons are in {out / 'rejected.jsonl'}", file=sys.stderr)
        return NOTHING_MADE
    print(f"{run.pairs} pairs in {out}, contact sheet in {out / 'contact_sheet.png'}")
    return DONE
