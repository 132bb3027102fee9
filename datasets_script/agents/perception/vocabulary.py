"""What backends share in which a VLM names what is in an image, and other models find it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from ...schema.perception import Perception
from ...vlm.base import VLM, VLMAnswer
from ..prompts import caption, vocabulary
from ..prompts.vocabulary import Vocabulary
from .association import MIN_CONTAINMENT, Segment, associate
from .backends import MAX_LONG_SIDE
from .base import PerceptionAgent, PerceptionError
from .reduction import enlarged, reduced


@dataclass(frozen=True)
class Naming:
    """
    What a VLM says of an image.

    Attributes:
        vocabulary (`Vocabulary`): Names of its entities and parts.
        caption (`str`): Caption.
    """

    vocabulary: Vocabulary
    caption: str


class VocabularyPerception(PerceptionAgent):
    """
    Base of backends in which a VLM names the entities and parts of each image and captions it. [`ground`] finds them,
    and parts are assigned to the instances that contain them, see
    [`~datasets_script.agents.perception.association.associate`]. [`name`] asks and [`locate`] finds, for those who ask
    ahead; [`perceive_batch`] does both.

    Args:
        vlm (`VLM`): Asked about all images of a batch at once.
        max_long_side (`int`, *optional*, defaults to 1024): Larger images are reduced to this long side before any
            model sees them, and masks are mapped back.
    """

    def __init__(self, vlm: VLM, max_long_side: int = MAX_LONG_SIDE) -> None:
        self.vlm, self.max_long_side = vlm, max_long_side

    @abstractmethod
    def ground(
        self, images: Sequence[Image.Image], names: Sequence[Sequence[str]]
    ) -> list[tuple[list[Segment], list[str]]]:
        """
        Find named things in images.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB.
            names (`Sequence[Sequence[str]]`): For each image the names to look for.

        Returns:
            `list[tuple[list[Segment], list[str]]]`: For each image the segments found, and reasons for those that were
            dropped.
        """

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        (result,) = self.perceive_batch([image], [source_id])
        if isinstance(result, PerceptionError):
            raise result
        return result

    def perceive_batch(
        self, images: Sequence[Image.Image], source_ids: Sequence[str]
    ) -> list[Perception | PerceptionError]:
        """
        Perceive several images; see [`~datasets_script.agents.perception.base.PerceptionAgent.perceive_batch`].

        Raises:
            VLMUnavailable: The VLM cannot be reached.
        """
        sizes, images = [image.size for image in images], self._reduced(images)
        return self._locate(images, sizes, self.name(images))

    def name(self, images: Sequence[Image.Image]) -> list[Naming | PerceptionError]:
        """
        Ask the VLM what is in several images.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB, of any size.

        Returns:
            `list[Naming | PerceptionError]`: For each image what it says, or why that cannot be used.

        Raises:
            VLMUnavailable: The VLM cannot be reached.
        """
        images = self._reduced(images)
        answers = self.vlm.ask([prompt.request(image) for image in images for prompt in (vocabulary, caption)])
        return [_read(*pair) for pair in zip(answers[::2], answers[1::2], strict=True)]

    def locate(
        self, images: Sequence[Image.Image], namings: Sequence[Naming | PerceptionError]
    ) -> list[Perception | PerceptionError]:
        """
        Find what was named in several images.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB, of any size.
            namings (`Sequence[Naming | PerceptionError]`): What [`name`] returned for them.

        Returns:
            `list[Perception | PerceptionError]`: For each image its perception, or why there is none.
        """
        return self._locate(self._reduced(images), [image.size for image in images], namings)

    def identity(self) -> dict[str, Any]:
        return {
            "vlm": self.vlm.identity(),
            "prompts": {"vocabulary": vocabulary.VERSION, "caption": caption.VERSION},
            "min_containment": MIN_CONTAINMENT,
            "max_long_side": self.max_long_side,
        }

    def _reduced(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        return [reduced(image, self.max_long_side) for image in images]

    def _locate(
        self,
        images: Sequence[Image.Image],
        sizes: Sequence[tuple[int, int]],
        namings: Sequence[Naming | PerceptionError],
    ) -> list[Perception | PerceptionError]:
        """Find what was named in images that are reduced from images of `sizes`."""
        names = [naming.vocabulary.names if isinstance(naming, Naming) else () for naming in namings]
        results: list[Perception | PerceptionError] = []
        for size, naming, (segments, notes) in zip(sizes, namings, self.ground(images, names), strict=True):
            if isinstance(naming, PerceptionError):
                results.append(naming)
            else:
                perception = enlarged(associate(segments, naming.vocabulary, naming.caption), size)
                results.append(replace(perception, notes=(*notes, *perception.notes)))
        return results


def _read(names: VLMAnswer, text: VLMAnswer) -> Naming | PerceptionError:
    """Read the answers to the two questions, or return why one of them cannot be used."""
    if names.value is None:
        return PerceptionError(f"the VLM gave no vocabulary: {names.error}", names.raw)
    if text.value is None:
        return PerceptionError(f"the VLM gave no caption: {text.error}", text.raw)
    try:
        return Naming(vocabulary.read(names.value), caption.read(text.value))
    except ValueError as error:
        return PerceptionError(f"the VLM gave no caption: {error}", text.raw)
