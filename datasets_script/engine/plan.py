"""What is to be run, on what, and how the work is divided: everything about a run but the loaded models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ..agents.perception.backends import PerceptionSpec
from ..utils.errors import ArgumentError, check_at_least
from ..utils.photos import list_sources
from ..vlm.spec import VLMSpec
from .settings import RunSettings
from .shards import read_sources


if TYPE_CHECKING:
    from .run import Run


# Photos that are perceived, and pairs explained, together where there is a vision-language model: enough for an
# endpoint to work on several at once.
PERCEPTION_BATCH_SIZE = 8


@dataclass(frozen=True)
class RunPlan:
    """
    A run before anything is loaded. It can be pickled: the command line, worker processes, the tasks of an executor
    and a notebook all open their run from one.

    Args:
        source (`pathlib.Path`): Folder of photos, searched recursively.
        out (`pathlib.Path`): Folder to write, outside `source`. A run already there is continued.
        settings (`RunSettings`, *optional*): What the pairs depend on.
        perception (`PerceptionSpec`, *optional*): Backend that finds entities and parts, and its annotations.
        vlm (`VLMSpec`, *optional*): Vision-language model that names, judges and explains. Without one, annotations
            or detectors name, measures judge and templates explain.
        names (`tuple[str, ...]`, *optional*): Photos to take, relative to `source` with forward slashes; by default
            all files of the folder but the annotations.
        limit (`int`, *optional*): Take only the first photos of the folder.
        device (`str`, *optional*): Device of all models that have none of their own; by default CUDA where there is
            one, else the CPU. Workers and tasks take the CUDA devices in turn.
        batch_size (`int`, *optional*, defaults to 1): Photos injected together. Above 1 pixels may differ by one grey
            level, as sums are taken in another order.
        perception_batch_size (`int`, *optional*): Photos perceived, and pairs explained, together; by default 8 with
            a vision-language model, else 1.
        processes (`int`, *optional*, defaults to 1): Worker processes on this machine.
    """

    source: Path
    out: Path
    settings: RunSettings = field(default_factory=RunSettings)
    perception: PerceptionSpec = field(default_factory=PerceptionSpec)
    vlm: VLMSpec | None = None
    names: tuple[str, ...] | None = None
    limit: int | None = None
    device: str | None = None
    batch_size: int = 1
    perception_batch_size: int | None = None
    processes: int = 1

    def check(self) -> list[str]:
        """
        Check what can be known before a model is loaded.

        Returns:
            `list[str]`: The source ids, in order.

        Raises:
            UserError: a folder, number or name that cannot be used, missing annotations, or no photo at all.
        """
        if not self.source.is_dir():
            raise ArgumentError(f"`source` must be a folder of photos, got '{self.source}'")
        if self.out.exists() and not self.out.is_dir():
            raise ArgumentError(f"`out` must be a folder, got the file '{self.out}'")
        # Of a few files by name none is taken for a photo that is not meant.
        if self.names is None and self.source.resolve() in (out := self.out.resolve(), *out.parents):
            raise ArgumentError(f"`out` must lie outside `source`, whose files are taken for photos, got '{self.out}'")
        for name in ("processes", "batch_size", "perception_batch_size", "limit"):
            check_at_least(name, getattr(self, name))
        self.settings.injection.check()
        self.perception.check(self.source, self.vlm is not None)
        return self._source_ids()

    def open(self, rank: int = 0, world_size: int = 1) -> Run:
        """
        Load the models and open the run.

        Args:
            rank (`int`, *optional*, defaults to 0): Number of this process among all that share the run.
            world_size (`int`, *optional*, defaults to 1): How many there are.

        Returns:
            `Run`: Call `execute()` on it.

        Raises:
            UserError: as [`check`], a model that cannot be loaded, or a run in `out` with other settings.
            VLMUnavailable: the vision-language model cannot be loaded.
        """
        from .injector import Injector
        from .run import Run
        from .synthesizer import Synthesizer

        sources = self.check()
        vlm = self.vlm.load(self.device) if self.vlm else None
        perception = self.perception.load(self.source, vlm, self.device)
        injector = Injector(self.settings.model, self.settings.injection, self.settings.revision, self.device)
        perceived_together = self.perception_batch_size or (PERCEPTION_BATCH_SIZE if vlm else 1)
        synthesizer = Synthesizer.of(
            self.source, perception, injector, self.settings, vlm, self.batch_size, perceived_together
        )
        return Run(self.out, self.source, sources, synthesizer, rank, world_size)

    def for_rank(self, rank: int) -> RunPlan:
        """Choose the device of a worker or task: the one that was asked for, else the CUDA devices in turn."""
        from torch import cuda

        devices = cuda.device_count()
        return replace(self, device=self.device or (f"cuda:{rank % devices}" if devices else "cpu"))

    def one_by_one(self) -> RunPlan:
        """Take one photo at a time, so that a fault has one photo to blame."""
        return replace(self, batch_size=1, perception_batch_size=1)

    def absolute(self) -> RunPlan:
        """Name folders and files so that a process may begin in another folder."""
        annotations = self.perception.annotations
        perception = replace(self.perception, annotations=annotations and annotations.absolute())
        vlm = self.vlm and replace(self.vlm, cache=self.vlm.cache and self.vlm.cache.absolute())
        return replace(self, source=self.source.absolute(), out=self.out.absolute(), perception=perception, vlm=vlm)

    def beside_existing(self) -> RunPlan:
        """Write to the first of out, out-2, out-3, … that holds no run, for a run that must not continue another."""
        out = self.out.resolve()
        if (out / "run.json").exists():
            out = next(path for number in count(2) if not (path := out.with_name(f"{out.name}-{number}")).exists())
        return replace(self, out=out)

    def _source_ids(self) -> list[str]:
        sources = self._listed()
        odd = next((name for name in sources if _has_half_characters(name)), None)
        if odd is not None:
            raise ArgumentError(f"names of photos must be UTF-8, rename {odd!r}")
        if self.limit is not None:
            if (self.out / "sources.jsonl").exists():  # what the run began with may have vanished since
                sources = sorted({*sources, *read_sources(self.out)})
            sources = sources[: self.limit]
        if not sources:
            raise ArgumentError(f"`source` must hold photos, found no file in '{self.source}'")
        return sources

    def _listed(self) -> list[str]:
        if self.names is not None:
            return list(self.names)
        annotations = self.perception.annotations_file(self.source)
        return [name for name in list_sources(self.source) if self.source / name != annotations]


def _has_half_characters(name: str) -> bool:
    """Whether a file's name has bytes that are no UTF-8, which Python keeps as half characters."""
    return any("\ud800" <= character <= "\udfff" for character in name)
