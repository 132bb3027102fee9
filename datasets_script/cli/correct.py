"""`artiagent correct`: find artifacts in images, draw their regions again, and ask again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .detect import find_inputs
from .options import add_vlm_run_options, vlm_spec_of
from .parser import Parser, non_negative_int, positive_float, positive_int
from .running import add_loading_options


if TYPE_CHECKING:
    from ..schema.boxes import Box


# As in `detection.pixel.locating` and `diffusers_artifact.presets`: the detector and the model of this package.
_EMBEDDED = "embedded"
_METHODS = ("auto", "inpaint", "denoise")

DESCRIPTION = """\
Find artifacts in images, draw their regions again with a diffusion model, and ask again within each region, until no
artifact is seen there, a repair is worse than what was there, or the rounds are used up (ArtiAgent, Algorithm 6). What
was not improved comes back as it was, and outside the repaired regions every pixel is the input's. You can interrupt
it at any time; rerun the same command to continue."""

EPILOG = """\
OUT holds
  images/NAME.png       the corrected image, or the input where nothing was better
  overlays/NAME.png     before and after, with the regions and what became of each
  rounds/NAME/          found.json, and for each region its mask, the verdict before, the caption, and each round:
                        mask, pictures, strength, seeds, verdicts
  corrections.jsonl     a line for each image: regions, outcomes, rounds, costs
  pairs.parquet         with --pairs: images whose regions all came out clean, and the images before. From them a
                        generator learns what not to draw: training.pair_dpo --pairs OUT/pairs.parquet --noise random
  run.json              settings, models, versions, and totals

How a region ends:
  clean                 the verifier sees no artifact in it any more
  better                after --max-rounds it still does, but is clearly less sure than before
  unsolved, worse       no repair was better, or one was worse: the region is the input's
  not confirmed         the verifier sees no artifact in what the detector found: nothing is drawn
  too large, too many   it covers more than 80 % of the image, or is beyond --max-regions: nothing is drawn

--detector and --verifier are pixel detectors or vision-language models: a folder, a Hub id, a model's name at
--vlm-endpoint, or 'embedded'. A detector that verifies its own repairs is satisfied before people are, so name another
verifier where you have one. A vision-language model also describes the scene as it should be, which repairers with
text encoders draw by; --prompt says it instead, and --own-prompts takes what each image was drawn from.

--repairer is any of
  embedded              the small model of this package, for 256x256 px: it covers a region with what surrounds it, and
                        cannot draw what is missing. Offline, on a CPU
  a text-to-image model FLUX.1, SD 1.5, SDXL, SD3.5, Qwen-Image, Z-Image, Chroma, FLUX.2-klein: blended by diffusers'
                        inpainting classes; others, such as FLUX.2-dev, by re-denoising (--repair-method denoise)
  a model for inpainting or editing, such as FLUX.1-Fill-dev, FLUX.1-Kontext-dev, Qwen-Image-Edit
  a model's name at --repairer-endpoint, a server with OpenAI's /v1/images/edits

Small regions are cropped and enlarged for the model. Strength and margin grow from round to round. Models of few steps
(schnell, turbo) cannot repair gently: they change much at any strength.

examples:
  artiagent correct portrait.png fixed/
  artiagent correct portrait.png fixed/ --box 96,80,152,128
  artiagent correct generated/*.png fixed/ --repairer black-forest-labs/FLUX.1-Fill-dev \\
      --detector my-pixel-detector --verifier my-tuned-vlm --reward my-reward-model
  artiagent correct generated/*.png fixed/ --repairer gpt-image-1 --repairer-endpoint https://api.openai.com/v1 \\
      --detector my-tuned-vlm --vlm-endpoint http://localhost:8000/v1
  artiagent correct drawn/images fixed/ --repairer my-model --repair-method denoise --own-prompts --pairs
  artiagent compare generated/ fixed/images --detector another-detector     # judge by one that did not verify"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image file, or folder of images")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; an existing run there is continued")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the run (default: 0)")
    judged = parser.add_argument_group("finding and judging")
    judged.add_argument(
        "--detector", default=_EMBEDDED, metavar="MODEL", help="finds artifacts (default: %(default)s)"
    )
    judged.add_argument("--verifier", metavar="MODEL", help="judges repairs (default: the detector)")
    judged.add_argument(
        "--reward", metavar="MODEL", help="reward model that chooses among repairs and refuses those below the input"
    )
    judged.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="score of the verifier up to which a region is clean, 0 to 1 (default: as it decides)",
    )
    parser.add_argument(
        "--pairs", action="store_true", help="also write the images before and after as pairs to train on"
    )
    region = parser.add_argument_group("what to repair (in place of what the detector finds)")
    region.add_argument(
        "--box", type=_box, metavar="X0,Y0,X1,Y1", help="a box in pixels of each image, exclusive maxima"
    )
    region.add_argument("--mask", type=Path, metavar="FILE", help="an image of the same size, bright where to repair")
    region.add_argument(
        "--segmenter", metavar="MODEL", help="SAM or SAM 2 model: repair only the thing in a box that has no mask"
    )
    region.add_argument(
        "--max-regions", type=positive_int, default=3, help="regions of an image, the surest first (default: 3)"
    )
    drawn = parser.add_argument_group("drawing")
    drawn.add_argument(
        "--repairer", default=_EMBEDDED, metavar="MODEL", help="diffusion model that repairs (default: %(default)s)"
    )
    drawn.add_argument("--revision", help="branch, tag or commit of --repairer on the Hub")
    drawn.add_argument("--repairer-endpoint", metavar="URL", help="server of --repairer, with OpenAI's image edits")
    drawn.add_argument(
        "--repair-method",
        choices=_METHODS,
        default="auto",
        help="inpaint: with diffusers' inpainting class; denoise: from fresh noise, everything around held; auto: "
        "inpaint where there is such a class (default: auto)",
    )
    scene = drawn.add_mutually_exclusive_group()
    scene.add_argument("--prompt", metavar="TEXT", help="the scene as it should be (default: described by a VLM)")
    scene.add_argument(
        "--own-prompts",
        action="store_true",
        help="the prompt of each image in the metadata.jsonl beside it, as `artiagent generate` writes it",
    )
    drawn.add_argument(
        "--max-rounds", type=non_negative_int, default=4, help="rounds of a region; 0 only looks (default: 4)"
    )
    drawn.add_argument("--candidates", type=positive_int, default=4, help="repairs of each round (default: 4)")
    drawn.add_argument(
        "--strength",
        type=positive_float,
        metavar="X",
        help="strength of the first round, up to 1, at which nothing is kept (default: 0.6; embedded: 0.2)",
    )
    drawn.add_argument(
        "--last-strength",
        type=positive_float,
        metavar="X",
        help="strength of the last round (default: 1; embedded: 0.4)",
    )
    drawn.add_argument("--num-inference-steps", type=positive_int, help="steps (default: the model's own)")
    drawn.add_argument("--guidance", type=float, help="guidance scale (default: the model's own)")
    drawn.add_argument(
        "--whole-image",
        action="store_true",
        help="always show the model the whole image, in place of an enlarged crop around small regions",
    )
    add_vlm_run_options(parser.add_argument_group("running vision-language models"), "--vlm-", "that of --device")
    add_loading_options(parser.add_argument_group("the repairer on your card (memory and speed)"))
    parser.set_defaults(interrupted="all but the round in hand is kept; rerun the command to continue.")


def run(args: argparse.Namespace) -> int:
    from ..correction.correct import correct, prompts_beside
    from ..correction.pairs import PAIRS_FILE
    from ..correction.settings import CorrectionSettings
    from ..engine.settings import LoadSettings

    images = {item.overlay.with_suffix("").as_posix(): item.path for item in find_inputs(args.images, args.out)}
    record = correct(
        images,
        args.out,
        detector=args.detector,
        repairer=args.repairer,
        verifier=args.verifier,
        reward=args.reward,
        segmenter=args.segmenter,
        box=args.box,
        mask=args.mask,
        prompt=prompts_beside(images) if args.own_prompts else args.prompt,
        settings=CorrectionSettings(
            max_rounds=args.max_rounds,
            candidates=args.candidates,
            max_regions=args.max_regions,
            strength=args.strength,
            last_strength=args.last_strength,
            threshold=args.threshold,
            seed=args.seed,
        ),
        revision=args.revision,
        repair_method=args.repair_method,
        repairer_endpoint=args.repairer_endpoint,
        num_inference_steps=args.num_inference_steps,
        guidance=args.guidance,
        crops=not args.whole_image,
        vlm=vlm_spec_of(args, args.detector),
        loading=LoadSettings(args.dtype, args.quantization, args.attention_backend, args.compile, args.vae_tiling),
        offload=args.offload,
        device=args.device,
        pairs=args.pairs,
        show_progress=not args.quiet,
    )
    totals = record.totals
    shown = ("clean", "better", "unsolved", "worse", "not confirmed", "too large", "too many")
    ends = ", ".join(f"{totals[name]} {name}" for name in shown if totals.get(name))
    print(f"{totals['images']} images, {totals['with_artifacts']} with regions, {totals['changed']} changed")
    print(
        f"{totals['regions']} regions{': ' + ends if ends else ''}; {totals['rounds']} rounds, {totals['seconds']} s"
    )
    if args.pairs:
        print(f"{totals['pairs']} pairs in {args.out / PAIRS_FILE}")
    print(f"corrected images in {args.out / 'images'}, before and after in {args.out / 'overlays'}")
    return 0


def _box(text: str) -> Box:
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be four numbers X0,Y0,X1,Y1, got '{text}'") from error
    if not (0 <= left < right and 0 <= top < bottom):
        raise argparse.ArgumentTypeError(f"must have 0 <= X0 < X1 and 0 <= Y0 < Y1, got '{text}'")
    return left, top, right, bottom
