"""A vision-language model behind any OpenAI-compatible server: vLLM, TGI, `transformers serve`, hosted providers."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from huggingface_hub import AsyncInferenceClient, InferenceTimeoutError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from PIL import Image

from .answers import RAW_LIMIT, shorten
from .base import GeneratingVLM, VLMReply, VLMRequest, VLMUnavailable


logger = logging.getLogger(__name__)

StructuredOutput = Literal["auto", "always", "never"]

# The base class of everything that can go wrong on the way to a server and back; its package depends on the version.
_TransportError = HfHubHTTPError.__bases__[0]
_REFUSED_KEY = (401, 403)
_NOT_THERE = (404, 405)
_MAX_PAUSE = 60.0
# Servers may ask for long pauses; beyond this the run had better be stopped and continued.
_MAX_RETRY_AFTER = 600.0


class _BadReplyError(Exception):
    """A server's answer to one request that trying again would not mend; `text` is its beginning."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.text = text


class EndpointVLM(GeneratingVLM):
    """
    Asks a server, several requests at once. 429, 5xx, timeouts and broken connections are tried again after a growing,
    randomised pause, or the one that the server asks for with `Retry-After`.

    The key is taken from `ARTIAGENT_API_KEY`; where that is not set, from `HF_TOKEN` for servers of Hugging Face and
    from `OPENAI_API_KEY` for OpenAI's, so that neither is sent to anyone else. It is never logged or recorded.

    Args:
        model (`str`): Name of a model that the server has.
        base_url (`str`): Where it listens, e.g. `"http://localhost:8000/v1"`.
        max_concurrency (`int`): Most requests at once.
        timeout (`float`): Seconds one answer may take.
        max_retries (`int`): How often one request is tried again.
        base_delay (`float`): Longest first pause, seconds; it doubles each time, up to a minute.
        structured_output (`str`): Whether the JSON schema is sent along, for servers that can hold to one. `"auto"`
            sends it until the server refuses it.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        max_concurrency: int = 8,
        timeout: float = 120.0,
        max_retries: int = 6,
        base_delay: float = 1.0,
        structured_output: StructuredOutput = "auto",
    ) -> None:
        super().__init__(model)
        self.base_url, self.timeout = base_url, timeout
        self.max_concurrency, self.max_retries, self.base_delay = max_concurrency, max_retries, base_delay
        self.structured_output = structured_output
        self._sends_schema = structured_output != "never"
        self._jitter = random.Random(0)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"endpoint": True}

    def _generate(self, requests: Sequence[VLMRequest]) -> list[VLMReply]:
        return asyncio.run(self._generate_all(requests))

    async def _generate_all(self, requests: Sequence[VLMRequest]) -> list[VLMReply]:
        limit = asyncio.Semaphore(self.max_concurrency)
        async with AsyncInferenceClient(
            base_url=self.base_url, api_key=api_key(self.base_url), timeout=self.timeout
        ) as client:
            tasks = [asyncio.create_task(self._generate_one(client, limit, request)) for request in requests]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _generate_one(
        self, client: AsyncInferenceClient, limit: asyncio.Semaphore, request: VLMRequest
    ) -> VLMReply:
        async with limit:
            try:
                return VLMReply(await self._text(client, request))
            except _BadReplyError as error:
                return VLMReply(error.text, str(error))

    async def _text(self, client: AsyncInferenceClient, request: VLMRequest) -> str:
        for attempt in range(self.max_retries + 1):
            try:
                return await self._post(client, request)
            except (TimeoutError, InferenceTimeoutError):
                problem, pause = f"no answer within {self.timeout:g} s", 0.0
            except HfHubHTTPError as error:
                problem, pause = self._take_status(error, request)
            except OfflineModeIsEnabled as error:
                raise VLMUnavailable(
                    f"{self.base_url} must not be called while HF_HUB_OFFLINE is set, wherever it is; unset it"
                ) from error
            except _TransportError as error:
                problem, pause = f"{type(error).__name__}: {error}", 0.0
            if attempt < self.max_retries:
                self.usage.retries += 1
                await asyncio.sleep(max(pause, self._pause(attempt)))
        raise VLMUnavailable(
            f"{self.base_url} gave no answer in {self.max_retries + 1} attempts, the last time: {problem}. Once it is "
            "up again, the same command continues"
        )

    def _pause(self, attempt: int) -> float:
        return min(_MAX_PAUSE, self.base_delay * 2**attempt) * self._jitter.uniform(0.5, 1.0)

    def _take_status(self, error: HfHubHTTPError, request: VLMRequest) -> tuple[str, float]:
        """What to tell of a status that is worth another attempt, and the least pause before it; others raise."""
        status, text = error.response.status_code, error.response.text
        told = f"HTTP {status}: {shorten(text)}" if text else f"HTTP {status}"
        if status == 429 or status >= 500:
            return told, retry_after(error.response.headers.get("Retry-After", ""))
        if self._sends_schema and status in (400, 422) and self.structured_output == "auto":
            # The one thing in a request that not every server knows; without it the answer is checked all the same.
            logger.warning("%s refuses JSON schemas (%s): going on without them", self.base_url, told)
            self._sends_schema = False
            return told, 0.0
        if status in _REFUSED_KEY:
            raise VLMUnavailable(f"{self.base_url} refuses the key ({told}); set ARTIAGENT_API_KEY to one it accepts")
        if status in _NOT_THERE:
            raise VLMUnavailable(
                f"{self.base_url} has no chat completions for '{self.model}' ({told}); check both names"
            )
        raise _BadReplyError(f"the server refuses the request: {told}", text[:RAW_LIMIT])

    async def _post(self, client: AsyncInferenceClient, request: VLMRequest) -> str:
        schema = {"name": request.task, "schema": request.schema, "strict": True}
        call = client.chat_completion(
            messages=[{"role": "user", "content": _content(request)}],
            model=self.model,
            max_tokens=request.max_new_tokens,
            temperature=0.0,
            seed=0,
            response_format={"type": "json_schema", "json_schema": schema} if self._sends_schema else None,  # type: ignore[arg-type]
        )
        try:
            # The client's own timeout starts anew with every byte that arrives.
            completion = await asyncio.wait_for(call, self.timeout)
            text = completion.choices[0].message.content
        except HfHubHTTPError:  # of which some are a ValueError too
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _BadReplyError(f"the server's answer is no chat completion: {error!r}", _document(error)) from error
        if completion.usage:
            self.usage.prompt_tokens += completion.usage.prompt_tokens or 0
            self.usage.completion_tokens += completion.usage.completion_tokens or 0
        return text or ""


def api_key(base_url: str) -> str | None:
    """The key for a server, from the environment; see [`EndpointVLM`]."""
    if key := os.environ.get("ARTIAGENT_API_KEY"):
        return key
    host = urlsplit(base_url).hostname or ""
    if host.endswith((".huggingface.co", ".huggingface.cloud")):
        return os.environ.get("HF_TOKEN")
    if host.endswith(".openai.com"):
        return os.environ.get("OPENAI_API_KEY")
    return None


def retry_after(value: str) -> float:
    """Seconds to wait by a `Retry-After` header, which holds a number of them or a date; at most ten minutes."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER) if seconds == seconds else 0.0


def _content(request: VLMRequest) -> list[dict[str, Any]]:
    images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in request.images]
    return [*images, {"type": "text", "text": request.prompt}]


def data_url(image: Image.Image) -> str:
    """A PNG in a URL: without the losses of JPEG, whose blocks a judge of small flaws could take for one."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _document(error: Exception) -> str:
    """The text that a JSON error is about."""
    return str(getattr(error, "doc", error))[:RAW_LIMIT]
