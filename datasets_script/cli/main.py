"""The command `artiagent`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import demo, detect, evaluate, export, predict, prepare, push, report, show, status, synthesize
from .faults import guarded


COMMANDS = (synthesize, show, status, demo, prepare, predict, evaluate, detect, export, report, push)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="artiagent",
        description="Pairs of clean and structurally flawed images from real photographs, and benchmarks of how well "
        "models see such flaws.",
    )
    parser.set_defaults(interrupted="nothing half-made is kept.")
    commands = parser.add_subparsers(dest="command", required=True)

    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Runs the command line.

    Returns:
        `int`: The exit status: 0 done, 1 nothing made, 2 a mistake of the user, 3 a run that was stopped by what it
        depends on and can be continued, 130 Ctrl-C.
    """
    return guarded(build_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
