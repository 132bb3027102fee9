"""
Measure the oracle on creatures whose truth is known, and make its limits.

    python tests/benchmarks/creatures/oracle_figures.py --json FILE

- `false_alarms`: share of clean renders in which it finds an artifact; `words_read`: share whose words it reads.
- `found`: share of planted artifacts that it finds, and `type_found`: with their type; by type and by way of planting.
- with `--vae DIR`, `false_alarms_after_round_trip`: that of clean renders that went through the autoencoder.

`--ranges` makes the limits, `ranges.json`, from other clean renders first. Planted artifacts did not enter them.
Shares come with 95 % Wilson intervals. Takes two minutes of a core.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from datasets_script.utils.files import write_json
from diffusers_artifact.autoencoder import AutoencoderPCA
from evaluate_metrics.functional.versions import versions
from tests.benchmarks.creatures.oracle import RANGES, Verdict, find_ranges, judge
from tests.benchmarks.creatures.planting import Planted, plant
from tests.benchmarks.creatures.renderer import Render, render_many
from tests.benchmarks.creatures.shares import share
from training.embedded.autoencoder import to_tensor
from training.script import run_script


RANGES_FROM = 3000  # clean renders


def write_ranges(number: int = RANGES_FROM, seed: int = 0) -> None:
    """Make the oracle's limits from clean renders of their own."""
    renders = render_many(number, seed, "ranges")
    ranges = find_ranges((render.image, render.words) for render in renders)
    write_json(RANGES, {"renders": number, "seed": seed, "versions": versions("scipy"), "ranges": ranges})


def clean_figures(renders: Sequence[Render]) -> dict[str, Any]:
    """Judge clean renders."""
    verdicts = [judge(render.image, render.words) for render in renders]
    return {
        "false_alarms": share([verdict.has_artifact for verdict in verdicts]),
        "words_read": share([verdict.meets_words for verdict in verdicts]),
        "reasons": reasons(verdicts),
    }


def reasons(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Count pictures by type and part of their faults."""
    counts: dict[str, int] = defaultdict(int)
    for verdict in verdicts:
        for name in sorted({f"{fault.type} of {fault.part}" for fault in verdict.faults}):
            counts[name] += 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def planted_figures(planted: Sequence[Planted]) -> dict[str, Any]:
    """Judge pictures with a planted artifact each."""
    verdicts = [judge(picture.image, picture.words) for picture in planted]
    found = [verdict.has_artifact for verdict in verdicts]
    typed = [picture.type in verdict.types for picture, verdict in zip(planted, verdicts, strict=True)]

    def by(names: Sequence[str]) -> dict[str, Any]:
        rows = {name: [index for index, other in enumerate(names) if other == name] for name in sorted(set(names))}
        return {
            name: {"found": share([found[i] for i in some]), "type_found": share([typed[i] for i in some])}
            for name, some in rows.items()
        }

    return {
        "found": share(found),
        "type_found": share(typed),
        "by_type": by([picture.type for picture in planted]),
        "by_way": by([f"{picture.type}: {picture.name}" for picture in planted]),
    }


@torch.no_grad()
def round_trip(vae: AutoencoderPCA, images: np.ndarray) -> np.ndarray:
    """Encode and decode images of shape `(batch, 64, 64, 3)`, `uint8`."""
    decoded = torch.cat([vae(to_tensor(images[first : first + 64])).sample for first in range(0, len(images), 64)])
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def round_trip_figures(vae: AutoencoderPCA, renders: Sequence[Render]) -> dict[str, Any]:
    """Judge clean renders after a round trip through the autoencoder."""
    decoded = round_trip(vae, np.stack([render.image for render in renders]))
    pictures = [Render(image, render.words, render.parts) for image, render in zip(decoded, renders, strict=True)]
    return clean_figures(pictures)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--clean", type=int, default=4000, help="number of clean renders (default: %(default)s)")
    parser.add_argument("--planted", type=int, default=2000, help="number of planted ones (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pictures (default: %(default)s)")
    parser.add_argument("--vae", type=Path, help="folder of the autoencoder")
    parser.add_argument("--ranges", action="store_true", help="make ranges.json first")
    args = parser.parse_args(arguments)
    if args.ranges:
        write_ranges()
    renders = render_many(args.clean, args.seed, "oracle")
    figures = {
        "clean_renders": args.clean,
        **clean_figures(renders),
        "planted_artifacts": args.planted,
        **planted_figures([plant(index, args.seed, "oracle") for index in range(args.planted)]),
    }
    if args.vae:
        vae = AutoencoderPCA.from_pretrained(args.vae)
        figures["after_round_trip"] = round_trip_figures(vae, renders[:1000])
    for name in ("false_alarms", "words_read", "found", "type_found"):
        print(name, figures[name])
    if args.json:
        write_json(args.json, {"seed": args.seed, "versions": versions("scipy", "torch"), **figures})


if __name__ == "__main__":
    run_script(main)
