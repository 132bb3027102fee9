"""Prediction: ask a vision-language model about every image of a benchmark, and record its answers in a file."""

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
    Questions to ask about a benchmark.

    Attributes:
        benchmark (`str`): Name of the benchmark.
        split (`str`, *optional*): Split; `None` for the benchmark's default.
        tasks (`tuple[str, ...]`): Names of the questions.
        form (`BoxFormat`): Coordinates that boxes are asked for in.
        max_new_tokens (`int`, *optional*): Maximum length of an answer in tokens; by default it depends on the
            question.
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
    Ask about the images that are not in a file yet, and append the answers to it. After an interruption, the same call
    continues without asking again about images whose answers are on disk.

    Args:
        vlm (`VLM`): Vision-language model.
        images (`Iterable[BenchmarkImage]`): Images of the benchmark.
        settings (`PredictionSettings`): Questions to ask.
        out (`Path`): File to write, see [`~datasets_script.evaluation.prediction_files.read_predictions`].
        group_size (`int`, *optional*, defaults to 4): Images whose questions are asked together; their answers are
            written once all are there.

    Yields:
        `Prediction`: Prediction for each image that was asked about, once its answers are on disk.

    Raises:
        UserError: The file was made with other settings, or an image cannot be decoded.
        RunBusyError: Another process is writing to the file.
        VLMUnavailable: The model is unavailable; answers on disk are kept.
    """
    with only_writer(out):
        done = begin_predictions(out, provenance(vlm, settings))
        waiting = (image for image in images if image.id not in done)
        while group := list(islice(waiting, group_size)):
            for image, answers, errors in _ask(vlm, group, settings):
                append_answers(out, image.id, answers, errors)
                yield prediction_of(image.id, answers, errors, image.size, settings.form)


def provenance(vlm: VLM, settings: PredictionSettings) -> dict[str, Any]:
    """
    Return everything that the answers depend on, as recorded in the first line of their file.

    Args:
        vlm (`VLM`): Vision-language model.
        settings (`PredictionSettings`): Questions to ask.

    Returns:
        `dict`: Model, benchmark, questions and versions, JSON-serialisable.
    """
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
    """Yield each image with its answers by task, and the errors of questions without one."""
    opened = [open_image(image) for image in images]
    # Grouped by task, because answers to the same question have similar lengths.
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


def open_image(image: BenchmarkImage) -> Image.Image:
    """
    Decode an image of a benchmark, as RGB.

    Raises:
        UserError: It cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(image.image)) as opened:
            return opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"--benchmark must have readable images, got '{image.id}', which is not: {error}") from error


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """
    Hold a lock beside a file of predictions, so that one process alone writes to it.

    Raises:
        RunBusyError: Another process holds it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunBusyError(
            f"--out must not be in use, but another process is already writing to '{out}'; wait for it, or choose "
            "another file. Nothing was written"
        ) from None
    try:
        yield
    finally:
        lock.release()
