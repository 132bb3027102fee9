"""Images as a model sees them: the output of a processor turned back into images, and the places of boxes in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image
from transformers import LlavaImageProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from datasets_script.schema.boxes import Box
from datasets_script.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class SeenImage:
    """
    Image as a model sees it.

    Attributes:
        image (`PIL.Image.Image`): RGB pixels. Tiles are put together again.
        tokens (`int`): Number of tokens that stand for it.
        scale (`tuple[float, float]`), offset (`tuple[float, float]`): A point `(x, y)` of the stored image is at
            `(x * scale[0] + offset[0], y * scale[1] + offset[1])`.
        tile (`tuple[int, int]`, *optional*): Width and height of a tile in pixels, if there are several tiles.
    """

    image: Image.Image
    tokens: int
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)
    tile: tuple[int, int] | None = None

    def place(self, box: Box) -> Box:
        """Return where a box of the stored image lies in `image`, in pixels."""
        (x_scale, y_scale), (x, y) = self.scale, self.offset
        return box[0] * x_scale + x, box[1] * y_scale + y, box[2] * x_scale + x, box[3] * y_scale + y

    def holds(self, box: Box) -> bool:
        """Return whether a box of the stored image lies within `image`, with a tolerance of one pixel."""
        x_min, y_min, x_max, y_max = self.place(box)
        return min(x_min, y_min) >= -1 and x_max <= self.image.width + 1 and y_max <= self.image.height + 1


def seen_images(
    processor: Any, batch: Mapping[str, torch.Tensor], sizes: Sequence[tuple[int, int]]
) -> list[SeenImage]:
    """
    Reconstruct the images of one conversation from the model's input.

    Args:
        processor (`ProcessorMixin`): Processor that made the input: of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL or
            LLaVA.
        batch (`Mapping[str, torch.Tensor]`): Output of the collator for this conversation alone.
        sizes (`Sequence[tuple[int, int]]`): Widths and heights of the stored images in pixels.

    Returns:
        `list[SeenImage]`: One for each stored image, in order.

    Raises:
        UserError: The processor belongs to another family.
    """
    image_processor = processor.image_processor
    tokens = image_token_runs(processor, batch["input_ids"][0])
    if "image_grid_thw" in batch:
        seen = [
            SeenImage(_to_image(pixels, image_processor), count, _ratio(pixels, size))
            for pixels, count, size in zip(_unpatched(batch, image_processor), tokens, sizes, strict=True)
        ]
    elif hasattr(image_processor, "crop_to_patches"):
        seen = list(_of_tiles(batch["pixel_values"], processor, tokens, sizes))
    elif hasattr(image_processor, "crop_size") and batch["pixel_values"].ndim == 4:
        seen = [
            _of_square(pixels, image_processor, count, size)
            for pixels, count, size in zip(batch["pixel_values"], tokens, sizes, strict=True)
        ]
    else:
        raise UserError(
            "--model_name_or_path must have the processor of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL or LLaVA to be "
            f"previewed, got {type(processor).__name__}"
        )
    return seen


def image_token_runs(processor: Any, tokens: torch.Tensor) -> list[int]:
    """Count the tokens that stand for each image. Another token always separates two images."""
    return [len(list(run)) for is_image, run in groupby((tokens == processor.image_token_id).tolist()) if is_image]


def _unpatched(batch: Mapping[str, torch.Tensor], image_processor: Any) -> Iterator[torch.Tensor]:
    """Reassemble images from Qwen's patches, which are in the order of the tokens that they are merged into."""
    patch, merge = image_processor.patch_size, image_processor.merge_size
    grids = batch["image_grid_thw"].tolist()
    counts = [frames * rows * columns for frames, rows, columns in grids]
    for patches, (_, rows, columns) in zip(batch["pixel_values"].split(counts), grids, strict=True):
        shape = (rows // merge, columns // merge, merge, merge, 3, -1, patch, patch)
        # An image fills all frames of a patch with copies of itself: take the first.
        blocks = patches.reshape(shape)[:, :, :, :, :, 0]
        yield blocks.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * patch, columns * patch)


def _of_tiles(
    tiles: torch.Tensor, processor: Any, tokens: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> Iterator[SeenImage]:
    """Put InternVL's tiles together, without the thumbnail that follows several tiles."""
    image_processor, (height, width) = processor.image_processor, tiles.shape[-2:]
    counts = [count // processor.image_seq_length for count in tokens]
    for own, count, size in zip(tiles.split(counts), tokens, sizes, strict=True):
        columns, rows = 1, 1
        if len(own) > 1:
            bounds = (image_processor.min_patches, image_processor.max_patches)
            columns, rows = get_optimal_tiled_canvas(size[::-1], (height, width), *bounds)
        grid = own[: rows * columns].reshape(rows, columns, 3, height, width)
        pixels = grid.permute(2, 0, 3, 1, 4).reshape(3, rows * height, columns * width)
        tile = (width, height) if len(own) > 1 else None
        yield SeenImage(_to_image(pixels, image_processor), count, _ratio(pixels, size), tile=tile)


def _of_square(pixels: torch.Tensor, image_processor: Any, tokens: int, size: tuple[int, int]) -> SeenImage:
    """Reconstruct LLaVA's square image, which is padded to a square or cropped to its centre."""
    side = pixels.shape[-1]
    is_padded = isinstance(image_processor, LlavaImageProcessor) and image_processor.do_pad
    kept = max(size) if is_padded else min(size)
    scale = side / kept
    # As the processor rounds: padding in whole pixels of the stored image, cropped margins in pixels of the square.
    x, y = (((kept - length) // 2) * scale if kept > length else (side - length * scale) / 2 for length in size)
    return SeenImage(_to_image(pixels, image_processor), tokens, (scale, scale), (x, y))


def _ratio(pixels: torch.Tensor, size: tuple[int, int]) -> tuple[float, float]:
    return pixels.shape[-1] / size[0], pixels.shape[-2] / size[1]


def _to_image(pixels: torch.Tensor, image_processor: Any) -> Image.Image:
    """Undo the normalisation of the pixels."""
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (image_processor.image_mean, image_processor.image_std)
    )
    values = (pixels.float() * std + mean).clamp(0, 1)
    return to_pil_image((255 * values).round().to(torch.uint8))
