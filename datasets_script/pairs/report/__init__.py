"""
What is in a set of pairs, to be seen before training on it: `report.html`, a page of its own that needs no network and
no script, and `report.json`, the same numbers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from ...schema.run_record import RunRecord
from ...utils.errors import UserError
from ...utils.files import write_json, write_text
from .charts import make_charts
from .columns import count_pairs, read_facts, read_rejections
from .findings import find_biases
from .page import make_page
from .samples import sample_pairs
from .statistics import SAMPLE_SIZE, SEED, Statistics


__all__ = ["write_pair_report"]


def write_pair_report(out: Path, to: Path, show_progress: bool = True) -> list[str]:
    """
    Write `report.html` and `report.json` for a dataset. Memory does not grow with the number of pairs.

    Args:
        out (`Path`): Folder written by `artiagent synthesize`, its run complete.
        to (`Path`): Folder to write to; made if it is not there.
        show_progress (`bool`, *optional*, defaults to `True`): A bar on stderr.

    Returns:
        `list[str]`: What was found of biases, in words.

    Raises:
        UserError: no such folder, a run that is not complete, or one without pairs.
    """
    run = _read_run(out)
    statistics = Statistics(acceptance=run.acceptance)
    for pair in tqdm(read_facts(out), total=count_pairs(out), unit="pair", desc="read", disable=not show_progress):
        statistics.count(pair)
    if not statistics.pairs:
        raise UserError(f"'{out}' has no pairs in {out / 'data'}; why they were rejected is in its rejected.jsonl")
    statistics.rejections.update(read_rejections(out))
    findings = find_biases(statistics, run.pairs)
    content = {
        "data_set": str(out.resolve().name),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "findings": [finding.text for finding in findings],
        "biases": [finding.rule for finding in findings if finding.is_bias],
        "numbers": statistics.as_dict(),
        "run": run.identity,
        "report": {
            "seed": SEED,
            "sample_size": SAMPLE_SIZE,
            "versions": {name: version(name) for name in ("matplotlib", "numpy", "pyarrow")},
        },
    }
    page = make_page(content, findings, statistics, make_charts(statistics), sample_pairs(out, statistics))
    write_text(to / "report.html", page)
    write_json(to / "report.json", content)
    return [finding.text for finding in findings]


def _read_run(out: Path) -> RunRecord:
    run = RunRecord.read(out)
    if not run.is_complete:
        raise UserError(
            f"the run in '{out}' is not complete, and a report on a part would mislead: the command that began it "
            f"continues it, and `artiagent status {out}` tells how far it is"
        )
    return run
