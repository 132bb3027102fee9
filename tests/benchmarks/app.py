"""Measure the app: seconds from click to picture, seconds until it is up, and annotations lost to kills.

    python tests/benchmarks/app.py --json app.json

`make_seconds` is the median of `--clicks` clicks on Make, with the embedded model at 256 px, from the request over
HTTP to the answer; the tools take turns. `hold_seconds` is what taking a photo costs before. `start_seconds` is the
median time from starting the process to the first page. For `lost`, ten annotators in processes of their own classify
1,000 images and mark half of them, and five are killed (SIGKILL) and begin again; it counts answers that are missing
or double. Run it on a machine with nothing else to do: the wall clock counts. CPU seconds of the server stand beside.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from datasets_script.annotation.queue import AnnotationQueue
from datasets_script.utils.files import write_json
from evaluate_metrics.functional.versions import recorded_versions


ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PARTS = ("make", "start", "lost")
MAKE_LIMIT, START_LIMIT = 1.0, 4.0
BOX = "96, 64, 144, 112"
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this; repeatable")
    parser.add_argument("--clicks", type=int, default=30, help="clicks on Make (default: 30)")
    parser.add_argument("--starts", type=int, default=5, help="starts of the app (default: 5)")
    parser.add_argument("--items", type=int, default=1000, help="images to annotate (default: 1000)")
    parser.add_argument("--annotators", type=int, default=10, help="annotators at once (default: 10)")
    parser.add_argument("--kills", type=int, default=5, help="kills among them (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of whom is killed when (default: 0)")
    args = parser.parse_args()
    wanted = args.only or PARTS
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "make" in wanted:
            figures |= measure_make(Path(folder), args.clicks)
        if "start" in wanted:
            figures |= measure_start(Path(folder), args.starts)
        if "lost" in wanted:
            figures |= measure_lost(Path(folder), args.items, args.annotators, args.kills, args.seed)
    for name, value in figures.items():
        print(f"{name:22} {value}")
    about = {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    if args.json:
        write_json(args.json, {"about": about, "versions": recorded_versions(), **figures})
    over = figures.get("make_seconds", 0) >= MAKE_LIMIT or figures.get("start_seconds", 0) >= START_LIMIT
    sys.exit(1 if over or figures.get("lost") else 0)


class Server:
    """The app in a process of its own."""

    def __init__(self, data: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        options = ["--no-browser", "--port", str(port), "--data", str(data)]
        start = time.perf_counter()
        command = [sys.executable, "-m", "datasets_script.cli", "app", *options]
        self.process = subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.DEVNULL)
        while not self._answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"the app ended with status {self.process.returncode}")
            time.sleep(0.02)
        self.start_seconds = time.perf_counter() - start
        self.start_cpu_seconds = self.cpu_seconds()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=60) as answer:
                return answer.status == 200
        except urllib.error.URLError:
            return False

    def cpu_seconds(self) -> float:
        """Return user plus system seconds of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measure_make(folder: Path, clicks: int) -> dict[str, Any]:
    from gradio_client import Client

    server = Server(folder / "kept")
    try:
        client = Client(server.url, verbose=False, httpx_kwargs={"timeout": 300})
        client.predict("coffee.png", api_name="/take_demo")  # the model is loaded with the first photo
        start = time.perf_counter()
        client.predict("cat.png", api_name="/take_demo")
        hold, seconds, cpu = time.perf_counter() - start, list[float](), list[float]()
        for click in range(clicks + 1):
            tool = ("add", "remove", "distort")[click % 3]
            start, before = time.perf_counter(), server.cpu_seconds()
            client.predict(painting=None, typed=BOX, tool=tool, seed=click, api_name="/make")
            seconds.append(time.perf_counter() - start)
            cpu.append(server.cpu_seconds() - before)
    finally:
        server.end()
    # The first click warms up.
    return {
        "make_seconds": round(statistics.median(seconds[1:]), 3),
        "make_seconds_most": round(max(seconds[1:]), 3),
        "make_cpu_seconds": round(statistics.median(cpu[1:]), 3),
        "hold_seconds": round(hold, 3),
        "clicks": clicks,
    }


def measure_start(folder: Path, starts: int) -> dict[str, Any]:
    seconds, cpu = [], []
    for number in range(starts + 1):
        server = Server(folder / f"start-{number}")
        server.end()
        seconds.append(server.start_seconds)
        cpu.append(server.start_cpu_seconds)
    # The first start fills the caches of Python and of the disk.
    return {
        "start_seconds": round(statistics.median(seconds[1:]), 3),
        "start_cpu_seconds": round(statistics.median(cpu[1:]), 3),
        "starts": starts,
    }


def measure_lost(folder: Path, items: int, annotators: int, kills: int, seed: int) -> dict[str, Any]:
    from tests.helpers.annotators import make_queue

    queue, rng = make_queue(folder / "annotation", items), random.Random(seed)
    answers, start = items + items // 2 + items % 2, time.perf_counter()
    people = {f"annotator {number}": _annotator(queue, f"annotator {number}") for number in range(annotators)}
    killed = 0
    while any(process.poll() is None for process in people.values()):
        if killed < kills and len(queue.answers()) > answers * (killed + 1) / (kills + 2):
            name = rng.choice(sorted(name for name, process in people.items() if process.poll() is None))
            people[name].kill()
            people[name].wait()
            people[name] = _annotator(queue, name)
            killed += 1
        time.sleep(0.05)
    # Those who found nothing left while others still held an item are done; what these gave back is done now.
    _annotator(queue, "annotator 0").wait()
    times = Counter((answer.phase, answer.item) for answer in queue.answers())
    missing, double = answers - len(times), sum(count - 1 for count in times.values())
    return {
        "lost": missing + double,
        "missing": missing,
        "double": double,
        "killed": killed,
        "annotators": annotators,
        "items": items,
        "lost_wall_seconds": round(time.perf_counter() - start, 1),
    }


def _annotator(queue: AnnotationQueue, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.helpers.annotators", str(queue.folder), name]
    return subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT)


if __name__ == "__main__":
    main()
