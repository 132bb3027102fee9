"""`artiagent merge`: put the pairs of several runs into one folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from .parser import Parser


DESCRIPTION = """\
Merge complete runs of `artiagent synthesize` into one folder, which can be shown, reported on, exported, prepared and
published like a run. Pairs keep their bytes and ids; runs of photos with the same names cannot be merged. Settings in
which the runs differ hold all values, so that such a folder cannot be continued. Edits that people made to a run in
the tab Browse of `artiagent app` are applied; for a single run, that is all that is done."""

EPILOG = """\
examples:
  artiagent merge portraits/ streets/ all/
  artiagent merge portraits/ corrected/      apply the edits of one run"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder written by `artiagent synthesize`")
    parser.add_argument("--no-edits", action="store_true", help="leave the pairs as they are, whatever people edited")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must be new or empty")


def run(args: argparse.Namespace) -> int:
    from ..edits.planned import EditReport
    from ..pairs.merge import merge_runs

    record = merge_runs(args.runs, args.out, edits=not args.no_edits)
    if record.edits:
        print(EditReport.from_dict(record.edits).as_text())
    print(f"{record.pairs} pairs of {len(args.runs)} runs in {args.out}")
    return 0
