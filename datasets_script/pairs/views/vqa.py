"""Visual question answering: one row per image, a conversation about its artifacts, to fine-tune VLMs on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from datasets import Features, List, Value

from ...schema.boxes import Box
from ...schema.pair import Artifact
from ...utils.english import is_plural
from ...utils.seeds import derive_seed
from ...utils.stored_images import stored_size
from ...vlm.conventions import BoxFormat
from .part_boxes import other_box, part_box
from .stored_rows import SIDES, image_id, read_artifacts


# The format of TRL's trainers. `text` is null for parts of a message that are images.
FEATURES = Features(
    {
        "id": Value("string"),
        "images": List(datasets.Image(mode="RGB")),
        "messages": List(
            {
                "role": Value("string"),
                "content": List({"type": Value("string"), "text": Value("string")}),
            }
        ),
    }
)

HAS_ARTIFACT = (
    "Does this image contain any visual artifacts?",
    "Are there any visual artifacts in this image?",
    "Is anything in this image structurally flawed?",
)
LOCATE = (
    "Locate {part} in the image.",
    "Where in the image is {part}? Answer with a box.",
    "Give the bounding box of {part}.",
)
IS_IN_BOX = (
    "Is there {part} in {box}?",
    "Does the region {box} contain {part}?",
    "Look at the region {box}: is there {part} in it?",
)
DESCRIBE_IMAGE = (
    "Describe what the image shows and whether anything is wrong with it.",
    "What does the image show, and is it sound?",
    "Describe the image and the state of what it shows.",
)
ARTIFACT_BOXES = (
    "Give the bounding boxes of all regions with artifacts.",
    "Where are the artifacts? Answer with boxes.",
    "Locate every artifact in the image.",
)
EXPLAIN_REGION = (
    "Why is the region {box} an artifact?",
    "What is wrong with the region {box}?",
    "Explain why {box} is an artifact.",
)
DESCRIBE_ARTIFACTS = (
    "Describe all artifacts in the image.",
    "What is wrong with this image?",
    "Explain what is flawed in this image.",
)


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


def vqa_rows(row: dict[str, Any], box_format: BoxFormat, seed: int = 0) -> Iterator[dict[str, Any]]:
    """
    Convert a pair to one conversation about its clean image and one about its artifact image.

    Args:
        row (`dict`): A row of `PAIR_FEATURES` as stored.
        box_format (`BoxFormat`): Convention to write boxes in.
        seed (`int`, *optional*, defaults to 0): Chooses the wording of the questions, and which question is asked
            about a part, together with the id of the image.

    Returns:
        `Iterator[dict]`: Two rows of `FEATURES`, the clean image first.
    """
    artifacts, size = read_artifacts(row), stored_size(row["clean"])
    for side in SIDES:
        name = image_id(row, side)
        conversation = _Conversation(box_format, size, random.Random(derive_seed(seed, name)))
        if side == "clean":
            turns = conversation.about_clean(artifacts, row["clean_description"])
        else:
            turns = conversation.about_flawed(artifacts, row["explanation"])
        yield {"id": name, "images": [row[side]], "messages": list(to_messages(turns))}


@dataclass(frozen=True)
class _Conversation:
    """Questions and answers about one image."""

    box_format: BoxFormat
    size: tuple[int, int]
    choices: random.Random

    def about_clean(self, artifacts: Sequence[Artifact], description: str) -> list[Turn]:
        turns = [self._turn(HAS_ARTIFACT, "No")]
        # Of parts with the same name only the first is asked about: a question cannot have two answers.
        by_name = {part_name(artifact): artifact for artifact in reversed(artifacts)}
        for artifact in by_name.values():
            turns += self._of_part(artifact, artifacts)
        if description:
            turns.append(self._turn(DESCRIBE_IMAGE, description))
        return turns

    def about_flawed(self, artifacts: Sequence[Artifact], explanation: str) -> list[Turn]:
        turns = [
            self._turn(HAS_ARTIFACT, "Yes"),
            self._turn(ARTIFACT_BOXES, ", ".join(self._box(artifact.bbox) for artifact in artifacts)),
        ]
        turns += [self._turn(EXPLAIN_REGION, a.label, box=self._box(a.bbox)) for a in artifacts if a.label]
        if explanation:
            turns.append(self._turn(DESCRIBE_ARTIFACTS, explanation))
        return turns

    def _of_part(self, artifact: Artifact, artifacts: Sequence[Artifact]) -> list[Turn]:
        """
        Ask either where a part is or whether it is in a box, as far as the pair tells; the answer to one would give
        away the other. The second is asked only where yes and no are equally likely.
        """
        place, elsewhere = part_box(artifact), other_box(artifact, artifacts)
        if place is None:
            return []
        part = part_name(artifact)
        if elsewhere is None or self.choices.random() < 0.5:
            return [self._turn(LOCATE, self._box(place), part=part)]
        if self.choices.random() < 0.5:
            return [self._turn(IS_IN_BOX, "No", part=part, box=self._box(elsewhere))]
        return [self._turn(IS_IN_BOX, "Yes", part=part, box=self._box(place))]

    def _box(self, box: Box) -> str:
        return self.box_format(box, self.size)

    def _turn(self, wordings: Sequence[str], answer: str, **names: str) -> Turn:
        return Turn(self.choices.choice(wordings).format(**names), answer)


def part_name(artifact: Artifact) -> str:
    """Name the part of an artifact, as in `"a cat's ear"`: indefinite, as the image may have several cats and ears."""
    if is_plural(artifact.entity):
        return f"the {artifact.entity}{_apostrophe(artifact.entity)} {artifact.part}"
    article = "an" if artifact.entity[:1] in "aeiou" else "a"
    return f"{article} {artifact.entity}'s {artifact.part}"


def _apostrophe(plural: str) -> str:
    return "'" if plural.endswith("s") else "'s"


def to_messages(turns: Iterable[Turn], images: int = 1) -> Iterator[dict[str, Any]]:
    """Convert turns to `messages` of `FEATURES`, with placeholders for `images` images before the first question."""
    shown = [{"type": "image", "text": None}] * images
    for turn in turns:
        yield {"role": "user", "content": [*shown, {"type": "text", "text": turn.question}]}
        yield {"role": "assistant", "content": [{"type": "text", "text": turn.answer}]}
        shown = []
