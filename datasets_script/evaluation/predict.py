"""A vision-language model is asked about every image of a benchmark; its answers go to a file, as they come."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from evaluate_metrics.functional.versions import versions

from ..detection.answers import prediction_of
from ..detection.questions import VERSION, Task, question, request
from ..engine.locks import RunBusyError
from ..schema.image import BenchmarkImage
from ..schema.prediction import Prediction
from ..utils.errors import UserError
from ..vlm.base import VLM, VLMAnswer
from ..vlm.conventions import BoxFormat
from .prediction_files import append_answers, begin_predictions


@dataclass(frozen=True)
class PredictionSettings:
    """
    What is asked, of what.

    Attributes:
        benchmark (`str`): Its name.
        split (`str`, *optional*): Its default split without it.
        tasks (`tuple[str, ...]`): The questions.
        form (`BoxFormat`): How boxes are asked for.
        max_new_tokens (`int`, *optional*): Longest answer; by default a length for each question.
    """

    benchmark: str
    split: str | None
    tasks: tuple[Task, ...]
    form: BoxFormat
    max_new_tokens: int | None = None


def predict(
    vlm: VLM, images: Iterable[BenchmarkImage], settings: PredictionSettings, out: Path, group_size: int = 4
) -> Iterator[Prediction]:
    """
    Asks about the images that are not in a file yet, and adds the answers to it. A run that was stopped, however, is
    continued by the same call: an image whose answers are on disk is not asked about again.

    Args:
        vlm (`VLM`): The model.
        images (`Iterable[BenchmarkImage]`): Of the benchmark.
        settings (`PredictionSettings`): What is asked.
        out (`Path`): The file, see [`~datasets_script.evaluation.prediction_files.read_predictions`].
        group_size (`int`): Images whose questions are asked together, and written when all are answered.

    Yields:
        `Prediction`: Of each image that was asked about, once its answers are on disk.

    Raises:
        UserError: the file is of other settings, or an image cannot be decoded.
        RunBusyError: another process writes to the file.
        VLMUnavailable: the model cannot be had; what is on disk stays.
    """
    with _only_writer(out):
        done = begin_predictions(out, provenance(vlm, settings))
        waiting = (image for image in images if image.id not in done)
        while group := list(islice(waiting, group_size)):
            for image, answers, errors in _ask(vlm, group, settings):
                append_answers(out, image.id, answers, errors)
                yield prediction_of(image.id, answers, errors, image.size, settings.form)


def provenance(vlm: VLM, settings: PredictionSettings) -> dict[str, Any]:
    """What makes answers what they are: the first line of their file."""
    coordinates = settings.form.coordinates
    return {
        "model": vlm.identity(),
        "benchmark": settings.benchmark,
        "split": settings.split,
        **settings.form.record(),
        "questions": {task: {"version": VERSION, "text": question(task, coordinates)} for task in settings.tasks},
        "max_new_tokens": settings.max_new_tokens,
        "versions": versions("torch", "transformers"),
    }


def _ask(
    vlm: VLM, images: Sequence[BenchmarkImage], settings: PredictionSettings
) -> Iterator[tuple[BenchmarkImage, dict[str, str], dict[str, str]]]:
    """The answers about each image by task, and why some questions got none."""
    opened = [_open(image) for image in images]
    # Questions of one kind together, which are answered at about the same length.
    requests = [
        request(task, settings.form.coordinates, image, settings.max_new_tokens)
        for task in settings.tasks
        for image in opened
    ]
    replies = vlm.ask(requests)
    for index, image in enumerate(images):
        of_image: dict[str, VLMAnswer] = dict(zip(settings.tasks, replies[index :: len(images)], strict=True))
        answers = {task: reply.raw for task, reply in of_image.items() if not reply.error}
        errors = {task: reply.error for task, reply in of_image.items() if reply.error}
        yield image, answers, errors


def _open(image: BenchmarkImage) -> Image.Image:
    try:
        with Image.open(io.BytesIO(image.image)) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image '{image.id}' of the benchmark cannot be decoded: {error}") from error


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunBusyError(f"another process is already writing to '{out}'") from None
    try:
        yield
    finally:
        lock.release()
