"""`artiagent status`: how far a run is."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engine.status import status_text
from ..utils.errors import UserError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("status", help="how far a run is, what it kept, and how long it will take")
    parser.add_argument("out", type=Path, help="folder that `artiagent synthesize` writes to, now or before")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not (args.out / "run.json").is_file():
        raise UserError(
            f"OUT must be a folder that `artiagent synthesize` writes to, found no run.json in '{args.out}'"
        )
    print(status_text(args.out))
    return 0
