"""`artiagent demo`: the whole of it, offline."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..agents.perception import (
    AnnotationPerception,
)
from ..demo.settings import DEMO_OUT, DEMO_SETTINGS, prepare_demo
from ..engine.injector import Injector
from ..engine.run import Run
from ..engine.synthesizer import Synthesizer
from .synthesize import CONTINUES, report


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("demo", help="the whole of it on photographs from installed packages, offline")
    parser.add_argument("--out", type=Path, default=DEMO_OUT, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.set_defaults(run=run, interrupted=CONTINUES)


def run(args: argparse.Namespace) -> int:
    photos = args.out / "photos"
    sources = prepare_demo(photos)
    settings = replace(DEMO_SETTINGS, seed=args.seed)
    injector = Injector(settings.model, settings.injection)
    perception = AnnotationPerception(photos / "annotations.json")
    run = Run(args.out, photos, sources, Synthesizer.of(photos, perception, injector, settings))
    return report(args.out, run.execute())
