"""
Score a reward model on pairs that it was not trained on: pair accuracy and cross-scene AUC, by type of artifact, with
controls for shortcuts and with 95 % intervals of resampled photos.

```bash
python -m training.reward_report runs/reward_model --sources pairs=runs/held_out --json report.json
```
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from datasets_script.detection.reward.model import RewardModel
from datasets_script.utils.files import write_json
from evaluate_metrics.functional.intervals import Bootstrap
from training.pixel.sources.registry import parse_sources, read_source
from training.reward.data import check_pair_sources
from training.reward.report import held_out_pairs, reward_report
from training.reward.report_table import report_table
from training.script import run_script


def main(arguments: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(arguments)
    specs = parse_sources(args.sources)
    check_pair_sources(specs)
    sources = [read_source(spec, args.seed) for spec in specs]
    model = RewardModel.from_pretrained(args.model, revision=args.revision, device=args.device)
    pairs = chain.from_iterable(held_out_pairs(source, set(source.units["id"][:])) for source in sources)
    report = {
        **reward_report(model, pairs, Bootstrap(seed=args.seed)),
        "sources": [source.record() for source in sources],
    }
    if args.json:
        write_json(args.json, report)
    print(report_table(report))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.reward_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of a reward model")
    parser.add_argument(
        "--sources",
        nargs="+",
        required=True,
        metavar="pairs=SOURCE",
        help="pairs to score, as in training: pairs=SOURCE, then after commas limit, split, revision and photos_by",
    )
    parser.add_argument("--json", type=Path, help="file to write the report to")
    parser.add_argument("--revision", help="branch, tag or commit of MODEL on the Hub")
    parser.add_argument("--device", help="device to run on (default: CUDA if available)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the intervals, and of the choice of pairs if there is a limit"
    )
    return parser


if __name__ == "__main__":
    run_script(main)
