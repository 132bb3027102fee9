"""`artiagent report`: what is in a set of pairs, as a page of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..pairs.report import write_pair_report
from ..utils.errors import UserError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="a page on what is in a set of pairs and which biases it has",
        description="Writes report.html, a page that works offline, and report.json with the same numbers: counts, "
        "balance of types, sizes and positions of boxes, what curation kept, how much changed inside and outside of "
        "flaws, entities and parts, lengths of explanations. It says in words what a model could learn without "
        "looking, such as a box that fits most images. Read it before training.",
        epilog="examples: artiagent report out/; artiagent report out/ --to pages/",
    )
    parser.add_argument("out", type=Path, help="folder written by `artiagent synthesize`, its run complete")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to write to (default: OUT)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    to = args.to or args.out
    if to.exists() and not to.is_dir():
        raise UserError(f"--to must be a folder, got the file '{to}'")
    findings = write_pair_report(args.out, to)
    print("\n".join(f"- {finding}" for finding in findings))
    print(f"page in {to / 'report.html'}, numbers in {to / 'report.json'}")
    return 0
