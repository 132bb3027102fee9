"""`artiagent synthesize`: make a dataset of pairs from a folder of photos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers_artifact.choices import COMPUTE_MODES, CONFINEMENTS, SOLVER_NAMES, VALUE_SOURCES
from diffusers_artifact.presets import EMBEDDED, PAPER_NUM_INFERENCE_STEPS, PRESETS, preset_of
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..engine.settings import (
    BALANCES,
    DTYPES,
    OFFLOADS,
    PERCEPTUAL_METRICS,
    QUANTIZATIONS,
    InjectionSettings,
    LoadSettings,
    RunSettings,
)
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import UserError
from ..utils.faults import DONE, NOTHING_MADE
from .config import add_config_option, write_config
from .options import add_perception_options, add_vlm_options, perception_spec, vlm_spec
from .parser import Parser, at_least, names_among, non_negative_int, positive_int


if TYPE_CHECKING:
    from ..engine.plan import RunPlan


CONTINUES = "finished photos are kept; rerun the command to continue."
EXECUTORS = ("local", "slurm", "ray")

DESCRIPTION = """\
Make a dataset of pairs from a folder of photos. Each row holds the source photo, its clean reconstruction, and a
version with injected artifacts, with boxes, masks and explanations. You can interrupt the run at any time; rerun the
same command to continue. With more photos in the folder, a higher --limit or more --pairs-per-image it adds what is
new and keeps the pairs that are there. The options in effect are saved in OUT/config.yaml for use with --config."""

EPILOG = """\
examples:
  artiagent synthesize photos/ out/ --annotations instances.json --tools add,remove
  artiagent synthesize portraits/ out/ --perception people
  artiagent synthesize photos/ out/ --model black-forest-labs/FLUX.1-dev --perception grounded-sam \\
      --vlm Qwen/Qwen2.5-VL-7B-Instruct --processes 4
  artiagent synthesize photos/ out-2/ --config out/config.yaml --seed 1
  artiagent status out/                                       show the progress
  artiagent show out/                                         draw the pairs"""


def add_artifact_options(parser: Parser) -> None:
    """Add the options for making and accepting artifacts."""
    group = parser.add_argument_group("artifacts (which ones to make and to accept)")
    group.add_argument(
        "--tools",
        type=names_among(ARTIFACT_TYPE_OF_TOOL),
        metavar="NAMES",
        default=",".join(ARTIFACT_TYPE_OF_TOOL),
        help="comma-separated list of the tools to use: "
        + ", ".join(f"{tool} ({kind})" for tool, kind in ARTIFACT_TYPE_OF_TOOL.items())
        + " (default: all)",
    )
    group.add_argument(
        "--max-artifacts", type=positive_int, default=3, help="maximum number of artifacts in an image (default: 3)"
    )
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
        "--balance",
        default="sample",
        choices=BALANCES,
        help="how to balance artifact types; sample: in random order, so that a photo's artifacts depend only on the "
        "photo and the seed; shard: rarest first within a shard (default: sample)",
    )
    group.add_argument(
        "--max-rerolls",
        type=non_negative_int,
        default=1,
        help="how many times to replace a rejected artifact by another of the same tool (default: 1)",
    )
    group.add_argument(
        "--perceptual-metric",
        default="stlpips",
        choices=PERCEPTUAL_METRICS,
        help="metric that judges distortions; stlpips works offline, lpips is the paper's and downloads AlexNet "
        "(default: stlpips)",
    )


def add_model_options(parser: Parser) -> None:
    """Add the options for the diffusion model."""
    group = parser.add_argument_group("diffusion model (injects the artifacts)")
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
    group.add_argument(
        "--num-inference-steps",
        type=positive_int,
        help="steps of the inversion and of the denoising (default: from the preset; "
        f"{preset_of(EMBEDDED).num_inference_steps} for the embedded model, {PAPER_NUM_INFERENCE_STEPS} for others)",
    )
    group.add_argument(
        "--solver", default="fireflow", choices=sorted(SOLVER_NAMES), help="ODE solver (default: fireflow)"
    )
    group.add_argument(
        "--value-source",
        choices=VALUE_SOURCES,
        help="source of the injected attention values: the clean image denoised in the same batch, or values cached "
        "during the inversion as in the paper (default: from the preset; inversion for as-released, else "
        "reconstruction)",
    )
    group.add_argument(
        "--confine",
        default="visible",
        choices=CONFINEMENTS,
        help="what to keep of the clean image; visible: all pixels but the visible change at the part, so that labels "
        "cover all that changed; latent, pixel: its tokens or pixels outside the artifact and the patches around it "
        "(default: visible; the pipeline by itself: none)",
    )
    group.add_argument(
        "--compute",
        choices=COMPUTE_MODES,
        help="what to compute of an artifact image: only the artifact and the patches around it (target), which look "
        "at the clean image for everything else, so that further artifacts cost little; or all of it (full), where "
        "the background may react (default: target with presets that hold the background, as embedded does, else "
        "full)",
    )
    group.add_argument(
        "--allow-distilled",
        action="store_true",
        help="allow few-step models (schnell, turbo), although they invert poorly",
    )
    group.add_argument(
        "--preset",
        default="auto",
        choices=("auto", *PRESETS),
        help="strength of the injection; as-released follows the code that the paper's authors published where it "
        "differs from the paper (default: auto, that is embedded for the embedded model, paper for others)",
    )
    group.add_argument(
        "--hold-background",
        action=argparse.BooleanOptionalAction,
        help="also give tokens outside the artifact the clean image's queries, so that less changes there (default: "
        "from the preset; yes for the embedded model, no for others)",
    )


def add_card_options(parser: Parser) -> None:
    """Add the options for fitting the models on a device."""
    group = parser.add_argument_group(
        "the model on your card (memory and speed)",
        'datasets_script/README.md, "Your card", has a command for each size of card.',
    )
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
        help="weights of the transformer: float8 (torchao), 8bit or 4bit (bitsandbytes); requires `pip install "
        "artiagent[quantization]` (default: none)",
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
    group.add_argument(
        "--keep-loaded",
        action="store_true",
        help="keep all models on the device; by default VLM, detectors, text encoders and transformer take turns",
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


def add_arguments(parser: Parser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of photos, searched recursively")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; an existing run there is resumed")
    add_config_option(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed of the run (default: 0)")
    parser.add_argument("--limit", type=positive_int, help="use only the first N photos of the folder; a run can grow")
    add_perception_options(parser)
    add_vlm_options(parser)
    add_artifact_options(parser)
    add_model_options(parser)
    add_card_options(parser)
    add_run_options(parser)
    parser.set_defaults(interrupted=CONTINUES)


def run(args: argparse.Namespace) -> int:
    check_division(args)
    plan = run_plan(args)
    if args.force_new:
        plan = plan.beside_existing()
        print(f"writing to {plan.out}; give that folder, without --force-new, to continue")
    if args.estimate:
        return print_estimate(plan)
    if args.executor or plan.processes > 1:
        return run_in_others(args, plan)
    run = plan.open(args.rank or 0, args.world_size)
    write_config(plan.out, args.shown_options)
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
        write_config(plan.out, args.shown_options)
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


def run_plan(args: argparse.Namespace) -> RunPlan:
    """Return the plan of a run that the options describe."""
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
        offload=args.offload,
        keep_loaded=args.keep_loaded,
    )


def run_settings(args: argparse.Namespace) -> RunSettings:
    """Return the settings of a run that the options describe."""
    return RunSettings(
        tools=args.tools,
        max_artifacts=args.max_artifacts,
        min_part_patches=args.min_part_patches,
        pairs_per_image=args.pairs_per_image,
        max_rerolls=args.max_rerolls,
        balance=args.balance,
        max_long_side=args.max_long_side,
        seed=args.seed,
        shard_size=args.shard_size,
        perceptual_metric=args.perceptual_metric,
        model=args.model,
        revision=args.revision,
        loading=LoadSettings(
            dtype=args.dtype,
            quantization=args.quantization,
            attention_backend=args.attention_backend,
            compile=args.compile,
            vae_tiling=args.vae_tiling,
        ),
        injection=InjectionSettings(
            num_inference_steps=args.num_inference_steps,
            solver=args.solver,
            value_source=args.value_source,
            confine=args.confine,
            compute=args.compute,
            allow_distilled=args.allow_distilled,
            preset=args.preset,
            hold_background=args.hold_background,
        ),
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
    from ..engine.summary import photos_summary, summary_table

    print(f"{summary_table(read_totals(out))}\n\n{photos_summary(out)}")
    if not run.pairs:
        print(f"no pair was made; the reasons are in {out / 'rejected.jsonl'}", file=sys.stderr)
        return NOTHING_MADE
    print(f"{run.pairs} pairs in {out}, contact sheet in {out / 'contact_sheet.png'}")
    return DONE
