"""Limit on simultaneous work that event loops in several threads share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Lock


class Slots:
    """
    Limit on what is done at once, first come, first served. `asyncio.Semaphore` is of one event loop, but each thread
    that asks a model has its own.

    Args:
        count (`int`): The limit.
    """

    def __init__(self, count: int) -> None:
        self._free, self._lock = count, Lock()
        self._waiting: deque[Future[None]] = deque()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a slot, and keep it within the block."""
        turn: Future[None] = Future()
        with self._lock:
            self._waiting.append(turn)
            self._serve()
        try:
            await asyncio.wrap_future(turn)
            yield
        finally:
            with self._lock:
                self._free += not turn.cancel()  # what cannot be cancelled was served
                self._serve()

    def _serve(self) -> None:
        while self._free and self._waiting:
            turn = self._waiting.popleft()
            if turn.set_running_or_notify_cancel():
                self._free -= 1
                turn.set_result(None)
