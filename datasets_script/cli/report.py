"""`artiagent report`: describe a dataset of pairs on an HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.errors import UserError
from .parser import Parser


DESCRIPTION = """\
Describe the pairs of a complete run in report.html, a page that works offline, and in report.json. The report counts
artifacts by type, entity and part, and shows sizes and positions of boxes, acceptance by curation, change inside and
outside artifacts, how labels agree with what visibly changed, and lengths of explanations. It warns of shortcuts that
a model could learn without looking at the image, such as one box that fits most images. Read it before training."""

EPILOG = """\
examples:
  artiagent report out/                   write out/report.html
  artiagent report out/ --to pages/       write pages/report.html"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder written by `artiagent synthesize`, with a complete run"
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
