"""`artiagent report`: what is in a set of pairs, as a page of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.errors import UserError
from .parser import Parser


DESCRIPTION = """\
Writes report.html, a page that works offline, and report.json with the same numbers: how many artifacts of each type,
sizes and positions of boxes, what curation kept, how much changed inside and outside of artifacts, entities and parts,
lengths of explanations. It warns of what a model could learn without looking at the image, such as one box that fits
most images. Read it before you train."""

EPILOG = """\
examples:
  artiagent report out/                   writes out/report.html
  artiagent report out/ --to pages/"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder written by `artiagent synthesize`, its run complete"
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to write to (default: OUT)")


def run(args: argparse.Namespace) -> int:
    from ..pairs.report import write_pair_report

    to = args.to or args.out
    if to.exists() and not to.is_dir():
        raise UserError(f"--to must be a folder, got the file '{to}'")
    findings = write_pair_report(args.out, to)
    print("\n".join(f"- {finding}" for finding in findings))
    print(f"page in {to / 'report.html'}, numbers in {to / 'report.json'}")
    return 0
