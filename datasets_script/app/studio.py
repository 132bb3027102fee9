"""The models of the tab Make, loaded in another thread while the page is open already."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import UserError


if TYPE_CHECKING:
    # Not imported at run time: they load torch, diffusers and datasets, which take longer than all else of the start.
    from .bench import Workbench
    from .keeping import KeptPairs

BACKEND = "hand"
"""Name of the perception of runs that were made in the app: a person marks the regions."""


@dataclass(eq=False)
class Studio:
    """
    Workbench and folder of kept pairs.

    Args:
        model (`str`): See [`~datasets_script.app.bench.Workbench`].
        data (`Path`): Folder that pairs are kept in.
        revision, device (`str`, *optional*): See [`~datasets_script.app.bench.Workbench`].

    Raises:
        UserError: The folder holds a run that was not made in the app.
    """

    model: str
    data: Path
    revision: str | None = None
    device: str | None = None
    _loading: Future[tuple[Workbench, KeptPairs]] | None = field(default=None, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        if (self.data / RUN_FILE).exists():
            check_backend(self.data, RunRecord.read(self.data))

    def begin(self) -> Future[tuple[Workbench, KeptPairs]]:
        """Begin to load, unless that was done; return what will hold the result."""
        with self._lock:
            if self._loading is None:
                executor = ThreadPoolExecutor(1, thread_name_prefix="load")
                self._loading = executor.submit(self._load)
                executor.shutdown(wait=False)
            return self._loading

    @property
    def bench(self) -> Workbench:
        """
        Return the workbench, once it is loaded.

        Raises:
            UserError: The model cannot be loaded.
        """
        return self.begin().result()[0]

    @property
    def kept(self) -> KeptPairs:
        """
        Return the folder of kept pairs, once the workbench is loaded.

        Raises:
            UserError: The folder holds pairs of another model, or of other versions of packages.
        """
        return self.begin().result()[1]

    def _load(self) -> tuple[Workbench, KeptPairs]:
        from .bench import Workbench
        from .keeping import KeptPairs

        bench = Workbench(self.model, self.revision, self.device)
        return bench, KeptPairs(self.data, bench)


def check_backend(folder: Path, recorded: RunRecord) -> None:
    """
    Refuse the folder of a run that was not made in the app.

    Args:
        folder (`Path`): The folder, for the message.
        recorded (`RunRecord`): Its record.

    Raises:
        UserError: Its regions were not marked by a person.
    """
    backend = recorded.perception.get("backend")
    if backend != BACKEND:
        raise UserError(
            f"'{folder}' must hold pairs that were kept in the app, got a run of '{backend}'; choose another folder, "
            "and join both with `artiagent merge`"
        )
