"""
Train the embedded model's autoencoder: a PCA of image patches, then a decoder that hides the borders between patches.

    python -m training.embedded.autoencoder --crops work/crops.npy --out work/vae --minutes 20

The encoder is fitted in a minute and written first, so that `training.embedded.transformer` can start at once. Half
of each batch of the decoder are composites, which resemble injected artifacts: random rectangles of 8×8 px tokens
hold latents of another crop, and the decoder's target is the same composite with feathered borders.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from datasets_script.schema.training_record import TRAINING_FILE
from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_json
from diffusers_artifact.autoencoder import AutoencoderPCA
from training.run_folder import begin_run
from training.script import run_script


PATCH, TOKEN, CROP = 4, 8, 128  # px
VALIDATION = 64  # crops, the last ones


def to_tensor(crops: np.ndarray) -> torch.Tensor:
    """Convert `uint8` `(batch, height, width, 3)` to `float32` `(batch, 3, height, width)` in [-1, 1]."""
    return torch.from_numpy(np.array(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1


def fit_principal_components(model: AutoencoderPCA, images: torch.Tensor, whitening: float = 0.75) -> None:
    """
    Fit the encoder in place: latent channels are divided by std^whitening, then all by their joint RMS.

    Args:
        model (`AutoencoderPCA`): Autoencoder to fit.
        images (`torch.Tensor` of shape `(batch, 3, height, width)`): Images in [-1, 1].
        whitening (`float`, *optional*, defaults to 0.75): 0 keeps the variances of principal components, 1 makes them
            equal.
    """
    patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH**2).double()
    mean = patches.mean(0)
    variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / (len(patches) - 1))
    order = variances.argsort(descending=True)[: model.config.latent_channels]
    std = variances[order].sqrt()
    scale = std**-whitening / (std ** (1 - whitening)).pow(2).mean().sqrt()
    shape = (-1, 3, PATCH, PATCH)
    model.set_principal_components(
        mean.view(shape)[0].float(), vectors[:, order].T.reshape(shape).float(), scale.float()
    )


def composite_masks(batch: int, generator: torch.Generator) -> torch.Tensor:
    """
    Draw one to three rectangles of tokens for each image of the first half of a batch.

    Args:
        batch (`int`): Number of images.
        generator (`torch.Generator`): Source of randomness.

    Returns:
        `torch.Tensor` of shape `(batch, 1, CROP / TOKEN, CROP / TOKEN)`: 1 within rectangles, else 0.
    """
    side = CROP // TOKEN
    masks = torch.zeros(batch, 1, side, side)
    for mask in masks[: batch // 2, 0]:
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            top, left = torch.randint(side, (2,), generator=generator).tolist()
            height, width = torch.randint(1, 9, (2,), generator=generator).tolist()
            mask[top : top + height, left : left + width] = 1
    return masks


def feather(masks: torch.Tensor, sigma: float = 3.0) -> torch.Tensor:
    """Convert token masks to pixel masks with Gaussian borders of standard deviation `sigma` in pixels."""
    kernel = torch.exp(-(torch.arange(-8, 9.0) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    pixels = F.pad(masks.repeat_interleave(TOKEN, 2).repeat_interleave(TOKEN, 3), (8, 8, 8, 8), mode="replicate")
    return F.conv2d(F.conv2d(pixels, kernel), kernel.transpose(2, 3))


def gradients(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute differences between neighbouring pixels, horizontally and vertically."""
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute RMSE plus a weighted L1 distance of the gradients."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(gradients(output), gradients(target), strict=True))
    return (output - target).pow(2).mean().sqrt() + 0.3 * edges


@torch.no_grad()
def psnr(model: AutoencoderPCA, images: torch.Tensor) -> float:
    """Compute the mean PSNR of reconstructions in dB, for images in [-1, 1]."""
    error = (model(images).sample.clamp(-1, 1) - images) / 2
    return float(-10 * torch.log10(error.pow(2).mean((1, 2, 3))).mean())


def load_crops(path: Path) -> np.ndarray:
    """
    Open the crops that `training.embedded.data` wrote, memory-mapped.

    Returns:
        `np.ndarray` of shape `(crops, 256, 256, 3)`, `uint8`.

    Raises:
        UserError: The file cannot be read, or holds too few crops.
    """
    try:
        crops: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--crops must be a .npy file of `python -m training.embedded.data`, got '{path}': {error}"
        ) from None
    if len(crops) <= VALIDATION:
        raise UserError(
            f"--crops must hold more than {VALIDATION} crops, got {len(crops)}; make more with --num-crops"
        )
    return crops


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    """Return the arguments to record: all that are not paths."""
    return {key: str(value) for key, value in vars(args).items() if not isinstance(value, Path)}


def save_record(args: argparse.Namespace, steps: int, curve: list[dict[str, float]], **further: str) -> None:
    """
    Write `training.json` beside the weights: settings without paths, torch's version, steps, loss curve and what else
    is given.
    """
    record = {"settings": settings_of(args), "torch": torch.__version__, **further, "steps": steps, "curve": curve}
    write_json(args.out / TRAINING_FILE, record)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.embedded.autoencoder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--crops", type=Path, required=True, help=".npy file made by training.embedded.data")
    parser.add_argument("--out", type=Path, required=True, help="folder to save the autoencoder to")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="wall time of the decoder's training (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=12, help="number of 128 px crops in a step (default: %(default)s)"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="number of threads of torch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of crops and composites (default: %(default)s)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    generator, rng = torch.Generator().manual_seed(args.seed), np.random.default_rng(args.seed)

    crops = load_crops(args.crops)
    begin_run(args.out, settings_of(args), option="--out")
    # From photos trained on; `training.embedded.measure` uses the held-out ones.
    validation = to_tensor(crops[-VALIDATION:])
    model = AutoencoderPCA()
    fit_principal_components(model, to_tensor(crops[:1500]))
    model.save_pretrained(args.out)
    curve = [{"step": 0, "seconds": 0, "psnr": psnr(model, validation)}]
    print(curve[0], flush=True)

    model.encoder.requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=args.learning_rate)
    step, start, running = 0, time.time(), 0.0
    while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
        rate = args.learning_rate * min(1, (step + 1) / 100) * (0.5 * (1 + math.cos(math.pi * progress)) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = rng.integers(len(crops) - VALIDATION, size=args.batch_size)
        top, left = rng.integers(256 - CROP + 1, size=2)
        images = to_tensor(crops[np.sort(rows), top : top + CROP, left : left + CROP])
        images = images[torch.randperm(len(images), generator=generator)]
        masks = composite_masks(len(images), generator)
        latents = model.encoder(images)
        in_latents = masks.repeat_interleave(2, 2).repeat_interleave(2, 3)
        latents = torch.lerp(latents, latents.roll(1, 0), in_latents)
        loss = reconstruction_loss(model.decode(latents).sample, torch.lerp(images, images.roll(1, 0), feather(masks)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        step += 1
        running = loss.item() if step == 1 else 0.99 * running + 0.01 * loss.item()
        if step % 200 == 0:
            seconds = round(time.time() - start)
            curve.append({"step": step, "seconds": seconds, "loss": running, "psnr": psnr(model, validation)})
            print(curve[-1], flush=True)
            model.save_pretrained(args.out)
    model.save_pretrained(args.out)
    save_record(args, step, curve)


if __name__ == "__main__":
    run_script(main)
