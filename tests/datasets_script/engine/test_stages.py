"""Stages as generators over samples: batches, memory that runs out, samples that fail, and what a plan depends on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets_script.agents.perception import Entity, Part, PartLevel, Perception
from datasets_script.engine.planners import ToolPlanner
from datasets_script.engine.settings import RunSettings
from datasets_script.engine.stages import Plan, Sample, Stage
from datasets_script.engine.stages.read import Read
from datasets_script.vlm import VLMUnavailable


class Capped(Stage):
    """A stage whose device holds `capacity` samples at most, and which cannot process those named in `poison`."""

    name = "capped"

    def __init__(
        self, batch_size: int, capacity: int = 99, poison: Sequence[str] = (), error: Exception | None = None
    ):
        super().__init__(batch_size)
        self.capacity, self.poison, self.error = capacity, poison, error or ValueError("bad sample")
        self.batches: list[int] = []

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        self.batches.append(len(samples))
        if len(samples) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(sample.source_id in self.poison for sample in samples):
            raise self.error
        return [replace(sample, image=Image.new("RGB", (8, 8))) for sample in samples]


def samples(count: int) -> list[Sample]:
    return [Sample(f"{index}.png") for index in range(count)]


def test_all_samples_come_out_in_order_in_batches():
    stage = Capped(batch_size=3)
    done = list(stage.run(samples(7)))
    assert [sample.source_id for sample in done] == [sample.source_id for sample in samples(7)]
    assert stage.batches == [3, 3, 1] and all(sample.image is not None for sample in done)


def test_a_stage_takes_no_more_than_a_batch_ahead():
    source = iter(samples(9))
    next(Capped(batch_size=2).run(source))
    assert len(list(source)) == 7


def test_rejected_samples_pass_through_untouched():
    first, second = Sample("a.png").rejected("read", "broken"), Sample("b.png")
    stage = Capped(batch_size=2)
    done = list(stage.run([first, second]))
    assert done[0] is first and done[1].image is not None and stage.batches == [1]


def test_out_of_memory_halves_the_batch_for_what_follows_and_says_so(caplog):
    stage = Capped(batch_size=8, capacity=2)
    with caplog.at_level(logging.WARNING):
        done = list(stage.run(samples(10)))
    assert all(sample.image is not None for sample in done) and len(done) == 10
    assert stage.batches == [8, 4, 2, 2, 2, 2, 2]
    assert "out of memory with 8 samples, continuing with 4" in caplog.text
    stage.batches.clear()
    list(stage.run(samples(2)))
    assert stage.batches == [2], "another run, for another shard, begins with the full batch"


def test_one_sample_too_large_for_the_memory_is_rejected():
    done = list(Capped(batch_size=2, capacity=0).run(samples(3)))
    assert [sample.alive for sample in done] == [False] * 3
    assert done[0].rejections[0].reason == "out of memory: CUDA out of memory"
    assert all(sample.out_of_memory for sample in done)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_poison_sample_is_rejected_and_its_batch_is_not(batch_size):
    done = list(Capped(batch_size, poison=["3.png"]).run(samples(6)))
    assert [sample.source_id for sample in done if not sample.alive] == ["3.png"]
    rejection = done[3].rejections[0]
    assert rejection.stage == "capped" and rejection.reason == "unexpected ValueError: bad sample"
    assert "in process" in rejection.traceback


@pytest.mark.parametrize(
    "error", [VLMUnavailable("endpoint down"), OSError(28, "No space left on device"), ImportError()]
)
def test_what_no_sample_is_to_blame_for_stops_the_run(error):
    with pytest.raises(type(error)):
        list(Capped(2, poison=["1.png"], error=error).run(samples(3)))


def test_what_a_decoder_raises_is_the_files_fault_and_what_the_machine_raises_is_not(tmp_path, monkeypatch):
    """Failures with a traceback count in the streak that stops a run."""
    Image.new("RGB", (96, 80)).save(tmp_path / "a.png")
    for error, is_the_files in ((IndexError("index"), True), (TypeError("type"), True), (MemoryError(), False)):

        def fail(*args: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("datasets_script.utils.photos.to_rgb", fail)
        (done,) = Read(tmp_path).run([Sample("a.png")])
        (rejection,) = done.rejections
        assert rejection.stage == "read" and (rejection.traceback == "") is is_the_files


def part(name: str, number: int, level: PartLevel, box: tuple[int, int, int, int]) -> Part:
    return Part(name, number, box, mask_of(box), 1.0, 1, level)


def mask_of(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((256, 256), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def perceived(name: str) -> Sample:
    parts = (
        part("ear", 2, "peripheral", (48, 32, 80, 80)),
        part("paw", 3, "peripheral", (48, 176, 96, 224)),
        part("face", 4, "intermediate", (96, 64, 144, 112)),
        part("belly", 5, "intermediate", (96, 128, 144, 192)),
    )
    box = (32, 32, 192, 224)
    entity = Entity("cat", 1, box, mask_of(box), 1.0, parts)
    return Sample(name, Image.new("RGB", (256, 256)), perception=Perception((entity,), "a cat"))


def stage_of(settings: RunSettings) -> Plan:
    return Plan(ToolPlanner(settings, 16), settings, 256)


def plans(names: Sequence[str], **settings) -> dict[str, list[tuple]]:
    stage = stage_of(RunSettings(**settings))
    return {
        sample.source_id: [
            (artifact.tool, artifact.mapping.targets, artifact.mapping.references)
            for artifacts in (sample.plan.variants.values() if sample.plan else ())
            for artifact in artifacts
        ]
        for sample in stage.run(perceived(name) for name in names)
    }


NAMES = [f"{index}.png" for index in range(24)]


def test_a_photos_artifacts_depend_on_itself_and_the_seed_alone():
    together = plans(NAMES, pairs_per_image=2)
    assert together == plans(NAMES[::-1], pairs_per_image=2)
    assert together["7.png"] == plans(["7.png"], pairs_per_image=2)["7.png"]
    assert together != plans(NAMES, pairs_per_image=2, seed=1)


def test_the_profile_that_a_photo_was_converted_from_is_recorded_with_its_transform():
    plain, converted = perceived("a.png"), perceived("a.png")
    assert converted.image is not None
    converted.image.info["converted_from"] = "Display P3"
    for sample, recorded in ((plain, None), (converted, "Display P3")):
        (done,) = stage_of(RunSettings()).run([sample])
        assert done.plan is not None and done.plan.transform.as_dict().get("converted_from") == recorded


def kinds(**settings) -> Counter[str]:
    return Counter(tool for artifacts in plans(NAMES, max_artifacts=1, **settings).values() for tool, *_ in artifacts)


def test_balance_over_a_shard_is_tight_and_by_sample_it_holds_on_average():
    tools = ("add", "remove", "distort")
    assert set(kinds(balance="shard", tools=tools).values()) == {8}
    by_sample = kinds(tools=tools)
    assert set(by_sample) == set(tools) and min(by_sample.values()) >= 4


def test_variants_of_one_photo_take_turns():
    for artifacts in plans(NAMES, max_artifacts=1, pairs_per_image=3, tools=("add", "remove", "distort")).values():
        assert sorted(tool for tool, *_ in artifacts) == ["add", "distort", "remove"]


def test_balance_of_a_shard_begins_anew_with_each_run():
    stage = stage_of(RunSettings(balance="shard", max_artifacts=1))
    for _ in range(2):
        list(stage.run(map(perceived, NAMES[:5])))
        assert stage.made.total() == 5
