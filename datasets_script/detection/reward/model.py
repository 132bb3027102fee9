"""
Scores of images by how few artifacts they have.

```python
from datasets_script import RewardModel

reward = RewardModel.from_pretrained("my-reward-model")
reward("portrait.jpg")  # higher for fewer artifacts
reward.score(images).sum().backward()  # images: (batch, 3, height, width) in [0, 1]
```
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...utils.errors import ArgumentError, check_at_least
from ...utils.files import replacing, resolve_revision, write_json
from ...utils.hub_access import why_not_loaded
from ...utils.hub_ids import last_name
from ..images import ImageInput, upright
from ..model_files import find_model_file
from ..tensors import stacked_by_size
from .features import patch_of
from .network import RewardNetwork
from .record import REWARD_FILE, RewardRecord


CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_Image = TypeVar("_Image", bound=ImageInput)


class RewardModel:
    """
    Model that gives an image one score, higher for fewer artifacts. Scores have no scale of their own: compare them
    among images. It was trained on which of two images has fewer artifacts (Bradley-Terry; ArtiAgent, appendix C.1).

    The network is frozen and in evaluation mode.

    Args:
        network (`RewardNetwork`): Trunk and head.
        record (`RewardRecord`): Preprocessing and origin.
        batch_size (`int`, *optional*, defaults to 8): Number of images opened together; those of equal size go through
            the network together.
        name, revision (`str`, *optional*): What scores are recorded under.

    Raises:
        ArgumentError: The preprocessing does not fit the network, or `batch_size` is too small.
    """

    def __init__(
        self,
        network: RewardNetwork,
        record: RewardRecord,
        *,
        batch_size: int = 8,
        name: str = "",
        revision: str | None = None,
    ) -> None:
        check_at_least("batch_size", batch_size)
        check_fit(network, record)
        self.network = network.eval().requires_grad_(False)
        self.record, self.batch_size, self.name, self.revision = record, batch_size, name, revision

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
    ) -> RewardModel:
        """
        Load a reward model.

        Args:
            model (`str` or `os.PathLike`): A folder or the id of a repository on the Hub that [`save_pretrained`]
                wrote.
            revision (`str`, *optional*): Branch, tag or commit of a repository.
            device (`str`, *optional*): Defaults to CUDA if available.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Precision of the network. Scores are
                `float32`.
            batch_size (*optional*): See the class.

        Raises:
            ArgumentError: The model does not exist, cannot be reached, or is not as described.
            UserError: Its `reward_model.json` cannot be used.
        """
        name = os.fspath(model)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            commit, recorded_revision = resolve_revision(name, revision)
            config, weights, record = (_file(name, file, commit) for file in (CONFIG_FILE, WEIGHTS_FILE, REWARD_FILE))
            network = RewardNetwork.from_dict(json.loads(config.read_text(encoding="utf-8")))
            network.load_state_dict(load_file(weights))
        except ArgumentError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ArgumentError(
                "`model` must be a folder or a repository on the Hub of a reward model with safetensors, got "
                f"'{name}': {why_not_loaded(error)}"
            ) from error
        network.to(device, dtype)
        return cls(network, RewardRecord.read(record), batch_size=batch_size, name=name, revision=recorded_revision)

    def save_pretrained(self, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """
        Write the model into a folder: `config.json`, `model.safetensors`, and then `reward_model.json`, by which the
        folder is known as complete.

        Args:
            folder (`str` or `os.PathLike`): The folder; created if it is missing.
            dtype (`torch.dtype`, *optional*): Precision to store weights in; by default that of the network.
        """
        folder = Path(folder)
        # The record of an earlier model must not vouch for weights that are half written.
        (folder / REWARD_FILE).unlink(missing_ok=True)
        write_json(folder / CONFIG_FILE, self.network.to_dict())
        weights = {name: _stored(value, dtype) for name, value in self.network.state_dict().items()}
        with replacing(folder / WEIGHTS_FILE) as temporary:
            save_file(weights, temporary, metadata={"format": "pt"})
        self.record.write(folder)

    @overload
    def __call__(self, images: ImageInput) -> float: ...

    @overload
    def __call__(self, images: list[_Image]) -> list[float]: ...

    def __call__(self, images: ImageInput | list[_Image]) -> float | list[float]:
        """
        Score an image, or each image of a list.

        Args:
            images (`str`, `os.PathLike`, `PIL.Image.Image`, or a list of them): Paths or images. EXIF orientation is
                applied.

        Returns:
            `float`, or a list of them in the order of `images`: Scores, higher for fewer artifacts.

        Raises:
            SourceError: A file cannot be read as an image.
        """
        if isinstance(images, list):
            return list(self.stream(images))
        return next(self.stream([images]))

    def stream(self, images: Iterable[ImageInput]) -> Iterator[float]:
        """Score any number of images, one after the other. At most one batch of images is open at a time."""
        waiting = iter(images)
        while batch := [upright(image) for image in islice(waiting, self.batch_size)]:
            scores: dict[int, float] = {}
            for indices, stacked in stacked_by_size(batch):
                with torch.no_grad():
                    found = self.score(stacked.to(self.network.device)).tolist()
                scores.update(zip(indices, found, strict=True))
            yield from (scores[index] for index in range(len(batch)))

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """
        Score a batch of images so that gradients pass to them, for guidance and as a loss.

        Args:
            images (`torch.Tensor` of shape `(batch, 3, height, width)`): RGB in [0, 1], floats, on the network's
                device.

        Returns:
            `torch.Tensor` of shape `(batch,)`: Scores, `float32`, higher for fewer artifacts.

        Raises:
            ValueError: `images` are no such tensor.
        """
        made = self.record.preprocessing(images)
        scores: torch.Tensor = self.network([made.pixel_values], [made.inside])
        return scores

    def identity(self) -> dict[str, Any]:
        """
        Return everything that scores depend on, JSON-serialisable. Of a folder it has the name alone: another path to
        it, as worker processes have, makes no difference.
        """
        return {
            "model": last_name(self.name),
            "revision": self.revision,
            "dtype": str(self.network.dtype),
            "preprocessing": self.record.preprocessing.to_dict(),
            "head": self.network.head.settings.to_dict(),
        }


def check_fit(network: RewardNetwork, record: RewardRecord) -> None:
    """
    Check that a preprocessing makes inputs that a network takes as they are.

    Raises:
        ArgumentError: Sides of the input would not be whole patches, or views are those of another head.
    """
    patch, multiple = patch_of(network.backbone), record.preprocessing.view.multiple
    if multiple % patch:
        raise ArgumentError(f"`multiple` must be a multiple of the trunk's patches of {patch} px, got {multiple}")
    settings = network.head.settings
    tiles = settings.tiles if settings.kind == "tiled" else 1
    if record.preprocessing.tiles != tiles:
        raise ArgumentError(
            f"`preprocessing` must have {tiles} tiles a side for this head, got {record.preprocessing.tiles}"
        )


def _file(model: str, file: str, revision: str | None) -> Path:
    path = find_model_file(model, file, revision)
    if path is None:
        raise OSError(f"it has no {file}")
    return path


def _stored(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    # Counters of batch normalizations stay whole numbers.
    return value.to(dtype if value.is_floating_point() else None).contiguous()
