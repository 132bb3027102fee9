"""A vision-language model behind an OpenAI-compatible server: vLLM, TGI, `transformers serve`, hosted providers."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import random
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants
from PIL import Image

from .answers import RAW_LIMIT, shorten
from .base import GeneratingVLM, VLMReply, VLMRequest, VLMUnavailable
from .slots import Slots


logger = logging.getLogger(__name__)

StructuredOutput = Literal["auto", "always", "never"]

# Hundreds of times the longest answer asked for.
_MAX_BYTES = 1_000_000
_NO_KEY = "none"
_KEPT = "Answers so far are kept"
_REFUSED_REQUEST = (400, 413, 422)
# Parts of an answer that are not its text: the model's reasoning, and sources that a server adds.
_NOT_THE_ANSWER = ("thinking", "redacted_thinking", "reasoning", "reference")
# Statuses by which servers refuse an unknown field of a request.
_REFUSED_PART = (400, 422)
_REFUSED_KEY = (401, 403)
_NOT_THERE = (404, 405)
_MAX_PAUSE = 60.0
# Servers may ask for longer pauses; then it is better to stop the run and continue it later.
_MAX_RETRY_AFTER = 600.0


class _BadReplyError(Exception):
    """An answer of the server that a retry would not mend; `text` is its beginning."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.text = text


class _RefusedError(_BadReplyError):
    """The server refuses a part of the request, which may be the schema."""


class EndpointVLM(GeneratingVLM):
    """
    A model on a server, which gets several requests at once. Status 429, 5xx, timeouts and broken connections are
    retried after a growing, randomised pause, or the pause that the server asks for with `Retry-After`. An error in
    the body of status 200, as some hosts send it, counts as its own code, and as a 5xx without one. Of an answer in
    parts, the texts are joined and the model's reasoning is left out.

    The API key is `ARTIAGENT_API_KEY`; if that is not set, `HF_TOKEN` for servers of Hugging Face and `OPENAI_API_KEY`
    for those of OpenAI, so that neither is sent to anyone else. It is never logged or recorded.

    Args:
        model (`str`): Name of a model on the server.
        base_url (`str`): URL of the server, e.g. `"http://localhost:8000/v1"`.
        max_concurrency (`int`, *optional*, defaults to 8): Maximum number of simultaneous requests, of all threads
            together.
        timeout (`float`, *optional*, defaults to 120.0): Maximum duration of one answer in seconds.
        max_retries (`int`, *optional*, defaults to 6): Maximum number of retries of one request.
        base_delay (`float`, *optional*, defaults to 1.0): Maximum first pause in seconds; it doubles each time, up to
            a minute.
        structured_output (`str`, *optional*, defaults to `"auto"`): Whether to send the JSON schema, for servers that
            can enforce one: `"always"`, `"never"`, or `"auto"`, which sends it until the server refuses it.
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
        self._slots = Slots(max_concurrency)
        self._in_hand: set[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = set()
        self._lock = Lock()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"endpoint": True}

    @property
    def is_remote(self) -> bool:
        return True

    def cancel(self) -> None:
        with self._lock:
            for loop, task in self._in_hand:
                loop.call_soon_threadsafe(task.cancel)

    def _generate(self, requests: Sequence[VLMRequest]) -> list[VLMReply]:
        return _run(self._generate_all(requests))

    async def _generate_all(self, requests: Sequence[VLMRequest]) -> list[VLMReply]:
        if constants.is_offline_mode():
            raise VLMUnavailable(
                f"{self.base_url} must not be called while HF_HUB_OFFLINE is set, not even on this machine; unset it. "
                f"{_KEPT}"
            )
        key = api_key(self.base_url) or _NO_KEY
        headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}
        async with httpx2.AsyncClient(headers=headers, timeout=self.timeout, follow_redirects=True) as client:
            tasks = [asyncio.create_task(self._generate_one(client, request)) for request in requests]
            try:
                with self._cancellable():
                    return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    @contextmanager
    def _cancellable(self) -> Iterator[None]:
        """Let [`cancel`] end the current task."""
        task = asyncio.current_task()
        assert task is not None  # called in a coroutine
        entry = (asyncio.get_running_loop(), task)
        with self._lock:
            self._in_hand.add(entry)
        try:
            yield
        finally:
            with self._lock:  # so that no loop ends while `cancel` turns to it
                self._in_hand.discard(entry)

    async def _generate_one(self, client: httpx2.AsyncClient, request: VLMRequest) -> VLMReply:
        async with self._slots.one():
            with_schema = self._sends_schema and request.schema is not None
            try:
                return VLMReply(await self._text(client, request, with_schema))
            except _BadReplyError as error:
                reply = VLMReply(error.text, str(error))
                if not (with_schema and self.structured_output == "auto" and isinstance(error, _RefusedError)):
                    return reply
            try:
                plain = VLMReply(await self._text(client, request, False))
            except _BadReplyError as error:
                return VLMReply(error.text, str(error))
            if self._sends_schema:
                # The answer is checked against the schema all the same.
                logger.warning("%s refuses JSON schemas (%s): going on without them", self.base_url, reply.error)
                self._sends_schema = False
            return plain

    async def _text(self, client: httpx2.AsyncClient, request: VLMRequest, with_schema: bool) -> str:
        for attempt in range(self.max_retries + 1):
            try:
                # The client's own timeout restarts with every byte that arrives.
                response, content = await asyncio.wait_for(self._post(client, request, with_schema), self.timeout)
            except (TimeoutError, httpx2.TimeoutException):
                problem, pause = f"no answer within {self.timeout:g} s", 0.0
            except httpx2.HTTPError as error:
                problem, pause = f"{type(error).__name__}: {error}", 0.0
            else:
                told = error_in(content) if response.is_success else None
                if response.is_success and told is None:
                    return self._read(content)
                problem, pause = self._take_status(response, content, told)
            if attempt < self.max_retries:
                self.usage.add(retries=1)
                await asyncio.sleep(max(pause, self._pause(attempt)))
        raise VLMUnavailable(
            f"{self.base_url} gave no answer in {self.max_retries + 1} attempts, the last time: {problem}. Once it is "
            f"available again, the same command continues. {_KEPT}"
        )

    def _pause(self, attempt: int) -> float:
        return min(_MAX_PAUSE, self.base_delay * 2**attempt) * self._jitter.uniform(0.5, 1.0)

    def _take_status(
        self, response: httpx2.Response, content: bytes, in_body: tuple[int, str] | None = None
    ) -> tuple[str, float]:
        """
        Return the message for a status that is worth a retry, and the least pause before it; raise for other statuses.
        """
        status, text = response.status_code, self._without_key(content.decode(errors="replace"))
        told = f"HTTP {status}: {shorten(text)}" if text else f"HTTP {status}"
        if in_body is not None:
            status, words = in_body
            told = f"an error with HTTP {response.status_code}: {shorten(self._without_key(words))}"
        if status in (408, 429) or status >= 500:
            return told, retry_after(response.headers.get("Retry-After", ""))
        if status in _REFUSED_KEY:
            raise VLMUnavailable(
                f"{self.base_url} refuses the key ({told}); set ARTIAGENT_API_KEY to one it accepts. {_KEPT}"
            )
        if status in _NOT_THERE:
            raise VLMUnavailable(
                f"{self.base_url} has no chat completions for '{self.model}' ({told}); check both names. {_KEPT}"
            )
        if status in _REFUSED_REQUEST:
            refused = _RefusedError if status in _REFUSED_PART else _BadReplyError
            raise refused(f"the server refuses the request: {told}", text[:RAW_LIMIT])
        raise VLMUnavailable(f"{self.base_url} does not serve this: {told}. {_KEPT}")

    def _without_key(self, text: str) -> str:
        """Hide the key in a server's message: some servers repeat a key that they refuse."""
        key = api_key(self.base_url)
        return text.replace(key, "[key]") if key else text

    async def _post(
        self, client: httpx2.AsyncClient, request: VLMRequest, with_schema: bool
    ) -> tuple[httpx2.Response, bytes]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": _content(request)}],
            "max_tokens": request.max_new_tokens,
            "temperature": 0.0,
            "seed": 0,
            "stream": False,
        }
        if with_schema:
            schema = {"name": request.task, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        async with client.stream("POST", completions_url(self.base_url), json=body) as response:
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _MAX_BYTES:
                    text = content[:RAW_LIMIT].decode(errors="replace")
                    raise _BadReplyError(f"the answer is too long: over {_MAX_BYTES:,} bytes", text)
            return response, content

    def _read(self, content: bytes) -> str:
        """Return the text of a chat completion, and count its tokens."""
        try:
            completion = json.loads(content)
            text = _joined(completion["choices"][0]["message"]["content"])
            usage = completion.get("usage") or {}
            prompt_tokens, completion_tokens = (usage.get(f"{kind}_tokens") or 0 for kind in ("prompt", "completion"))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            told = content[:RAW_LIMIT].decode(errors="replace")
            raise _BadReplyError(f"the server's answer is no chat completion: {error!r}", told) from error
        self.usage.add(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        return text


def _run(coroutine: Coroutine[Any, Any, list[VLMReply]]) -> list[VLMReply]:
    """Run a coroutine like `asyncio.run`, even inside a running event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def completions_url(base_url: str) -> str:
    """
    Return the URL of a server's chat completions: `/v1/chat/completions` below the path it already has.

    ```python
    >>> completions_url("http://localhost:8000/v1"), completions_url("https://host/api/?key=1")
    ('http://localhost:8000/v1/chat/completions', 'https://host/api/v1/chat/completions?key=1')

    ```

    """
    return endpoint_url(base_url, "/chat/completions")


def endpoint_url(base_url: str, route: str) -> str:
    """
    Return the URL of one of a server's routes: `/v1` and the route, below the path it already has.

    ```python
    >>> endpoint_url("http://localhost:8000/v1", "/images/edits"), endpoint_url("https://host", "/images/edits")
    ('http://localhost:8000/v1/images/edits', 'https://host/v1/images/edits')

    ```

    """
    url = urlsplit(base_url)
    path = url.path.rstrip("/")
    if not path.endswith(route):
        path += route if path.endswith("/v1") else f"/v1{route}"
    return url._replace(path=path).geturl()


def api_key(base_url: str) -> str | None:
    """Return the API key for a server from the environment, `None` if there is none; see [`EndpointVLM`]."""
    if key := os.environ.get("ARTIAGENT_API_KEY"):
        return key
    host = urlsplit(base_url).hostname or ""
    if host.endswith((".huggingface.co", ".huggingface.cloud")):
        return os.environ.get("HF_TOKEN")
    if host.endswith(".openai.com"):
        return os.environ.get("OPENAI_API_KEY")
    return None


def retry_after(value: str) -> float:
    """
    Return the seconds to wait by a `Retry-After` header, which holds a number of seconds or a date; at most ten
    minutes.
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER) if seconds == seconds else 0.0


def error_in(content: bytes) -> tuple[int, str] | None:
    """
    Find an error in the body of an answer whose status says that there is none: beside or within its choices.

    Args:
        content (`bytes`): Body of the answer.

    Returns:
        `tuple[int, str]`, *optional*: The status that the error stands for, 500 if it names none, and the server's
        words; `None` if there is no error.

    Example:

    ```python
    >>> error_in(b'{"error": {"message": "Provider returned error", "code": 429}}')
    (429, 'Provider returned error (code 429)')
    >>> error_in(b'{"choices": [{"message": {"content": "No."}}], "error": null}')

    ```

    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = body.get("error") or choice.get("error") or (body if body.get("object") == "error" else None)
    if not error:
        return None
    if not isinstance(error, dict):
        return 500, str(error)
    code, words = error.get("code"), error.get("message")
    words = words if isinstance(words, str) and words else json.dumps(error)
    if code is not None:
        words = f"{words} (code {code})"
    if str(code).isdecimal() and 400 <= int(str(code)) < 600:
        return int(str(code)), words
    # Such a request would be refused again and again.
    return (400 if "invalid" in f"{code} {error.get('type')}" else 500), words


def _joined(content: Any) -> str:
    """
    Return the text of a message's content, which is a text or a list of parts.

    Raises:
        TypeError: It is neither.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content if isinstance(content, list) else [content]:
        kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else ("text", part)
        if kind in _NOT_THE_ANSWER:
            continue
        if not isinstance(text, str):
            raise TypeError(f"content must be a text or a list of texts, got {part!r:.80}")
        texts.append(text)
    return "".join(texts)


def _content(request: VLMRequest) -> list[dict[str, Any]]:
    images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in request.images]
    return [*images, {"type": "text", "text": request.prompt}]


def data_url(image: Image.Image) -> str:
    """Encode an image as a PNG in a data URL. PNG is lossless: JPEG blocks could pass for small artifacts."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
