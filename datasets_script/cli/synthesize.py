"""`artiagent synthesize`: make a dataset of pairs from a folder of photos."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from diffusers_artifact.choices import COMPUTE_MODES, CONFINEMENTS, SOLVER_NAMES, VALUE_SOURCES
from diffusers_artifact.presets import EMBEDDED, PAPER_NUM_INFERENCE_STEPS, PRESETS, preset_of
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..engine.settings import BALANCES, InjectionSettings, RunSettings
from .options import add_perception_options, add_vlm_options, perception_spec
from .parser import Parser, names_among, positive_int
from .running import (
    add_acceptance_options,
    add_card_options,
    add_folder_arguments,
    add_model_options,
    add_run_options,
    carry_out,
    check_division,
    common_settings,
    make_plan,
)


if TYPE_CHECKING:
    from ..engine.plan import RunPlan


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
        "--balance",
        default="sample",
        choices=BALANCES,
        help="how to balance artifact types; sample: in random order, so that a photo's artifacts depend only on the "
        "photo and the seed; shard: rarest first within a shard (default: sample)",
    )
    add_acceptance_options(group, "another of the same tool", "distortions")


def add_injection_options(parser: Parser) -> None:
    """Add the options for the diffusion model."""
    group = parser.add_argument_group("diffusion model (injects the artifacts)")
    add_model_options(
        group,
        "steps of the inversion and of the denoising (default: from the preset; "
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
    group.add_argument(
        "--store-noise",
        action="store_true",
        help="invert both images of each pair and store their noise with them, for preference training "
        "(training.pair_dpo); 1 MiB a pair for FLUX.1 at 1024x1024",
    )


def add_arguments(parser: Parser) -> None:
    add_folder_arguments(parser)
    add_perception_options(parser)
    add_vlm_options(parser)
    add_artifact_options(parser)
    add_injection_options(parser)
    add_card_options(parser)
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    check_division(args)
    return carry_out(args, run_plan(args))


def run_plan(args: argparse.Namespace) -> RunPlan:
    """Return the plan of a run that the options describe."""
    settings = RunSettings(
        **common_settings(args),
        tools=args.tools,
        balance=args.balance,
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
        store_noise=args.store_noise,
    )
    return make_plan(args, settings, perception_spec(args))
