"""Answers of a vision-language model about drawn images, which several rewards are computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from datasets_script.detection.questions import VERSION, Task, request
from datasets_script.utils.errors import UserError
from datasets_script.vlm.base import VLM, VLMRequest, VLMUnavailable
from datasets_script.vlm.endpoint import EndpointVLM
from datasets_script.vlm.local import LocalVLM
from training.denoiser.rewards.base import RewardSpec


VLM_OPTIONS: dict[str, Callable[[str], Any]] = {
    "device": str,
    "endpoint": str,
    "revision": str,
    "questions": int,
    "timeout": float,
}
"""
Options of rewards that ask a model: the URL of an OpenAI-compatible server that has it, or the device and revision of
a local one; questions asked at once; and the maximum duration of a server's answer in seconds.
"""


def load_vlm(spec: RewardSpec, options: dict[str, Any], device: str) -> VLM:
    """
    Load a reward's model, or connect to its endpoint. Its answers are not cached, because no image comes twice.

    Args:
        spec (`RewardSpec`): Entry whose `model` is a folder, an id on the Hub, or a name at the endpoint.
        options (`dict[str, Any]`): Values of [`VLM_OPTIONS`].
        device (`str`): Device of a local model without one of its own.

    Raises:
        UserError: The endpoint is no URL, or `questions` is below 1.
        VLMUnavailable: The model cannot be loaded.
    """
    questions, endpoint = options.get("questions", 8), options.get("endpoint")
    if questions < 1:
        raise UserError(f"--rewards must have questions of at least 1, got {questions}")
    if endpoint is None:
        return LocalVLM(spec.model, options.get("revision"), options.get("device", device), batch_size=questions)
    if not endpoint.startswith(("http://", "https://")):
        raise UserError(f"--rewards must have an endpoint that begins with http:// or https://, got '{endpoint}'")
    return EndpointVLM(spec.model, endpoint, max_concurrency=questions, timeout=options.get("timeout", 120.0))


def requests_about(images: Sequence[Image.Image], task: Task, vlm: VLM) -> list[VLMRequest]:
    """Return the requests that ask a question of `artiagent predict` about images."""
    return [request(task, vlm.coordinates, image) for image in images]


def answers_about(images: Sequence[Image.Image], task: Task, vlm: VLM) -> list[str]:
    """
    Ask a question about images.

    Args:
        images (`Sequence[PIL.Image.Image]`): RGB.
        task (`str`): One of [`~datasets_script.detection.questions.TASKS`].
        vlm (`VLM`): The model.

    Returns:
        `list[str]`: Its answer about each.

    Raises:
        VLMUnavailable: The server refuses a question. A reward made up for it would be trained on.
    """
    answers = vlm.ask(requests_about(images, task, vlm))
    for answer in answers:
        if answer.error:
            raise VLMUnavailable(f"'{vlm.model}' gave no answer to be rewarded: {answer.error}")
    return [answer.raw for answer in answers]


def identity_of(vlm: VLM, score: str, task: Task) -> dict[str, Any]:
    """Return what a reward from a model's answers depends on."""
    return {"score": score, "question": {"task": task, "version": VERSION}, "vlm": vlm.identity()}
