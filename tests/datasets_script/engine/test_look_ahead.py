"""An endpoint that is asked about the next shard while artifacts are injected into this one: what stays the same."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets_script.agents.perception import PerceptionError
from datasets_script.engine.injector import Injector
from datasets_script.engine.ledger import marker, read_rejected
from datasets_script.engine.run import Run
from datasets_script.engine.settings import RunSettings
from datasets_script.engine.stages import Locate, Name, Perceive, Read, Sample
from datasets_script.engine.status import status_text
from datasets_script.vlm import EndpointVLM, VLMUnavailable

from ...helpers.engine_runs import CHILDREN, SETTINGS, SOURCES, SmallInjector, make_run, rows
from ...helpers.scripted_endpoint import AnnotatedVocabulary, KnownPhotos, ScriptedEndpoint, scripted_endpoint


AHEAD = replace(SETTINGS, pairs_per_image=1)


@pytest.fixture(scope="module")
def known(photos) -> KnownPhotos:
    return KnownPhotos(photos, SOURCES)


@pytest.fixture
def endpoint(known, online) -> Iterator[ScriptedEndpoint]:
    with scripted_endpoint(known) as endpoint:
        yield endpoint
    assert not [thread for thread in threading.enumerate() if thread.name == "artiagent-ahead"]


class WatchedInjector(SmallInjector):
    """Calls `before` with each job's number, and notes in `events` when a job is done."""

    def watch(self, events: list[tuple[str, str]], before: Callable[[int], None] = lambda _: None) -> WatchedInjector:
        self.events, self.before, self.count = events, before, 0
        return self

    def inject(self, jobs):
        self.before(self.count)
        self.count += 1
        done = super().inject(jobs)
        self.events.append(("injected", SOURCES[self.count - 1]))
        return done


@pytest.fixture(scope="module")
def watched() -> WatchedInjector:
    return WatchedInjector(AHEAD.model, AHEAD.injection, device="cpu")


def run_of(
    photos: Path,
    out: Path,
    url: str,
    known: KnownPhotos,
    injector: Injector,
    settings: RunSettings = AHEAD,
    **options: Any,
) -> Run:
    vlm = EndpointVLM("scripted", url, max_concurrency=4)
    perception = AnnotatedVocabulary(vlm, known)
    return make_run(photos, out, injector, settings, perception=perception, vlm=vlm, **options)


@pytest.fixture(scope="module")
def one_by_one(photos, injector, known, online, tmp_path_factory) -> Path:
    """A run that does nothing ahead."""
    out = tmp_path_factory.mktemp("one_by_one")
    with scripted_endpoint(known) as endpoint:
        run = run_of(photos, out, endpoint.base_url, known, injector, look_ahead=False)
        assert run.synthesizer.ahead is None
        run.execute(show_progress=False)
    assert len(rows(out)) == len(SOURCES)
    return out


def counted(out: Path) -> dict[str, float]:
    """Return everything that a run records but its time."""
    return json.loads((out / "run.json").read_text()) | {"seconds": 0}


def asked_of(endpoint: ScriptedEndpoint, source: str) -> list[str]:
    return sorted(task for task, photo in endpoint.asked if photo == source and task in ("caption", "vocabulary"))


def test_the_next_shard_is_asked_about_during_injection_and_rows_stay(
    photos, known, endpoint, watched, one_by_one, tmp_path
):
    arrived = []

    def before(number: int) -> None:
        if number < 2:
            arrived.append(endpoint.await_question(SOURCES[number + 1]))

    injector = watched.watch(endpoint.asked, before)
    run_of(photos, tmp_path, endpoint.base_url, known, injector).execute(show_progress=False)
    assert arrived == [True, True], "the question comes while the shard before is injected"
    order = endpoint.asked
    assert order.index(("injected", SOURCES[0])) < order.index(("caption", SOURCES[2])), "no more than a shard ahead"
    assert all(asked_of(endpoint, source) == ["caption", "vocabulary"] for source in SOURCES)
    assert rows(tmp_path) == rows(one_by_one) and list(read_rejected(tmp_path)) == list(read_rejected(one_by_one))
    assert counted(tmp_path) == counted(one_by_one) and counted(tmp_path)["vlm_requests"] > 2 * len(SOURCES)


def test_a_fault_ahead_stops_the_run_where_it_would_have_stopped(
    photos, known, endpoint, injector, one_by_one, tmp_path
):
    endpoint.refused = {SOURCES[1]}
    with pytest.raises(VLMUnavailable, match="refuses the key"):
        run_of(photos, tmp_path, endpoint.base_url, known, injector).execute(show_progress=False)
    assert [marker(tmp_path, shard).exists() for shard in range(3)] == [True, False, False]
    assert "refuses the key" in status_text(tmp_path) and not asked_of(endpoint, SOURCES[2])
    assert rows(tmp_path) == rows(one_by_one)[:1]
    endpoint.refused = set()
    run_of(photos, tmp_path, endpoint.base_url, known, injector).execute(show_progress=False)
    assert rows(tmp_path) == rows(one_by_one) and len(asked_of(endpoint, SOURCES[0])) == 2, "asked once"


def test_an_interrupt_does_not_wait_for_what_was_asked_ahead(photos, known, endpoint, watched, one_by_one, tmp_path):
    """In one shard of all photos, so that the journal is continued, too."""
    endpoint.held[SOURCES[2]] = threading.Event()

    def interrupt(number: int) -> None:
        if number == 1:
            assert endpoint.await_question(SOURCES[2])
            raise KeyboardInterrupt

    one_shard = replace(AHEAD, shard_size=3)
    with pytest.raises(KeyboardInterrupt):
        run_of(photos, tmp_path, endpoint.base_url, known, watched.watch([], interrupt), one_shard).execute(False)
    assert SOURCES[2] not in {photo for _, photo in endpoint.answered}, "its answer never came"
    assert "photos 0/3 in finished shards and 1 in others" in status_text(tmp_path)
    endpoint.held[SOURCES[2]].set()
    run_of(photos, tmp_path, endpoint.base_url, known, watched.watch([]), one_shard).execute(False)
    assert rows(tmp_path) == rows(one_by_one)
    assert asked_of(endpoint, SOURCES[0]) == ["caption", "vocabulary"], "what the journal holds is not asked again"


def execute_killed(photos: Path, out: Path, url: str) -> None:
    """Run, and be killed in the injection of the second photo."""
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = False
    torch.set_num_threads(1)

    def kill(number: int) -> None:
        if number == 1:
            signal.raise_signal(signal.SIGKILL)

    injector = WatchedInjector(AHEAD.model, AHEAD.injection, device="cpu").watch([], kill)
    run_of(photos, out, url, KnownPhotos(photos, SOURCES), injector).execute(show_progress=False)


def test_a_killed_run_is_continued_with_the_same_rows(photos, known, endpoint, injector, one_by_one, tmp_path):
    process = CHILDREN.Process(target=execute_killed, args=(photos, tmp_path, endpoint.base_url))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [marker(tmp_path, shard).exists() for shard in range(3)] == [True, False, False]
    assert "shards 1/3" in status_text(tmp_path)
    run_of(photos, tmp_path, endpoint.base_url, known, injector).execute(show_progress=False)
    assert rows(tmp_path) == rows(one_by_one)


def through(stages, samples: Sequence[Sample]) -> list[Sample]:
    for stage in stages:
        samples = stage.run(samples)
    return list(samples)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_asked_ahead_or_not_photos_are_perceived_and_rejected_alike(photos, known, endpoint, batch_size):
    endpoint.unnamed = {SOURCES[1]}
    agent = AnnotatedVocabulary(EndpointVLM("scripted", endpoint.base_url), known)
    samples = [Sample("missing.png"), *map(Sample, SOURCES), Sample("barred.png").rejected("read", "barred")]
    together = through([Read(photos), Perceive(agent, batch_size)], samples)
    named = through([Read(photos), Name(agent, batch_size)], samples)
    assert all(sample.image is None for sample in named), "photos that wait are not kept"
    assert isinstance(named[2].naming, PerceptionError)
    apart = through([Read(photos), Locate(agent, batch_size)], named)
    assert [sample.rejections for sample in apart] == [sample.rejections for sample in together]
    assert [sample.alive for sample in apart] == [False, True, False, True, False]
    assert apart[2].rejections[0].stage == "perceive" and apart[2].rejections[0].raw == "I would rather not."
    for one, other in zip(apart, together, strict=True):
        if one.alive:
            assert one.perception and other.perception
            assert one.perception.caption == other.perception.caption
            for entity, same in zip(one.perception.entities, other.perception.entities, strict=True):
                assert entity.name == same.name and (entity.mask == same.mask).all()


def test_only_a_remote_model_is_asked_ahead(photos, known, endpoint, injector, talking, tmp_path):
    from datasets_script.vlm import LocalVLM

    local = AnnotatedVocabulary(LocalVLM(str(talking), device="cpu"), known)
    assert make_run(photos, tmp_path / "local", injector, AHEAD, perception=local).synthesizer.ahead is None
    assert make_run(photos, tmp_path / "annotations", injector, AHEAD).synthesizer.ahead is None
    assert run_of(photos, tmp_path / "remote", endpoint.base_url, known, injector).synthesizer.ahead is not None
