"""Work that another thread does ahead of its use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar


Item = TypeVar("Item")

_SECONDS_BETWEEN_INTERRUPTS = 0.05


class Background(Iterator[Item]):
    """
    Iterator over items that another thread makes, in order, before they are asked for. What making one raises, it
    raises after the items before.

    Args:
        items (`Iterable`): What to iterate over; only that thread does.
        ahead (`int`): Most items that wait to be asked for, with the one in the making.
        interrupt (`Callable[[], None]`, *optional*): Ends what the thread waits for, which then raises; called by
            [`close`], until the thread has ended.
    """

    def __init__(self, items: Iterable[Item], ahead: int, interrupt: Callable[[], None] = lambda: None) -> None:
        self._items, self._interrupt = iter(items), interrupt
        self._room, self._closed = Semaphore(ahead), Event()
        self._made: SimpleQueue[tuple[Item] | BaseException] = SimpleQueue()
        self._end: BaseException | None = None
        self._thread = Thread(target=self._work, name="artiagent-ahead", daemon=True)
        self._thread.start()

    def __next__(self) -> Item:
        if self._end is not None:
            raise self._end
        made = self._made.get()
        if isinstance(made, BaseException):
            self._end = made
            raise made
        self._room.release()
        return made[0]

    def close(self) -> None:
        """Stop the thread and wait for its end. Items that were not asked for are lost."""
        self._end = self._end or StopIteration()
        self._closed.set()
        self._room.release()
        while self._thread.is_alive():
            self._interrupt()
            self._thread.join(_SECONDS_BETWEEN_INTERRUPTS)

    def _work(self) -> None:
        try:
            while self._room.acquire() and not self._closed.is_set():
                self._made.put((next(self._items),))
        except BaseException as error:  # `StopIteration` at the end, and what interrupts a run: raised by `__next__`
            self._made.put(error)
