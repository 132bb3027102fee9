"""Plan of a run: its photos, settings, backends and division of work, before any model is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate_metrics.functional.versions import recorded_versions

from ..agents.perception.backends import NAMED, PerceptionSpec
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import ArgumentError, check_at_least, check_choice, renamed
from ..utils.photos import list_sources
from ..vlm.spec import VLMSpec
from .identity import check_continues
from .settings import OFFLOADS, CommonSettings, Offload, RunSettings
from .shards import Shards, has_begun, has_made_nothing, open_shards


if TYPE_CHECKING:
    from .run import Run
    from .synthesizer import Synthesizer


# Default batch size of perception and explanation with a vision-language model, so that an endpoint gets parallel
# requests.
PERCEPTION_BATCH_SIZE = 8

# Default number of photos that go through a phase together where models take turns on a device. To change places takes
# seconds, and what is planned for a photo, at most a few megabytes.
PHASE_SIZE = 32


@dataclass(frozen=True)
class RunPlan:
    """
    Plan of a run. The command line, worker processes, executor tasks and notebooks all open their run from a plan,
    which can be pickled.

    Args:
        source (`pathlib.Path`): Folder of photos, searched recursively.
        out (`pathlib.Path`): Folder to write, outside `source`. An existing run there is resumed, and grows if there
            are more photos or pairs per image now.
        settings (`CommonSettings`, *optional*): Settings that the pairs depend on, and that choose how artifacts are
            made: `RunSettings`, by tools, or `CorruptionRunSettings`, by corrupting regions.
        perception (`PerceptionSpec`, *optional*): Backend that finds entities and parts, with its options.
        vlm (`VLMSpec`, *optional*): Vision-language model that names entities, and judges and explains artifacts.
            Without one, names come from annotations or a detector, image metrics judge, and templates explain.
        judge (`str`, *optional*): Pixel detector whose second opinion is recorded in the artifacts' scores: a folder,
            a Hub id, or `"embedded"` for the one in this package. It rejects nothing.
        names (`tuple[str, ...]`, *optional*): Photos to use, relative to `source` with forward slashes; by default
            all files of the folder except the annotations.
        limit (`int`, *optional*): Use only the first `limit` photos: those of a run in `out`, then others of the
            folder.
        device (`str`, *optional*): Device of all models without one of their own; by default CUDA if available, else
            the CPU. Workers and tasks use the CUDA devices in turn.
        batch_size (`int`, *optional*, defaults to 1): Photos per batch of injection. Above 1, pixels may differ by one
            grey level, because sums are taken in another order.
        perception_batch_size (`int`, *optional*): Photos per batch of perception and of explanation; by default 8
            with a vision-language model, else 1.
        processes (`int`, *optional*, defaults to 1): Worker processes on this machine.
        offload (`str`, *optional*, defaults to `"none"`): Where the diffusion model's weights wait while artifacts are
            injected: `"none"`, on the device; in host memory all models but the one at work (`"model"`), all layers
            but the next ones (`"group"`), or all but one (`"sequential"`, slowest).
        keep_loaded (`bool`, *optional*, defaults to `False`): Keep all models on the device. By default, the
            vision-language model, the detectors, the text encoders and the transformer take turns on it, and those
            that are not in use wait in host memory. On a CPU, all models stay anyway.
        phase_size (`int`, *optional*): Photos that are perceived, and whose captions are encoded, before the first of
            them is injected; by default 32 where models take turns, else 1.
        look_ahead (`bool`, *optional*, defaults to `True`): If perception asks a vision-language model at an endpoint,
            ask it about the photos of the next shard while artifacts are injected into those of this one.
    """

    source: Path
    out: Path
    settings: CommonSettings = field(default_factory=RunSettings)
    perception: PerceptionSpec = field(default_factory=PerceptionSpec)
    vlm: VLMSpec | None = None
    judge: str | None = None
    names: tuple[str, ...] | None = None
    limit: int | None = None
    device: str | None = None
    batch_size: int = 1
    perception_batch_size: int | None = None
    processes: int = 1
    offload: Offload = "none"
    keep_loaded: bool = False
    phase_size: int | None = None
    look_ahead: bool = True

    def check(self) -> list[str]:
        """
        Check everything that can be checked before a model is loaded.

        Returns:
            `list[str]`: Source ids, in order.

        Raises:
            UserError: A folder, number or file name is invalid, annotations are missing, there is no photo, or `out`
                holds a run that cannot be continued so.
        """
        if not self.source.is_dir():
            raise ArgumentError(f"`source` must be a folder of photos, got '{self.source}'")
        if self.out.exists() and not self.out.is_dir():
            raise ArgumentError(f"`out` must be a folder, got the file '{self.out}'")
        # With `names`, files in `out` cannot be taken for photos.
        if self.names is None and self.source.resolve() in (out := self.out.resolve(), *out.parents):
            raise ArgumentError(
                f"`out` must lie outside `source`, whose files all count as photos, got '{self.out}'; choose another "
                "folder"
            )
        check_choice("offload", self.offload, OFFLOADS)
        for name in ("processes", "batch_size", "perception_batch_size", "limit", "phase_size"):
            check_at_least(name, getattr(self, name))
        if self.perception.backend.unnamed and not self.settings.takes_unnamed:
            raise ArgumentError(
                f"`perception` must be among {', '.join(NAMED)}, which find things with parts, got "
                f"'{self.perception.name}', whose regions can only be corrupted"
            )
        self.perception.check(self.source, self.vlm is not None)
        sources = self._source_ids()
        self._check_continues(sources)
        from .preflight import check_before_loading

        check_before_loading(self)
        return sources

    def open(self, rank: int = 0, world_size: int = 1) -> Run:
        """
        Load the models and open the run.

        Args:
            rank (`int`, *optional*, defaults to 0): Number of this process among all that share the run, from 0.
            world_size (`int`, *optional*, defaults to 1): Number of processes that share the run.

        Returns:
            `Run`: The opened run, ready for `execute()`.

        Raises:
            UserError: See [`check`]; or a model cannot be loaded, or `out` holds a run with other settings.
            VLMUnavailable: The vision-language model cannot be loaded.
        """
        from .run import Run

        sources = self.check()
        return Run(self.out, self.source, sources, self.synthesizer(), rank, world_size)

    def synthesizer(self) -> Synthesizer:
        """
        Load the models and chain the stages.

        Raises:
            UserError: A model cannot be loaded, or settings of the model do not go together.
            VLMUnavailable: The vision-language model cannot be loaded.
            ImportError: An extra is not installed.
        """
        from torch import device as torch_device

        from .card import Card
        from .chains import CHAINS
        from .loading import check_loading, usable_device
        from .synthesizer import Synthesizer

        settings, device = self.settings, usable_device(self.device)
        check_loading(settings.loading, self.offload, device)
        card = Card(device, takes_turns=not self.keep_loaded and torch_device(device).type != "cpu")
        spec = replace(
            self.perception,
            max_long_side=settings.max_long_side,
            regions=replace(self.perception.regions, seed=settings.seed),
        )
        # Annotations are read first, since they may be malformed and loading a VLM takes minutes.
        perception = None if spec.backend.needs_vlm else spec.load(self.source, None, device)
        detector = None
        if self.judge is not None:
            from ..detection.pixel.detector import PixelDetector

            with renamed("model", "judge"):
                detector = PixelDetector.from_pretrained(self.judge, device=device)
            card.add("judge", (detector.network,))
        vlm = self.vlm.load(device) if self.vlm else None
        if vlm is not None and vlm.networks:
            card.add("vlm", vlm.networks)
        perception = perception or spec.load(self.source, vlm, device)
        if perception.networks:
            card.add("detectors", perception.networks)
        model = CHAINS[type(settings)].model.of(settings, device, self.offload, card)
        return Synthesizer.of(
            self.source,
            perception,
            model,
            settings,
            vlm,
            self.batch_size,
            self.perception_batch_size or (PERCEPTION_BATCH_SIZE if vlm else 1),
            self.phase_size or (PHASE_SIZE if card.takes_turns else 1),
            detector,
            self.look_ahead,
        )

    def for_rank(self, rank: int) -> RunPlan:
        """Return the plan with the device of one worker or task: `device` if set, else the CUDA devices in turn."""
        from torch import cuda

        devices = cuda.device_count()
        return replace(self, device=self.device or (f"cuda:{rank % devices}" if devices else "cpu"))

    def one_by_one(self) -> RunPlan:
        """Return the plan with one photo in work at a time, so that a fault can be traced to it."""
        return replace(self, batch_size=1, perception_batch_size=1, phase_size=1, look_ahead=False)

    def absolute(self) -> RunPlan:
        """Return the plan with absolute paths, for a process that starts in another folder."""
        annotations, detector = self.perception.annotations, self.perception.detector
        perception = replace(
            self.perception,
            annotations=annotations and annotations.absolute(),
            detector=_absolute(detector),
        )
        vlm = self.vlm and replace(self.vlm, cache=self.vlm.cache and self.vlm.cache.absolute())
        return replace(
            self,
            source=self.source.absolute(),
            out=self.out.absolute(),
            perception=perception,
            vlm=vlm,
            judge=_absolute(self.judge),
        )

    def beside_existing(self) -> RunPlan:
        """Return the plan with the first unused folder of out, out-2, out-3, …, so that it resumes no other run."""
        out = self.out.resolve()
        if (out / RUN_FILE).exists():
            out = next(path for number in count(2) if not (path := out.with_name(f"{out.name}-{number}")).exists())
        return replace(self, out=out)

    def _source_ids(self) -> list[str]:
        sources = self._listed()
        odd = next((name for name in sources if _has_surrogates(name)), None)
        if odd is not None:
            raise ArgumentError(f"`source` must hold photos with names in UTF-8, got {odd!r}; rename it")
        if self.limit is not None:
            recorded = Shards.read(self.out, vars(self.settings)).sources if has_begun(self.out) else []
            sources = list(dict.fromkeys([*recorded, *sources]))[: self.limit]
        if not sources:
            raise ArgumentError(f"`source` must hold photos, found no file in '{self.source}'")
        return sources

    def _check_continues(self, sources: list[str]) -> None:
        """Check what is known of an existing run before a model is loaded."""
        if not has_begun(self.out) or not (self.out / RUN_FILE).exists() or has_made_nothing(self.out):
            return
        current = json.loads(json.dumps({"settings": asdict(self.settings), "versions": recorded_versions()}))
        if self.settings.loading.dtype is None:  # depends on the device
            del current["settings"]["loading"]["dtype"]
        check_continues(self.out, RunRecord.read(self.out), current)
        open_shards(self.out, self.source, sources, self.settings)

    def _listed(self) -> list[str]:
        if self.names is not None:
            return list(self.names)
        annotations = self.perception.annotations_file(self.source)
        return [name for name in list_sources(self.source) if self.source / name != annotations]


def _absolute(model: str | None) -> str | None:
    """Return a folder of a model with its absolute path, and any other name as it is."""
    return str(Path(model).absolute()) if model and Path(model).is_dir() else model


def _has_surrogates(name: str) -> bool:
    """Return whether a file name has bytes that are not UTF-8, which Python turns into lone surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in name)
