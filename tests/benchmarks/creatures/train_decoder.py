"""
Train the decoder of the generator's autoencoder on the renders of a run of `train.py`.

    python tests/benchmarks/creatures/train_decoder.py --work runs/creatures

The encoder stays as it is, so the transformer may be trained before, meanwhile or afterwards. Writes `vae/` once it is
done, and `decoder.json` with the curve. Takes ten minutes of a core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from datasets_script.utils.files import write_json
from evaluate_metrics.functional.versions import versions
from tests.benchmarks.creatures.autoencoder import quality, train_decoder
from tests.benchmarks.creatures.train import TRAINED_VAE, autoencoder, training_renders
from training.run_folder import check_new_folder
from training.script import run_script


HELD_OUT = 200  # images


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=1500, help="number of steps (default: %(default)s)")
    parser.add_argument("--images", type=int, default=12000, help="number of renders (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of renders, batches and noise (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    out = args.work / TRAINED_VAE
    check_new_folder(out, "the trained autoencoder of --work")
    images = np.array(training_renders(args.work, args.images, args.seed)[0])
    model = autoencoder(args.work, images, args.seed)
    curve: list[dict[str, float]] = []

    def report(step: int, loss: float) -> None:
        if step % 100 == 0:
            curve.append({"step": step, "loss": round(loss, 4), "psnr": round(quality(model, images[-HELD_OUT:]), 2)})
            print(curve[-1], flush=True)

    train_decoder(model, images[:-HELD_OUT], args.steps, args.seed, report)
    model.save_pretrained(out)
    write_json(
        args.work / "decoder.json",
        {"steps": args.steps, "seed": args.seed, "versions": versions("torch", "diffusers"), "curve": curve},
    )


if __name__ == "__main__":
    run_script(main)
