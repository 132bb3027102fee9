"""`artiagent corrupt`: make a dataset of pairs by corrupting regions of photos."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from diffusers_artifact.choices import CONFINEMENTS, CORRUPTION_NAMES, SOLVER_NAMES
from diffusers_artifact.corruption_levels import NUM_STEPS
from diffusers_artifact.presets import EMBEDDED

from ..agents.curation.thresholds import UNCHANGED, RegionGates
from ..agents.perception.backends import REGIONS, RegionOptions, regions_spec
from ..engine.settings import CorruptionRunSettings, CorruptionSettings, corruption_preset
from .options import add_perception_options, add_vlm_options
from .parser import Parser, at_least, between_0_and_1, names_among, numbers, positive_float, positive_int, share
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
Make a dataset of pairs by artifact corruption (Menn et al., "Synthesizing Artifact Dataset for Pixel-level
Detection"): invert each photo part of the way to noise, corrupt the latent within some regions, and denoise. The clean
image goes the same way without corruption, so that the two differ in the regions alone. Regions that hardly changed
are dropped. The result has the columns of `artiagent synthesize`, with tool = corruption, and is shown, reported on,
exported, pushed and trained on alike. You can interrupt the run at any time; rerun the same command to continue."""

EPILOG = """\
examples:
  artiagent corrupt photos/ out/                                  random regions, offline, on a CPU
  artiagent corrupt photos/ out/ --regions annotations --annotations instances.json
  artiagent corrupt portraits/ out/ --regions perception --perception people --pairs-per-image 3
  artiagent corrupt photos/ out/ --methods proposed,rotate --sigma 0.5,0.7 --unchanged flag
  artiagent corrupt photos/ out/ --model stable-diffusion-v1-5/stable-diffusion-v1-5 --step 45,40
  artiagent corrupt photos/ out/ --regions detector --detector my-detector/ --threshold 0.4
  artiagent show out/                                             draw the pairs"""


def add_region_options(parser: Parser) -> None:
    """Add the options for choosing the regions."""
    default = RegionOptions()
    group = parser.add_argument_group("regions (which to corrupt)")
    group.add_argument(
        "--regions",
        choices=REGIONS,
        default="random",
        help="annotations: parts, and entities without parts, of a COCO-format file; perception: the same as "
        "--perception finds them; detector: what the pixel detector --detector takes for artifacts on the photo; "
        "random: blobs at random places (default: random)",
    )
    group.add_argument(
        "--max-artifacts", type=positive_int, default=3, help="maximum number of regions in an image (default: 3)"
    )
    group.add_argument(
        "--max-region-share",
        type=between_0_and_1,
        default=CorruptionRunSettings.max_target_share,
        metavar="N",
        help="largest share of the image that a region may take (default: %(default)s)",
    )
    group.add_argument(
        "--region-shares",
        type=numbers(positive_float),
        default=default.shares,
        metavar="LEAST,MOST",
        help="least and greatest share of the photo that a random region covers "
        f"(default: {','.join(map(str, default.shares))})",
    )
    group.add_argument(
        "--threshold",
        type=between_0_and_1,
        help="value of the detector's map from which it is part of a region (default: the detector's own)",
    )
    group.add_argument(
        "--min-region-share",
        type=share,
        default=default.min_share,
        help="least share of the photo that a region of the detector covers (default: %(default)s)",
    )
    group.add_argument(
        "--unchanged",
        choices=UNCHANGED,
        default="drop",
        help="what to do with regions that hardly changed; drop: leave them out; flag: keep them with the score "
        "`unchanged` 1, unless nothing at all is to be seen (default: drop)",
    )
    add_acceptance_options(group, "another of the photo", "regions")


def add_corruption_options(parser: Parser) -> None:
    """Add the options for the diffusion model and what it does."""
    embedded, others = corruption_preset(EMBEDDED), corruption_preset("")
    group = parser.add_argument_group("diffusion model (corrupts the regions)")
    group.add_argument(
        "--methods",
        type=names_among(CORRUPTION_NAMES),
        metavar="NAMES",
        default=CORRUPTION_NAMES[0],
        help=f"comma-separated list of methods, one of which each photo gets: {', '.join(CORRUPTION_NAMES)} "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--step",
        type=numbers(at_least(0)),
        metavar="N[,N]",
        help=f"levels, one of which each photo gets, as steps of DDIM with {NUM_STEPS} steps: 45 corrupts little, 30 "
        "much (default: see --sigma)",
    )
    group.add_argument(
        "--sigma",
        type=numbers(positive_float),
        metavar="N[,N]",
        help="the same as sigma, the share of noise, up to 1; step 40 is 0.345 (default: "
        f"{embedded.sigma:.3g} for the embedded model; for others {others.sigma:.3g} with proposed and "
        f"{others.sigma_of_others:.3g} with other methods)",
    )
    add_model_options(
        group,
        "steps of the whole schedule, of which those below the level are run (default: "
        f"{embedded.num_inference_steps} for the embedded model, {others.num_inference_steps} for others)",
    )
    group.add_argument(
        "--solver",
        default="midpoint",
        choices=sorted(SOLVER_NAMES),
        help="ODE solver of flow models; U-Nets have DDIM with ReNoise (default: midpoint)",
    )
    group.add_argument(
        "--confine",
        default="visible",
        choices=CONFINEMENTS,
        help="what to keep of the clean image; visible: all pixels but the visible change at the region, so that "
        "labels cover all that changed; latent, pixel: its latent or pixels outside the region and the patches around "
        "it (default: visible; the pipeline by itself: none)",
    )


def add_arguments(parser: Parser) -> None:
    add_folder_arguments(parser)
    add_region_options(parser)
    add_perception_options(
        parser,
        default=None,
        default_help="people with --regions perception",
        detector="pixel detector for --regions detector, a folder or Hub id (default: the one of this package); or "
        "detector for grounded-sam",
    )
    add_vlm_options(parser)
    add_corruption_options(parser)
    add_card_options(parser)
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    check_division(args)
    return carry_out(args, run_plan(args))


def run_plan(args: argparse.Namespace) -> RunPlan:
    """Return the plan of a run that the options describe."""
    settings = CorruptionRunSettings(
        **common_settings(args),
        max_target_share=args.max_region_share,
        corruption=CorruptionSettings(
            methods=args.methods,
            steps=args.step or (),
            sigmas=args.sigma or (),
            num_inference_steps=args.num_inference_steps,
            solver=args.solver,
            confine=args.confine,
            allow_distilled=args.allow_distilled,
        ),
        gates=RegionGates(unchanged=args.unchanged),
    )
    perception = regions_spec(
        args.regions,
        args.perception,
        RegionOptions(args.region_shares, args.threshold, args.min_region_share),
        annotations=args.annotations,
        detector=args.detector,
        segmenter=args.segmenter,
        device=args.perception_device,
    )
    return make_plan(args, settings, perception)
