"""Photos of a run with the variants to make of each, in shards, as recorded in its folder; and how they grow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.photos import find_duplicates
from .ledger import json_lines, marker, read_journaled, read_markers
from .settings import CommonSettings


SOURCES_FILE = "sources.jsonl"


class RunMismatchError(UserError, ValueError):
    """Error for an output folder that holds a run with other settings, versions or sources."""


@dataclass(frozen=True)
class Task:
    """
    Work on one photo, within a shard.

    Attributes:
        source_id (`str`): The photo.
        variants (`tuple[int, int]`): Number of the first variant to make, and of the one after the last.
        same_as (`str`): Earlier photo with the same content, so that there is nothing to do; empty if there is none.
    """

    source_id: str
    variants: tuple[int, int]
    same_as: str = ""


@dataclass(frozen=True)
class Shards:
    """
    Division of a run into shards. A shard never changes: what is added later gets shards of its own.

    Attributes:
        tasks (`tuple[tuple[Task, ...], ...]`): Tasks of each shard, in order.
    """

    tasks: tuple[tuple[Task, ...], ...]

    @classmethod
    def divide(cls, tasks: Sequence[Task], size: int) -> Shards:
        """Divide tasks, in order, into shards of `size`."""
        return cls(tuple(tuple(tasks[start : start + size]) for start in range(0, len(tasks), size)))

    @classmethod
    def of_sources(cls, sources: Sequence[str], size: int, pairs_per_image: int = 1) -> Shards:
        """Divide photos of which none is the same as another."""
        return cls.divide([Task(name, (0, pairs_per_image)) for name in sources], size)

    @classmethod
    def read(cls, out: Path, settings: Mapping[str, Any]) -> Shards:
        """
        Read the division that is recorded in the folder of a run.

        Args:
            out (`Path`): The folder.
            settings (`Mapping`): Settings of the run, from its record. Shards of older runs are all of its
                `shard_size`, with all of its `pairs_per_image`.

        Raises:
            UserError: The record is missing.
        """
        if not (out / SOURCES_FILE).exists():
            raise UserError(
                f"'{out}' has lost its {SOURCES_FILE}, the list of its photos; restore the file. Its shards "
                "are as they were"
            )
        lines = (out / SOURCES_FILE).read_text(encoding="utf-8").rstrip("\n").split("\n")
        shards: dict[int, list[Task]] = {}
        for index, record in enumerate(map(json.loads, lines)):
            first, end = record.get("variants", (0, settings.get("pairs_per_image", 1)))
            shard = record["shard"] if "shard" in record else index // settings["shard_size"]
            shards.setdefault(shard, []).append(Task(record["source_id"], (first, end), record.get("same_as", "")))
        return cls(tuple(tuple(shards[shard]) for shard in sorted(shards)))

    def write(self, out: Path) -> None:
        """Record the division in the folder of a run, atomically."""
        records = (
            {
                "source_id": task.source_id,
                **({"same_as": task.same_as} if task.same_as else {}),
                "shard": shard,
                "variants": task.variants,
            }
            for shard, tasks in enumerate(self.tasks)
            for task in tasks
        )
        write_text(out / SOURCES_FILE, "".join(json_lines(records)))

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return (task for tasks in self.tasks for task in tasks)

    def of(self, shard: int) -> Sequence[Task]:
        """Return the tasks of a shard."""
        return self.tasks[shard]

    @cached_property
    def sources(self) -> list[str]:
        """Photos, each once, in order."""
        return list(dict.fromkeys(task.source_id for task in self))

    @cached_property
    def num_tasks(self) -> int:
        """Number of tasks: of the photos, and again of those that variants were added to."""
        return sum(map(len, self.tasks))

    def count_finished(self, out: Path) -> int:
        """Count the tasks in shards that are finished in the folder `out`."""
        return sum(len(tasks) for shard, tasks in enumerate(self.tasks) if marker(out, shard).exists())

    def grown(self, out: Path, folder: Path, sources: Sequence[str], settings: CommonSettings) -> Shards:
        """
        Add shards for photos that are new, and for further variants of the others. Photos may have been removed.

        Args:
            out (`Path`): Folder of the run, for messages.
            folder (`Path`): Folder of the photos.
            sources (`Sequence[str]`): Photos to use now, in order.
            settings (`CommonSettings`): `pairs_per_image` and `shard_size` of what is added.

        Returns:
            `Shards`: The same object if nothing is to be added.

        Raises:
            RunMismatchError: Photos of the run are left out although they are there, or none of them is there.
        """
        known, wanted = set(self.sources), set(sources)
        new = [name for name in sources if name not in known]
        left_out = next((name for name in self.sources if name not in wanted and (folder / name).exists()), None)
        if left_out is not None:
            raise RunMismatchError(
                f"'{out}' holds a run with other sources, {len(known)} and not {len(sources)} ('{left_out}' is left "
                "out); a run can grow, but not shrink: give at least the same sources to resume that run, or choose "
                "another output folder (--force-new starts one next to it). The run is as it was"
            )
        if new and len(new) == len(sources):
            raise RunMismatchError(
                f"'{out}' holds a run with other sources, and none of its {len(known)} photos is in '{folder}' "
                f"('{new[0]}' is new); give the folder that the run began with, or choose another output folder "
                "(--force-new starts one next to it). The run is as it was"
            )
        ends = {task.source_id: task.variants[1] for task in self if not task.same_as}
        count = settings.pairs_per_image
        tasks = [Task(name, (end, count)) for name, end in ends.items() if end < count]
        if new:
            same = find_duplicates(folder, [*self.sources, *new])
            tasks += [Task(name, (0, count), same.get(name, "")) for name in new]
        return Shards(self.tasks + Shards.divide(tasks, settings.shard_size).tasks) if tasks else self


def open_shards(out: Path, folder: Path, sources: Sequence[str], settings: CommonSettings) -> Shards:
    """
    Return the division of a run, new, resumed or grown. Nothing is written.

    Args:
        out (`Path`): Folder of the run.
        folder (`Path`): Folder of the photos.
        sources (`Sequence[str]`): Photos to use, in order.
        settings (`CommonSettings`): Settings of the run.

    Raises:
        RunMismatchError: See [`Shards.grown`].
    """
    if has_begun(out):
        recorded = RunRecord.read(out).settings if (out / RUN_FILE).exists() else vars(settings)
        return Shards.read(out, recorded).grown(out, folder, sources, settings)
    same, variants = find_duplicates(folder, sources), (0, settings.pairs_per_image)
    return Shards.divide([Task(name, variants, same.get(name, "")) for name in sources], settings.shard_size)


def has_begun(out: Path) -> bool:
    """Return whether anything of a run was made; one that failed before may begin again with other photos."""
    made = any(path.suffix in (".json", ".journal") for path in (out / "shards").glob("*.*"))
    return made and (out / SOURCES_FILE).exists()


def has_made_nothing(out: Path) -> bool:
    """Return whether a folder holds no pair yet, so that nothing is lost if its run begins again."""
    # Files without records of a run may be a published dataset.
    if any(record["pairs"] for record in read_markers(out)) or any(photo["bytes"] for photo in read_journaled(out)):
        return False
    files = sorted((out / "data").glob("*.parquet"))
    if not files:
        return True
    from pyarrow import parquet

    return not any(parquet.read_metadata(path).num_rows for path in files)


def read_barred(out: Path) -> dict[str, str]:
    """Return the photos that killed a worker and must not be opened again, with the reason."""
    path = out / "barred.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
