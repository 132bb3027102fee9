"""Measure the engine without the models: time per photo, time to resume, memory, and the speed-up of a second process.

    python tests/benchmarks/engine.py --json engine.json

For all but the speed-up, a stage that sleeps and returns a pair of images replaces the models; everything else runs as
usual: shards, records, PNG, Parquet, markers, logs. `overhead_1s` is the share that the engine adds to a second of
synthesis for a photo of 256×256 px with one pair. `journal_ms` is what the journal of the unfinished shard takes of
it, and `journal_1s` its share of a second: the CPU time above that of runs that keep none (those with `--balance
shard`), the median of `--repeats` pairs of runs side by side. Scale is measured on pairs of 32×32 px: the time per
photo in runs of 1,000, 10,000 and `--largest` photos, the time until a run of `--largest` photos with one unfinished
shard is at work again, and the peak memory of the process. Each run has a process of its own. The speed-up is that of
real synthesis: photos a second of two workers with one thread each, divided by those of one worker with one thread,
from the first photo to the last, without imports and loading.

`endpoint_ratio` is the wall time of a run whose perception asks an endpoint ahead, divided by that of one that asks
when it needs the answers: real synthesis of 12 photos in shards of 2, a local server that takes `--endpoint-seconds`
for each answer, and all questions of a shard asked at once; the median of `--repeats` pairs of runs side by side.
`endpoint_hidden` is the time saved as a share of the time waited without: the first shard's wait cannot be hidden.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.agents.perception import PerceptionSpec
from datasets_script.demo.settings import DEMO_SETTINGS, prepare_demo
from datasets_script.engine.injector import Injector
from datasets_script.engine.ledger import marker
from datasets_script.engine.log import log_path, parse_events
from datasets_script.engine.plan import RunPlan
from datasets_script.engine.run import Run
from datasets_script.engine.settings import Balance, RunSettings
from datasets_script.engine.shards import Shards
from datasets_script.engine.stages import Read, Sample, Stage
from datasets_script.engine.synthesizer import Synthesizer
from datasets_script.engine.workers import WorkerPool
from datasets_script.schema.pair import Artifact, ArtifactScores, Pair
from datasets_script.vlm import EndpointVLM
from diffusers_artifact.mapping import PatchMapping
from tests.helpers.scripted_endpoint import AnnotatedVocabulary, KnownPhotos, scripted_endpoint


PROCESSES = multiprocessing.get_context("spawn")


@cache
def make_images(side: int) -> tuple[Image.Image, Image.Image]:
    """Make a clean image and an artifact image."""
    clean = Image.fromarray(data.astronaut()[:256, 100:356]).resize((side, side))
    flawed = clean.copy()
    flawed.paste(clean.crop((0, 0, side // 2, side // 2)), (side // 4, side // 4))
    return clean, flawed


def pair_of(source_id: str, side: int) -> Pair:
    clean, flawed = make_images(side)
    mask = np.zeros((side, side), dtype=bool)
    mask[:16, :16] = True
    grid = (side // 16, side // 16)
    scores: ArtifactScores = {"change_inside": 0.3, "change_outside": 0.005, "psnr_outside": 39.0}
    artifact = Artifact(
        "duplication", "add", "person", "eye", "", PatchMapping.from_pairs([(0, 1)], grid, "duplication"), mask,
        (0.0, 0.0, 16.0, 16.0), mask, "duplicated eye", "The person has an extra eye.", scores,
    )  # fmt: skip
    return Pair(
        f"{source_id}:0", source_id, 0, clean, clean, flawed, "a person", "A person.", "An extra eye.", "template",
        grid, 0, "fireflow", 8, "none", "", {"crop": [0, 0, side, side]}, (artifact,),
    )  # fmt: skip


class Sleep(Stage):
    """Stage in place of the models: takes `seconds` for each photo and returns a pair with images of `side` pixels."""

    name = "sleep"

    def __init__(self, seconds: float, side: int) -> None:
        super().__init__()
        self.seconds, self.side = seconds, side

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        time.sleep(self.seconds * len(samples))
        return [replace(sample, image=None, pairs=(pair_of(sample.source_id, self.side),)) for sample in samples]


class FirstSample(Stage):
    """Stage that records when the first photo arrives."""

    name = "first"

    def __init__(self) -> None:
        super().__init__()
        self.arrived: float | None = None

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        self.arrived = self.arrived or time.perf_counter()
        return list(samples)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, and return its result."""
    with PROCESSES.Pool(1) as pool:
        return pool.apply(function, arguments)


def sleeping_run(
    out: Path, folder: Path, names: Sequence[str], stages: Sequence[Stage], balance: Balance = "sample"
) -> Run:
    identity = {"model_revision": "", "perception": {}, "curation": {}}
    return Run(out, folder, names, Synthesizer(stages, RunSettings(balance=balance), identity))


def overhead_of_photos(scratch: Path, count: int, seconds: float, balance: Balance = "sample") -> tuple[float, float]:
    """Return the seconds per photo besides those slept, including reading, and the CPU seconds per photo."""
    folder = scratch / "photos"
    folder.mkdir()
    names = [f"{number:05d}.png" for number in range(count)]
    for number, name in enumerate(names):
        pixels = np.asarray(make_images(256)[0]).copy()
        pixels[0, 0] = number % 256, number // 256, 0  # no duplicates
        Image.fromarray(pixels).save(folder / name)
    start, cpu = time.perf_counter(), time.process_time()
    stages = [Read(folder), Sleep(seconds, 256)]
    sleeping_run(scratch / "out", folder, names, stages, balance).execute(show_progress=False)
    return (time.perf_counter() - start) / count - seconds, (time.process_time() - cpu) / count


def small_run(scratch: Path, count: int) -> tuple[float, int]:
    """Return the seconds per photo, and the peak memory of the process in bytes."""
    names = [f"{number:07d}.png" for number in range(count)]
    start = time.perf_counter()
    sleeping_run(scratch / f"out-{count}", scratch, names, [Sleep(0.0, 32)]).execute(show_progress=False)
    seconds = (time.perf_counter() - start) / count
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resume(scratch: Path, count: int) -> float:
    """Return the seconds until a run whose last shard is missing is at work on it."""
    names = [f"{number:07d}.png" for number in range(count)]
    out, first = scratch / f"out-{count}", FirstSample()
    marker(out, len(Shards.of_sources(names, RunSettings().shard_size)) - 1).unlink()
    start = time.perf_counter()
    sleeping_run(out, scratch, names, [first, Sleep(0.0, 32)]).execute(show_progress=False)
    assert first.arrived is not None
    return first.arrived - start


def real_worker(plan: RunPlan, rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    plan.open(rank, world_size).execute(show_progress=False)


def photos_a_second(out: Path, photos: Path, names: Sequence[str], world_size: int) -> float:
    settings, perception = replace(DEMO_SETTINGS, shard_size=1), PerceptionSpec("annotations")
    plan = RunPlan(photos, out, settings, perception, names=tuple(names), device="cpu")

    def start(rank: int, one_by_one: bool):
        process = PROCESSES.Process(target=real_worker, args=(plan, rank, world_size), daemon=True)
        process.start()
        return process

    assert WorkerPool(out, Shards.of_sources(names, 1), start, world_size).execute() == 0
    return sum(rate_of(samples_of(out, rank)) for rank in range(world_size))


def samples_of(out: Path, rank: int) -> list[float]:
    """Return when each photo of a rank was done, in seconds."""
    events = parse_events(log_path(out, rank).read_text().splitlines())
    return [datetime.fromisoformat(event["time"]).timestamp() for event in events if event["event"] == "sample"]


def rate_of(times: Sequence[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


def speedup(scratch: Path) -> float:
    """Return the speed of two workers divided by that of one, with one thread each."""
    photos = scratch / "photos"
    names = prepare_demo(photos)
    names = [name for name in names if "face" in name or "motorcycle" in name or "admiral" in name]
    rates = [photos_a_second(scratch / f"out-{size}", photos, names, size) for size in (1, 2)]
    return rates[1] / rates[0]


def endpoint_runs(scratch: Path, seconds: float, repeats: int) -> tuple[float, float]:
    """Return the wall time with questions asked ahead ÷ without, and the time saved ÷ the time waited without."""
    torch.set_num_threads(1)
    photos, names = scratch / "photos", prepare_demo(scratch / "photos")[:12]
    settings, known = replace(DEMO_SETTINGS, shard_size=2), KnownPhotos(photos, names)
    injector = Injector(settings.model, settings.injection, device="cpu")

    def wall_time(number: int, look_ahead: bool) -> float:
        perception = AnnotatedVocabulary(EndpointVLM("scripted", endpoint.base_url), known)
        synthesizer = Synthesizer.of(
            photos, perception, injector, settings, perception_batch_size=2, phase_size=2, look_ahead=look_ahead
        )
        run = Run(scratch / f"out-{number}-{look_ahead}", photos, names, synthesizer)
        start = time.perf_counter()
        run.execute(show_progress=False)
        return time.perf_counter() - start

    with scripted_endpoint(known) as endpoint:
        wall_time(-1, True)  # warms the kernels up
        endpoint.seconds = seconds
        times = [(wall_time(number, True), wall_time(number, False)) for number in range(repeats)]
    waited = seconds * len(names) / settings.shard_size
    ahead, apart = (statistics.median(column) for column in zip(*times, strict=True))
    return statistics.median(one / other for one, other in times), (apart - ahead) / waited


def in_scratch(function: Callable[..., Any], *arguments: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return apart(function, Path(folder), *arguments)


def scale(sizes: Iterable[int]) -> Iterator[tuple[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        scratch, measured = Path(folder), {}
        for size in sizes:
            measured[size] = apart(small_run, scratch, size)
            yield f"small_photograph_ms_of_{size}", measured[size][0] * 1000
            yield f"peak_memory_mib_of_{size}", measured[size][1] / 2**20
            last = size
        yield "peak_memory_ratio", measured[10_000][1] / measured[1_000][1]
        yield f"resume_seconds_{last // 1000}k", apart(resume, scratch, last)


def figures(largest: int, num_photos: int, repeats: int, endpoint_seconds: float) -> Iterator[tuple[str, Any]]:
    ratio, hidden = in_scratch(endpoint_runs, endpoint_seconds, repeats)
    yield "endpoint_seconds", endpoint_seconds
    yield "endpoint_ratio", ratio
    yield "endpoint_hidden", hidden
    overhead, _ = in_scratch(overhead_of_photos, num_photos, 0.02)
    yield "overhead_ms", overhead * 1000
    yield "overhead_1s", overhead
    journal = statistics.median(
        in_scratch(overhead_of_photos, num_photos, 0.0)[1]
        - in_scratch(overhead_of_photos, num_photos, 0.0, "shard")[1]
        for _ in range(repeats)
    )
    yield "journal_ms", journal * 1000
    yield "journal_1s", journal
    yield from scale([1_000, 10_000, largest])
    with tempfile.TemporaryDirectory() as folder:
        yield "two_process_speedup", speedup(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument(
        "--largest", type=int, default=100_000, help="number of photos of the largest run (default: 100000)"
    )
    parser.add_argument(
        "--photographs", type=int, default=1_000, help="number of photos to measure the overhead on (default: 1000)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="pairs of runs with and without journal, and with an endpoint asked ahead or not (default: 3)",
    )
    parser.add_argument(
        "--endpoint-seconds", type=float, default=2.0, help="time of an endpoint's answer (default: %(default)s)"
    )
    args = parser.parse_args()
    results = {}
    for name, value in figures(args.largest, args.photographs, args.repeats, args.endpoint_seconds):
        results[name] = round(value, 4)
        print(f"{name:32} {value:.4f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
