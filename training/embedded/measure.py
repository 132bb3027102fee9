"""
Measure the embedded model on photos it was not trained on. Its card quotes the figures.

    python -m training.embedded.measure --photos PHOTOS --json embedded.json

Reports the PSNR of the autoencoder against the photos, the PSNR of inversion and denoising without injection against
the autoencoder's reconstruction for several solvers and numbers of steps, both in dB, and the time of one forward pass
of the transformer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_json
from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline, PatchMapping
from training.embedded.data import centre_crop, list_photos
from training.script import run_script


def psnr(images: torch.Tensor, reference: torch.Tensor) -> list[float]:
    """Compute the PSNR in dB of each image of a batch in [0, 1]; values outside are clamped."""
    error = (images.clamp(0, 1) - reference.clamp(0, 1)).pow(2).mean((1, 2, 3))
    return (-10 * torch.log10(error)).tolist()


def token_grid(pipe: ArtifactInjectionPipeline) -> tuple[int, int]:
    """Return rows and columns of tokens of an image of the size that the model was trained on."""
    side = pipe.vae.config.sample_size // pipe.patch_size
    return side, side


@torch.no_grad()
def forward_milliseconds(pipe: ArtifactInjectionPipeline, repeats: int = 50) -> float:
    """Measure the median time of a forward pass of the transformer on one image, in milliseconds."""
    grid = token_grid(pipe)
    tokens = torch.randn(1, grid[0] * grid[1], pipe.transformer.config.in_channels)
    condition = pipe.family.encode_prompt("", torch.device("cpu"), None)
    times = []
    for _ in range(repeats + 5):
        start = time.perf_counter()
        pipe.family.velocity(tokens, torch.tensor(500.0), condition, torch.ones(len(tokens)), grid)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[5:])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.embedded.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder with clic2025/ and cid22/")
    parser.add_argument(
        "--model", type=Path, default=EMBEDDED_MODEL, help="folder of the model (default: the embedded one)"
    )
    parser.add_argument(
        "--solvers",
        nargs="+",
        default=["euler", "midpoint", "fireflow", "uni_inv"],
        help="solvers to measure (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        nargs="+",
        type=int,
        default=[10, 25],
        help="numbers of steps for each solver (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=2, help="number of threads of torch (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="number of photos, the first ones (default: all)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)

    paths = list_photos(args.photos, held_out=True)[: args.limit]
    if not paths:
        raise UserError(f"--photos must hold photos that data.json lists as held out, found none in '{args.photos}'")
    pipe = ArtifactInjectionPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    arrays = [np.asarray(centre_crop(Image.open(path).convert("RGB"))) for path in paths]
    photos = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        round_trip = (pipe.vae(2 * photos - 1).sample + 1) / 2
    quality = psnr(round_trip, photos)
    figures: dict = {
        "photographs": len(photos),
        "torch": torch.__version__,
        "threads": args.threads,
        "autoencoder_psnr": {"mean": statistics.mean(quality), "min": min(quality)},
        "forward_ms": forward_milliseconds(pipe),
        "inversion_psnr": [],
    }
    print(f"autoencoder: {statistics.mean(quality):.2f} dB (worst {min(quality):.2f})")
    print(f"forward pass, one image, {args.threads} threads: {figures['forward_ms']:.1f} ms")
    nothing = PatchMapping.empty(token_grid(pipe))
    for solver in args.solvers:
        for steps in args.steps:
            values = []
            for batch, reference in zip(photos.split(5), round_trip.split(5), strict=True):
                output = pipe(
                    batch, [[nothing]] * len(batch), num_inference_steps=steps, solver=solver, output_type="pt"
                )
                values += psnr(output.reconstructions, reference)
            row = {
                "solver": solver,
                "steps": steps,
                "mean": statistics.mean(values),
                "median": statistics.median(values),
                "min": min(values),
            }
            figures["inversion_psnr"].append(row)
            print(f"{solver:9} {steps:3} steps: mean {row['mean']:.2f} dB, worst {row['min']:.2f}", flush=True)
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    run_script(main)
