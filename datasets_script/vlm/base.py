"""What every vision-language model (VLM) backend takes and gives: questions with images, and validated answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from ..utils.errors import StoppedError
from .answers import RAW_LIMIT, read_json
from .conventions import BoxFormat, convention_for, pixel_bounds


DEFAULT_VLM = "Qwen/Qwen2.5-VL-7B-Instruct"
"""The model that is asked where none is named."""


@dataclass(frozen=True, eq=False)
class VLMRequest:
    """
    One question to a VLM.

    Attributes:
        task (`str`): Name of the prompt, e.g. `"vocabulary"`; counted and recorded.
        version (`str`): Version of the prompt's wording; part of the cache's key.
        prompt (`str`): The question, which also says in words what JSON is wanted.
        images (`tuple[PIL.Image.Image, ...]`): RGB, in the order the prompt speaks of them.
        schema (`dict`, *optional*): JSON schema (draft 2020-12) of an object that the answer must satisfy. `None` asks
            for free text, which is taken as it comes.
        max_new_tokens (`int`): Longest answer.
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
    The answer to one request: `value`, an object that satisfies its schema, or `None` with the reason in `error`.
    `raw` is the text as the model gave it, its beginning if it is long, which a rejection keeps. Of free text `value`
    is `None` without an error, and `raw` the whole of it.
    """

    value: dict[str, Any] | None
    raw: str
    error: str = ""


@dataclass(frozen=True)
class VLMReply:
    """What a backend got for one request: a text, or the reason why there is none that could be repaired."""

    text: str
    error: str = ""


@dataclass
class VLMUsage:
    """What a model was asked, added up. Tokens are those that the backend reports."""

    requests: int = 0
    repairs: int = 0
    retries: int = 0
    cache_hits: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class VLMUnavailable(StoppedError):
    """
    The model cannot be reached or loaded, whatever the question: the run stops and can be continued. The message says
    what was tried and what to do.
    """


@dataclass
class VLM(ABC):
    """
    A vision-language model.

    Attributes:
        model (`str`): Id or name, recorded as the source of texts.
        revision (`str`): Commit of the model where it is known, else empty; part of the cache's key.
        usage (`VLMUsage`): Counted by [`ask`].
    """

    model: str
    revision: str = ""
    usage: VLMUsage = field(default_factory=VLMUsage, init=False)

    @abstractmethod
    def ask(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        """
        Answers in the order of the requests, one for each. An answer that is no JSON or does not fit its schema is
        asked for once more, with what was wrong, and then given up (`value=None`). Free text is asked for once.

        Raises:
            VLMUnavailable: the model itself cannot be had.
        """

    @property
    def coordinates(self) -> str:
        """
        Name of the convention that the model writes boxes in, one of
        [`datasets_script.vlm.conventions.CONVENTIONS`]: by its name, that of its family; `"normalized"` for others.
        """
        return convention_for(self.model)

    @property
    def pixel_bounds(self) -> tuple[int, int]:
        """
        Least and most pixels of an image that the model gets. Where they are not known, those of the published
        Qwen2.5-VL models.
        """
        return pixel_bounds(None)

    def box_format(
        self, coordinates: str | None = None, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> BoxFormat:
        """
        Return how boxes in the model's answers are meant.

        Args:
            coordinates (`str`, *optional*): Name of a convention, by default the model's [`coordinates`].
            min_pixels, max_pixels (`int`, *optional*): Bounds of its image processor, by default its [`pixel_bounds`].

        Raises:
            UserError: there is no such convention, or `min_pixels` is above `max_pixels`.
        """
        least, most = self.pixel_bounds
        return BoxFormat(coordinates or self.coordinates, min_pixels or least, max_pixels or most)

    def identity(self) -> dict[str, Any]:
        """What a run records of the model, JSON-serialisable."""
        return {"model": self.model, "revision": self.revision}


class GeneratingVLM(VLM):
    """What backends share: texts are generated, read as JSON, and where that fails asked for once more."""

    def ask(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        answers = self._ask_once(requests)
        broken = [index for index, answer in enumerate(answers) if answer.error and requests[index].schema is not None]
        self.usage.repairs += len(broken)
        repairs = [_repair(requests[index], answers[index]) for index in broken]
        for index, answer in zip(broken, self._ask_once(repairs), strict=True):
            answers[index] = answer
        self.usage.failures += sum(bool(answer.error) for answer in answers)
        return answers

    @abstractmethod
    def _generate(self, requests: Sequence[VLMRequest]) -> list[VLMReply]:
        """A reply to each of the requests, in their order; counts tokens."""

    def _ask_once(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        if not requests:
            return []
        self.usage.requests += len(requests)
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
