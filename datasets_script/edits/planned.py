"""Which edits of a layer hold for a dataset, and what is said of them: applied, void, or of samples not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .layer import EDITS_FILE, EditLayer
from .records import ACCEPTED, REJECTED, Key, SampleEdits


_LISTS = ("accepted", "rejected", "changed", "conflicts", "missing")
_NAMED = 5
"""Ids that a message names."""


@dataclass(frozen=True)
class EditReport:
    """
    What became of a layer.

    Attributes:
        edits (`int`): Number of edits that were applied.
        accepted, rejected, changed (`tuple[str, ...]`): Ids of samples by what was decided; a sample whose regions
            were edited and that was accepted is in both.
        conflicts (`tuple[str, ...]`): Ids of samples whose images or regions are no longer those that were edited;
            their edits were not applied.
        missing (`tuple[str, ...]`): Ids that the dataset does not hold.
        people (`int`): Number of people who made those that were applied. Who they are stays in the layer: results
            are published.
        torn (`bool`): Whether a layer ended in a torn line, which was left out.
    """

    edits: int = 0
    accepted: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    people: int = 0
    torn: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the report as records of the result hold it, JSON-serialisable."""
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        torn = {"torn": True} if self.torn else {}
        return {"edits": self.edits, "people": self.people, **lists, **torn}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> EditReport:
        """Return the report that [`as_dict`] stored."""
        return cls(**{**stored, **{name: tuple(stored[name]) for name in _LISTS}})

    def and_of(self, other: EditReport) -> EditReport:
        """Return the report with that of another dataset."""
        lists = {name: (*getattr(self, name), *getattr(other, name)) for name in _LISTS}
        people = max(self.people, other.people)  # at least: the same may have edited both
        return EditReport(self.edits + other.edits, **lists, people=people, torn=self.torn or other.torn)

    def as_text(self) -> str:
        """Return the report in words, a line for each thing to know; empty if there is nothing to say."""
        lines = []
        if self.edits:
            parts = {"accepted": self.accepted, "rejected and left out": self.rejected, "changed": self.changed}
            told = ", ".join(f"{len(ids)} {what}" for what, ids in parts.items() if ids)
            lines.append(f"{self.edits} {_plural('edit', self.edits)} applied: {told}")
        if count := len(self.conflicts):
            lines.append(
                f"the edits of {count} samples were made on other images or regions and are not applied: "
                f"{_listed(self.conflicts)}; look at them again in `artiagent app`"
            )
        if self.missing:
            lines.append(f"edits name {len(self.missing)} samples that are not there: {_listed(self.missing)}")
        if self.torn:
            lines.append(
                f"the last line of {EDITS_FILE} is torn, as by a process that was killed, and left out; edit its "
                "sample again"
            )
        return "\n".join(lines)

    def as_section(self) -> str:
        """Return the report as a section of a dataset's card; empty if there is nothing to say."""
        lines = "".join(f"- {line}\n" for line in self.as_text().splitlines())
        return f"\n## Edits by people\n\n{lines}" if lines else ""


@dataclass(frozen=True)
class PlannedEdits:
    """
    Edits that hold for a dataset.

    Attributes:
        samples (`Mapping[Key, SampleEdits]`): What they add up to, by split and id.
        report (`EditReport`): What is said of them.
    """

    samples: Mapping[Key, SampleEdits] = field(default_factory=dict)
    report: EditReport = EditReport()

    def among(self, keys: Iterable[Key]) -> dict[Key, SampleEdits]:
        """Return the edits of some samples."""
        return {key: self.samples[key] for key in keys if key in self.samples}


NO_EDITS = PlannedEdits()


class EditSurvey:
    """
    Comparison of layers with the samples of a dataset, each of which is shown to it once.

    Args:
        layers (`Iterable[EditLayer]`): The layers.
        splits (`Sequence[str]`, *optional*): Splits to look at; by default all.
    """

    def __init__(self, layers: Iterable[EditLayer], splits: Sequence[str] | None = None) -> None:
        layers = list(layers)
        self._torn = any(layer.torn for layer in layers)
        self._open = {
            key: edits
            for layer in layers
            for key, edits in layer.samples.items()
            if edits.standing and (splits is None or key[0] in splits)
        }
        self._holding: dict[Key, SampleEdits] = {}
        self._conflicts: list[Key] = []

    @property
    def wanted(self) -> frozenset[Key]:
        """Return the samples that have edits and were not seen yet."""
        return frozenset(self._open)

    def see(self, key: Key, digest: Callable[[], str]) -> None:
        """
        Compare the edits of a sample with its data.

        Args:
            key (`tuple[str, str]`): Its split and id.
            digest (`Callable[[], str]`): Returns the digest of its data; only called if it has edits.
        """
        edits = self._open.pop(key, None)
        if edits is not None and edits.data == digest():
            self._holding[key] = edits
        elif edits is not None:
            self._conflicts.append(key)

    def planned(self) -> PlannedEdits:
        """Return the edits that hold, once all samples were seen."""
        standing = [edit for edits in self._holding.values() for edit in edits.standing]
        ids = {verdict: _ids(self._holding, verdict) for verdict in (ACCEPTED, REJECTED)}
        changed = tuple(
            key[1]
            for key, edits in self._holding.items()
            if edits.verdict != REJECTED and any(edit.after.region is not None for edit in edits.standing)
        )
        report = EditReport(
            edits=len(standing),
            accepted=ids[ACCEPTED],
            rejected=ids[REJECTED],
            changed=changed,
            conflicts=tuple(sample for _, sample in self._conflicts),
            missing=tuple(sample for _, sample in self._open),
            people=len({edit.who for edit in standing}),
            torn=self._torn,
        )
        return PlannedEdits(self._holding, report)


def find_layer(folder: Path) -> EditLayer | None:
    """
    Open the layer of a dataset, if it has one.

    Args:
        folder (`Path`): Folder of the dataset.

    Raises:
        UserError: A line of the layer is no edit.
    """
    return EditLayer(folder) if (folder / EDITS_FILE).is_file() else None


def _ids(samples: Mapping[Key, SampleEdits], verdict: str) -> tuple[str, ...]:
    return tuple(sample for (_, sample), edits in samples.items() if edits.verdict == verdict)


def _listed(ids: tuple[str, ...]) -> str:
    return f"{', '.join(ids[:_NAMED])}{', …' if len(ids) > _NAMED else ''}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
