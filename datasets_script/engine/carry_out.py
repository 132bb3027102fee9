"""What the Python forms of the commands that make pairs share: where photos are, and how a plan is carried out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ..utils.errors import ArgumentError, StoppedError
from .ledger import read_totals
from .plan import RunPlan


logger = logging.getLogger(__name__)

Photos = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""Folder of photos, or the files themselves."""


def carry_out(plan: RunPlan, force_new: bool = False, show_progress: bool = True) -> Path:
    """
    Carry out a plan, in this process or in workers.

    Args:
        plan (`RunPlan`): The run.
        force_new (`bool`, *optional*, defaults to `False`): Start a new run next to an existing one.
        show_progress (`bool`, *optional*, defaults to `True`): Show a progress bar.

    Returns:
        `pathlib.Path`: Folder of the run.

    Raises:
        UserError: See [`RunPlan.open`].
        StoppedError: Something external stopped the run.
    """
    plan = plan.beside_existing() if force_new else plan
    if plan.processes == 1:
        plan.open().execute(show_progress)
    else:
        from .workers import execute_in_processes

        if status := execute_in_processes(plan, show_progress):
            raise StoppedError(
                f"a worker ended with exit status {status}; its message is on the standard error, and the same call "
                "continues"
            )
    if not read_totals(plan.out).pairs:
        logger.warning("no pair was made; the reasons are in %s", plan.out / "rejected.jsonl")
    return plan.out


def located(photos: Photos) -> tuple[Path, tuple[str, ...] | None]:
    """Return the folder of the photos and, if files were given, their names in it."""
    if isinstance(photos, str | os.PathLike):
        return Path(photos), None
    files = [Path(os.path.abspath(photo)) for photo in photos]
    if not files:
        raise ArgumentError("`photos` must be a folder or files, got an empty list")
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        raise ArgumentError(f"`photos` must be a folder or existing files, got '{missing}'")
    folder = Path(os.path.commonpath([file.parent for file in files]))
    return folder, tuple(file.relative_to(folder).as_posix() for file in files)
