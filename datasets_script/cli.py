"""The command `artiagent`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from diffusers.utils import logging as diffusers_logging
from PIL import Image

from diffusers_artifact import SOLVERS
from diffusers_artifact.confinement import CONFINEMENTS
from diffusers_artifact.injection import VALUE_SOURCES
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from .curation.filters import CurationSettings
from .curation.perceptual import PerceptualMetricUnavailable
from .demo import DEMO_OUT, DEMO_SETTINGS, prepare_demo
from .engine import Run, RunMismatchError, RunSettings, Synthesizer, read_pairs
from .files import replacing
from .injector import EMBEDDED, PRESETS, InjectionSettings, Injector, ModelLoadError
from .perception.annotations import AnnotationError, AnnotationPerception
from .perception.base import PerceptionAgent
from .records import Pair
from .show import contact_sheet, read_rejected, summary_table
from .sources import list_sources


ANNOTATIONS_HELP = """\
No annotations for '{source}'. Tell what is in the photographs with a COCO-format file:
    artiagent synthesize {source} {out} --annotations instances.json
or put it in the folder as annotations.json. COCO, PACO and PartImageNet files work as they are. In a file of your
own, give entities (person, cat, car) a polygon or RLE, and their parts (hand, ear, wheel) one more, with "parent_id":
the id of their entity. `artiagent demo` leaves one in {demo}/photos/annotations.json."""


class UserError(Exception):
    """A mistake of the user's; its message is all they see."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="artiagent", description="Pairs of clean and structurally flawed images, from real photographs."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    synthesize = commands.add_parser(
        "synthesize",
        help="make a data set of pairs from a folder of photographs",
        description="Makes a data set of clean/flawed pairs from a folder of photographs. Interrupt it at any time; "
        "the same command again continues.",
        epilog="example: artiagent synthesize photos/ out/ --annotations instances.json --tools add,remove",
    )
    synthesize.add_argument("source", type=Path, help="folder of photographs, searched recursively")
    synthesize.add_argument("out", type=Path, help="folder to write; a run already there is continued")
    synthesize.add_argument("--annotations", type=Path, help="COCO-format file; default: annotations.json in SOURCE")
    synthesize.add_argument(
        "--model", default=EMBEDDED, help="'embedded', a folder or a Hub id such as black-forest-labs/FLUX.1-dev"
    )
    synthesize.add_argument("--revision", help="branch, tag or commit of a Hub model")
    synthesize.add_argument("--device", help="default: cuda if there is one, else cpu")
    synthesize.add_argument(
        "--tools", default=",".join(ARTIFACT_TYPE_OF_TOOL), help="comma-separated, default: %(default)s"
    )
    synthesize.add_argument("--max-artifacts", type=int, default=3, help="most flaws in an image (default: 3)")
    synthesize.add_argument(
        "--pairs-per-image", type=int, default=1, help="flawed variants of each photograph (default: 1)"
    )
    synthesize.add_argument(
        "--max-long-side", type=int, default=1024, help="shrink longer photographs, px (default: 1024; embedded: 256)"
    )
    synthesize.add_argument(
        "--num-inference-steps", type=int, help="default: the preset's, 8 for the embedded model and 25 for others"
    )
    synthesize.add_argument("--solver", default="fireflow", choices=sorted(SOLVERS), help="default: fireflow")
    synthesize.add_argument(
        "--value-source",
        default="reconstruction",
        choices=VALUE_SOURCES,
        help="where injected values come from: the clean row of the batch (default), or the paper's cache",
    )
    synthesize.add_argument(
        "--confine",
        default="none",
        choices=CONFINEMENTS,
        help="guarantee the clean image outside the target and the patches around it: its tokens, or its pixels "
        "(default: none)",
    )
    synthesize.add_argument(
        "--allow-distilled",
        action="store_true",
        help="run few-step models (schnell, turbo) all the same, although they do not invert well",
    )
    synthesize.add_argument(
        "--preset",
        default="auto",
        choices=("auto", *PRESETS),
        help="strength of the injection; default: 'embedded' for the embedded model, 'paper' for others",
    )
    synthesize.add_argument(
        "--perceptual-metric",
        default="stlpips",
        choices=("stlpips", "lpips"),
        help="stlpips works offline; lpips is the paper's and needs AlexNet's weights (default: stlpips)",
    )
    synthesize.add_argument("--seed", type=int, default=0, help="default: 0")
    synthesize.add_argument("--shard-size", type=int, default=32, help="photographs a shard (default: 32)")
    synthesize.add_argument("--limit", type=int, help="only the first photographs of the folder")
    synthesize.set_defaults(run=command_synthesize)

    show = commands.add_parser("show", help="contact sheet and table of a data set")
    show.add_argument("out", type=Path, help="folder written by `artiagent synthesize`")
    show.add_argument("--max-pairs", type=int, default=64, help="most pairs on the sheet (default: 64)")
    show.add_argument("--pairs", help="comma-separated pair ids to show instead, e.g. astronaut.png:0,cat.png:1")
    show.add_argument("--sheet", type=Path, help="picture to write (default: contact_sheet.png in OUT)")
    show.set_defaults(run=command_show)

    demo = commands.add_parser("demo", help="the whole of it on photographs from installed packages, offline")
    demo.add_argument("--out", type=Path, default=DEMO_OUT, help="default: %(default)s")
    demo.add_argument("--seed", type=int, default=0, help="default: 0")
    demo.set_defaults(run=command_demo)
    return parser


def command_synthesize(args: argparse.Namespace) -> int:
    if not args.source.is_dir():
        raise UserError(f"SOURCE must be a folder of photographs, got '{args.source}'")
    annotations = args.annotations or args.source / "annotations.json"
    if not annotations.is_file():
        if args.annotations:
            raise UserError(f"--annotations must be a file, got '{args.annotations}'")
        raise UserError(ANNOTATIONS_HELP.format(source=args.source, out=args.out, demo=DEMO_OUT))
    settings = RunSettings(
        tools=parse_tools(args.tools),
        max_artifacts=at_least("--max-artifacts", args.max_artifacts),
        pairs_per_image=at_least("--pairs-per-image", args.pairs_per_image),
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
    sources = [name for name in list_sources(args.source) if args.source / name != annotations]
    if args.limit is not None:
        sources = sources[: at_least("--limit", args.limit)]
    if not sources:
        raise UserError(f"SOURCE must hold photographs, found no file in '{args.source}'")
    return synthesize(args.source, args.out, sources, AnnotationPerception(annotations), settings, args.device)


def synthesize(
    source: Path,
    out: Path,
    sources: Sequence[str],
    perception: PerceptionAgent,
    settings: RunSettings,
    device: str | None = None,
) -> int:
    injector = Injector(settings.model, settings.injection, settings.revision, device)
    run = Run(out, sources, Synthesizer(source, perception, injector, settings)).execute()
    print(summary_table(read_pairs(out), read_rejected(out)))
    if not run["pairs"]:
        print(f"No pair was made; the reasons are in {out / 'rejected.jsonl'}", file=sys.stderr)
        return 1
    print(f"{run['pairs']} pairs in {out}, pictures in {out / 'contact_sheet.png'}")
    return 0


def command_show(args: argparse.Namespace) -> int:
    if not (args.out / "run.json").is_file():
        raise UserError(f"OUT must be a folder written by `artiagent synthesize`, found no run.json in '{args.out}'")
    if not any((args.out / "data").glob("*.parquet")):
        raise UserError(f"'{args.out}' holds no pairs yet")
    sheet = args.sheet or args.out / "contact_sheet.png"
    formats = Image.registered_extensions()
    if sheet.suffix.lower() not in formats:
        raise UserError(f"--sheet must end as a picture's name does (.png, .jpg, .webp), got '{sheet}'")
    pairs: Iterable[Pair] = read_pairs(args.out)
    if args.pairs:
        wanted = args.pairs.split(",")
        found = {pair.pair_id: pair for pair in pairs if pair.pair_id in wanted}
        missing = [pair_id for pair_id in wanted if pair_id not in found]
        if missing:
            raise UserError(f"--pairs must be ids of pairs in '{args.out}', got '{missing[0]}'")
        pairs = [found[pair_id] for pair_id in wanted]
    with replacing(sheet) as temporary:
        picture = contact_sheet(pairs, max_pairs=at_least("--max-pairs", args.max_pairs))
        picture.save(temporary, format=formats[sheet.suffix.lower()])
    print(summary_table(read_pairs(args.out), read_rejected(args.out)))
    print(f"pictures in {sheet}")
    return 0


def command_demo(args: argparse.Namespace) -> int:
    photos = args.out / "photos"
    sources = prepare_demo(photos)
    settings = replace(DEMO_SETTINGS, seed=args.seed)
    return synthesize(photos, args.out, sources, AnnotationPerception(photos / "annotations.json"), settings)


def parse_tools(text: str) -> tuple[str, ...]:
    tools = tuple(tool.strip() for tool in text.split(","))
    unknown = [tool for tool in tools if tool not in ARTIFACT_TYPE_OF_TOOL]
    if unknown:
        raise UserError(f"--tools must be among {', '.join(ARTIFACT_TYPE_OF_TOOL)}, got '{unknown[0]}'")
    return tools


def at_least(name: str, number: int, least: int = 1) -> int:
    if number < least:
        raise UserError(f"{name} must be at least {least}, got {number}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status (0 done, 1 nothing made, 2 a mistake of the user, 130 Ctrl-C)."""
    args = build_parser().parse_args(arguments)
    diffusers_logging.disable_progress_bar()
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\nInterrupted. Finished shards are kept; the same command again continues.", file=sys.stderr)
        return 130
    except (
        UserError,
        RunMismatchError,
        AnnotationError,
        ModelLoadError,
        PerceptualMetricUnavailable,
        ImportError,
    ) as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
