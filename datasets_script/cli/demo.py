"""`artiagent demo`: the whole of it, offline."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..agents.perception.backends import PerceptionSpec
from ..demo.settings import DEMO_OUT, DEMO_SETTINGS, prepare_demo
from .parser import Parser
from .synthesize import CONTINUES, report


DESCRIPTION = """\
Makes pairs from photos that come with Python packages (extra: demo): with the embedded model, offline, on a CPU, in
minutes. It is `artiagent synthesize` with settings and annotations that fit these photos, which it writes to
OUT/photos."""

EPILOG = """\
examples:
  artiagent demo
  artiagent demo --out demo-1 --seed 1    other artifacts in the same photos
  artiagent show runs/demo                draw the pairs"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=DEMO_OUT,
        help="folder to write; a run there is continued (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")
    parser.set_defaults(interrupted=CONTINUES)


def run(args: argparse.Namespace) -> int:
    from ..engine.plan import RunPlan

    photos = args.out / "photos"
    plan = RunPlan(
        photos,
        args.out,
        replace(DEMO_SETTINGS, seed=args.seed),
        PerceptionSpec("annotations"),
        names=tuple(prepare_demo(photos)),
    )
    return report(args.out, plan.open().execute(show_progress=not args.quiet))
