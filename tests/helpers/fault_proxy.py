"""A proxy on localhost that injects faults between a client and an OpenAI-compatible server."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


FAULTS = (
    "pass", "hang_up", "slow", "429", "500", "401", "404", "413", "no_schemas", "html", "cut_json", "wrong_schema",
    "prose", "empty", "huge", "parts", "error_200", "error_in_choice", "refused_200",
)  # fmt: skip
"""
What can happen to a request: it passes to the server; the connection is closed without an answer; nothing comes for
`slow_seconds`; a status (429 with `Retry-After: 0.05`); "no_schemas" is 400 for requests with a `response_format` and
passes others; a page of HTML with status 200; the server's JSON cut in the middle; an answer that is other JSON,
prose, empty, or 10 MB long. "parts" is an answer in parts after its reasoning, "error_200" and "error_in_choice" are
errors in a body with status 200, which may pass, and "refused_200" is one that will not.
"""

_TEXTS: dict[str, Any] = {
    "wrong_schema": '{"has_artifact": "perhaps", "why": 1}',
    "prose": "I would rather not.",
    "empty": "",
}
_TEXTS["parts"] = [
    {"type": "thinking", "thinking": [{"type": "text", "text": '{"has_artifact": false}'}]},
    {"type": "text", "text": '{"has_artifact": '},
    {"type": "text", "text": "true}"},
]
_BODIES = {
    "error_200": {"error": {"message": "Provider returned error", "code": 429}},
    "error_in_choice": {"choices": [{"finish_reason": "error", "error": {"message": "Upstream died", "code": 502}}]},
    "refused_200": {"error": {"message": "The picture is too small", "type": "invalid_request_error", "code": None}},
}
_TEXTS["huge"] = '{"a": ' * 1_700_000


class FaultProxy:
    """
    Attributes:
        base_url (`str`): URL for clients.
        faults (`deque[str]`): Faults of the next requests, in order; see `FAULTS`.
        always (`str`): Fault of requests once `faults` is empty.
        requests (`list[dict]`): Bodies of the requests so far.
        keys (`set[str]`): `Authorization` headers seen so far.
    """

    def __init__(self, upstream: str, slow_seconds: float = 1.0) -> None:
        self.upstream, self.slow_seconds = upstream, slow_seconds
        self.faults: deque[str] = deque()
        self.always = "pass"
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def take(self, body: dict[str, Any], key: str) -> str:
        with self._lock:
            self.requests.append(body)
            self.keys.add(key)
            return self.faults.popleft() if self.faults else self.always

    def reset(self, *faults: str, always: str = "pass") -> FaultProxy:
        """Forget past requests and pending faults."""
        self.faults, self.always = deque(faults), always
        self.requests.clear()
        self.keys.clear()
        return self

    def forward(self, body: bytes) -> bytes:
        request = urllib.request.Request(
            f"{self.upstream}/chat/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()


@contextmanager
def fault_proxy(upstream: str, slow_seconds: float = 1.0) -> Iterator[FaultProxy]:
    """Run a proxy in front of the server at the base URL `upstream`."""
    proxy = FaultProxy(upstream, slow_seconds)
    thread = threading.Thread(target=proxy._server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy._server.shutdown()
        proxy._server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        fault = self.proxy.take(body, self.headers.get("Authorization", ""))
        if fault == "hang_up":
            self.close_connection = True
        elif fault == "slow":
            time.sleep(self.proxy.slow_seconds)
            self.close_connection = True
        elif fault == "no_schemas" and body.get("response_format"):
            self._answer(400, b'{"error": "response_format is not supported"}')
        elif fault in ("429", "500", "401", "404", "413"):
            self._answer(int(fault), b'{"error": "as you wished"}', {"Retry-After": "0.05"} if fault == "429" else {})
        elif fault == "html":
            self._answer(200, b"<html><body>Welcome to our network</body></html>", kind="text/html")
        elif fault in _BODIES:
            self._answer(200, json.dumps(_BODIES[fault]).encode())
        elif fault in _TEXTS:
            self._answer(200, completion(_TEXTS[fault]))
        else:
            answer = self.proxy.forward(raw)
            self._answer(200, answer[: len(answer) // 2] if fault == "cut_json" else answer)

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        # A client may close the connection early.
        with suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def completion(text: str | list[dict[str, Any]]) -> bytes:
    """Return the body that an OpenAI-compatible server sends for an answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    content = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps(content | {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}).encode()
