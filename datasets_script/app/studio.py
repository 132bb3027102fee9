"""The models of the app, loaded in another thread while the page is open already, or with the first image."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from ..pairs.folders import PREPARED_FILE
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import UserError


if TYPE_CHECKING:
    # Not imported at run time: they load torch, diffusers and datasets, which take longer than all else of the start.
    from ..correction.agent import CorrectionAgent
    from ..detection.pixel.detector import PixelDetector
    from .bench import Workbench
    from .keeping import KeptPairs

BACKEND = "hand"
"""Name of the perception of runs that were made in the app: a person marks the regions."""


@dataclass(eq=False)
class Studio:
    """
    Workbench, folder of kept pairs, detector, and what corrects images.

    Args:
        model (`str`): See [`~datasets_script.app.bench.Workbench`].
        data (`Path`, *optional*): Folder that pairs are kept in; `None` to keep none.
        revision, device (`str`, *optional*): See [`~datasets_script.app.bench.Workbench`].
        detector_model (`str`, *optional*, defaults to `"embedded"`): Pixel detector of the tab Detect.
        repairer_model (`str`, *optional*, defaults to `"embedded"`): Diffusion model that draws regions again; see
            [`~datasets_script.correction.repairers.load_repairer`].

    Raises:
        UserError: The folder holds data other than pairs that were kept in the app.
    """

    model: str
    data: Path | None
    revision: str | None = None
    device: str | None = None
    detector_model: str = "embedded"
    repairer_model: str = "embedded"
    _detector: PixelDetector | None = field(default=None, init=False)
    _corrector: CorrectionAgent | None = field(default=None, init=False)
    _loading: Future[tuple[Workbench, KeptPairs | None]] | None = field(default=None, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)
    # Another one: a download of a repairer does not hold up the other tabs.
    _corrector_lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        if self.data is not None and (self.data / RUN_FILE).exists():
            check_kept(self.data, RunRecord.read(self.data))

    def begin(self) -> Future[tuple[Workbench, KeptPairs | None]]:
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
            UserError: No pairs are kept, or the folder holds pairs of another model, or of other versions of packages.
        """
        kept = self.begin().result()[1]
        if kept is None:
            raise UserError("this app keeps no pairs; run `artiagent app` on a computer of yours to keep some")
        return kept

    @property
    def detector(self) -> PixelDetector:
        """
        Return the detector, which the first call loads.

        Raises:
            UserError: It cannot be loaded.
        """
        from ..detection.pixel.detector import PixelDetector

        with self._lock:
            if self._detector is None:
                self._detector = PixelDetector.from_pretrained(self.detector_model, device=self.device)
            return self._detector

    @property
    def corrector(self) -> CorrectionAgent:
        """
        Return the agent that corrects given regions, which the first call loads; the detector verifies its repairs.

        Raises:
            UserError: Repairer or detector cannot be loaded.
        """
        from ..correction.agent import CorrectionAgent
        from ..correction.repairers import load_repairer
        from ..correction.verifiers import PixelVerifier
        from ..engine.loading import usable_device

        verifier = PixelVerifier(self.detector)
        with self._corrector_lock:
            if self._corrector is None:
                repairer = load_repairer(self.repairer_model, device=usable_device(self.device))
                self._corrector = CorrectionAgent(repairer, verifier)
            return self._corrector

    def _load(self) -> tuple[Workbench, KeptPairs | None]:
        from .bench import Workbench
        from .keeping import KeptPairs

        bench = Workbench(self.model, self.revision, self.device)
        return bench, None if self.data is None else KeptPairs(self.data, bench)


def keeps_pairs(folder: Path) -> bool:
    """Return whether pairs can be kept in a folder: it holds kept pairs, or no data yet."""
    if (folder / RUN_FILE).exists():
        return not _other_than_kept(folder, RunRecord.read(folder))
    return not any(folder.glob("data/*")) and not any(folder.glob("*.parquet"))


def check_kept(folder: Path, recorded: RunRecord) -> None:
    """
    Refuse a folder whose pairs were not kept in the app, or were prepared, or merged with people's edits, since.

    Args:
        folder (`Path`): The folder.
        recorded (`RunRecord`): Its record.

    Raises:
        UserError: It is one.
    """
    if other := _other_than_kept(folder, recorded):
        raise UserError(
            f"'{folder}' must hold pairs that were kept in the app, got {other}; choose another folder, and join both "
            "with `artiagent merge`"
        )


def _other_than_kept(folder: Path, recorded: RunRecord) -> str:
    """Return in words what a run is if pairs cannot be kept in it; empty if they can."""
    backend = recorded.perception.get("backend")
    if backend != BACKEND:
        return f"a run of '{backend}'"
    if (folder / PREPARED_FILE).exists():
        return "prepared pairs"
    # What keeping writes anew has neither.
    return "a merged run with people's edits" if recorded.edits or recorded.rejected else ""
