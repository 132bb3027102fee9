"""
Detection of structural artifacts in images with a vision-language model, which is asked as by `artiagent predict` and
whose answers are read as by `artiagent evaluate`.

```python
from pathlib import Path

from datasets_script.detection import ArtifactDetector

detector = ArtifactDetector("my-tuned-model")
detector("portrait.jpg").regions
for detection in detector.stream(Path("photos").glob("*.jpg")):
    print(detection.to_dict())
```
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import torch
from PIL import Image

from ..schema.boxes import Box
from ..schema.detection import DetectedRegion, Detection
from ..schema.prediction import Prediction
from ..vlm.base import DEFAULT_VLM, VLM, VLMAnswer
from ..vlm.conventions import BoxFormat
from ..vlm.local import LocalVLM, Quantization
from .answers import prediction_of, unescaped, without_thinking
from .box_answers import find_boxes
from .images import ImageInput, upright
from .questions import Task, request
from .yes_no import AnswerError


# Where and why: asked about images in which the model says there are artifacts.
_FOLLOWING: tuple[Task, ...] = ("localization", "explanation")

_OBJECT = re.compile(r"\{[^{}]*\}")
_LABEL = re.compile(r"[\"']label[\"']\s*:\s*\"((?:[^\"\\]|\\.)*)\"")
_REFERENCE = re.compile(r"<ref>(.*?)</ref>\s*(<box>.*?</box>)", re.DOTALL)
_LINE = re.compile(r"^[^\[\]\n]*(\[[^\[\]\n]*\])[\s:,.–-]*([^\[\]\n]+)$", re.MULTILINE)


class ArtifactDetector:
    """
    Detector of structural artifacts in images. Like pipelines of transformers, it takes an image and returns a
    [`~datasets_script.schema.detection.Detection`], or takes a list and returns a list.

    No checkpoint trained on these pairs has been published yet, and models that are not trained on them rarely see
    such artifacts: the default model is a base for training.

    Args:
        model (`str` or [`~datasets_script.vlm.VLM`], *optional*): A folder, or the id of a repository on the Hub, of a
            model or a PEFT adapter, which is loaded as a [`~datasets_script.vlm.LocalVLM`]; or a loaded model, e.g.
            one behind an endpoint ([`~datasets_script.vlm.EndpointVLM`]).
        revision, device, dtype, quantization (*optional*): Passed to [`~datasets_script.vlm.LocalVLM`]; unused if
            `model` is loaded already.
        batch_size (`int`, *optional*, defaults to 4): Number of images processed together.
        coordinates (`str`, *optional*): Convention that the model writes boxes in; by default the one it was trained
            on, see [`~datasets_script.vlm.VLM.coordinates`].
        min_pixels, max_pixels (`int`, *optional*): Bounds of Qwen2.5-VL's processor; by default its own.
        ask_all (`bool`, *optional*, defaults to `False`): Ask "where?" and "why?" about every image, even if the model
            sees no artifact; the answers may then contradict each other.
        max_new_tokens (`int`, *optional*): Maximum length of an answer; by default one for each question.

    Raises:
        ValueError: `batch_size` is below 1.
        UserError: There are no such `coordinates`, or `min_pixels` is above `max_pixels`.
        VLMUnavailable: The model cannot be loaded.
    """

    def __init__(
        self,
        model: str | VLM = DEFAULT_VLM,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        quantization: Quantization | None = None,
        batch_size: int = 4,
        coordinates: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        ask_all: bool = False,
        max_new_tokens: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        if isinstance(model, str):
            model = LocalVLM(model, revision, device, dtype, quantization, batch_size)
        self.vlm, self.batch_size = model, batch_size
        self.form = model.box_format(coordinates, min_pixels, max_pixels)
        self.ask_all, self.max_new_tokens = ask_all, max_new_tokens

    @overload
    def __call__(self, images: ImageInput) -> Detection: ...

    @overload
    def __call__(self, images: list[ImageInput]) -> list[Detection]: ...

    def __call__(self, images: ImageInput | list[ImageInput]) -> Detection | list[Detection]:
        """
        Detect artifacts in an image, or in each image of a list.

        Args:
            images (`str`, `os.PathLike`, `PIL.Image.Image`, or a list of them): Paths or images. EXIF
                orientation is applied; boxes are in pixels of the upright image.

        Returns:
            [`~datasets_script.schema.detection.Detection`], or a list of them in the order of `images`.

        Raises:
            SourceError: A file cannot be read as an image.
            VLMUnavailable: The model cannot be reached.
        """
        if isinstance(images, list):
            return list(self.stream(images))
        return self._detect([images])[0]

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Detection]:
        """
        Detect artifacts in any number of images, yielding one [`~datasets_script.schema.detection.Detection`] after
        the other. At most one batch of images is open at a time.
        """
        waiting = iter(images)
        while batch := list(islice(waiting, self.batch_size)):
            yield from self._detect(batch)

    def _detect(self, inputs: Sequence[ImageInput]) -> list[Detection]:
        images = [upright(image) for image in inputs]
        replies: list[dict[str, VLMAnswer]] = [{} for _ in images]
        self._ask(("detection",), images, replies)
        chosen = [i for i, image in enumerate(images) if self.ask_all or self._read(image, replies[i]).has_artifact]
        if chosen:
            self._ask(_FOLLOWING, [images[i] for i in chosen], [replies[i] for i in chosen])
        return [self._detection(image, of_image) for image, of_image in zip(images, replies, strict=True)]

    def _ask(
        self, tasks: Sequence[Task], images: Sequence[Image.Image], replies: Sequence[dict[str, VLMAnswer]]
    ) -> None:
        """Add the answers about each image to its replies."""
        asked = [(task, index) for task in tasks for index in range(len(images))]
        requests = [request(task, self.form.coordinates, images[index], self.max_new_tokens) for task, index in asked]
        for (task, index), reply in zip(asked, self.vlm.ask(requests), strict=True):
            replies[index][task] = reply

    def _read(self, image: Image.Image, replies: dict[str, VLMAnswer]) -> Prediction:
        errors = {task: reply.error for task, reply in replies.items() if reply.error}
        return prediction_of("", _texts(replies), errors, image.size, self.form)

    def _detection(self, image: Image.Image, replies: dict[str, VLMAnswer]) -> Detection:
        prediction, texts = self._read(image, replies), _texts(replies)
        regions = None
        if prediction.boxes is not None:
            labels = read_labels(texts["localization"], image.size, self.form)
            regions = tuple(DetectedRegion(box, labels.get(box, "")) for box in prediction.boxes)
        elif prediction.has_artifact is False and "localization" not in replies:
            regions = ()
        return Detection(
            image.size, prediction.has_artifact, regions, prediction.explanation, texts, prediction.failures
        )


def read_labels(text: str, size: tuple[int, int], form: BoxFormat) -> dict[Box, str]:
    """
    Read the label of each box in an answer to "where?": the field `label` of its JSON object, InternVL's reference
    before it, or the rest of its line.

    Args:
        text (`str`): The answer.
        size (`tuple[int, int]`): Width and height of the image in pixels.
        form (`BoxFormat`): Format of the boxes.

    Returns:
        `dict[tuple[float, float, float, float], str]`: Labels by box, as
        [`~datasets_script.detection.box_answers.find_boxes`] returns it; boxes without a label are left out.
    """
    try:
        text = without_thinking(text)
    except AnswerError:
        return {}
    found: dict[Box, str] = {}
    for place, label in _labelled(text):
        for box in find_boxes(place, size, form.coordinates, form.resized(size)).boxes:
            found.setdefault(box, " ".join(label.split()))
    return found


def _labelled(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a text that hold a box, each with its label."""
    objects = [match[0] for match in _OBJECT.finditer(text)]
    if objects:
        for part in objects:
            if label := _LABEL.search(part):
                yield part, unescaped(label[1])
    elif references := _REFERENCE.findall(text):
        yield from ((box, label) for label, box in references)
    else:
        yield from _LINE.findall(text)


def _texts(replies: dict[str, VLMAnswer]) -> dict[str, str]:
    return {task: reply.raw for task, reply in replies.items() if not reply.error}
