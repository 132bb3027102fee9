"""
Report on a dataset of pairs, to read before training on it: `report.html`, a self-contained page without scripts, and
`report.json` with the same numbers.
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
from .labels import label_agreement
from .page import make_page
from .samples import sample_pairs
from .statistics import SAMPLE_SIZE, SEED, Statistics


__all__ = ["write_pair_report"]


def write_pair_report(out: Path, to: Path, show_progress: bool = True) -> list[str]:
    """
    Write `report.html` and `report.json` for a dataset of pairs. Memory does not grow with the number of pairs.

    Args:
        out (`Path`): Folder of a completed run, written by `artiagent synthesize`.
        to (`Path`): Folder to write to; created if it is missing.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.

    Returns:
        `list[str]`: Findings in words, biases first.

    Raises:
        UserError: `out` does not hold a completed run, or the run has no pairs.
    """
    run = _read_run(out)
    statistics = Statistics(acceptance=run.acceptance)
    for pair in tqdm(read_facts(out), total=count_pairs(out), unit="pair", desc="read", disable=not show_progress):
        statistics.count(pair)
    if not statistics.pairs:
        raise UserError(
            f"`out` must hold at least one pair, got none in '{out / 'data'}'; see its rejected.jsonl for the reasons"
        )
    statistics.rejections.update(read_rejections(out))
    statistics.agreements = label_agreement(out, statistics)
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
            f"`out` must hold a completed run, got '{out}', whose run is not complete; continue it with the command "
            f"that began it, and see its progress with `artiagent status {out}`"
        )
    return run
