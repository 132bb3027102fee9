"""
Make a pipeline of a snapshot of `train.py`, in `bfloat16` and in diffusers' layout, with the record of its training.

    python tests/benchmarks/creatures/export.py --work runs/creatures --step 8000 --out runs/creatures/middle
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_json
from diffusers_artifact.autoencoder import AutoencoderPCA
from tests.benchmarks.creatures.generator import TRAINED, new_generator, trained_parameters
from tests.benchmarks.creatures.train import RECORD, SNAPSHOTS, TRAINED_VAE
from training.embedded.export import load_part
from training.run_folder import new_model_folder
from training.script import run_script


def snapshot_path(work: Path, step: int) -> Path:
    """
    Return the file of a snapshot.

    Raises:
        UserError: There is none of this step.
    """
    path = work / SNAPSHOTS / f"{step:06d}.safetensors"
    if not path.exists():
        steps = ", ".join(str(int(one.stem)) for one in sorted(path.parent.glob("*.safetensors"))) or "none"
        raise UserError(f"--step must be that of a snapshot in '{path.parent}', got {step}; there are {steps}")
    return path


def pipeline_of(snapshot: Path, vae: AutoencoderPCA) -> FluxPipeline:
    """Make the pipeline with a snapshot's weights, in float32."""
    pipe, weights = new_generator(vae), load_file(snapshot)
    with torch.no_grad():
        for name, parameter in trained_parameters(pipe).items():
            parameter.copy_(weights[name])
    return pipe


def record_of(work: Path, step: int) -> dict[str, Any]:
    """Return the record of the training up to a snapshot."""
    record: dict[str, Any] = json.loads((work / RECORD).read_text(encoding="utf-8"))
    return {**record, "step": step, "curve": [point for point in record["curve"] if point["step"] <= step]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the training")
    parser.add_argument("--step", type=int, required=True, help="step of the snapshot")
    parser.add_argument("--vae", type=Path, help="folder of the autoencoder (default: vae_trained in --work)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args(arguments)
    vae = load_part(AutoencoderPCA, args.vae or args.work / TRAINED_VAE, "--vae")
    # Not where it lies on this machine.
    vae.register_to_config(_name_or_path="")
    pipe = pipeline_of(snapshot_path(args.work, args.step), vae)
    for name in (*TRAINED, "vae"):
        getattr(pipe, name).to(torch.bfloat16)
    with new_model_folder(args.out, "--out") as temporary:
        pipe.save_pretrained(temporary)
        write_json(temporary / RECORD, record_of(args.work, args.step))


if __name__ == "__main__":
    run_script(main)
