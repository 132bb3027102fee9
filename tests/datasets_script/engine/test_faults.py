"""
What a run must survive. `make test` has the fast versions; `make test-faults` kills more often (`--full-faults`).
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from datasets_script.agents.perception import AnnotationPerception, Perception
from datasets_script.engine.ledger import read_rejected
from datasets_script.engine.locks import RunBusyError, working_ranks
from datasets_script.engine.log import parse_events
from datasets_script.engine.run import RunAborted
from datasets_script.engine.shards import RunMismatchError, Shards, read_barred
from datasets_script.engine.status import status_text
from datasets_script.engine.workers import WorkerPool
from datasets_script.pairs.storage import read_pairs
from datasets_script.utils.photos import list_sources

from ...helpers.engine_runs import CHILDREN, SETTINGS, SOURCES, SmallInjector, make_run, rows, start, start_killed_at


@pytest.fixture(scope="module")
def whole(photos, injector, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    make_run(photos, out, injector).execute(show_progress=False)
    assert len(rows(out)) == 6
    return out


def rejections(out: Path) -> dict[str, str]:
    return {entry["source_id"]: entry["reason"] for entry in read_rejected(out) if entry["stage"] == "read"}


def test_killed_at_random_moments_and_continued_it_ends_with_the_same_rows(photos, injector, whole, tmp_path, request):
    kills = 20 if request.config.getoption("--full-faults") else 3
    moments = random.Random(0)
    first = start(photos, tmp_path)
    began = time.monotonic()
    first.join()
    duration = time.monotonic() - began
    shutil.rmtree(tmp_path)
    killed = 0
    while killed < kills:
        process = start(photos, tmp_path)
        process.join(moments.uniform(0, duration))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if len(list((tmp_path / "shards").glob("*.json"))) == len(SOURCES):
            assert rows(tmp_path) == rows(whole)
            shutil.rmtree(tmp_path)
    make_run(photos, tmp_path, injector).execute(show_progress=False)
    assert rows(tmp_path) == rows(whole)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "complete"
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_second_process_of_the_same_rank_is_refused_and_one_of_another_world_too(photos, injector, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    with FileLock(tmp_path / ".locks" / "rank-00000-of-00002.lock"):
        assert working_ranks(tmp_path) == [(0, 2)]
        with pytest.raises(RunBusyError, match="as rank 0 of 2"):
            make_run(photos, tmp_path, injector, rank=0, world_size=2).execute(show_progress=False)
        with pytest.raises(
            RunBusyError, match="world size must be 2 while another process works on .* as rank 0 of 2, got 1"
        ):
            make_run(photos, tmp_path, injector).execute(show_progress=False)
        make_run(photos, tmp_path, injector, rank=1, world_size=2).execute(show_progress=False)
        assert "running" in status_text(tmp_path)
    assert working_ranks(tmp_path) == []


@pytest.mark.parametrize("world_size", [2, 4])
def test_another_world_size_gives_the_same_rows_also_midway(photos, injector, whole, tmp_path, world_size):
    make_run(photos, tmp_path, injector, rank=1, world_size=2).execute(show_progress=False)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["00001.json"]
    runs = [
        make_run(photos, tmp_path, injector, rank=rank, world_size=world_size).execute(show_progress=False)
        for rank in range(world_size)
    ]
    assert rows(tmp_path) == rows(whole) and runs[-1].pairs == 6


def test_shard_size_and_order_do_not_change_a_photos_pairs(photos, injector, whole, tmp_path):
    settings = replace(SETTINGS, shard_size=2)
    make_run(photos, tmp_path, injector, settings, sources=SOURCES[::-1]).execute(show_progress=False)
    assert sorted(rows(tmp_path), key=lambda row: row["pair_id"]) == rows(whole)


def test_a_batch_of_several_photos_gives_the_same_pairs_up_to_rounding(photos, injector, whole, tmp_path):
    settings = replace(SETTINGS, shard_size=3)
    make_run(photos, tmp_path, injector, settings, batch_size=3, perception_batch_size=2).execute(show_progress=False)
    for pair, alone in zip(read_pairs(tmp_path), read_pairs(whole), strict=True):
        assert pair.pair_id == alone.pair_id and len(pair.artifacts) == len(alone.artifacts)
        for one, other in ((pair.clean, alone.clean), (pair.flawed, alone.flawed)):
            assert np.abs(np.asarray(one, dtype=int) - np.asarray(other)).max() <= 1
        for artifact, same in zip(pair.artifacts, alone.artifacts, strict=True):
            assert artifact.mapping == same.mapping and artifact.scores == pytest.approx(same.scores, rel=1e-2)


def limited(photos: Path, out: Path, size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        make_run(photos, out).execute(show_progress=False)
    except OSError as error:
        raise SystemExit(error.errno or 1) from error


def test_a_full_disk_is_told_and_finished_shards_stay_whole(photos, injector, whole, tmp_path):
    make_run(photos, tmp_path, injector, rank=0, world_size=2).execute(show_progress=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    # A limit on the size of files stands for the disk: writing fails in the same place, with EFBIG for ENOSPC.
    process = CHILDREN.Process(target=limited, args=(photos, tmp_path, 100_000))
    process.start()
    process.join()
    assert process.exitcode == 27
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before
    assert "File too large" in status_text(tmp_path)
    make_run(photos, tmp_path, injector).execute(show_progress=False)
    assert rows(tmp_path) == rows(whole)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_a_folder_of_unusable_files_costs_nothing_but_those(photos, injector, whole, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "bomb.png").write_bytes(png_that_claims(60_000, 60_000))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "empty_too.jpg").write_bytes(b"")
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    (folder / "text.jpg").write_text("no image")
    (folder / "truncated.png").write_bytes((folder / SOURCES[0]).read_bytes()[:5000])
    shutil.copyfile(folder / SOURCES[0], folder / "zz_copy.png")
    sources = [name for name in list_sources(folder) if name != "annotations.json"]
    make_run(folder, tmp_path / "out", injector, sources=sources).execute(show_progress=False)
    reasons = rejections(tmp_path / "out")
    assert "too large" in reasons.pop("bomb.png")
    assert reasons.pop("zz_copy.png") == f"the same file as '{SOURCES[0]}'"
    assert "cannot be read: No such file" in reasons.pop("link.png")
    assert sorted(reasons) == ["empty.jpg", "empty_too.jpg", "text.jpg", "truncated.png"]
    assert rows(tmp_path / "out") == rows(whole)


class VanishingPhotos(AnnotationPerception):
    """Someone deletes the second photo while the first is being worked on."""

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        (self.path.parent / SOURCES[1]).unlink(missing_ok=True)
        return super().perceive(image, source_id)


def test_photos_that_vanish_midway_are_rejected_and_the_run_can_still_be_continued(photos, injector, whole, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, folder)
    perception = VanishingPhotos(folder / "annotations.json")
    make_run(folder, out, injector, perception=perception, rank=0, world_size=2).execute(show_progress=False)
    left = [name for name in SOURCES if name != SOURCES[1]]
    run = make_run(folder, out, injector, sources=left).execute(show_progress=False)
    assert run.is_complete and "cannot be read" in rejections(out)[SOURCES[1]]
    assert rows(out) == [row for row in rows(whole) if row["source_id"] != SOURCES[1]]


def test_photos_that_were_left_out_or_are_all_new_make_another_run(photos, injector, whole, tmp_path):
    with pytest.raises(RunMismatchError, match="none of its 3 photos is in .* \\('new.png' is new\\)"):
        make_run(
            tmp_path,
            whole,
            injector,
            sources=["new.png"],
            perception=AnnotationPerception(photos / "annotations.json"),
        )
    with pytest.raises(RunMismatchError, match=f"other sources, 3 and not 2 \\('{SOURCES[0]}' is left out\\)"):
        make_run(photos, whole, injector, sources=SOURCES[1:])


def test_a_worker_that_was_killed_is_started_again_and_its_photo_barred(photos, whole, tmp_path, capsys):
    def start_worker(rank, one_by_one):
        return start_killed_at(photos, tmp_path, SOURCES[1], rank=rank, world_size=2)  # three deaths in all

    assert WorkerPool(tmp_path, Shards.of_sources(SOURCES, 1), start_worker, 2).execute() == 0
    assert read_barred(tmp_path) == {SOURCES[1]: "killed its worker 2 times (SIGKILL)"}
    assert rejections(tmp_path) == read_barred(tmp_path)
    assert rows(tmp_path) == [row for row in rows(whole) if row["source_id"] != SOURCES[1]]
    assert f"was killed (SIGKILL) at '{SOURCES[1]}'" in capsys.readouterr().err


def test_a_worker_that_was_killed_once_loses_nothing(photos, whole, tmp_path):
    starts = []

    def start_worker(rank, one_by_one):
        starts.append(one_by_one)
        begin = start if one_by_one else start_killed_at
        return begin(photos, tmp_path, *(() if one_by_one else (SOURCES[2],)), rank=rank, world_size=1)

    assert WorkerPool(tmp_path, Shards.of_sources(SOURCES, 1), start_worker, 1).execute() == 0
    assert starts == [False, True] and rows(tmp_path) == rows(whole)


def kill_oneself() -> None:
    signal.raise_signal(signal.SIGKILL)


def test_workers_that_are_killed_whatever_they_do_end_the_run(tmp_path):
    def start_worker(rank, one_by_one):
        process = CHILDREN.Process(target=kill_oneself)
        process.start()
        return process

    with pytest.raises(RunAborted, match="worker 0 was killed \\(SIGKILL\\) 6 times with no photo done in between"):
        WorkerPool(tmp_path, Shards.of_sources(SOURCES, 1), start_worker, 1).execute()


class BrokenPerception(AnnotationPerception):
    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        raise RuntimeError("the model has gone mad")


def test_a_run_in_which_every_photo_fails_alike_stops_instead_of_rejecting_all(photos, injector, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(25):
        Image.new("RGB", (256, 256), (number, 0, 0)).save(folder / f"{number:02d}.png")
    perception = BrokenPerception(photos / "annotations.json")
    run = make_run(folder, out, injector, sources=list_sources(folder), perception=perception)
    with pytest.raises(RunAborted, match="20 photos in a row failed, the last with 'unexpected RuntimeError"):
        run.execute(show_progress=False)
    log = list(parse_events((out / "logs" / "rank-00000.jsonl").read_text().splitlines()))
    failure = next(event for event in log if event["event"] == "failure")
    assert "the model has gone mad" in failure["reason"] and "in perceive" in failure["traceback"]
    assert log[-1]["event"] == "stopped" and "20 photos" in status_text(out)
    # None of them counts as done, though shards of one photo were finished.
    assert not list((out / "shards").iterdir())


def test_a_clock_that_jumps_changes_nothing(photos, injector, whole, tmp_path, monkeypatch):
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(0, 4e9))
    run = make_run(photos, tmp_path, injector).execute()
    assert rows(tmp_path) == rows(whole) and 0 < run.seconds < 600


def test_a_torn_line_of_a_log_is_passed_over(photos, injector, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank-00000.jsonl").write_text('{"time": "x", "eve')
    make_run(photos, tmp_path, injector, rank=0, world_size=3).execute(show_progress=False)
    assert "stopped" in status_text(tmp_path)
    assert [e["event"] for e in parse_events((tmp_path / "logs" / "rank-00000.jsonl").read_text().splitlines())][
        0
    ] == "start"


def test_shards_of_another_run_are_noticed_without_run_json(photos, injector, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run.json").unlink()
    with pytest.raises(RunMismatchError, match="lost its run.json"):
        make_run(photos, tmp_path, injector, replace(SETTINGS, seed=1))
    make_run(photos, tmp_path, injector).execute(show_progress=False)
    assert rows(tmp_path) == rows(whole)


def test_names_of_any_characters(photos, injector, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / SOURCES[0]).rename(folder / "a\u2028b\u0085c é.png")
    sources = [name for name in list_sources(folder) if name != "annotations.json"]
    run = make_run(folder, tmp_path / "out", injector, sources=sources).execute(show_progress=False)
    assert run.pairs == 4 and make_run(folder, tmp_path / "out", injector, sources=sources)


class ShortOfMemory:
    """Stands in for `perceive`: memory runs out at photos of even number, and odd ones hold nothing."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def __call__(self, image: Image.Image, source_id: str) -> Perception:
        if self.error is not None and int(source_id[:2]) % 2 == 0:
            raise self.error
        return Perception((), "nothing")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "machine", "cpu"],
)
def test_empty_photos_between_do_not_disarm_the_stop(photos, injector, tmp_path, monkeypatch, error):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(50):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number:02d}.png")
    perception = AnnotationPerception(photos / "annotations.json")
    monkeypatch.setattr(perception, "perceive", ShortOfMemory(error))
    sources = list_sources(folder)
    run = make_run(folder, out, injector, sources=sources, perception=perception)
    with pytest.raises(RunAborted, match="20 photos in a row failed, the last with 'out of memory: .*Free memory"):
        run.execute(show_progress=False)
    # The empty ones are done, none of the others counts as such.
    assert [int(path.stem) for path in sorted((out / "shards").iterdir())] == list(range(1, 38, 2))
    assert "20 photos in a row" in status_text(out)
    monkeypatch.setattr(perception, "perceive", ShortOfMemory(None))
    assert make_run(folder, out, injector, sources=sources, perception=perception).execute().is_complete
    assert {entry["reason"] for entry in read_rejected(out)} == {"no entity in the image"}


def test_a_photo_that_memory_ran_out_at_when_injecting_is_tried_again(photos, injector, whole, tmp_path, monkeypatch):
    pipeline, calls = injector.pipeline, []

    def short(images, *args, **kwargs):
        calls.append(len(images))
        # The second photo does not fit, with two variants, one, or in the second half.
        if len(calls) in (2, 3):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return pipeline(images, *args, **kwargs)

    for name in ("text_encoder", "family", "vae", "patch_size", "image_processor", "device", "dtype"):
        setattr(short, name, getattr(pipeline, name))
    monkeypatch.setattr(injector, "pipeline", short)
    with pytest.raises(RunAborted, match=f"ran out at 1 photo, the first '{SOURCES[1]}', .*take them out"):
        make_run(photos, tmp_path, injector).execute(show_progress=False)
    assert [int(path.stem) for path in sorted((tmp_path / "shards").iterdir())] == [0, 2]
    assert "memory ran out at 1 photo" in status_text(tmp_path)
    monkeypatch.setattr(injector, "pipeline", pipeline)
    assert make_run(photos, tmp_path, injector).execute(show_progress=False).is_complete
    assert rows(tmp_path) == rows(whole)


class OddPerception(AnnotationPerception):
    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        if source_id in SOURCES:
            return super().perceive(image, source_id)
        raise RuntimeError("the model has gone mad")


def test_a_photo_that_made_pairs_ends_the_streak(photos, injector, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets_script.engine.run.MAX_FAILURES_IN_A_ROW", 2)
    folder, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, folder)
    for before in ("aaa", "b", "l"):
        Image.new("RGB", (64, 64), (len(before), ord(before[0]), 0)).save(folder / f"{before}.png")
    sources = [name for name in list_sources(folder) if name != "annotations.json"]
    assert [name in SOURCES for name in sources] == [False, True, False, True, False, True]
    run = make_run(folder, out, injector, sources=sources, perception=OddPerception(photos / "annotations.json"))
    assert run.execute(show_progress=False).pairs == 6


@pytest.mark.parametrize("kind", ["nan", "noise"])
def test_artifact_images_that_overflow_or_drown_are_not_kept(photos, tmp_path, monkeypatch, kind):
    # Whole artifact images: where targets alone are computed, nothing else can change.
    injection = replace(SETTINGS.injection, compute="full", confine="none")
    injector = SmallInjector(SETTINGS.model, injection, device="cpu")
    transformer = injector.pipeline.transformer
    forward = transformer.forward

    def spoiled(*args, **kwargs):
        result = forward(*args, **kwargs)
        sample = result[0]
        if sample.shape[0] > 1:
            noise = torch.randn(sample[1:].shape, generator=torch.Generator().manual_seed(1))
            sample[1:] = float("nan") if kind == "nan" else sample[1:] + 3 * noise
        return result

    monkeypatch.setattr(transformer, "forward", spoiled)
    curation = replace(SETTINGS.curation, max_change_outside=0.03)
    strict = replace(SETTINGS, injection=injection, curation=curation, max_rerolls=0)
    run = make_run(photos, tmp_path, injector, strict, sources=SOURCES[:1]).execute(show_progress=False)
    reasons = [entry["reason"] for entry in read_rejected(tmp_path)]
    assert run.pairs == 0
    assert any(("not finite" if kind == "nan" else "changed all over") in reason for reason in reasons), reasons


def test_a_clean_image_unlike_its_photo_is_rejected_by_name(photos, injector, tmp_path):
    strict = replace(SETTINGS, curation=replace(SETTINGS.curation, min_clean_psnr=20.0))
    run = make_run(photos, tmp_path, injector, strict, sources=SOURCES[:1]).execute(show_progress=False)
    [reason] = [entry["reason"] for entry in read_rejected(tmp_path) if entry["stage"] == "curation"]
    assert run.pairs == 0 and reason.startswith("clean image unlike its photo: PSNR 1")
