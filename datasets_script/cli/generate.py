"""`artiagent generate`: draw images from prompts, each the best of many."""

from __future__ import annotations

import argparse
from pathlib import Path

from .parser import Parser, positive_int
from .running import add_loading_options


DESCRIPTION = """\
Draw images from prompts with any text-to-image model of diffusers. With --best-of N, each is the best of a search: its
rounds draw 1, 2, 4, ... N noises, 2N - 1 in all, a reward model or a detector scores them, and the best image so far
is kept (ArtiAgent, Appendix C.1). With --guide or --guide-reward, each is moved while it is drawn to where a detector
sees fewer artifacts or a reward is higher (DIAMOND). You can interrupt it at any time; rerun the same command to
continue. With more prompts at the end of the file, a larger --best-of or more --images-per-prompt it adds what is
new."""

EPILOG = """\
PROMPTS is a text file with a prompt on each line, a .jsonl or .csv file with a column prompt and optionally id, or a
prompt. OUT holds
  images/ID-K.png        image K of the prompt ID, the best of its candidates, and images/metadata.jsonl with prompt,
                         seed, score and the best score after each round: `load_dataset("OUT/images")` reads both
  generate.jsonl         a line for each candidate: id, number, round, seed and score
  run.json               settings, model, scorer, guides, versions and the mean of the best scores after each round
  candidates/            with --keep-candidates, all images

Seeds derive from --seed, the prompt's id, K and the candidate's number alone. So two runs with equal prompts and
--seed begin from equal noises, the first candidates of a search are those of a shorter one, and `artiagent compare`
can compare them pair by pair.

The score that chooses an image rises by construction, and a detector or reward that guides is silenced before
anything is repaired: it sees fewer artifacts where people see as many. Do not choose by a model that guides, and judge
the result by others: `artiagent compare --detector` and `--reward` take models that neither chose nor guided, best of
another trunk and trained on other data.

examples:
  artiagent generate prompts.txt base/ --model black-forest-labs/FLUX.1-schnell --num-inference-steps 4
  artiagent generate prompts.txt best/ --model black-forest-labs/FLUX.1-schnell --num-inference-steps 4 \\
      --best-of 32 --reward my-reward-model --batch-size 8
  artiagent generate "two hands holding a cup" out/ --model stabilityai/stable-diffusion-xl-base-1.0 \\
      --best-of 8 --detector my-pixel-detector --size 1024x1024
  artiagent generate prompts.txt guided/ --model black-forest-labs/FLUX.1-schnell --num-inference-steps 4 \\
      --guide my-pixel-detector --guide a-second-detector
  artiagent compare base/ best/ guided/ --detector another-detector"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("prompts", metavar="PROMPTS", help="file of prompts, or a prompt")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; an existing run there is continued")
    parser.add_argument(
        "--images-per-prompt",
        type=positive_int,
        default=1,
        help="images of each prompt, which diversity is measured between (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the run (default: 0)")
    parser.add_argument(
        "--batch-size", type=positive_int, default=1, help="images drawn together; more need more memory (default: 1)"
    )
    search = parser.add_argument_group("search (draw many, keep the best)")
    search.add_argument(
        "--best-of",
        type=positive_int,
        default=1,
        help="candidates of the last round, a power of two; 32 draws 63 for each image (default: 1, no search)",
    )
    search.add_argument("--reward", metavar="MODEL", help="reward model that chooses: a folder or Hub id")
    search.add_argument(
        "--detector",
        metavar="MODEL",
        help="pixel detector that chooses, by the lowest smoothed maximum of its map: a folder, Hub id, or 'embedded' "
        "for the one of this package",
    )
    search.add_argument("--keep-candidates", action="store_true", help="keep the images of all candidates")
    add_guidance_options(parser)
    add_drawing_options(parser)
    add_loading_options(parser.add_argument_group("the model on your card (memory and speed)"))
    parser.set_defaults(interrupted="all but the batch in hand is kept; rerun the command to continue.")


def add_guidance_options(parser: Parser) -> None:
    """Add the options for what guides images while they are drawn."""
    group = parser.add_argument_group(
        "guidance (move images while they are drawn)",
        "A guide is silenced before anything is repaired: do not choose or judge by it.",
    )
    group.add_argument(
        "--guide",
        action="append",
        default=[],
        metavar="MODEL",
        help="pixel detector that guides: a folder, Hub id, or 'embedded'; repeatable, the directions are averaged",
    )
    group.add_argument("--guide-reward", metavar="MODEL", help="reward model that guides: a folder or Hub id")
    group.add_argument(
        "--guide-strength",
        type=float,
        metavar="X",
        help="root mean square by which the first step moves latents, falling to 1/25 at the last; 0 is no guidance "
        "(default: as published for the model, 0.05 for most)",
    )


def add_drawing_options(parser: Parser) -> None:
    """Add the options for the diffusion model and its call."""
    group = parser.add_argument_group("diffusion model (draws the images)")
    group.add_argument(
        "--model",
        required=True,
        help="folder or Hub id of a text-to-image model, such as black-forest-labs/FLUX.1-schnell. There is no "
        "default: the small model of this package has no text encoder",
    )
    group.add_argument("--revision", help="branch, tag or commit of --model on the Hub")
    group.add_argument("--num-inference-steps", type=positive_int, help="steps (default: the pipeline's own)")
    group.add_argument("--guidance", type=float, help="guidance scale (default: the pipeline's own)")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what not to draw, where the pipeline takes it")
    group.add_argument("--size", metavar="WxH", help="width and height in pixels (default: the pipeline's own)")


def run(args: argparse.Namespace) -> int:
    from ..generation.generate import generate

    record = generate(
        args.prompts,
        args.out,
        model=args.model,
        revision=args.revision,
        best_of=args.best_of,
        reward=args.reward,
        detector=args.detector,
        images_per_prompt=args.images_per_prompt,
        guide=args.guide,
        guide_reward=args.guide_reward,
        guide_strength=args.guide_strength,
        num_inference_steps=args.num_inference_steps,
        guidance=args.guidance,
        negative_prompt=args.negative_prompt,
        size=args.size,
        seed=args.seed,
        keep_candidates=args.keep_candidates,
        batch_size=args.batch_size,
        dtype=args.dtype,
        quantization=args.quantization,
        attention_backend=args.attention_backend,
        compile=args.compile,
        vae_tiling=args.vae_tiling,
        offload=args.offload,
        device=args.device,
    )
    if record.curve:
        print("mean best score after each round: " + ", ".join(f"{score:.4f}" for score in record.curve))
    print(f"{record.images} images of {record.candidates} candidates in {args.out / 'images'}")
    return 0
