"""
Measure corruptions of the embedded model: how much changes inside a mask and outside, by method and level; and how the
error of ReNoise's inversion falls with its iterations. Runs on a CPU.

    python tests/benchmarks/corruption.py --json corruption.json --picture corruption.png

Photos are `--count` of the folder `--photos`, evenly spaced by name, cropped and scaled to 256×256 px. Each has one
mask, a rectangle of 2 to 6 cells of 16×16 px at a random place (seed 0). Every level is a call of its own at the
model's default number of steps, with the midpoint solver.

Figures are medians over photos, of images in [0, 1]. PSNR, in dB, compares with the photo's round trip through the
autoencoder (`outside`, `beyond` 16 px or more from the mask, `inside`) or with the clean image of the pair
(`outside_clean`, `inside_clean`). `in_out` is the mean absolute difference to the clean image inside the mask, divided
by that outside. `unchanged` is the share of photos whose mean absolute difference inside is below .02. `none` is the
clean image. `latent` puts noise in the photo's latent inside the mask and decodes it, without a way to noise and back.

`renoise_error` is the relative error of a random U-Net's latents in float64 that are inverted by some of 50 steps of
DDIM and sampled again, by number of iterations; 0 is the stock inversion.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image
from scipy import ndimage


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.utils.files import write_json
from datasets_script.utils.photos import fit, open_source
from datasets_script.utils.seeds import derive_seed
from diffusers_artifact import EMBEDDED_MODEL, ArtifactCorruptionOutput, ArtifactCorruptionPipeline, ReNoise
from diffusers_artifact.choices import CORRUPTION_NAMES
from diffusers_artifact.corruption_levels import sigma_of_step
from diffusers_artifact.corruptions import CORRUPTIONS, NoiseLevel
from diffusers_artifact.family import Conditioning
from diffusers_artifact.family_unet import UNetFamily
from diffusers_artifact.path_ddim import DDIMPath
from evaluate_metrics.functional.versions import versions
from tests.helpers.paths import ROOT
from tests.helpers.tiny_pipelines import TEXT_DIM, tiny_unet


SIDE, CELL = 256, 16
MASK_CELLS = ((1, 2), (2, 1), (1, 3), (2, 2), (2, 3), (3, 2))
LEVELS = (*(round(sigma_of_step(step), 3) for step in (45, 40, 35, 30)), 0.7, 0.9)
ALL_METHODS_AT = (LEVELS[1], 0.7)
INVERTED_STEPS, ITERATIONS = (10, 25, 50), (0, 1, 2, 4, 8)
LEAST_CHANGE = 0.02
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, eq=False)
class Sample:
    """A photo, and the mask to corrupt."""

    photo: Image.Image
    mask: np.ndarray


def choose_samples(folder: Path, count: int) -> list[Sample]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < count:
        raise SystemExit(f"`--photos` must hold at least {count} photos, got {len(paths)} in {folder}")
    samples = []
    for index in np.linspace(0, len(paths) - 1, count).round().astype(int):
        photo = open_source(paths[index])
        generator = torch.Generator().manual_seed(derive_seed(0, paths[index].name))
        height, width = MASK_CELLS[int(torch.randint(len(MASK_CELLS), (), generator=generator))]
        top, left = (
            CELL * int(torch.randint(SIDE // CELL - length + 1, (), generator=generator)) for length in (height, width)
        )
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        mask[top : top + CELL * height, left : left + CELL * width] = True
        samples.append(Sample(fit(photo.size, (SIDE, SIDE)).apply(photo), mask))
    return samples


def psnr(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> float:
    return float(-10 * np.log10(max(1e-12, ((first - second)[where] ** 2).mean())))


def compare(image: np.ndarray, clean: np.ndarray, original: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compare an image with the clean image of its pair and with the round trip of its photo, all `(256, 256, 3)`."""
    beyond = ndimage.distance_transform_edt(~mask) >= CELL
    difference = np.abs(image - clean).mean(axis=2)
    return {
        "outside": psnr(image, original, ~mask),
        "beyond": psnr(image, original, beyond),
        "inside": psnr(image, original, mask),
        "outside_clean": psnr(image, clean, ~mask),
        "inside_clean": psnr(image, clean, mask),
        "in_out": float(difference[mask].mean() / max(1e-9, difference[~mask].mean())),
        "unchanged": float(difference[mask].mean() < LEAST_CHANGE),
    }


def summarise(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    summary = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return summary | {"unchanged": statistics.mean(row["unchanged"] for row in rows)}


@dataclass
class Corrupted:
    """What was measured on one sample, by method and level; the seconds of pairs; and images for a picture."""

    figures: dict[str, dict[str, float]]
    seconds: list[float]
    shown: list[np.ndarray]


@torch.no_grad()
def corrupt(pipe: ArtifactCorruptionPipeline, sample: Sample, number: int) -> Corrupted:
    """Corrupt a sample by every method and level."""

    def decoded(values: torch.Tensor) -> np.ndarray:
        return (pipe.family.decode_latents(values)[0].movedim(0, -1) / 2 + 0.5).clamp(0, 1).numpy()

    pixels = torch.from_numpy(np.array(sample.photo)).movedim(-1, 0)[None] / 127.5 - 1
    latents, mask = pipe.family.encode_images(pixels, None), sample.mask
    original = decoded(latents)
    corrupted = Corrupted({}, [], [_marked(np.asarray(sample.photo) / 255, mask)])
    for sigma in LEVELS:
        methods = CORRUPTION_NAMES if sigma in ALL_METHODS_AT else CORRUPTION_NAMES[:1]
        generators = [torch.Generator().manual_seed(derive_seed(number, name)) for name in methods]
        start = time.perf_counter()
        output = pipe(sample.photo, mask, method=methods, sigma=sigma, generator=generators, output_type="np")
        assert isinstance(output, ArtifactCorruptionOutput)
        if len(methods) == 1:
            corrupted.seconds.append(time.perf_counter() - start)
        clean = output.reconstructions[0]
        corrupted.figures[f"none {sigma}"] = compare(clean, original, original, mask)
        for method, image in zip(methods, output.images, strict=True):
            corrupted.figures[f"{method} {sigma}"] = compare(image, clean, original, mask)
        corrupted.shown += [*([clean] if sigma == ALL_METHODS_AT[0] else []), *output.images]
    cells = torch.from_numpy(mask[:: SIDE // latents.shape[-2], :: SIDE // latents.shape[-1]])
    generator = torch.Generator().manual_seed(derive_seed(number, "latent"))
    noisy = CORRUPTIONS["gaussian"](latents[0], latents[0], cells, NoiseLevel(1, 0), generator)
    corrupted.figures["latent"] = compare(decoded(noisy[None]), original, original, mask)
    return corrupted


@torch.no_grad()
def measure_renoise() -> dict[str, dict[str, float]]:
    """Return the relative error of a round trip by number of inverted steps and of iterations."""
    unet = tiny_unet().double()
    clean, text = torch.randn(1, 4, 8, 8).double(), Conditioning(torch.randn(1, 8, TEXT_DIM).double())
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    family = UNetFamily(unet, {"scheduler": scheduler})
    errors: dict[str, dict[str, float]] = {}
    for steps in INVERTED_STEPS:
        for iterations in ITERATIONS:
            path = DDIMPath(family, scheduler, 50, ReNoise.fixed_point(iterations), None, lambda: False)
            level = path.levels[steps]
            noisy = path.invert(clean, text, [level], lambda _, latents: latents)[level]
            sampled = path.resample(noisy, level, text, 1.0, [0], lambda _, latents: latents)
            error = float((sampled - clean).norm() / clean.norm())
            errors.setdefault(str(steps), {})[str(iterations)] = error
    return errors


def _marked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the outline of a mask."""
    outline = mask & ~ndimage.binary_erosion(mask, iterations=2)
    return np.where(outline[..., None], np.array([1.0, 0.1, 0.1]), image)


def draw(pictures: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """Write a picture with a row for each photo: photo with mask, clean image, and corrupted images."""
    rows = [np.concatenate(list(shown), axis=1) for shown in pictures]
    pixels = (np.concatenate(rows) * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=ROOT.parent / "shared/data/photos", help="folder of photos")
    parser.add_argument("--count", type=int, default=8, help="number of photos (default: 8)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--picture", type=Path, help="PNG to write the images to")
    args = parser.parse_args()
    pipe = ArtifactCorruptionPipeline.from_pretrained(EMBEDDED_MODEL)
    pipe.set_progress_bar_config(disable=True)
    made = [corrupt(pipe, sample, number) for number, sample in enumerate(choose_samples(args.photos, args.count))]
    figures = {
        "corruptions": {name: summarise([each.figures[name] for each in made]) for name in made[0].figures},
        "seconds_per_pair": statistics.median(seconds for each in made for seconds in each.seconds),
        "renoise_error": measure_renoise(),
        "settings": {"photos": args.count, "num_inference_steps": pipe.preset.num_inference_steps, "seed": 0},
        "versions": versions("torch", "diffusers", "numpy", "scipy"),
    }
    print(json.dumps(figures, indent=1))
    if args.json:
        write_json(args.json, figures)
    if args.picture:
        draw([each.shown for each in made], args.picture)


if __name__ == "__main__":
    main()
