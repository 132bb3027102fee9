"""`artiagent status`: show the progress of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from .parser import Parser


DESCRIPTION = """\
Show whether a run is working, complete or stopped and why, how many artifacts were accepted by type, tool and kernel,
and the time left. Of `artiagent generate` it shows how many candidates are drawn, of `artiagent correct` how many
images are done and how their regions ended. It only reads the run's folder, so it never disturbs the run."""

EPILOG = """\
examples:
  artiagent status out/
  watch -n 60 artiagent status out/       refresh every minute"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that a run writes to")


def run(args: argparse.Namespace) -> int:
    from ..engine.status import status_text

    print(status_text(args.out))
    return 0
