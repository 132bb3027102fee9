"""Interface of all vision-language model (VLM) backends: questions with images in, validated answers out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..utils.errors import StoppedError
from .answers import RAW_LIMIT, read_json
from .conventions import BoxFormat, convention_for, pixel_bounds


if TYPE_CHECKING:
    from torch import nn


DEFAULT_VLM = "Qwen/Qwen2.5-VL-7B-Instruct"
"""The model used if none is named."""


@dataclass(frozen=True, eq=False)
class VLMRequest:
    """
    One question to a VLM.

    Attributes:
        task (`str`): Name of the prompt, e.g. `"vocabulary"`; recorded with the answer.
        version (`str`): Version of the prompt's wording; part of the cache key.
        prompt (`str`): The question, which also says in words what JSON is wanted.
        images (`tuple[PIL.Image.Image, ...]`): RGB, in the order in which the prompt mentions them.
        schema (`dict`, *optional*): JSON schema (draft 2020-12) of an object that the answer must satisfy. `None` asks
            for free text, which is not checked.
        max_new_tokens (`int`, *optional*, defaults to 512): Maximum length of the answer.
    """

    task: str
    version: str
    prompt: str
    images: tuple[Image.Image, ...]
    schema: dict[str, Any] | None
    max_new_tokens: int = 512


@dataclass(frozen=True)
class VLMAnswer:
    """
    Answer to one request.

    Attributes:
        value (`dict`, *optional*): Object that satisfies the request's schema; `None` for free text and for an
            unusable answer.
        raw (`str`): Text of the model: the whole of free text, else its first `RAW_LIMIT` characters.
        error (`str`): Why the answer cannot be used; empty if it can.
    """

    value: dict[str, Any] | None
    raw: str
    error: str = ""


@dataclass(frozen=True)
class VLMReply:
    """
    Reply of a backend to one request.

    Attributes:
        text (`str`): Text of the model, or what the server sent instead.
        error (`str`): Why the text cannot be an answer; empty if it can.
    """

    text: str
    error: str = ""


@dataclass
class VLMUsage:
    """
    Running totals of requests and tokens, which several threads may add to. Tokens are counted as the backend reports
    them.
    """

    requests: int = 0
    repairs: int = 0
    retries: int = 0
    cache_hits: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __post_init__(self) -> None:
        self._lock = Lock()

    def add(self, **counts: int) -> None:
        """Add to totals, by name."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)


class VLMUnavailable(StoppedError):
    """
    The model cannot be reached or loaded, whatever the question. The run stops and can be continued; the message says
    what was tried and what to do.
    """


@dataclass
class VLM(ABC):
    """
    A vision-language model.

    Attributes:
        model (`str`): Id or name, recorded as the source of texts.
        revision (`str`): Commit of the model, empty if unknown; part of the cache key.
        usage (`VLMUsage`): Totals over all calls of [`ask`].
    """

    model: str
    revision: str = ""
    usage: VLMUsage = field(default_factory=VLMUsage, init=False)

    @abstractmethod
    def ask(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        """
        Answer requests, in their order. An answer that is not JSON or does not fit its schema is asked for once more,
        together with its fault, and then given up (`value=None`). Free text is asked for once.

        Args:
            requests (`Sequence[VLMRequest]`): The questions.

        Returns:
            `list[VLMAnswer]`: One answer for each request.

        Raises:
            VLMUnavailable: The model cannot be reached.
        """

    @property
    def coordinates(self) -> str:
        """
        Return the name of the convention that the model writes boxes in, one of
        [`datasets_script.vlm.conventions.CONVENTIONS`]. The model's name tells its family; `"normalized"` for unknown
        families.
        """
        return convention_for(self.model)

    @property
    def pixel_bounds(self) -> tuple[int, int]:
        """
        Return the least and the greatest number of pixels of an image that the model sees; those of the published
        Qwen2.5-VL models if unknown.
        """
        return pixel_bounds(None)

    def box_format(
        self, coordinates: str | None = None, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> BoxFormat:
        """
        Return the format of boxes in the model's answers.

        Args:
            coordinates (`str`, *optional*): Name of a convention; by default the model's [`coordinates`].
            min_pixels, max_pixels (`int`, *optional*): Bounds of its image processor; by default its [`pixel_bounds`].

        Raises:
            UserError: There is no such convention, or `min_pixels` is above `max_pixels`.
        """
        least, most = self.pixel_bounds
        return BoxFormat(coordinates or self.coordinates, min_pixels or least, max_pixels or most)

    @property
    def is_remote(self) -> bool:
        """Whether it runs elsewhere, so that its answers take time, but nothing of this machine."""
        return False

    def cancel(self) -> None:
        """
        Give up what other threads are asking: their calls of [`ask`] raise `asyncio.CancelledError`.

        Raises:
            NotImplementedError: The model is not remote, and finishes its answers.
        """
        raise NotImplementedError(f"'{self.model}' runs on this machine, where answers are finished")

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Networks that may be moved between devices; none for an endpoint."""
        return ()

    def identity(self) -> dict[str, Any]:
        """Return what a run records of the model, JSON-serialisable."""
        return {"model": self.model, "revision": self.revision}


class GeneratingVLM(VLM):
    """Base of backends that generate text, which is read as JSON and asked for once more if that fails."""

    def ask(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        answers = self._ask_once(requests)
        broken = [index for index, answer in enumerate(answers) if answer.error and requests[index].schema is not None]
        self.usage.add(repairs=len(broken))
        repairs = [_repair(requests[index], answers[index]) for index in broken]
        for index, answer in zip(broken, self._ask_once(repairs), strict=True):
            answers[index] = answer
        self.usage.add(failures=sum(bool(answer.error) for answer in answers))
        return answers

    @abstractmethod
    def _generate(self, requests: Sequence[VLMRequest]) -> list[VLMReply]:
        """Return a reply to each request, in order, and count tokens."""

    def _ask_once(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        if not requests:
            return []
        self.usage.add(requests=len(requests))
        replies = self._generate(requests)
        return [_answer(request, reply) for request, reply in zip(requests, replies, strict=True)]


def _answer(request: VLMRequest, reply: VLMReply) -> VLMAnswer:
    raw = reply.text[:RAW_LIMIT]
    if reply.error:
        return VLMAnswer(None, raw, reply.error)
    if request.schema is None:
        return VLMAnswer(None, reply.text)
    try:
        return VLMAnswer(read_json(reply.text, request.schema), raw)
    except ValueError as error:
        return VLMAnswer(None, raw, str(error))


def _repair(request: VLMRequest, answer: VLMAnswer) -> VLMRequest:
    prompt = (
        f"{request.prompt}\n\nYou answered:\n{answer.raw}\n\nThat cannot be used: {answer.error}. "
        "Answer again, with the JSON object and nothing else."
    )
    return replace(request, prompt=prompt)
