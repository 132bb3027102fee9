"""`artiagent demo`: the whole of it, offline."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..agents.perception.backends import PerceptionSpec
from ..demo.settings import DEMO_OUT, DEMO_SETTINGS, prepare_demo
from ..engine.plan import RunPlan
from .synthesize import CONTINUES, report


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("demo", help="the whole of it on photographs from installed packages, offline")
    parser.add_argument("--out", type=Path, default=DEMO_OUT, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.set_defaults(run=run, interrupted=CONTINUES)


def run(args: argparse.Namespace) -> int:
    photos = args.out / "photos"
    plan = RunPlan(
        photos,
        args.out,
        replace(DEMO_SETTINGS, seed=args.seed),
        PerceptionSpec("annotations"),
        names=tuple(prepare_demo(photos)),
    )
    return report(args.out, plan.open().execute())
