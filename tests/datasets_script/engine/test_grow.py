"""Runs that grow, and runs that were killed within a shard: rows already made stay bit for bit."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from datasets_script.agents.perception import AnnotationPerception, Perception
from datasets_script.cli.main import main
from datasets_script.engine.injector import Injector
from datasets_script.engine.journal import Journal
from datasets_script.engine.ledger import journal_path, read_journaled, read_rejected
from datasets_script.engine.locks import RunBusyError
from datasets_script.engine.log import parse_events
from datasets_script.engine.shards import RunMismatchError, Shards, Task
from datasets_script.engine.status import status_text
from datasets_script.engine.workers import WorkerPool
from datasets_script.utils.errors import UserError

from ...helpers.engine_runs import SETTINGS, SOURCES, make_run, rows, start, start_killed_at


ONE_SHARD = replace(SETTINGS, shard_size=32)
ONE_PAIR = replace(SETTINGS, pairs_per_image=1)


@pytest.fixture(scope="module")
def whole(photos, injector, tmp_path_factory) -> Path:
    """A run of all photos at once, in one shard."""
    out = tmp_path_factory.mktemp("whole")
    make_run(photos, out, injector, ONE_SHARD).execute(show_progress=False)
    return out


def shards_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "data").glob("*.parquet"))}


def samples_of(out: Path) -> list[str]:
    """Photos that were worked on, in order."""
    events = parse_events((out / "logs" / "rank-00000.jsonl").read_text().splitlines())
    return [event["source_id"] for event in events if event["event"] == "sample"]


class TestGrow:
    def test_new_photos_are_new_shards_and_the_others_stay(self, photos, injector, whole, tmp_path):
        make_run(photos, tmp_path, injector, ONE_SHARD, SOURCES[1:]).execute(show_progress=False)
        before, record = shards_of(tmp_path), json.loads((tmp_path / "run.json").read_text())
        # The new photo is the first of the folder, yet goes last.
        run = make_run(photos, tmp_path, injector, ONE_SHARD).execute(show_progress=False)
        assert run.is_complete and run.pairs == 6 and run.sources["count"] == 3
        assert shards_of(tmp_path) | before == shards_of(tmp_path) and len(shards_of(tmp_path)) == 2
        assert sorted(rows(tmp_path), key=lambda row: row["pair_id"]) == rows(whole)
        assert run.fingerprint == record["fingerprint"] != json.loads((whole / "run.json").read_text())["fingerprint"]
        assert "complete" in status_text(tmp_path) and "shards 2/2, photos 3/3" in status_text(tmp_path)

    def test_a_shard_that_was_not_finished_stays_as_it_began(self, photos, injector, whole, tmp_path):
        make_run(photos, tmp_path, injector, sources=SOURCES[:2], rank=1, world_size=2).execute(show_progress=False)
        make_run(photos, tmp_path, injector).execute(show_progress=False)
        assert rows(tmp_path) == rows(whole)

    def test_more_pairs_of_each_photo_are_new_shards(self, photos, injector, whole, tmp_path):
        make_run(photos, tmp_path, injector, ONE_PAIR, SOURCES[:2]).execute(show_progress=False)
        before = shards_of(tmp_path)
        grown = replace(SETTINGS, pairs_per_image=2)
        run = make_run(photos, tmp_path, injector, grown).execute(show_progress=False)
        assert shards_of(tmp_path) | before == shards_of(tmp_path) and len(shards_of(tmp_path)) == 5
        order = [row["pair_id"] for row in rows(tmp_path)]
        old = [f"{name}:{variant}" for variant in (0, 1) for name in SOURCES[:2]]
        assert order == [*old, f"{SOURCES[2]}:0", f"{SOURCES[2]}:1"] and run.pairs == 6
        # The variants are those that a run of two pairs from the start has, up to what is made together.
        for row, other in zip(sorted(rows(tmp_path), key=lambda row: row["pair_id"]), rows(whole), strict=True):
            assert [a["target_patches"] for a in row["artifacts"]] == [a["target_patches"] for a in other["artifacts"]]
        assert "photos 5/5" in status_text(tmp_path)
        with pytest.raises(RunMismatchError, match="another settings.pairs_per_image"):
            make_run(photos, tmp_path, injector, ONE_PAIR)

    def test_pairs_that_depend_on_their_shard_cannot_become_more(self, photos, injector, tmp_path):
        by_shard = replace(ONE_PAIR, balance="shard")
        make_run(photos, tmp_path, injector, by_shard, SOURCES[:1]).execute(show_progress=False)
        with pytest.raises(RunMismatchError, match="another settings.pairs_per_image"):
            make_run(photos, tmp_path, injector, replace(by_shard, pairs_per_image=2), SOURCES[:1])

    def test_the_command_grows_a_run_and_refuses_another_before_loading(
        self, photos, small_models, tmp_path, capsys, monkeypatch
    ):
        folder, out = tmp_path / "photos", tmp_path / "out"
        shutil.copytree(photos, folder)
        (folder / SOURCES[0]).rename(tmp_path / SOURCES[0])
        options = ["--num-inference-steps", "6", "--device", "cpu", "--max-rerolls", "0"]
        assert main(["synthesize", str(folder), str(out), *options, "--limit", "1"]) == 0
        first = shards_of(out)
        assert main(["synthesize", str(folder), str(out), *options, "--limit", "2"]) == 0
        assert Shards.read(out, {"shard_size": 32}).sources == SOURCES[1:]
        shutil.move(tmp_path / SOURCES[0], folder / SOURCES[0])
        # Annotations come with their photos.
        text = (folder / "annotations.json").read_text()
        (folder / "annotations.json").write_text(text + "\n")
        assert main(["synthesize", str(folder), str(out), *options, "--pairs-per-image", "2"]) == 0
        assert shards_of(out) | first == shards_of(out)
        assert len({row["pair_id"] for row in rows(out)}) == len(rows(out)) and len(shards_of(out)) == 3
        capsys.readouterr()
        monkeypatch.setattr(Injector, "__init__", lambda *_: pytest.fail("a model was loaded"))
        for changed in (["--seed", "1"], ["--limit", "1", "--pairs-per-image", "2"]):
            assert main(["synthesize", str(folder), str(out), *options, *changed]) == 2
        told = capsys.readouterr().err
        assert "another settings.pairs_per_image, settings.seed" in told and "is left out" in told

    def test_a_run_does_not_grow_while_another_process_works_on_it(self, photos, injector, tmp_path):
        make_run(photos, tmp_path, injector, ONE_SHARD, SOURCES[:1]).execute(show_progress=False)
        with (
            FileLock(tmp_path / ".locks" / "rank-00000-of-00002.lock"),
            pytest.raises(RunBusyError, match="must not grow while another process works on it, as rank 0"),
        ):
            make_run(photos, tmp_path, injector, ONE_SHARD, SOURCES[:2], rank=1, world_size=2)

    def test_a_run_that_made_nothing_begins_again_with_other_settings(self, photos, injector, tmp_path):
        fuse = replace(ONE_SHARD, tools=("fuse",), seed=1)
        assert make_run(photos, tmp_path, injector, fuse, SOURCES[:1]).execute(show_progress=False).pairs == 0
        run = make_run(photos, tmp_path, injector, ONE_SHARD, SOURCES[1:]).execute(show_progress=False)
        assert run.pairs == 4 and {entry["source_id"] for entry in read_rejected(tmp_path)} <= set(SOURCES[1:])

    def test_pairs_without_records_of_a_run_are_left_alone(self, photos, injector, whole, tmp_path):
        for names in (("sources.jsonl", "run.json"), ("run.json",), ()):
            out = tmp_path / str(len(names))
            shutil.copytree(whole, out)
            shutil.rmtree(out / "shards")
            for name in names:
                (out / name).unlink()
            with pytest.raises(UserError, match="holds pairs without the records of their run"):
                make_run(photos, out, injector, replace(ONE_SHARD, seed=1))
            assert shards_of(out) == shards_of(whole)
        make_run(photos, out, injector, ONE_SHARD).execute(show_progress=False)
        assert rows(out) == rows(whole)

    def test_a_run_of_an_older_version_grows(self, photos, injector, whole, tmp_path):
        make_run(photos, tmp_path, injector, sources=SOURCES[:2]).execute(show_progress=False)
        (tmp_path / "sources.jsonl").write_text("".join(f'{{"source_id": "{name}"}}\n' for name in SOURCES[:2]))
        make_run(photos, tmp_path, injector).execute(show_progress=False)
        assert rows(tmp_path) == rows(whole)
        assert Shards.read(tmp_path, {}).tasks[0] == (Task(SOURCES[0], (0, 2)),)


class WaitsForJournal(AnnotationPerception):
    """Perceives a photo once those before it are in the journal, then fails at `failing`."""

    def __init__(self, path: Path, out: Path, failing: str) -> None:
        super().__init__(path)
        self.out, self.failing = out, failing

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        while len(list(read_journaled(self.out))) < SOURCES.index(source_id):
            time.sleep(0.01)
        if source_id == self.failing:
            raise KeyboardInterrupt
        return super().perceive(image, source_id)


class TestJournal:
    def test_a_kill_within_a_shard_loses_the_photo_in_hand_alone(self, photos, injector, whole, tmp_path):
        process = start_killed_at(photos, tmp_path, SOURCES[2], settings=ONE_SHARD)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        kept = [photo["source_id"] for photo in read_journaled(tmp_path)]
        assert kept[:1] == SOURCES[:1] and f"and {len(kept)} in others" in status_text(tmp_path)
        run = make_run(photos, tmp_path, injector, ONE_SHARD).execute(show_progress=False)
        assert samples_of(tmp_path)[2:] == SOURCES[len(kept) :]
        assert rows(tmp_path) == rows(whole) and shards_of(tmp_path) == shards_of(whole)
        assert not list(read_journaled(tmp_path)) and not list(tmp_path.rglob("*.journal"))
        expected = json.loads((whole / "run.json").read_text())
        written = json.loads((tmp_path / "run.json").read_text())
        assert run.is_complete and written | {"seconds": 0} == expected | {"seconds": 0}
        assert list(read_rejected(tmp_path)) == list(read_rejected(whole))

    def test_a_torn_record_is_made_again(self, photos, injector, whole, tmp_path):
        perception = WaitsForJournal(photos / "annotations.json", tmp_path, SOURCES[2])
        with pytest.raises(KeyboardInterrupt):
            make_run(photos, tmp_path, injector, ONE_SHARD, perception=perception).execute(show_progress=False)
        path = journal_path(tmp_path, 0)
        content = path.read_bytes()
        for torn in (content[:-1], content[: len(content) // 3], content[:20], content[:-9] + b"something"):
            path.write_bytes(torn)
            with Journal(path) as journal:
                assert len(journal.records) == (torn > content[: len(content) // 2])
        path.write_bytes(content + b'{"source_id": "coff')
        assert len(list(read_journaled(tmp_path))) == 2
        make_run(photos, tmp_path, injector, ONE_SHARD).execute(show_progress=False)
        assert samples_of(tmp_path) == SOURCES and rows(tmp_path) == rows(whole)

    def test_a_worker_that_died_goes_on_behind_what_it_finished(self, photos, whole, tmp_path, capsys):
        def start_worker(rank, one_by_one):
            begin = start if one_by_one else start_killed_at
            return begin(photos, tmp_path, *(() if one_by_one else (SOURCES[2],)), settings=ONE_SHARD)

        assert WorkerPool(tmp_path, Shards.of_sources(SOURCES, 32, 2), start_worker, 1).execute() == 0
        assert samples_of(tmp_path).count(SOURCES[0]) == 1 and rows(tmp_path) == rows(whole)
        assert "3/3" in capsys.readouterr().err

    def test_with_types_balanced_in_the_shard_it_is_made_again_as_a_whole(self, photos, injector, tmp_path):
        settings = replace(ONE_SHARD, balance="shard")
        process = start_killed_at(photos, tmp_path / "killed", SOURCES[2], settings=settings)
        process.join()
        assert not list(read_journaled(tmp_path / "killed"))
        for name in ("killed", "whole"):
            make_run(photos, tmp_path / name, injector, settings).execute(show_progress=False)
        assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
