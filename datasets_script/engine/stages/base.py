"""Base class of the stages: a generator over samples, so that stages can be chained."""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from PIL import Image

from ...agents.curation.variant import Variant
from ...agents.perception import Perception, PerceptionModelError
from ...agents.planning import Scene
from ...schema.pair import Artifact, Pair, Rejection
from ...schema.pair_id import PairId
from ...utils.files import DISK_FULL
from ...utils.memory import free_unused, is_out_of_memory
from ...utils.photos import SourceTransform
from ...vlm import VLMUnavailable


if TYPE_CHECKING:
    from diffusers_artifact.family import Conditioning

    from ...agents.perception.base import PerceptionError
    from ...agents.perception.vocabulary import Naming


logger = logging.getLogger(__name__)

# Errors of the run and not of a sample. The run stops, and can be resumed once the cause is removed.
FATAL_ERRORS = (VLMUnavailable, PerceptionModelError, ImportError)


@dataclass(frozen=True, eq=False)
class ArtifactPlan:
    """
    Artifacts planned for one photo.

    Attributes:
        photo (`PIL.Image.Image`): Photo as the model sees it.
        transform (`SourceTransform`): Crop and resize that made it from the file.
        scene (`Scene`): Perceived entities and parts, in pixels of `photo`.
        variants (`Mapping[int, tuple[Artifact, ...]]`): Artifacts of each variant, by its number.
        encoded (`Conditioning`, *optional*): The caption as the diffusion model takes it.
        earlier (`Mapping[int, tuple[Artifact, ...]]`): The same of variants that were made before.
    """

    photo: Image.Image
    transform: SourceTransform
    scene: Scene
    variants: Mapping[int, tuple[Artifact, ...]]
    encoded: Conditioning | None = None
    earlier: Mapping[int, tuple[Artifact, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sample:
    """Photo on its way through the stages, with their results so far."""

    source_id: str
    image: Image.Image | None = None
    perception: Perception | None = None
    plan: ArtifactPlan | None = None
    injected: tuple[Variant, ...] = ()
    pairs: tuple[Pair, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    alive: bool = True
    """Whether later stages should process it."""
    out_of_memory: bool = False
    """Whether memory ran out, so that it has to be tried again."""
    variants: tuple[int, int] | None = None
    """Number of the first variant to make, and of the one after the last; by default all of `pairs_per_image`."""
    naming: Naming | PerceptionError | None = None
    """What a vision-language model that was asked ahead says of it."""

    def noting(self, *rejections: Rejection) -> Sample:
        """Return the sample with further rejections on record."""
        return replace(self, rejections=(*self.rejections, *rejections))

    def rejected(self, stage: str, reason: str, raw: str = "", traceback: str = "") -> Sample:
        """
        Return the sample rejected as a whole, without its images.

        Args:
            stage (`str`): Name of the stage that rejects it.
            reason (`str`): Why.
            raw (`str`, *optional*, defaults to `""`): Answer of a model that could not be read.
            traceback (`str`, *optional*, defaults to `""`): Traceback of an unexpected error.
        """
        rejection = Rejection(self.source_id, stage, reason, raw=raw, traceback=traceback)
        return replace(
            self.noting(rejection),
            alive=False,
            image=None,
            naming=None,
            perception=None,
            plan=None,
            injected=(),
            pairs=(),
        )


class Stage(ABC):
    """
    One stage of the synthesis.

    Args:
        batch_size (`int`, *optional*, defaults to 1): Samples processed together.

    Attributes:
        name (`str`): Name in rejections and logs.
    """

    name: str

    def __init__(self, batch_size: int = 1) -> None:
        self.batch_size = batch_size

    @abstractmethod
    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        """
        Return the samples with this stage's results, in the same order. An implementation must have no side effects
        when it fails, because the samples are then processed again in smaller batches.
        """

    def run(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """
        Process samples in batches and yield them in the same order. When memory runs out, the batch size is halved
        from then on; a sample that does not fit alone is rejected, and marked as to be tried again. When a batch fails
        otherwise, its samples are processed one by one, and one that fails alone is rejected with the error.

        Raises:
            Exception: One of `FATAL_ERRORS`, or a full disk, which no sample is to blame for.
        """
        size, iterator = self.batch_size, iter(samples)
        while batch := list(islice(iterator, size)):
            while batch:
                now, size = self._process_some(batch[:size], size)
                batch = batch[len(now) :]
                yield from now

    def _process_some(self, samples: Sequence[Sample], size: int) -> tuple[list[Sample], int]:
        """Process as many of the first `samples` as fit; return them and the batch size to continue with."""
        alive = [sample for sample in samples if sample.alive]
        try:
            return _merge(samples, self.process(alive) if alive else []), size
        except Exception as error:
            if isinstance(error, FATAL_ERRORS) or (isinstance(error, OSError) and error.errno in DISK_FULL):
                raise
            if len(samples) == 1:
                return [_failed(samples[0], self.name, error)], size
            short, said = is_out_of_memory(error), repr(error)
        # Tried again out here, because the error holds on to what did not fit.
        if not short:
            logger.warning("%s: a batch failed (%s), processing its samples one by one", self.name, said)
            return [self._process_some([sample], 1)[0][0] for sample in samples], size
        smaller = (len(samples) + 1) // 2
        logger.warning("%s: out of memory with %d samples, continuing with %d", self.name, len(samples), smaller)
        free_unused()
        return self._process_some(samples[:smaller], smaller)


def _merge(samples: Sequence[Sample], processed: Sequence[Sample]) -> list[Sample]:
    results = iter(processed)
    return [next(results) if sample.alive else sample for sample in samples]


def _failed(sample: Sample, stage: str, error: Exception) -> Sample:
    where = "".join(traceback.format_exception(error, limit=-8))
    if is_out_of_memory(error):
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        return replace(sample.rejected(stage, f"out of memory: {said}", traceback=where), out_of_memory=True)
    return sample.rejected(stage, f"unexpected {type(error).__name__}: {error}", traceback=where)


def rejection_of(
    artifact: Artifact, source_id: str, variant: int, stage: str, reason: str, raw: str = ""
) -> Rejection:
    """
    Return the record of an artifact that was made and rejected.

    Args:
        artifact (`Artifact`): The artifact.
        source_id (`str`): Photo.
        variant (`int`): Number of the photo's variant.
        stage (`str`): Name of the stage that rejects it.
        reason (`str`): Why.
        raw (`str`, *optional*, defaults to `""`): Answer of a model that could not be read.
    """
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
