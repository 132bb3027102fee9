"""A model at an endpoint that several threads ask: one limit, one count, and answers that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datasets_script.agents.prompts import caption
from datasets_script.utils.photos import open_source
from datasets_script.vlm import CachedVLM, EndpointVLM
from datasets_script.vlm.slots import Slots

from ...helpers.engine_runs import SOURCES, make_photos
from ...helpers.scripted_endpoint import KnownPhotos, ScriptedEndpoint, scripted_endpoint


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"))


@pytest.fixture
def endpoint(photos, online) -> Iterator[ScriptedEndpoint]:
    with scripted_endpoint(KnownPhotos(photos, SOURCES)) as endpoint:
        yield endpoint


def test_all_threads_share_the_limit_of_requests(endpoint, photos):
    vlm, endpoint.seconds = EndpointVLM("m", endpoint.base_url, max_concurrency=2), 0.05
    questions = [caption.request(open_source(photos / name)) for name in SOURCES] * 2
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(vlm.ask, [questions] * 3))
    assert answers[0] == answers[1] == answers[2] and all(answer.value for answer in answers[0])
    assert endpoint.most_at_once == 2 and len(endpoint.asked) == vlm.usage.requests == 18
    assert (vlm.usage.prompt_tokens, vlm.usage.completion_tokens) == (18 * 7, 18 * 3)


def test_what_another_thread_asks_can_be_given_up(endpoint, photos, tmp_path):
    vlm = CachedVLM(EndpointVLM("m", endpoint.base_url, max_concurrency=1), tmp_path)
    endpoint.held[SOURCES[0]] = threading.Event()
    questions = [caption.request(open_source(photos / name)) for name in SOURCES]
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(vlm.ask, questions)
        assert endpoint.await_question(SOURCES[0])
        vlm.cancel()
        assert isinstance(asking.exception(60), asyncio.CancelledError)
    assert endpoint.asked == [("caption", SOURCES[0])] and not endpoint.answered
    vlm.cancel()  # nothing in hand
    assert all(answer.value for answer in vlm.ask(questions[1:])), "its slot is free again"


def test_slots_go_to_those_who_came_first_and_not_to_those_who_left():
    slots, taken, left = Slots(1), [], threading.Event()

    async def work(name: str, entered: asyncio.Event | None = None) -> None:
        async with slots.one():
            taken.append(name)
            if entered:
                entered.set()
                await asyncio.to_thread(left.wait, 60)

    async def several() -> None:
        entered = asyncio.Event()
        first = asyncio.create_task(work("first", entered))
        await entered.wait()
        leaving = asyncio.create_task(work("leaving"))
        second = asyncio.create_task(work("second"))
        await asyncio.sleep(0)
        leaving.cancel()
        with ThreadPoolExecutor(1) as pool:
            other_loop = pool.submit(asyncio.run, work("third, in another loop"))
            while len(slots._waiting) < 3:
                await asyncio.sleep(0.01)
            left.set()
            await asyncio.gather(first, second)
            await asyncio.wrap_future(other_loop)

    asyncio.run(several())
    assert taken == ["first", "second", "third, in another loop"]
    asyncio.run(work("last"))
    assert taken[-1] == "last"
