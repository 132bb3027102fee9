"""Settings and helpers that the export formats share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...utils.errors import ArgumentError, check_at_least, check_choice
from ...utils.run_lengths import encode_mask
from ...utils.stored_images import stored_pixels
from ...vlm.conventions import BoxFormat
from .formats import PREFERENCE_COLUMNS, TRAINERS


INFO_FILE = "info.json"


@dataclass(frozen=True)
class ExportSettings:
    """
    Settings of an export.

    Args:
        box_format (`BoxFormat`, *optional*): Convention of the boxes in conversations (sharegpt); pixels by default.
        trainer (`str`, *optional*, defaults to `"llama-factory"`): Trainer that will read the conversations, one of
            `TRAINERS`. LLaMA-Factory shrinks large images before the model's processor sees them; boxes are written
            for the image that it makes.
        trainer_max_pixels (`int`, *optional*): The trainer's limit, `image_max_pixels` of LLaMA-Factory; by default
            its own.
        seed (`int`, *optional*, defaults to 0): Chooses the questions of conversations (sharegpt), and which image
            comes first (preference).
        shard_size (`int`, *optional*, defaults to 1000): Number of pairs per tar file (webdataset) or Parquet file
            (preference).
        preference_columns (`str`, *optional*, defaults to `"chosen"`): Columns of preferences, one of
            `PREFERENCE_COLUMNS`.
    """

    box_format: BoxFormat = field(default_factory=BoxFormat)
    seed: int = 0
    shard_size: int = 1000
    trainer: str = "llama-factory"
    trainer_max_pixels: int | None = None
    preference_columns: str = "chosen"

    def __post_init__(self) -> None:
        check_choice("trainer", self.trainer, tuple(TRAINERS))
        check_choice("preference_columns", self.preference_columns, PREFERENCE_COLUMNS)
        check_at_least("trainer_max_pixels", self.trainer_max_pixels)
        if TRAINERS[self.trainer] is None and self.trainer_max_pixels:
            raise ArgumentError(
                f"`trainer_max_pixels` must not be set with the trainer '{self.trainer}', which shrinks nothing, got "
                f"{self.trainer_max_pixels}; leave it out, or choose another trainer"
            )
        object.__setattr__(self, "trainer_max_pixels", self.trainer_max_pixels or TRAINERS[self.trainer])


def write_image(folder: Path, index: int, row: dict[str, Any], side: str) -> str:
    """
    Write one image of a pair under `images/`, byte for byte.

    Args:
        folder (`Path`): Folder of the export.
        index (`int`): Number of the pair, for the file name.
        row (`dict`): A row of `PAIR_FEATURES` as stored.
        side (`str`): Column of the image, `"clean"` or `"flawed"`.

    Returns:
        `str`: Path of the file, relative to `folder`.
    """
    name = f"images/{index:08d}_{side}.png"
    (folder / name).write_bytes(row[side]["bytes"])
    return name


def encode_rle(mask: dict[str, Any]) -> dict[str, Any]:
    """Encode a stored mask as COCO's compressed run-length encoding, JSON-serialisable."""
    return encode_mask(stored_pixels(mask) > 127)
