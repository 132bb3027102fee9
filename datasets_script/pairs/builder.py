"""
Builder of `datasets` for pairs: reads what `artiagent synthesize` has written, in each of the configurations of
[`~datasets_script.pairs.configurations.CONFIGURATIONS`].

```python
from datasets_script.pairs import ArtiAgentPairs

builder = ArtiAgentPairs(config_name="vqa", source="out", coordinates="qwen2.5", test_share=0.05)
builder.download_and_prepare()
train = builder.as_dataset("train")
```

The cache stores each image once, as a separate file ([`~datasets_script.pairs.image_files.ImageFiles`]). The rows of
all configurations refer to these files, and images are decoded when a row is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Features

from ..edits.pair_rows import PairEdits
from ..edits.planned import NO_EDITS, EditReport, PlannedEdits
from ..schema.features import PAIR_FEATURES
from ..utils.errors import UserError
from ..vlm.conventions import QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS, BoxFormat
from .configurations import CONFIGURATIONS
from .edited import layer_stamps, plan_edits
from .filters import EVERY_PAIR, PairFilter
from .image_files import ImageFiles
from .storage import check_shards, find_shards, read_rows, split_of
from .views import images, masks, vqa
from .views.comparisons import comparison_row
from .views.instructions import instruction_rows


# Folder in the cache that holds the images of all datasets of pairs.
_IMAGES = "artiagent-images"
# Image columns of a pair that other configurations show.
_IMAGE_COLUMNS = ("source", "clean", "flawed")


@dataclass
class PairsConfig(datasets.BuilderConfig):
    """
    Configuration of [`ArtiAgentPairs`].

    Args:
        source (`str` or sequence of `str`): One or several of: a folder that `artiagent synthesize` has completed,
            Parquet files of such a folder or a pattern for them, or `pairs-SPLIT.parquet` of a folder that `artiagent
            prepare artiagent --out` has written.
        coordinates (`str`, *optional*, defaults to `"pixel"`): Convention by which `vqa` and `instructions` write
            boxes, one of [`datasets_script.vlm.conventions.CONVENTIONS`].
        min_pixels (`int`, *optional*): `min_pixels` of the processor that conversations with `coordinates="qwen2.5"`
            are for; by default that of the published models.
        max_pixels (`int`, *optional*): `max_pixels` of the same processor.
        seed (`int`, *optional*, defaults to 0): Seed for the wording of the questions in `vqa`, the order of images in
            `comparisons` and the choice of the photos in the test split.
        test_share (`float`, *optional*, defaults to 0): Approximate share of the photos that go to the split `test`
            with all their pairs, in [0, 1). No photo is in both splits. With 0 there is only a train split.
        only (`PairFilter`, *optional*): Choice of the pairs; by default all.
        edits (`str` or `bool`, *optional*, defaults to `True`): Whether to apply the edits of the layer beside the
            data, or the folder of another layer.
    """

    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ()
    coordinates: str = "pixel"
    min_pixels: int = QWEN2_5_MIN_PIXELS
    max_pixels: int = QWEN2_5_MAX_PIXELS
    seed: int = 0
    test_share: float = 0.0
    only: PairFilter = EVERY_PAIR
    edits: str | bool = True

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Features | None = None) -> str:
        """Name the cache folder after the options and the source files' state: a changed source gets a new one."""
        files = find_shards(self.source)
        stamps = [f"{path} {os.stat(path).st_size} {os.stat(path).st_mtime_ns}" for path in files]
        edits = layer_stamps(files, self.edits)
        given = config_kwargs | {"source": stamps} | ({"edits": edits} if edits else {})
        return super().create_config_id(given, custom_features)

    def planned_edits(self, files: Sequence[str]) -> PlannedEdits:
        """
        Return the edits that hold for the files of the source.

        Raises:
            UserError: A line of a layer is no edit.
        """
        if self.edits is False:
            return NO_EDITS
        return plan_edits(files, None if self.edits is True else Path(self.edits))

    @property
    def features(self) -> Features:
        """Columns of a row."""
        others = {"pairs": PAIR_FEATURES, "images": images.FEATURES, "masks": masks.FEATURES}
        return others.get(self.name, vqa.FEATURES)

    def rows(self, pair: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """
        Make the rows of this configuration from a pair.

        Args:
            pair (`dict`): A row of `PAIR_FEATURES` as stored.

        Returns:
            `Iterable[dict]`: Rows of `features`, with images as stored.
        """
        if self.name == "images":
            return images.image_rows(pair)
        if self.name == "masks":
            return masks.mask_rows(pair)
        if self.name == "comparisons":
            return [comparison_row(pair, self.seed)]
        box_format = BoxFormat(self.coordinates, self.min_pixels, self.max_pixels)
        if self.name == "vqa":
            return vqa.vqa_rows(pair, box_format, self.seed)
        if self.name == "instructions":
            return instruction_rows(pair, box_format)
        return [pair]


class ArtiAgentPairs(datasets.GeneratorBasedBuilder):
    """Builder of the dataset of pairs. Images keep their bytes, and rows keep the order of the source."""

    # Caches of 1.x hold a copy of the image in every row.
    VERSION = datasets.Version("2.0.0")
    BUILDER_CONFIG_CLASS = PairsConfig
    BUILDER_CONFIGS = [PairsConfig(name=item.name, description=f"One row is {item.row}.") for item in CONFIGURATIONS]
    DEFAULT_CONFIG_NAME = "pairs"
    DEFAULT_WRITER_BATCH_SIZE = 100

    config: PairsConfig
    edits: EditReport = EditReport()
    """What became of the edits, once the source has been read."""

    def _info(self) -> datasets.DatasetInfo:
        check_config(self.config)
        return datasets.DatasetInfo(description="Pairs of clean and artifact images.", features=self.config.features)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        files = find_shards(self.config.source)
        check_shards(files)
        planned = self.config.planned_edits(files)
        self.edits = planned.report
        edits = {pair_id: one for (_, pair_id), one in planned.samples.items()}
        splits = ["train", "test"] if self.config.test_share else ["train"]
        # A stream has no cache, so its rows hold the image bytes.
        folder = None if dl_manager.is_streaming else image_cache(self._cache_dir_root)
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"files": files, "edits": edits, "split": split, "folder": folder}
            )
            for split in splits
        ]

    def _generate_examples(
        self, files: list[str], edits: PairEdits, split: str, folder: Path | None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        stored = ImageFiles(folder) if folder else None
        for pair in read_rows(files, self.config.only, edits):
            if split_of(pair["source_id"], self.config.test_share, self.config.seed) == split:
                for row in self.config.rows(_with_files(pair, stored) if stored else pair):
                    yield row.get("id") or row["pair_id"], row


def image_cache(cache: str | os.PathLike[str] | None = None) -> Path:
    """
    Return the folder in which the builder stores images.

    Args:
        cache (`str`, *optional*): Cache directory; by default that of `datasets`.
    """
    return Path(datasets.config.HF_DATASETS_CACHE if cache is None else cache, _IMAGES).absolute()


def _with_files(pair: dict[str, Any], stored: ImageFiles) -> dict[str, Any]:
    """Store the images of a pair and add their paths; `datasets` then writes the paths and leaves out the bytes."""
    images = {name: pair[name]["bytes"] for name in _IMAGE_COLUMNS}
    return pair | {name: {"bytes": content, "path": stored.add(content)} for name, content in images.items()}


def check_config(config: PairsConfig) -> None:
    """
    Check the options of a configuration.

    Raises:
        UserError: `coordinates`, the pixel limits or `test_share` are invalid.
    """
    BoxFormat(config.coordinates, config.min_pixels, config.max_pixels)
    if not 0 <= config.test_share < 1:
        raise UserError(f"`test_share` must be at least 0 and below 1, got {config.test_share}")
