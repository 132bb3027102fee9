"""What a stage is: a generator over samples, so that stages can be chained, run anywhere, or wrapped for a cluster."""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from PIL import Image

from ...agents.curation.variant import Variant
from ...agents.perception import Perception, PerceptionModelError
from ...agents.planning import Scene
from ...schema.pair import Artifact, Pair, Rejection
from ...schema.pair_id import PairId
from ...utils.files import DISK_FULL
from ...utils.photos import SourceTransform
from ...vlm import VLMUnavailable


logger = logging.getLogger(__name__)

# What is wrong with the run and not with a sample: it stops, and can be continued once the cause is removed.
FATAL_ERRORS = (VLMUnavailable, PerceptionModelError, ImportError)


@dataclass(frozen=True, eq=False)
class ArtifactPlan:
    """
    What is to be made of one photo.

    Attributes:
        photo (`PIL.Image.Image`): The photo as the model sees it.
        transform (`SourceTransform`): How it came from the file.
        scene (`Scene`): What was perceived, in its pixels.
        variants (`dict[int, tuple[Artifact, ...]]`): The artifacts of each variant, by the variant's number.
    """

    photo: Image.Image
    transform: SourceTransform
    scene: Scene
    variants: Mapping[int, tuple[Artifact, ...]]


@dataclass(frozen=True, eq=False)
class Sample:
    """A photo on its way through the stages, with what they have made of it so far."""

    source_id: str
    image: Image.Image | None = None
    perception: Perception | None = None
    plan: ArtifactPlan | None = None
    injected: tuple[Variant, ...] = ()
    pairs: tuple[Pair, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    alive: bool = True
    """Whether later stages still have something to do."""

    def noting(self, *rejections: Rejection) -> Sample:
        """With something rejected of it."""
        return replace(self, rejections=(*self.rejections, *rejections))

    def rejected(self, stage: str, reason: str, raw: str = "", traceback: str = "") -> Sample:
        """Rejected as a whole; images are let go."""
        rejection = Rejection(self.source_id, stage, reason, raw=raw, traceback=traceback)
        return replace(
            self.noting(rejection), alive=False, image=None, perception=None, plan=None, injected=(), pairs=()
        )


class Stage(ABC):
    """
    One step of the synthesis.

    Args:
        batch_size (`int`): Samples processed together.

    Attributes:
        name (`str`): Its name in rejections and logs.
    """

    name: str

    def __init__(self, batch_size: int = 1) -> None:
        self.batch_size = batch_size

    @abstractmethod
    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        """
        The samples with what this stage makes of them, in the same order. It leaves no trace elsewhere when it fails,
        because the samples are then processed again in smaller batches.
        """

    def run(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """
        Process samples in batches and yield them in the same order. When the accelerator's memory runs out the batch
        is halved for all samples that follow; when a batch fails its samples are processed one by one, and one that
        fails alone is rejected with the error.

        Raises:
            Exception: of `FATAL_ERRORS`, or a full disk: what no sample is to blame for.
        """
        size, iterator = self.batch_size, iter(samples)
        while batch := list(islice(iterator, size)):
            while batch:
                now, size = self._process_some(batch[:size], size)
                batch = batch[len(now) :]
                yield from now

    def _process_some(self, samples: Sequence[Sample], size: int) -> tuple[list[Sample], int]:
        """The first of `samples`, as many as could be processed together, and the batch size to go on with."""
        alive = [sample for sample in samples if sample.alive]
        try:
            return _merge(samples, self.process(alive) if alive else []), size
        except torch.OutOfMemoryError as error:
            if len(samples) == 1:
                return [_failed(samples[0], self.name, error)], size
            smaller = (len(samples) + 1) // 2
            logger.warning("%s: out of memory with %d samples, going on with %d", self.name, len(samples), smaller)
            torch.cuda.empty_cache()
            return self._process_some(samples[:smaller], smaller)
        except FATAL_ERRORS:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            if len(samples) == 1:
                return [_failed(samples[0], self.name, error)], size
            logger.warning("%s: a batch failed (%r), processing its samples one by one", self.name, error)
            return [self._process_some([sample], 1)[0][0] for sample in samples], size


def _merge(samples: Sequence[Sample], processed: Sequence[Sample]) -> list[Sample]:
    results = iter(processed)
    return [next(results) if sample.alive else sample for sample in samples]


def _failed(sample: Sample, stage: str, error: Exception) -> Sample:
    where = "".join(traceback.format_exception(error, limit=-8))
    return sample.rejected(stage, f"unexpected {type(error).__name__}: {error}", traceback=where)


def rejection_of(
    artifact: Artifact, source_id: str, variant: int, stage: str, reason: str, raw: str = ""
) -> Rejection:
    """The record of one artifact that was made and is not kept."""
    return Rejection(
        source_id,
        stage,
        reason,
        str(PairId(source_id, variant)),
        artifact.type,
        artifact.tool,
        artifact.kernel,
        artifact.entity,
        artifact.part or artifact.fused_entity,
        artifact.scores,
        raw,
    )
