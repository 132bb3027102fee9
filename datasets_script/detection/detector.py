"""
Whether an image has structural artifacts, where, and what is wrong: a vision-language model asked as in
`artiagent predict`, its answers read as in `artiagent evaluate`.

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

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import torch
from PIL import Image, ImageOps

from ..schema.boxes import Box
from ..schema.detection import DetectedRegion, Detection
from ..schema.prediction import Prediction
from ..utils.photos import SourceError, open_source, to_rgb
from ..vlm.base import DEFAULT_VLM, VLM, VLMAnswer
from ..vlm.conventions import BoxFormat
from ..vlm.local import LocalVLM, Quantization
from .answers import prediction_of, unescaped, without_thinking
from .box_answers import find_boxes
from .questions import Task, request
from .yes_no import AnswerError


ImageInput = str | os.PathLike[str] | Image.Image

# Where and why. They are asked of images that have artifacts by the model's own word.
_FOLLOWING: tuple[Task, ...] = ("localization", "explanation")

_OBJECT = re.compile(r"\{[^{}]*\}")
_LABEL = re.compile(r"[\"']label[\"']\s*:\s*\"((?:[^\"\\]|\\.)*)\"")
_REFERENCE = re.compile(r"<ref>(.*?)</ref>\s*(<box>.*?</box>)", re.DOTALL)
_LINE = re.compile(r"^[^\[\]\n]*(\[[^\[\]\n]*\])[\s:,.–-]*([^\[\]\n]+)$", re.MULTILINE)


class ArtifactDetector:
    """
    Finds structural artifacts in images. It is called as pipelines of transformers are: with an image for a
    [`~datasets_script.schema.detection.Detection`], with a list for a list.

    No checkpoint trained on these pairs has been published yet, and models that are not trained on such artifacts
    rarely see them: the default is a base to train.

    Args:
        model (`str` or [`~datasets_script.vlm.VLM`], *optional*): A folder or the id of a repository on the Hub, of a
            model or a PEFT adapter, to load as [`~datasets_script.vlm.LocalVLM`] with the arguments of its names; or
            a model at hand, e.g. behind an endpoint ([`~datasets_script.vlm.EndpointVLM`]).
        batch_size (`int`, *optional*, defaults to 4): Images whose questions are asked together.
        coordinates (`str`, *optional*): How the model writes boxes, by default as it was trained to, see
            [`~datasets_script.vlm.VLM.coordinates`].
        min_pixels, max_pixels (`int`, *optional*): Bounds of Qwen2.5-VL's processor, by default its own.
        ask_all (`bool`, *optional*, defaults to `False`): Ask where and why of every image, whatever the answer to
            whether; the answers may contradict each other then.
        max_new_tokens (`int`, *optional*): Longest answer; by default a length for each question.

    Raises:
        ValueError: `batch_size` is below 1.
        UserError: there are no such `coordinates`, or `min_pixels` is above `max_pixels`.
        VLMUnavailable: the model cannot be had.
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
        Args:
            images (`str`, `os.PathLike`, `PIL.Image.Image`, or a list of them): Paths or images. Those that their
                EXIF data turn are turned; boxes are in the pixels of the upright image.

        Returns:
            [`~datasets_script.schema.detection.Detection`], or a list of them in the order of `images`.

        Raises:
            SourceError: a file cannot be read as an image.
            VLMUnavailable: the model cannot be reached any more.
        """
        if isinstance(images, list):
            return list(self.stream(images))
        return self._detect([images])[0]

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Detection]:
        """What a call gives, one after the other, for any number of images: at most a batch of them is open."""
        waiting = iter(images)
        while batch := list(islice(waiting, self.batch_size)):
            yield from self._detect(batch)

    def _detect(self, inputs: Sequence[ImageInput]) -> list[Detection]:
        images = [upright(image) for image in inputs]
        replies: list[dict[str, VLMAnswer]] = [{} for _ in images]
        self._ask(("detection",), images, replies)
        flawed = [i for i, image in enumerate(images) if self.ask_all or self._read(image, replies[i]).has_artifact]
        if flawed:
            self._ask(_FOLLOWING, [images[i] for i in flawed], [replies[i] for i in flawed])
        return [self._detection(image, of_image) for image, of_image in zip(images, replies, strict=True)]

    def _ask(
        self, tasks: Sequence[Task], images: Sequence[Image.Image], replies: Sequence[dict[str, VLMAnswer]]
    ) -> None:
        """Adds the replies about each image to what there is of it."""
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


def upright(image: ImageInput) -> Image.Image:
    """
    An image as a model is shown it: upright, 8-bit RGB.

    Raises:
        SourceError: a file cannot be read as an image, see
            [`~datasets_script.utils.photos.open_source`]; it is named.
    """
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image))
    try:
        return open_source(image, min_side=1)
    except SourceError as error:
        raise SourceError(f"{os.fspath(image)}: {error}") from error


def read_labels(text: str, size: tuple[int, int], form: BoxFormat) -> dict[Box, str]:
    """
    What an answer to "where?" says of its boxes, each of which is one of
    [`~datasets_script.detection.box_answers.find_boxes`]: the field `label` of its JSON object, InternVL's reference
    before it, or the rest of its line.

    Args:
        text (`str`): The answer.
        size (`tuple[int, int]`): Width and height of the image, px.
        form (`BoxFormat`): How boxes are written.
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
    """Parts of a text that hold a box, each with its label."""
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
