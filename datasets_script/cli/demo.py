"""`artiagent demo`: make example pairs offline."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..agents.perception.backends import PerceptionSpec
from ..demo.settings import DEMO_OUT, DEMO_SETTINGS, prepare_demo
from .parser import Parser
from .running import CONTINUES, report


DESCRIPTION = """\
Make example pairs in minutes, offline and on a CPU, with the diffusion model that comes with this package. The photos
are taken from installed Python packages (`pip install artiagent[demo]`) and written to OUT/photos with annotations.
This is `artiagent synthesize` with settings that suit these photos."""

EPILOG = """\
examples:
  artiagent demo                          make pairs in runs/demo
  artiagent demo --out demo-1 --seed 1    inject other artifacts into the same photos
  artiagent show runs/demo                draw the pairs"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=DEMO_OUT,
        help="folder to write; an existing run there is resumed (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the run (default: 0)")
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
