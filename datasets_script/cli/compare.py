"""`artiagent compare`: compare folders of images pair by pair."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..comparison.settings import DIVERSITIES, PICKSCORE
from .parser import Parser, at_least, non_negative_int, positive_int


DESCRIPTION = """\
Compare folders of images, each with the first: how often artifacts appear under one or several detectors, reward, fit
to the prompt, diversity and sharpness, with 95 % intervals of pairs of images. Write a table, the numbers, and a page
of side-by-side pictures, worst changes first, that works offline."""

EPILOG = """\
FOLDERs are written by `artiagent generate` from equal prompts and with equal --seed, or hold images with equal names.
The bootstrap draws prompts, and with each prompt its images in all folders.

  artifact frequency   share of images whose map exceeds 0.5 anywhere (DiffDoctor)
  smoothed maximum     highest mean of a small square of the map; a single pixel hardly moves it
  artifact area        share of the image above 0.5
  CLIP-T, PickScore    fit to the prompt; only of folders written by `artiagent generate`
  diversity            mean perceptual distance between the images of a prompt, with --images-per-prompt above 1
  sharpness            standard deviation of the Laplacian in grey levels: lower is blurred, far higher noise or a grid

A detector or reward that chose or guided the images of a folder is marked with a dagger: its score improves by
construction. Take the artifact frequency from a detector of another trunk, trained on other data. That diversity,
sharpness and CLIP-T hold tells that fewer artifacts were not bought with blank or blurred images.

--scores NAME reads NAME.jsonl in each FOLDER, with {"id": "00000-0", "score": 1.2} for each image, for scorers that
need an environment of their own: the packages of ImageReward and HPSv3 pin old versions of transformers.

examples:
  artiagent compare base/ best/ --detector my-pixel-detector --detector embedded
  artiagent compare base/ best/ guided/ --reward my-reward-model --clip openai/clip-vit-large-patch14
  artiagent compare photos/ repaired/ --to pages/"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders; the first is the baseline")
    parser.add_argument(
        "--to", type=Path, default=Path("comparison"), metavar="DIR", help="folder to write to (default: comparison)"
    )
    measures = parser.add_argument_group("what is measured")
    measures.add_argument(
        "--detector",
        action="append",
        default=[],
        metavar="MODEL",
        help="pixel detector: a folder, Hub id, or 'embedded'; repeatable, the first sorts the pictures (default: "
        "embedded)",
    )
    measures.add_argument("--reward", metavar="MODEL", help="reward model: a folder or Hub id")
    measures.add_argument("--clip", metavar="MODEL", help="CLIP model for CLIP-T: a folder or Hub id")
    measures.add_argument(
        "--pickscore",
        nargs="?",
        const=PICKSCORE,
        metavar="MODEL",
        help="measure PickScore, by its own model from the Hub or another",
    )
    measures.add_argument(
        "--scores", action="append", default=[], metavar="NAME", help="score of another program; repeatable"
    )
    measures.add_argument(
        "--diversity",
        choices=DIVERSITIES,
        default="stlpips",
        help="perceptual distance within a prompt; stlpips works offline, lpips downloads AlexNet (default: stlpips)",
    )
    parser.add_argument(
        "--pictures", type=non_negative_int, default=24, help="images that the page shows (default: 24)"
    )
    parser.add_argument("--batch-size", type=positive_int, default=4, help="images measured together (default: 4)")
    parser.add_argument(
        "--n-resamples", type=at_least(100), default=1000, help="resamples of the bootstrap (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument("--device", help="device, such as cuda:1 (default: cuda if available, else cpu)")


def run(args: argparse.Namespace) -> int:
    from ..comparison.compare import compare
    from ..comparison.writing import PAGE, comparison_text

    comparison = compare(
        args.folders,
        args.to,
        device=args.device,
        detectors=tuple(args.detector or ["embedded"]),
        reward=args.reward,
        clip=args.clip,
        pickscore=args.pickscore,
        scores=tuple(args.scores),
        diversity=args.diversity,
        pictures=args.pictures,
        batch_size=args.batch_size,
        n_resamples=args.n_resamples,
        seed=args.seed,
    )
    print(comparison_text(comparison).partition("\n\n")[2])
    print(f"pictures in {args.to / PAGE}")
    return 0
