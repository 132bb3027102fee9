"""Tables of the artifacts that a run made, accepted and rejected."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusers_artifact.mapping import ArtifactType

from ..agents.curation.measures import inside_outside_ratio
from ..schema.expected_types import expected_types
from ..schema.run_record import RunRecord
from .ledger import SUMMARY_SCORES, Totals, read_rejected, read_totals
from .shards import Shards


_NAME = re.compile(r"'[^']*'")
# As [`~datasets_script.agents.perception.usable.filter_perception`] says it.
_TOO_SMALL = re.compile(r"px, not over (\d+)")


def summary_table(totals: Totals) -> str:
    """
    Format the counts and median scores of artifacts by type as an aligned table.

    Args:
        totals (`Totals`): Counts of the run.

    Returns:
        `str`: A line for each type with made, accepted and rejected artifacts.
    """
    accepted, discarded = totals.by_type(totals.accepted), totals.by_type(totals.discarded)
    kinds = expected_types(accepted + discarded)
    table = [["type", "made", "accepted", "rejected", "inside", "outside", "in/out", "PSNR outside"]]
    everything = np.concatenate([np.zeros((0, 3)), *(_scores(totals, kind) for kind in kinds)])
    for kind in kinds:
        table.append([kind, *_counts(accepted[kind], discarded[kind]), *_medians(_scores(totals, kind))])
    table.append(["all", *_counts(accepted.total(), discarded.total()), *_medians(everything)])
    lines = [_aligned(table)]
    lines.append(
        "inside, outside: mean absolute change in [0, 1] inside and outside the artifact; PSNR in dB; medians of "
        "accepted artifacts"
    )
    return "\n".join(lines)


def photos_summary(out: Path) -> str:
    """
    Say how many photos of a run gave pairs, and why the others gave none.

    Args:
        out (`Path`): Folder of the run.

    Returns:
        `str`: Such as "6 of 10 photos gave pairs; 3 no person found, 1 no part of 512 px".
    """
    from ..pairs.storage import read_source_ids  # `status` does without its libraries

    photos, gave = Shards.read(out, RunRecord.read(out).settings).sources, read_source_ids(out)
    records: dict[str, list[dict[str, Any]]] = {}
    for record in read_rejected(out):
        if record["source_id"] not in gave:
            records.setdefault(record["source_id"], []).append(record)
    reasons = Counter(_why_no_pair(of_photo) for of_photo in records.values())
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{len(gave)} of {len(photos)} photo{'s' * (len(photos) != 1)} gave pairs{f'; {told}' if told else ''}"


def rejections_summary(out: Path) -> str:
    """
    Say why artifacts of a run were rejected, and how many were kept although they hardly changed anything.

    Args:
        out (`Path`): Folder of the run.

    Returns:
        `str`: Such as "12 artifacts rejected: 9 unchanged, 3 no visible change"; empty if there is nothing to say.
    """
    reasons = Counter(record["reason"].partition(":")[0] for record in read_rejected(out) if record["pair_id"])
    flagged = sum(read_totals(out).flagged.values())
    told = ", ".join(f"{count} {_NAME.sub('…', reason)}" for reason, count in reasons.most_common())
    said = [f"{reasons.total()} artifact{'s' * (reasons.total() != 1)} rejected: {told}"] if reasons else []
    return "; ".join([*said, f"{flagged} kept and flagged as unchanged"] if flagged else said)


def _why_no_pair(records: Sequence[dict[str, Any]]) -> str:
    """Return why a photo gave no pair, without what differs from photo to photo, from its rejections in order."""
    if any(record["pair_id"] for record in records):
        return "every artifact was rejected"
    of_photo = [record["reason"] for record in records if not record["tool"]]
    reason = of_photo[-1] if of_photo else records[-1]["reason"]
    if reason not in ("no entity left to work on", "no tool fits", "no region fits"):
        return _NAME.sub("…", reason).partition(":")[0]
    too_small = next((found for text in of_photo if (found := _TOO_SMALL.search(text))), None)
    return f"no part of {too_small[1]} px" if too_small else "no place for an artifact"


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
