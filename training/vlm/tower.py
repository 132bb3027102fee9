"""
Trains the vision tower of a small vision-language model to say where an image has artifacts, token by token: what the
language model then reads, and the control that shows what an encoder of this size can learn from the pairs at all.

    python -m training.vlm.tower runs/base --dataset_name runs/demo --output_dir runs/tower

Crops about the same place of the clean and the artifact image go through it in one batch, so that the photo itself
tells nothing. The language model and the projector stay as they are.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, FastVlmForConditionalGeneration

from datasets_script.pairs.storage import find_shards, read_rows
from datasets_script.pairs.views.stored_rows import decode_mask, read_artifacts
from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_json
from evaluate_metrics.functional.versions import versions
from training.run_folder import check_new_folder, new_model_folder
from training.script import run_script


TOWER_FILE = "tower.json"

# Tokens that are flawed count more, and so do the same tokens of the clean image, which show what the photo is
# without the artifact. With it a tower learned in 250 steps what took 500 without.
_PLACE_WEIGHT = 8.0

# Crops begin where the embedded model's patches do, as whole images do: seams of its artifacts lie on that grid.
_GRID = 16


@dataclass(frozen=True, eq=False)
class PairArrays:
    """
    Pairs of images of one size.

    Attributes:
        images (`np.ndarray` of shape `(pairs, 2, height, width, 3)`, `uint8`): Clean and flawed.
        masks (`np.ndarray` of shape `(pairs, height, width)`, `bool`): The artifacts.
        targets (`np.ndarray` of shape `(pairs, height, width)`, `bool`): The patches they were injected into.
    """

    images: np.ndarray
    masks: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def load_pairs(source: str | Path | Sequence[str], num_pairs: int | None = None) -> PairArrays:
    """
    The first `num_pairs` pairs (all by default) of a folder written by `artiagent synthesize`, or of Parquet files.

    Raises:
        UserError: there are fewer, or their images differ in size.
    """
    images: list[list[np.ndarray]] = []
    masks, targets = [], []
    for row in read_rows(find_shards(source)):
        if num_pairs is not None and len(images) == num_pairs:
            break
        images.append([decode_mask(row["clean"]), decode_mask(row["flawed"])])
        artifacts = read_artifacts(row)
        masks.append(np.any([artifact.mask for artifact in artifacts], axis=0))
        patches = np.any([artifact.mapping.target_patches() for artifact in artifacts], axis=0)
        side = masks[-1].shape[0] // patches.shape[0]
        targets.append(patches.repeat(side, axis=0).repeat(side, axis=1))
    if num_pairs is not None and len(images) < num_pairs:
        raise UserError(f"--num_pairs must be at most the {len(images)} pairs there are, got {num_pairs}")
    if len(sizes := {image.shape for pair in images for image in pair}) != 1:
        raise UserError(f"--dataset_name must hold images of one size, got {sorted(sizes)}")
    return PairArrays(np.stack([np.stack(pair) for pair in images]), np.stack(masks), np.stack(targets))


class FlawDetector(nn.Module):
    """
    A vision tower with one linear unit on each of its tokens.

    Args:
        tower (`torch.nn.Module`): `pixel_values` to a `last_hidden_state` of shape `(batch, width, rows, columns)`.
        width (`int`): Of a token.
        mean, std (`Sequence[float]`): What the images are normalised with, by channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, width: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(width, 1)
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape `(batch, rows, columns)` for images of shape `(batch, height, width, 3)`, `uint8`."""
        pixels = (images.permute(0, 3, 1, 2) - self.mean) / self.std
        features = self.tower(pixels).last_hidden_state  # (batch, width, rows, columns)
        return self.head(features.permute(0, 2, 3, 1))[..., 0]


@dataclass(frozen=True)
class TowerTraining:
    """
    Args:
        steps (`int`): Of the optimizer.
        batch_size (`int`): Pairs a step.
        learning_rate (`float`): At its highest, after the first steps; then it falls as a cosine.
        crop (`int`): Side of the crops, px.
        whole (`bool`): Learn whether the crop is of the artifact image, instead of which of its tokens are flawed.
        seed (`int`): Chooses crops, order and the head's first weights.
    """

    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 2e-3
    crop: int = 128
    whole: bool = False
    seed: int = 0


def train(model: FlawDetector, pairs: PairArrays, settings: TowerTraining) -> list[tuple[int, float]]:
    """
    Trains in place.

    Returns:
        `list[tuple[int, float]]`: The mean loss of about every hundredth of the steps.
    """
    generator = np.random.default_rng(settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    losses: list[float] = []
    curve: list[tuple[int, float]] = []
    model.train()
    for step in tqdm(range(1, settings.steps + 1), desc="vision tower", unit="step"):
        indices = generator.integers(0, len(pairs), settings.batch_size)
        images, masks = _crops(pairs, indices, settings.crop, generator)
        loss = _loss(model(images), masks, settings.whole)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if len(losses) == max(1, settings.steps // 100):
            curve.append((step, round(float(np.mean(losses)), 5)))
            losses.clear()
    return curve


def _rate(step: int, steps: int) -> float:
    warmup = max(1, steps // 20)
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _crops(pairs: PairArrays, indices: np.ndarray, side: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Crops with some of the target in them, mirrored or not: images of clean and flawed in turn, and their masks."""
    images, masks = [], []
    for index in indices:
        y, x = _corner(pairs.targets[index], side, generator)
        crop = np.s_[y : y + side, x : x + side]
        flip = np.s_[:, :: generator.choice((-1, 1))]
        mask = pairs.masks[index][crop][flip]
        images += [image[crop][flip] for image in pairs.images[index]]
        masks += [np.zeros_like(mask), mask]
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))


def _corner(target: np.ndarray, side: int, generator: np.random.Generator) -> list[int]:
    point = generator.choice(np.argwhere(target))
    drawn = [int(p - generator.integers(side // 8, side - side // 8)) // _GRID * _GRID for p in point]
    return [min(max(corner, 0), length - side) for corner, length in zip(drawn, target.shape, strict=True)]


def _loss(logits: Tensor, masks: Tensor, whole: bool) -> Tensor:
    if whole:
        is_flawed = torch.arange(len(logits)) % 2
        return functional.binary_cross_entropy_with_logits(logits.mean((1, 2)), is_flawed.float())
    shares = functional.adaptive_avg_pool2d(masks[:, None].float(), (logits.shape[1], logits.shape[2]))[:, 0]
    weights = 1 + _PLACE_WEIGHT * shares[1::2].repeat_interleave(2, dim=0)
    losses = functional.binary_cross_entropy_with_logits(logits, shares, reduction="none")
    return (weights * losses).sum() / weights.sum()


def detector_of(vlm: FastVlmForConditionalGeneration, processor: Any, seed: int) -> FlawDetector:
    """A detector on the vision tower of a small model; it shares the tower's weights."""
    torch.manual_seed(seed)
    images = processor.image_processor
    width = vlm.config.vision_config.hidden_size
    return FlawDetector(vlm.model.vision_tower, width, images.image_mean, images.image_std)


def load_model(folder: str | Path, option: str = "MODEL") -> tuple[FastVlmForConditionalGeneration, Any]:
    """
    Load a small model and its processor.

    Args:
        folder (`str` or `Path`): Where `training.vlm.small_model` or this script left it.
        option (`str`, *optional*, defaults to `"MODEL"`): The argument that names it, for the error.

    Raises:
        UserError: there is no such model.
    """
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder)
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{option} must be the folder of a small model, got '{folder}' ({first}): make one with `python -m "
            "training.vlm.small_model OUT --dataset_name PAIRS`"
        ) from None
    if not isinstance(model, FastVlmForConditionalGeneration):
        raise UserError(f"{option} must be a model of training.vlm.small_model, got a {type(model).__name__}")
    return model, processor


def save_tower(
    folder: Path,
    vlm: FastVlmForConditionalGeneration,
    processor: Any,
    settings: TowerTraining,
    data: Mapping[str, Any],
    curve: Sequence[tuple[int, float]],
) -> None:
    """
    Write a model whose tower was trained, its processor and `tower.json`: settings, data, versions and losses.

    Args:
        folder (`Path`): To write, new or empty.
        vlm, processor: The model.
        settings (`TowerTraining`): Of the training.
        data (`Mapping`): What it was trained on: `source` and `num_pairs`.
        curve (`Sequence[tuple[int, float]]`): Steps and losses, from [`train`].

    Raises:
        UserError: the folder holds something already.
    """
    with new_model_folder(folder, "--output_dir") as temporary:
        vlm.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        record = {
            "settings": vars(settings),
            "data": data,
            "versions": versions("torch", "transformers", "numpy"),
            "loss": curve,
        }
        write_json(temporary / TOWER_FILE, record)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.vlm.tower",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a model that training.vlm.small_model made")
    parser.add_argument("--dataset_name", required=True, help="folder written by `artiagent synthesize`")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write: the model with its new tower")
    parser.add_argument("--num_pairs", type=int, help="only the first pairs (default: all)")
    parser.add_argument("--steps", type=int, default=TowerTraining.steps, help="of training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of crops, order and first weights (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.steps < 1:
        parser.error(f"--steps must be at least 1, got {args.steps}")
    check_new_folder(args.output_dir, "--output_dir")
    vlm, processor = load_model(args.model)
    settings = TowerTraining(steps=args.steps, seed=args.seed)
    detector = detector_of(vlm, processor, args.seed)
    curve = train(detector, load_pairs(args.dataset_name, args.num_pairs), settings)
    data = {"source": Path(args.dataset_name).name, "num_pairs": args.num_pairs}
    save_tower(args.output_dir, vlm, processor, settings, data, curve)
    print(
        f"model with its new tower in {args.output_dir}, last loss {curve[-1][1]}; next: python -m training.sft_vlm "
        f"--config learning_cpu --model_name_or_path {args.output_dir} --dataset_name {args.dataset_name}"
    )


if __name__ == "__main__":
    run_script(main)
