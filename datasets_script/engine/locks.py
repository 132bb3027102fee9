"""Locks that tell which ranks are working on a run; a lock is released when its process ends, even if it is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..utils.errors import UserError


# A process that checks whether a lock is held holds it itself for a moment.
_SECONDS_TO_PROBE = 2.0


class RunBusyError(UserError, RuntimeError):
    """Error for work that another process is already doing."""


def lock_folder(out: Path) -> Path:
    """Create the folder of a run's lock files, and return it."""
    folder = out / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def holding_rank(out: Path, rank: int, world_size: int) -> Iterator[None]:
    """
    Keep other processes from the same shards until the block or the process ends.

    Args:
        out (`Path`): Folder of the run.
        rank (`int`): Number of this process among all that share the run, from 0.
        world_size (`int`): Number of processes that share the run.

    Raises:
        RunBusyError: Another process has this rank, or works with another world size.
    """
    name = f"rank-{rank:05d}-of-{world_size:05d}.lock"
    lock = FileLock(lock_folder(out) / name)
    try:
        lock.acquire(timeout=_SECONDS_TO_PROBE)
    except Timeout:
        raise RunBusyError(
            f"'{out}' must have one process per rank, but another is already working on it as rank {rank} of "
            f"{world_size}; wait for it, or stop it. Nothing was changed"
        ) from None
    try:
        for other in working_ranks(out):
            if other[1] != world_size:
                raise RunBusyError(
                    f"world size must be {other[1]} while another process works on '{out}' as rank {other[0]} of "
                    f"{other[1]}, got {world_size}; stop that process first, or give the same world size. "
                    "Nothing was changed"
                )
        yield
    finally:
        lock.release()


def working_ranks(out: Path) -> list[tuple[int, int]]:
    """Return `(rank, world_size)` of each process that is working on the run in `out`."""
    held: list[tuple[int, int]] = []
    if not (out / ".locks").is_dir():
        return held
    for path in sorted(lock_folder(out).glob("rank-*-of-*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            _, rank, _, world_size = path.stem.split("-")
            held.append((int(rank), int(world_size)))
    return held
