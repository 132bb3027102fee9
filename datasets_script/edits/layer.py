"""
The layer: a file of JSON Lines beside the data, one line for each edit, to which lines are only added.

A process that is killed loses the line in hand at most. A last line without an end is such a one: it is left out, and
cut off before the next is written. A lock keeps two writers apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import BinaryIO

from filelock import FileLock

from ..utils.errors import ArgumentError, UserError
from .records import Edit, Key, SampleEdits


EDITS_FILE = "edits.jsonl"
_LOCK = Path(".locks") / "edits.lock"


class ConflictError(UserError):
    """Error for an edit of what somebody else has changed meanwhile."""


class EditLayer:
    """
    Layer of edits of a dataset. Any number of objects, threads and processes may use one at a time.

    Args:
        folder (`Path`): Folder of the dataset; the file is made with the first edit.

    Attributes:
        path (`Path`): The file.
        torn (`bool`): Whether its last line was found without an end, and left out.

    Raises:
        UserError: A line of the file is no edit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / EDITS_FILE
        self.torn = False
        self._samples: dict[Key, SampleEdits] = {}
        self._edits: list[Edit] = []
        self._read_to, self._lines = 0, 0
        self._guard = RLock()
        self.refresh()

    @property
    def samples(self) -> Mapping[Key, SampleEdits]:
        """Return what the edits add up to, by split and id, as of the last reading or writing."""
        return self._samples

    def of(self, key: Key) -> SampleEdits:
        """Return what the edits of a sample add up to; nothing if it was never edited."""
        return self._samples.get(key, SampleEdits())

    def refresh(self) -> None:
        """Read what others have added."""
        with self._guard, suppress(FileNotFoundError), self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read_to:  # another file took its place
                self._samples, self._edits, self._read_to, self._lines = {}, [], 0, 0
            file.seek(self._read_to)
            whole, newline, rest = file.read().rpartition(b"\n")
            lines = whole.split(b"\n") if newline else []
            # All of them before any is taken, so that a line that is no edit is told again at the next reading.
            edits = [self._parsed(line, number) for number, line in enumerate(lines, self._lines + 1)]
            self.torn = bool(rest)
            self._read_to += len(whole) + len(newline)
            self._lines += len(lines)
            for edit in edits:
                self._take(edit)

    def record(self, edit: Edit) -> SampleEdits:
        """
        Write an edit, and return what those of its sample add up to.

        Args:
            edit (`Edit`): The edit; `undo` is written by [`undo`].

        Raises:
            ArgumentError: Nobody is named.
            ConflictError: What it finds is not what the last edit left.
        """
        with self._writing(edit.who) as file:
            known = self.of(edit.key)
            if known.data == edit.data and edit.before.contradicts(known.known(edit.before)):
                by = next((one.who for one in reversed(known.standing)), "somebody")
                raise ConflictError(f"'{edit.sample}' was changed by {by} meanwhile; look at it again")
            self._append(file, edit)
        return self.of(edit.key)

    def undo(self, who: str) -> Edit:
        """
        Take back the last edit of a person that stands; a further line says so.

        Args:
            who (`str`): Name of the person.

        Returns:
            `Edit`: What was written: `undo`, with the values of the edit the other way round.

        Raises:
            ArgumentError: Nobody is named.
            UserError: There is none.
            ConflictError: Somebody else has edited the sample since.
        """
        with self._writing(who) as file:
            last = next((edit for edit in reversed(self._edits) if edit.who == who and self._stands(edit)), None)
            if last is None:
                raise UserError(f"there must be an edit of {who} to undo, found none that stands")
            newest = self.of(last.key).standing[-1]
            if newest is not last:
                raise ConflictError(f"'{last.sample}' was changed by {newest.who} since; look at it again")
            undone = Edit(last.sample, last.split, "undo", who, now(), last.data, last.after, last.before)
            self._append(file, undone)
        return undone

    def _stands(self, edit: Edit) -> bool:
        return any(one is edit for one in self.of(edit.key).standing)

    @contextmanager
    def _writing(self, who: str) -> Iterator[BinaryIO]:
        """Hold the lock, know what others have written, and yield the file, cut after its last whole line."""
        if not who.strip():
            raise ArgumentError(f"`who` must be a name, got {who!r}; type yours")
        lock = self.folder / _LOCK
        lock.parent.mkdir(parents=True, exist_ok=True)
        with self._guard, FileLock(lock), self.path.open("ab") as file:
            self.refresh()
            if self.torn:
                file.truncate(self._read_to)
                self.torn = False
            yield file

    def _append(self, file: BinaryIO, edit: Edit) -> None:
        line = json.dumps(edit.as_dict(), ensure_ascii=False).encode() + b"\n"
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
        self._read_to += len(line)
        self._lines += 1
        self._take(edit)

    def _take(self, edit: Edit) -> None:
        self._edits.append(edit)
        self._samples[edit.key] = self.of(edit.key).then(edit)

    def _parsed(self, line: bytes, number: int) -> Edit:
        try:
            return Edit.from_dict(json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"line {number} of '{self.path}' must be an edit, and is not: {error!r}. The data and the other "
                "edits are as they were; restore a copy of the file, or take the line out"
            ) from error


def now() -> str:
    """Return the time as records hold it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
