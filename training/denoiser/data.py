"""What is drawn in a training, and the real images beside it: prompts, photos to start from, latents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from datasets_script.generation.prompts import find_prompts
from datasets_script.utils.errors import UserError
from datasets_script.utils.image_texts import METADATA, image_texts
from datasets_script.utils.photos import SourceError, fit, list_sources, open_source
from datasets_script.utils.seeds import derive_seed
from training.denoiser.rollout import Conditions, Denoiser


# What `artiagent generate` and `artiagent demo` write beside images.
_BESIDE_IMAGES = (METADATA, "annotations.json")


@dataclass(frozen=True)
class Item:
    """
    Something to draw, or a real image.

    Attributes:
        id (`str`): Its id.
        prompt (`str`): Its prompt; may be empty for images.
        path (`Path`, *optional*): The image.
    """

    id: str
    prompt: str
    path: Path | None = None


@dataclass(frozen=True, eq=False)
class Items:
    """
    Encoded items.

    Attributes:
        items (`tuple[Item, ...]`): The items.
        conditions (`Conditions`): Their prompts.
        clean (`torch.Tensor` of shape `(items, channels, height, width)`, *optional*): Latents of their images, on the
            CPU.
    """

    items: tuple[Item, ...]
    conditions: Conditions
    clean: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.items)

    def latents(self, rows: Sequence[int], device: torch.device) -> torch.Tensor | None:
        """Return the latents of the images at some rows, on a device; `None` if items have no images."""
        return None if self.clean is None else self.clean[list(rows)].to(device)

    def record(self) -> dict[str, Any]:
        """Return number and fingerprint, of ids, prompts and images, for the record of a training."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(json.dumps([item.id, item.prompt]).encode())
            if item.path is not None:
                digest.update(item.path.read_bytes())
        return {"count": len(self.items), "sha256": digest.hexdigest()[:16]}


def prompt_items(source: str, limit: int | None = None) -> list[Item]:
    """
    Read the prompts of a file.

    Args:
        source (`str`): See [`~datasets_script.generation.prompts.find_prompts`].
        limit (`int`, *optional*): Number of prompts to use.
    """
    return [Item(prompt.id, prompt.text) for prompt in find_prompts(source)[:limit]]


def image_items(folder: str, argument: str, limit: int | None, seed: int) -> list[Item]:
    """
    List the images of a folder, with the texts of its `metadata.jsonl`.

    Args:
        folder (`str`): The folder.
        argument (`str`): Name of the argument that names it, for messages.
        limit (`int`, *optional*): Number of images to use, chosen by the seed.
        seed (`int`): Seed of the choice.

    Raises:
        UserError: It is no folder, or holds no images; or its metadata cannot be read, or has no texts.
    """
    root = Path(folder)
    if not root.is_dir() or not (names := [name for name in list_sources(root) if name not in _BESIDE_IMAGES]):
        raise UserError(f"--{argument} must be a folder with images, got '{folder}'")
    texts = image_texts(root)
    if not texts and (root / METADATA).is_file():
        raise UserError(
            f"--{argument} must have `prompt` or `text` in its {METADATA}, or no such file, got neither in '{folder}'"
        )
    order = np.random.default_rng(derive_seed(seed, argument)).permutation(len(names))
    return [Item(names[index], texts.get(names[index], ""), root / names[index]) for index in order[:limit]]


def split(items: Sequence[Item], held_out: int, seed: int, argument: str) -> tuple[list[Item], list[Item]]:
    """
    Hold some items out. Items with equal images, or without images with equal prompts, are on one side: of those held
    out each is there once, and what repeats it is on neither side.

    Args:
        items (`Sequence[Item]`): The items.
        held_out (`int`): How many to hold out.
        seed (`int`): Seed of the choice.
        argument (`str`): Name of the argument that gives `held_out`, for messages.

    Returns:
        `tuple[list[Item], list[Item]]`: Those to train on, in their order, and those held out.

    Raises:
        UserError: None would be left.
    """
    contents = [_content(item) for item in items]
    distinct = list(dict.fromkeys(contents))
    if len(distinct) <= held_out:
        raise UserError(
            f"--{argument} must be smaller than the {len(distinct)} different ones there are, got {held_out}"
        )
    order = np.random.default_rng(derive_seed(seed, f"held out:{argument}")).permutation(len(distinct))
    chosen = {distinct[index] for index in order[:held_out]}
    training = [item for item, content in zip(items, contents, strict=True) if content not in chosen]
    first = dict(zip(reversed(contents), reversed(items), strict=True))
    return training, [first[content] for content in distinct if content in chosen]


def without(items: Sequence[Item], taken: Sequence[Item], argument: str) -> list[Item]:
    """
    Leave out items whose image is also that of another item, in whatever folder. Items without images all stay.

    Args:
        items (`Sequence[Item]`): Items to train on.
        taken (`Sequence[Item]`): Those held out, or that guard.
        argument (`str`): Name of the argument that gives `items`, for messages.

    Raises:
        UserError: None is left.
    """
    contents = {_content(item) for item in taken if item.path is not None}
    left = [item for item in items if item.path is None or _content(item) not in contents]
    if items and not left:
        raise UserError(
            f"--{argument} must have images besides those held out and those that guard, got none; give more, or "
            "lower --held_out or --guard_images"
        )
    return left


def encode_texts(denoiser: Denoiser, items: Sequence[Item], device: torch.device) -> Conditions:
    """
    Encode the prompts of items.

    Args:
        denoiser (`Denoiser`): With its text encoders.
        items (`Sequence[Item]`): The items.
        device (`torch.device`): Device of the text encoders.

    Raises:
        UserError: The model takes no text.
    """
    distinct = list(dict.fromkeys(item.prompt for item in items))
    try:
        conditions = denoiser.encode_prompts(distinct, device)
    except ValueError as error:
        raise UserError(f"prompts must be texts that the model takes: {error}") from error
    if len(distinct) == len(items):
        return conditions
    return conditions.select([distinct.index(item.prompt) for item in items])


def encode_pictures(denoiser: Denoiser, items: Sequence[Item]) -> torch.Tensor | None:
    """
    Encode the images of items, each cropped to the size that is drawn.

    Returns:
        `torch.Tensor` of shape `(items, channels, height, width)`, on the CPU; `None` if items have no images.

    Raises:
        UserError: An image cannot be read.
    """
    size = denoiser.settings.width, denoiser.settings.height
    paths = [item.path for item in items if item.path is not None]
    return torch.cat([denoiser.encode_images(read_image(path, size)).cpu() for path in paths]) if paths else None


def read_image(path: Path, size: tuple[int, int]) -> torch.Tensor:
    """
    Read an image, cropped in its middle and resized.

    Args:
        path (`Path`): The file.
        size (`tuple[int, int]`): Width and height.

    Returns:
        `torch.Tensor` of shape `(1, 3, height, width)`, float32 in [0, 1].

    Raises:
        UserError: It cannot be read.
    """
    try:
        photo = open_source(path)
    except SourceError as error:
        raise UserError(f"'{path.name}' must be an image that can be read: {error}") from error
    return as_tensor(fit(photo.size, size).apply(photo))


def as_tensor(image: Image.Image) -> torch.Tensor:
    """Return an RGB image as a float32 tensor of shape `(1, 3, height, width)` in [0, 1]."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def _content(item: Item) -> str:
    """Return what items are told apart by: a hash of the image's file, or the prompt of one without an image."""
    if item.path is None:
        return item.prompt
    # What is no file, or cannot be read, is told when it is encoded.
    with suppress(OSError):
        if item.path.is_file():
            with item.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return str(item.path)
