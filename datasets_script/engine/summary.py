"""Tables of the artifacts that a run made, accepted and rejected."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from diffusers_artifact.mapping import ARTIFACT_TYPES, ArtifactType

from ..agents.curation.measures import inside_outside_ratio
from .ledger import SUMMARY_SCORES, Totals


def summary_table(totals: Totals) -> str:
    """
    Format the counts and median scores of artifacts by type as an aligned table.

    Args:
        totals (`Totals`): Counts of the run.

    Returns:
        `str`: A line for each type with made, accepted and rejected artifacts, then other rejections by stage.
    """
    accepted, discarded = totals.by_type(totals.accepted), totals.by_type(totals.discarded)
    table = [["type", "made", "accepted", "rejected", "inside", "outside", "in/out", "PSNR outside"]]
    everything = np.concatenate([np.zeros((0, 3)), *(_scores(totals, kind) for kind in ARTIFACT_TYPES)])
    for kind in ARTIFACT_TYPES:
        table.append([kind, *_counts(accepted[kind], discarded[kind]), *_medians(_scores(totals, kind))])
    table.append(["all", *_counts(accepted.total(), discarded.total()), *_medians(everything)])
    lines = [_aligned(table)]
    lines.append(
        "inside, outside: mean absolute change in [0, 1] inside and outside the artifact; PSNR in dB; medians of "
        "accepted artifacts"
    )
    stages = {stage: count for stage, count in totals.rejected_at.most_common() if stage != "curation"}
    if stages:
        lines.append("also rejected: " + ", ".join(f"{count} at {stage}" for stage, count in stages.items()))
    return "\n".join(lines)


def acceptance_table(totals: Totals) -> str:
    """Format made and accepted artifacts by type, tool and kernel as an aligned table."""
    table = [["type", "tool", "kernel", "made", "accepted", "share"]]
    for kind, counts in totals.acceptance.items():
        names = (kind.split("/") + ["-"])[:3]
        table.append(
            [*names, str(counts["made"]), str(counts["accepted"]), f"{counts['accepted'] / counts['made']:.0%}"]
        )
    return _aligned(table, left=3)


def _aligned(table: Sequence[Sequence[str]], left: int = 1) -> str:
    """Format rows of cells, with the first `left` columns aligned left and the others right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    cells = ([f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(row)] for row in table)
    return "\n".join("  ".join(row).rstrip() for row in cells)


def _scores(totals: Totals, kind: ArtifactType) -> np.ndarray:
    return np.asarray(totals.scores.get(kind, ()), dtype=np.float64).reshape(-1, len(SUMMARY_SCORES))


def _counts(accepted: int, rejected: int) -> list[str]:
    return [str(accepted + rejected), str(accepted), str(rejected)]


def _medians(scores: np.ndarray) -> list[str]:
    if not len(scores):
        return ["-", "-", "-", "-"]
    inside, outside, psnr = scores.T
    ratios = [inside_outside_ratio(*pair) for pair in zip(inside, outside, strict=True)]
    return [
        f"{np.median(inside):.3f}",
        f"{np.median(outside):.4f}",
        f"{statistics.median(ratios):.1f}",
        f"{np.median(psnr):.1f}",
    ]
