"""`artiagent app`: serve the app."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import ArgumentError, UserError
from .parser import Parser, positive_int


if TYPE_CHECKING:
    from ..annotation.queue import AnnotationQueue

DESCRIPTION = """\
Open the app in the browser. In the tab Make you mark a region of a photo, choose a tool, and see the artifact in about
a second with the embedded model on a CPU; pairs that you keep go to --data, a folder that is read like a run. In the
tab Detect a pixel detector looks at your images, you edit what it marks, and --repairer draws it again. In the tab
Browse you go through --data, a run or a prepared benchmark, and accept, reject and correct its samples. With --queue,
several people annotate images in the tab Annotate, as ArtiBench was made; with --compare, they vote blind between
pictures of models. It works offline, listens on this machine only and reports to nobody."""

EPILOG = """\
It needs `pip install artiagent[app]`.

--data is a run, prepared pairs, or a benchmark that `artiagent prepare --out` has written. Edits of the tab Browse
lie in edits.jsonl beside the data, which stays as it is; `artiagent prepare` and `artiagent merge` apply them. Pairs
of the tab Make are kept there too, unless it holds other data: then they go to runs/app. `artiagent show`, `report`,
`prepare`, `export` and `push` read kept pairs; `artiagent merge` joins them with runs.

--compare takes folders that `artiagent compare` takes: of `artiagent generate` with equal prompts and --seed, or with
equal names. Each person gets all images in an order and on sides of their own; results come with intervals of prompts.

--queue is a folder with a database, queue.sqlite, and a copy of the images; keep it on a local disk. --images makes or
fills it: prompts come from metadata.jsonl beside the images, as `artiagent generate` writes it. First, people say of
each image whether it has artifacts, then they mark those of images that do. The tab shows progress and agreement, and
exports ArtiBench's layout, COCO and Label Studio, which --drafts takes too.

Others reach the app only with --host, and then with the name and token of a person that --annotators or --admins let
in; tokens are shown once. With --data none and without a queue, anybody gets in, and nothing is kept; `artiagent push
app` makes a Space of that.

examples:
  artiagent app                                          make artifacts, keep them in runs/app
  artiagent app --data runs/mine --port 7870             keep them elsewhere, at another port
  artiagent app --data artibench-parquet                 go through a benchmark and correct it
  artiagent app --queue bench/ --images best/images      annotate images on this machine
  artiagent app --queue bench/ --images best/images --overlap 2 --annotators ann,ben --admins ada --host 0.0.0.0
  artiagent app --data none --host 0.0.0.0               make and detect, for everybody who reaches this machine
  artiagent app --compare base/ best/ --votes votes.jsonl
  artiagent app --queue bench/ --drafts predicted.json   begin with the boxes of a model, in COCO's format"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("runs/app"),
        metavar="FOLDER",
        help="data to go through, and folder of kept pairs; 'none' keeps none (default: runs/app)",
    )
    parser.add_argument("--port", type=positive_int, help="port (default: the first free one from 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument("--share", action="store_true", help="ask gradio.app for a public link, for 72 hours")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    make = parser.add_argument_group("the tab Make")
    make.add_argument(
        "--model",
        default="embedded",
        help="diffusion model: a folder, Hub id or 'embedded'; 'none' leaves the tab out (default: embedded)",
    )
    make.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    make.add_argument("--device", help="device, such as cuda:1 (default: cuda if available, else cpu)")
    detect = parser.add_argument_group("the tab Detect")
    detect.add_argument(
        "--detector",
        default="embedded",
        metavar="MODEL",
        help="pixel detector: a folder, Hub id or 'embedded'; 'none' leaves the tab out (default: embedded)",
    )
    detect.add_argument(
        "--repairer",
        default="embedded",
        metavar="MODEL",
        help="diffusion model that draws what is wrong again, as of 'artiagent correct' (default: embedded)",
    )
    compare = parser.add_argument_group("the tab Compare")
    compare.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="two or more folders of images to vote between",
    )
    compare.add_argument(
        "--votes",
        type=Path,
        default=Path("runs/votes.jsonl"),
        metavar="FILE",
        help="votes (default: runs/votes.jsonl)",
    )
    annotate = parser.add_argument_group("the tab Annotate")
    annotate.add_argument("--queue", type=Path, metavar="FOLDER", help="folder of an annotation queue")
    annotate.add_argument("--images", type=Path, metavar="FOLDER", help="images to add to the queue")
    annotate.add_argument(
        "--drafts", type=Path, metavar="FILE", help="regions to begin with: COCO, Label Studio or ArtiBench's layout"
    )
    annotate.add_argument("--annotators", metavar="NAMES", help="comma-separated list of people to let in")
    annotate.add_argument("--admins", metavar="NAMES", help="people to let in who also decide and export")
    annotate.add_argument(
        "--overlap", type=positive_int, help="people who classify an image, for a new queue (default: 1)"
    )
    annotate.add_argument(
        "--mark-overlap", type=positive_int, help="people who mark an image, for a new queue (default: 1)"
    )
    annotate.add_argument("--types", metavar="NAMES", help="types of artifacts, for a new queue (default: all five)")
    annotate.add_argument(
        "--guideline",
        type=Path,
        metavar="FILE",
        help="guideline in Markdown, for a new queue (default: a general one)",
    )
    parser.set_defaults(interrupted="pairs that were kept and answers that were given stay.")


def run(args: argparse.Namespace) -> int:
    from ..app.main import AppSettings, launch

    if args.queue is None:
        for name in ("images", "drafts", "annotators", "admins", "overlap", "mark_overlap", "types", "guideline"):
            if getattr(args, name) is not None:
                raise UserError(
                    f"--{name.replace('_', '-')} must come with --queue, got none; name the queue's folder"
                )
    else:
        prepare_queue(args)
    settings = AppSettings(
        data=None if args.data == Path("none") else args.data,
        queue=args.queue,
        compare=tuple(args.compare),
        votes=args.votes,
        model="" if args.model == "none" else args.model,
        detector="" if args.detector == "none" else args.detector,
        repairer=args.repairer,
        revision=args.revision,
        device=args.device,
        host=args.host,
        port=args.port,
        share=args.share,
    )
    launch(settings, open_browser=not args.no_browser)
    return 0


def prepare_queue(args: argparse.Namespace) -> None:
    """Make or open the queue that the options name, fill it, and let people in."""
    from ..annotation.filling import open_queue
    from ..annotation.queue import ADMIN

    annotators, admins = _names(args.annotators), _names(args.admins)
    if both := [name for name in dict.fromkeys(annotators) if name in admins]:
        raise ArgumentError(
            f"`annotators` and `admins` must not share names, got {', '.join(both)} in both; leave admins "
            "out of the first, they annotate too"
        )
    queue, added, left_out = open_queue(args.queue, args.images, args.drafts, queue_settings(args))
    if args.images is not None or left_out:
        print(f"{added} images added to '{args.queue}', {len(left_out)} left out")
        for name, reason in left_out.items():
            print(f"  {name}: {reason}")
    let_in(queue, annotators, "annotator")
    let_in(queue, admins, ADMIN)


def queue_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a queue that the options give, by name."""
    given: dict[str, Any] = {"overlap": args.overlap, "mark_overlap": args.mark_overlap}
    given["types"] = _names(args.types) or None
    given["guideline"] = None if args.guideline is None else args.guideline.read_text(encoding="utf-8")
    return {name: value for name, value in given.items() if value is not None}


def let_in(queue: AnnotationQueue, names: Sequence[str], role: str) -> None:
    """Let in those who are not, and show their tokens. Admins stay admins."""
    from ..annotation.queue import ADMIN

    known = queue.people()
    for name in dict.fromkeys(names):  # a second token would end the first
        if known.get(name) not in (role, ADMIN):
            print(f"token of {role} {name}: {queue.add_person(name, role)}")


def _names(listed: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())
