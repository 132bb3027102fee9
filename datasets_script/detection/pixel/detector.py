"""
Detection of structural artifacts with a network that gives every pixel a probability.

```python
from datasets_script import PixelDetector

detector = PixelDetector.from_pretrained("my-pixel-detector")
found = detector("portrait.jpg")
found.score, [(region.box, region.score) for region in found.regions]
found.artifact_map  # (height, width), in [0, 1]
```
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ...schema.detection import Detection
from ...utils.errors import ArgumentError, check_at_least
from ...utils.files import resolve_revision
from ...utils.hub_access import why_not_loaded
from ...utils.hub_ids import last_name
from ..images import ImageInput, upright
from ..tensors import stacked_by_size
from .locating import PIXEL_FILE, find_folder, find_record
from .models import artifact_index, artifact_logits, load_model
from .preprocessing import Preprocessing
from .reading import measure, read_map
from .record import PixelRecord
from .tiles import tiled


_SMALLEST_TILE = 16


class PixelDetector:
    """
    Detector of structural artifacts that gives an image a map: for every pixel the probability of being part of an
    artifact. Like [`~datasets_script.detection.detector.ArtifactDetector`] it takes an image and returns a
    [`~datasets_script.schema.detection.Detection`], or takes a list and returns a list. It gives no explanations.

    The network is frozen and in evaluation mode.

    Args:
        network (`PreTrainedModel`): UperNet with two classes or SegFormer with one channel, see
            [`~datasets_script.detection.pixel.models`].
        record (`PixelRecord`): Preprocessing, thresholds and calibration.
        batch_size (`int`, *optional*, defaults to 4): Number of images opened together; those of equal size go through
            the network together.
        tile (`int`, *optional*): Side in pixels, at least 16, of the tiles in which images with a longer side are
            examined: each tile is preprocessed as an image of its own, so that small artifacts of large images are
            seen. By default, images are examined as a whole.
        name, revision (`str`, *optional*): What predictions are recorded under.

    Raises:
        ArgumentError: The network's classes are others, or `batch_size` or `tile` is too small.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        record: PixelRecord,
        *,
        batch_size: int = 4,
        tile: int | None = None,
        name: str = "",
        revision: str | None = None,
    ) -> None:
        check_at_least("batch_size", batch_size)
        check_at_least("tile", tile, _SMALLEST_TILE)
        artifact_index(network)
        self.network = network.eval().requires_grad_(False)
        self.record, self.batch_size, self.tile = record, batch_size, tile
        self.name, self.revision = name, revision

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        preprocessing: Preprocessing | None = None,
        batch_size: int = 4,
        tile: int | None = None,
    ) -> PixelDetector:
        """
        Load a detector.

        Args:
            model (`str` or `os.PathLike`): A folder or the id of a repository on the Hub that [`save_pretrained`]
                wrote; `"embedded"` for the one in this package; or any UperNet or SegFormer of transformers whose
                classes fit, if `preprocessing` is given.
            revision (`str`, *optional*): Branch, tag or commit of a repository.
            device (`str`, *optional*): Defaults to CUDA if available.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Precision of the network. Maps are
                `float32`.
            preprocessing (`Preprocessing`, *optional*): In place of the recorded one. Required for a network without
                `pixel_detector.json`, because it decides what the network sees; thresholds are then the defaults.
            batch_size, tile (*optional*): See the class.

        Raises:
            ArgumentError: The detector does not exist, cannot be reached, or is not as described.
            UserError: Its `pixel_detector.json` cannot be used.
        """
        name = os.fspath(model)
        folder = find_folder(name)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            commit, recorded_revision = resolve_revision(folder, revision)
            path = find_record(name, commit)
            network = load_model(folder, revision=commit, dtype=dtype).to(device)
        except ArgumentError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ArgumentError(
                "`model` must be a folder or a repository on the Hub of a pixel detector with safetensors, got "
                f"'{name}': {why_not_loaded(error)}"
            ) from error
        if path is None and preprocessing is None:
            raise ArgumentError(
                f"`preprocessing` must be given for a network without {PIXEL_FILE}, got none for '{name}': pass the "
                "size, mean and standard deviation that it was trained with"
            )
        record = PixelRecord(trunk=None) if path is None else PixelRecord.read(path)
        if preprocessing is not None:
            record = replace(record, preprocessing=preprocessing)
        return cls(network, record, batch_size=batch_size, tile=tile, name=name, revision=recorded_revision)

    def save_pretrained(self, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """
        Write the detector into a folder: `config.json` and `model.safetensors` of transformers, and then
        `pixel_detector.json`, by which the folder is known as complete.

        Args:
            folder (`str` or `os.PathLike`): The folder; created if it is missing.
            dtype (`torch.dtype`, *optional*): Precision to store weights in; by default that of the network.
        """
        # The record of an earlier detector must not vouch for weights that are half written.
        (Path(folder) / PIXEL_FILE).unlink(missing_ok=True)
        network = self.network if dtype is None else copy.deepcopy(self.network).to(dtype)
        network.save_pretrained(folder)
        self.record.write(Path(folder))

    @overload
    def __call__(self, images: ImageInput) -> Detection: ...

    @overload
    def __call__(self, images: list[ImageInput]) -> list[Detection]: ...

    def __call__(self, images: ImageInput | list[ImageInput]) -> Detection | list[Detection]:
        """
        Detect artifacts in an image, or in each image of a list.

        Args:
            images (`str`, `os.PathLike`, `PIL.Image.Image`, or a list of them): Paths or images. EXIF orientation is
                applied; boxes, masks and maps are of the upright image.

        Returns:
            [`~datasets_script.schema.detection.Detection`], or a list of them in the order of `images`.

        Raises:
            SourceError: A file cannot be read as an image.
        """
        if isinstance(images, list):
            return list(self.stream(images))
        return next(self.stream([images]))

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Detection]:
        """
        Detect artifacts in any number of images, yielding one [`~datasets_script.schema.detection.Detection`] after
        the other. At most one batch of images is open at a time.
        """
        waiting = iter(images)
        while batch := list(islice(waiting, self.batch_size)):
            for artifact_map in self.maps(batch):
                yield read_map(artifact_map, self.record)

    def maps(self, images: Sequence[ImageInput]) -> list[np.ndarray]:
        """
        Compute the maps of images.

        Args:
            images (`Sequence` of `str`, `os.PathLike` or `PIL.Image.Image`): Paths or images.

        Returns:
            `list[np.ndarray]`: In the order of `images`, each `float32` of shape `(height, width)` in [0, 1].

        Raises:
            SourceError: A file cannot be read as an image.
        """
        opened = [upright(image) for image in images]
        maps: dict[int, np.ndarray] = {}
        for indices, stacked in stacked_by_size(opened):
            with torch.no_grad():
                found = self.artifact_map(stacked.to(self.network.device)).cpu().numpy()
            maps.update(zip(indices, found, strict=True))
        return [maps[index] for index in range(len(opened))]

    def artifact_map(self, images: torch.Tensor) -> torch.Tensor:
        """
        Compute the maps of a batch of images so that gradients pass to them, for guidance and as a loss.

        Logits are enlarged to the size of the input and brought to that of the image before the sigmoid is applied.

        Args:
            images (`torch.Tensor` of shape `(batch, 3, height, width)`): RGB in [0, 1], floats, on the network's
                device.

        Returns:
            `torch.Tensor` of shape `(batch, height, width)` in [0, 1], of the dtype of `images`.

        Raises:
            ValueError: `images` are no such tensor.
        """
        if self.tile is not None and images.ndim == 4 and max(images.shape[2:]) > self.tile:
            return tiled(self._whole, images, self.tile)
        return self._whole(images)

    def raw_score(self, artifact_map: np.ndarray) -> float:
        """Return the smoothed maximum of a map in [0, 1], which the calibration makes a probability of."""
        return measure(artifact_map, self.record).smoothed_maximum

    def identity(self) -> dict[str, Any]:
        """
        Return everything that answers depend on, JSON-serialisable. Of a folder it has the name alone: another path to
        it, as worker processes have, makes no difference.
        """
        record = self.record.to_dict()
        return {
            "model": last_name(self.name),
            "revision": self.revision,
            "dtype": str(self.network.dtype),
            "tile": self.tile,
            **{name: record[name] for name in ("preprocessing", "thresholds", "calibration")},
        }

    def _whole(self, images: torch.Tensor) -> torch.Tensor:
        pixel_values, geometry = self.record.preprocessing(images)
        logits = artifact_logits(self.network, pixel_values.to(self.network.dtype))
        return geometry.restore(logits.to(images.dtype)).sigmoid()
