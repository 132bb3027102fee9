"""Measure the CPU seconds of opening the command line and of imports that should be light.

    python tests/benchmarks/startup.py --json startup.json

Each command runs in a process of its own, `--repeats` times. Figures are medians of user plus system seconds of the
process and its children. `artiagent status` shows a run made here, with three of five photos done. A first round fills
the caches of Python and of the disk and is not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from datasets_script.cli.commands import COMMANDS
from datasets_script.engine.ledger import Totals, marker
from datasets_script.engine.shards import Shards
from datasets_script.utils.files import write_json
from evaluate_metrics.functional.versions import recorded_versions


ROOT = Path(__file__).resolve().parents[2]
ARTIAGENT = [sys.executable, "-m", "datasets_script.cli"]
LIMIT = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each command (default: 5)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = {
            name: measure(command, status, args.repeats) for name, command, status in openings(make_run(Path(folder)))
        }
    for name, values in seconds.items():
        print(f"{values['median']:6.2f} s  {name}")
    over = [name for name, values in seconds.items() if values["median"] >= LIMIT]
    print(f"{len(seconds) - len(over)} of {len(seconds)} below {LIMIT} CPU seconds")
    if args.json:
        write_json(args.json, {"about": about(args.repeats), "cpu_seconds": seconds})
    sys.exit(1 if over else 0)


def make_run(out: Path) -> Path:
    """Write the folder of a run with one of two shards finished."""
    run = {"status": "running", "settings": {"shard_size": 3}, "sources": {"count": 5}}
    write_json(out / "run.json", run)
    Shards.of_sources([f"{number}.png" for number in range(5)], 3).write(out)
    totals = Totals(sources=3, pairs=3, seconds=4.0)
    totals.accepted.update({"duplication/add/": 2, "omission/remove/": 1})
    totals.discarded.update({"distortion/distort/strip": 1})
    write_json(marker(out, 0), totals.as_dict())
    return out


def openings(run: Path) -> list[tuple[str, list[str], int]]:
    """Return the names, commands and expected exit statuses to measure."""
    commands = [
        ("artiagent --help", [*ARTIAGENT, "--help"], 0),
        ("artiagent --version", [*ARTIAGENT, "--version"], 0),
        ("artiagent synthesise (a typing error)", [*ARTIAGENT, "synthesise"], 2),
        ("artiagent status RUN", [*ARTIAGENT, "status", str(run)], 0),
    ]
    commands += [(f"artiagent {c.name} --help", [*ARTIAGENT, c.name, "--help"], 0) for c in COMMANDS]
    modules = ("diffusers_artifact.mapping", "evaluate_metrics", "datasets_script")
    return commands + [(f"import {name}", [sys.executable, "-c", f"import {name}"], 0) for name in modules]


def measure(command: list[str], expected: int, repeats: int) -> dict[str, Any]:
    """Run a command repeatedly, and return the CPU seconds of each run and their median."""
    values = [_cpu_seconds(command, expected) for _ in range(repeats + 1)][1:]
    return {"median": round(statistics.median(values), 3), "all": [round(value, 3) for value in values]}


def _cpu_seconds(command: list[str], expected: int) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != expected:
        raise RuntimeError(f"{command} ended with {done.returncode}, not {expected}:\n{done.stderr}")
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def about(repeats: int) -> dict[str, Any]:
    """Return the machine and the versions that the figures depend on."""
    processor = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "date": datetime.now().isoformat(timespec="seconds"),
        "command": f"python tests/benchmarks/startup.py --repeats {repeats}",
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": recorded_versions(),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
