"""Which processes are at work on a run: a lock for each rank, which ends with the process, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..utils.errors import UserError


# Others hold a lock for a moment when they look whether it is held.
_SECONDS_TO_PROBE = 2.0


class RunBusyError(UserError, RuntimeError):
    """Another process is at work on the same shards."""


def lock_folder(out: Path) -> Path:
    folder = out / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def holding_rank(out: Path, rank: int, world_size: int) -> Iterator[None]:
    """
    Keeps other processes from the same shards, until the end of the block or of the process, however it ends.

    Raises:
        RunBusyError: another process has this rank, or works with another world size.
    """
    name = f"rank-{rank:05d}-of-{world_size:05d}.lock"
    lock = FileLock(lock_folder(out) / name)
    try:
        lock.acquire(timeout=_SECONDS_TO_PROBE)
    except Timeout:
        raise RunBusyError(f"another process is already at work on '{out}' as rank {rank} of {world_size}") from None
    try:
        for other in working_ranks(out):
            if other[1] != world_size:
                raise RunBusyError(
                    f"another process is at work on '{out}' as rank {other[0]} of {other[1]}, so this one cannot be "
                    f"rank {rank} of {world_size}; stop it first, or give the same world size"
                )
        yield
    finally:
        lock.release()


def working_ranks(out: Path) -> list[tuple[int, int]]:
    """`(rank, world_size)` of the processes that are at work on a run."""
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
