"""`artiagent status`: how far a run is."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.errors import UserError
from .parser import Parser


DESCRIPTION = """\
Says whether a run is at work, complete or stopped, and why; which pairs were kept, by type, tool and kernel; and,
while it works, how long it will take. It reads the run's folder alone, so it may be asked at any time."""

EPILOG = """\
examples:
  artiagent status out/
  watch -n 60 artiagent status out/       look again every minute"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that `artiagent synthesize` writes to")


def run(args: argparse.Namespace) -> int:
    from ..engine.status import status_text

    if not (args.out / "run.json").is_file():
        raise UserError(
            f"OUT must be a folder that `artiagent synthesize` writes to, found no run.json in '{args.out}'"
        )
    print(status_text(args.out))
    return 0
