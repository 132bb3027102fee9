"""
Train the vision tower of a small vision-language model to locate artifacts, token by token.

The language model then learns to read this tower. The tower alone is also the control of
`tests/benchmarks/learning.py`: it shows what an encoder of this size can learn from the pairs at all.

    python -m training.vlm.tower runs/base --dataset_name runs/demo --output_dir runs/tower

Each batch holds crops of the same places of clean and artifact images, so that the photo itself tells nothing. The
language model and the projector stay unchanged.
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
from datasets_script.pairs.views.stored_rows import read_artifacts
from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_json
from datasets_script.utils.stored_images import stored_pixels
from diffusers_artifact.visible_change import target_mask
from evaluate_metrics.functional.versions import versions
from training.run_folder import check_new_folder, new_model_folder
from training.script import run_script


TOWER_FILE = "tower.json"

# Weight in the loss of tokens with an artifact, and of the same tokens of the clean image, which show the photo
# without it. Few tokens have one, so that learning is slow without the weight.
_PLACE_WEIGHT = 8.0

# Crops begin on the grid of the embedded model's patches, as whole images do, because seams of its artifacts would lie
# there: 16 px is a multiple of their 8.
_GRID = 16


@dataclass(frozen=True, eq=False)
class PairArrays:
    """
    Pairs of images of one size.

    Attributes:
        images (`np.ndarray` of shape `(pairs, 2, height, width, 3)`, `uint8`): Clean images and artifact images.
        masks (`np.ndarray` of shape `(pairs, height, width)`, `bool`): Masks of the artifacts.
        targets (`np.ndarray` of shape `(pairs, height, width)`, `bool`): Masks of the target patches.
    """

    images: np.ndarray
    masks: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def load_pairs(source: str | Path | Sequence[str], num_pairs: int | None = None) -> PairArrays:
    """
    Load pairs into memory.

    Args:
        source (`str`, `Path` or sequence of `str`): Folder written by `artiagent synthesize`, or Parquet files.
        num_pairs (`int`, *optional*): Number of pairs to load, the first ones. Defaults to all.

    Raises:
        UserError: There are fewer pairs, or their images differ in size.
    """
    images: list[list[np.ndarray]] = []
    masks, targets = [], []
    for row in read_rows(find_shards(source)):
        if num_pairs is not None and len(images) == num_pairs:
            break
        images.append([stored_pixels(row["clean"]), stored_pixels(row["flawed"])])
        artifacts = read_artifacts(row)
        masks.append(np.any([artifact.mask for artifact in artifacts], axis=0))
        height = masks[-1].shape[0]
        targets.append(np.any([target_mask(artifact.mapping, height) for artifact in artifacts], axis=0))
    if num_pairs is not None and len(images) < num_pairs:
        raise UserError(f"--num_pairs must be at most the {len(images)} pairs there are, got {num_pairs}")
    if len(sizes := {image.shape for pair in images for image in pair}) != 1:
        raise UserError(f"--dataset_name must hold images of one size, got {sorted(sizes)}")
    return PairArrays(np.stack([np.stack(pair) for pair in images]), np.stack(masks), np.stack(targets))


class TokenDetector(nn.Module):
    """
    Vision tower with a linear layer that gives one logit for each token.

    Args:
        tower (`torch.nn.Module`): Module that maps `pixel_values` to a `last_hidden_state` of shape
            `(batch, width, rows, columns)`.
        width (`int`): Number of features of a token.
        mean, std (`Sequence[float]`): Means and standard deviations to normalise images with, by channel, for values
            in [0, 1].
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
        """Map images of shape `(batch, height, width, 3)`, `uint8`, to logits of shape `(batch, rows, columns)`."""
        pixels = (images.permute(0, 3, 1, 2) - self.mean) / self.std
        features = self.tower(pixels).last_hidden_state  # (batch, width, rows, columns)
        return self.head(features.permute(0, 2, 3, 1))[..., 0]


@dataclass(frozen=True)
class TowerTraining:
    """
    Settings of the training of a tower.

    Args:
        steps (`int`, *optional*, defaults to 1000): Number of optimizer steps.
        batch_size (`int`, *optional*, defaults to 16): Number of pairs in a step.
        learning_rate (`float`, *optional*, defaults to 2e-3): Peak learning rate, after a linear warmup of a twentieth
            of the steps and before cosine decay.
        crop (`int`, *optional*, defaults to 128): Side of the crops in pixels.
        whole (`bool`, *optional*, defaults to `False`): Learn whether a crop is from the artifact image, instead of
            which of its tokens have artifacts.
        seed (`int`, *optional*, defaults to 0): Seed of the crops, their order and the initial weights of the head.
    """

    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 2e-3
    crop: int = 128
    whole: bool = False
    seed: int = 0


def train(model: TokenDetector, pairs: PairArrays, settings: TowerTraining) -> list[tuple[int, float]]:
    """
    Train a detector in place.

    Args:
        model (`TokenDetector`): Detector to train.
        pairs (`PairArrays`): Pairs to train on.
        settings (`TowerTraining`): Settings of the training.

    Returns:
        `list[tuple[int, float]]`: Steps and the mean losses up to them, one for about each hundredth of the training.
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
    """Cut crops with part of the target, mirrored at random: clean and artifact images in turn, and their masks."""
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


def detector_of(vlm: FastVlmForConditionalGeneration, processor: Any, seed: int) -> TokenDetector:
    """Create a detector on the vision tower of a small model. It shares the tower's weights."""
    torch.manual_seed(seed)
    images = processor.image_processor
    width = vlm.config.vision_config.hidden_size
    return TokenDetector(vlm.model.vision_tower, width, images.image_mean, images.image_std)


def load_model(folder: str | Path, option: str = "MODEL") -> tuple[FastVlmForConditionalGeneration, Any]:
    """
    Load a small model and its processor.

    Args:
        folder (`str` or `Path`): Folder written by `training.vlm.small_model` or by this script.
        option (`str`, *optional*, defaults to `"MODEL"`): Name of the argument in error messages.

    Returns:
        `tuple`: The model and its processor.

    Raises:
        UserError: The folder holds no such model.
    """
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder)
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{option} must be the folder of a small model, got '{folder}' ({first}); make one with `python -m "
            "training.vlm.small_model OUT --dataset_name PAIRS`"
        ) from None
    if not isinstance(model, FastVlmForConditionalGeneration):
        raise UserError(f"{option} must be a model of training.vlm.small_model, got {type(model).__name__}")
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
    Save a model whose tower was trained, its processor and `tower.json`: settings, data, versions and losses.

    Args:
        folder (`Path`): Folder to write, new or empty.
        vlm (`FastVlmForConditionalGeneration`): Model with the trained tower.
        processor (`ProcessorMixin`): Processor of the model.
        settings (`TowerTraining`): Settings of the training.
        data (`Mapping`): Facts about the training data: `source` and `num_pairs`.
        curve (`Sequence[tuple[int, float]]`): Steps and losses from [`train`].

    Raises:
        UserError: The folder is not empty.
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
    parser.add_argument("model", metavar="MODEL", help="folder of a model made by training.vlm.small_model")
    parser.add_argument("--dataset_name", required=True, help="folder written by `artiagent synthesize`")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write: the model with its new tower")
    parser.add_argument("--num_pairs", type=int, help="number of pairs to train on: the first ones (default: all)")
    parser.add_argument(
        "--steps", type=int, default=TowerTraining.steps, help="number of training steps (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of crops, order and initial weights (default: %(default)s)"
    )
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
