"""Measure the demo: its speed, and the properties of its pairs.

    python tests/benchmarks/demo.py --json demo.json

`overhead` is the wall time of the run divided by the time of its transformer evaluations alone: the time of a bare
forward pass at the run's batch size, per row, times the number of rows evaluated. The wall time includes everything
else (reading, planning, autoencoder, curation, PNG, Parquet). Medians are over pairs; `add_closer_share` is over
duplications, including those that curation rejected because they were not closer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from datasets_script.agents.perception import AnnotationPerception
from datasets_script.demo.settings import DEMO_SETTINGS, prepare_demo
from datasets_script.engine.injector import Injector
from datasets_script.engine.ledger import read_rejected
from datasets_script.engine.run import Run
from datasets_script.engine.synthesizer import Synthesizer
from datasets_script.pairs.storage import read_pairs
from diffusers_artifact.presets import PRESETS


@torch.no_grad()
def bare_forward_seconds(injector: Injector, batch: int, repeats: int = 20) -> float:
    """Return the median seconds of a forward pass at batch size `batch`, per row."""
    pipe = injector.pipeline
    assert injector.sample_size  # the embedded model's
    side = injector.sample_size // pipe.patch_size
    tokens = torch.randn(batch, side * side, pipe.transformer.config.in_channels)
    condition = pipe.family.encode_prompt("", torch.device("cpu"), None).expand(batch)
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        pipe.family.velocity(tokens, torch.tensor(500.0), condition, torch.ones(batch), (side, side))
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:]) / batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument(
        "--preset", choices=PRESETS, default="embedded", help="injection preset (default: %(default)s)"
    )
    args = parser.parse_args()
    settings = replace(DEMO_SETTINGS, injection=replace(DEMO_SETTINGS.injection, preset=args.preset))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        sources = prepare_demo(out / "photos")
        injector = Injector(settings.model, settings.injection)
        perception = AnnotationPerception(out / "photos" / "annotations.json")
        run = Run(
            out, out / "photos", sources, Synthesizer.of(out / "photos", perception, injector, settings)
        ).execute()
        pairs, rejected = list(read_pairs(out)), list(read_rejected(out))
        bare = bare_forward_seconds(injector, 1 + settings.pairs_per_image)
    artifacts = [artifact for pair in pairs for artifact in pair.artifacts]
    closer = [a.scores["closer_to_reference"] for a in artifacts if a.type == "duplication"]
    closer += [r["scores"]["closer_to_reference"] for r in rejected if "closer_to_reference" in r["scores"]]
    figures = {
        "pairs": run.pairs,
        "pairs_per_minute": 60 * run.pairs / run.seconds,
        "nfe_per_pair": run.counters["num_function_evaluations"] / run.pairs,
        "overhead": run.seconds / (run.counters["num_function_evaluations"] * bare),
        "bare_forward_ms": 1000 * bare,
        "psnr_outside_median": statistics.median(pair.artifacts[0].scores["psnr_outside"] for pair in pairs),
        "inside_outside_ratio_median": statistics.median(
            statistics.mean(a.scores["change_inside"] for a in pair.artifacts)
            / pair.artifacts[0].scores["change_outside"]
            for pair in pairs
        ),
        "add_closer_share": statistics.mean(closer),
        "accepted": run.accepted,
        "made": run.made,
    }
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
