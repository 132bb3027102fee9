"""Items that another thread makes ahead: their order, how many wait, errors, and the end of the thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from datasets_script.utils.background import Background


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "artiagent-ahead"]


def test_items_come_in_order_and_the_thread_ends():
    background = Background(iter(range(50)), ahead=3)
    assert list(background) == list(range(50)) and next(background, None) is None
    background.close()
    assert not threads() and next(background, None) is None


def test_items_are_made_by_another_thread_and_no_more_than_may_wait():
    makers, third, made = set(), threading.Event(), []

    def items() -> Iterator[int]:
        for item in range(9):
            makers.add(threading.current_thread())
            made.append(item)
            if item == 2:
                third.set()
            yield item

    background = Background(items(), ahead=2)
    assert not third.wait(0.2) and made == [0, 1]
    assert next(background) == 0 and third.wait(30)
    background.close()
    assert made == [0, 1, 2] and threading.current_thread() not in makers and not threads()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_is_raised_comes_after_the_items_before(error):
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    background = Background(items(), ahead=5)
    assert [next(background), next(background)] == [1, 2]
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            next(background)
        assert raised.value is error
    background.close()
    assert not threads()


def test_closing_interrupts_what_the_thread_waits_for():
    waiting, interrupted = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        waiting.set()
        interrupted.wait()
        yield 2

    background = Background(items(), 2, interrupted.set)
    assert waiting.wait(30) and threads()
    background.close()
    background.close()
    assert not threads() and list(background) == []


def test_closing_wakes_a_thread_that_waits_for_room():
    background = Background(iter(range(9)), ahead=1)
    assert next(background) == 0
    background.close()
    assert not threads()
