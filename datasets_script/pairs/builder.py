"""
The data set of pairs as a builder of `datasets`: what `artiagent synthesize` has written, in six forms.

```python
from datasets_script.pairs import ArtiAgentPairs

builder = ArtiAgentPairs(config_name="vqa", source="out", coordinates="qwen2.5", test_share=0.05)
builder.download_and_prepare()
train = builder.as_dataset("train")
```

| config | a row is | columns |
|---|---|---|
| `pairs` | a pair | `datasets_script.schema.features.PAIR_FEATURES`, as written |
| `images` | an image, clean or flawed | `datasets_script.benchmarks.base.BENCHMARK_FEATURES` |
| `vqa` | a conversation about an image | `id`, `images` and `messages`, as TRL's trainers take them |
| `masks` | an image | `image`, the mask of all flaws and that of each type |
| `instructions` | an image and a task of `artiagent predict`, with its answer | as of `vqa` |
| `comparisons` | a pair, and which of its images is flawed | as of `vqa`, two images |
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from datasets import Features

from ..schema.features import PAIR_FEATURES
from ..utils.errors import UserError
from ..vlm.conventions import QWEN2_5_MAX_PIXELS, QWEN2_5_MIN_PIXELS, BoxFormat
from .storage import check_shards, find_shards, read_rows, split_of
from .views import images, masks, vqa
from .views.comparisons import comparison_row
from .views.instructions import instruction_rows


@dataclass
class PairsConfig(datasets.BuilderConfig):
    """
    Args:
        source (`str` or sequence of `str`): Folder that `artiagent synthesize` has completed, Parquet files of one or
            a pattern for them; or several.
        coordinates (`str`, *optional*, defaults to `"pixel"`): How `vqa` and `instructions` write boxes,
            one of [`datasets_script.vlm.conventions.CONVENTIONS`].
        min_pixels, max_pixels (`int`): As the processor is set that conversations with `coordinates="qwen2.5"` are
            for; the defaults are those of the published models.
        seed (`int`, *optional*, defaults to 0): Chooses the questions of `vqa`, the order of images in
            `comparisons` and the photographs of the test split.
        test_share (`float`, *optional*, defaults to 0): About which share of the photographs goes to a split `test`,
            with all their pairs; no photograph is in both splits. None by default, as a train split is all there is.
    """

    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ()
    coordinates: str = "pixel"
    min_pixels: int = QWEN2_5_MIN_PIXELS
    max_pixels: int = QWEN2_5_MAX_PIXELS
    seed: int = 0
    test_share: float = 0.0

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Features | None = None) -> str:
        """Names the folder of the cache, which must be another one once the source has changed."""
        files = find_shards(self.source)
        stamps = [f"{path} {os.stat(path).st_size} {os.stat(path).st_mtime_ns}" for path in files]
        return super().create_config_id({**config_kwargs, "source": stamps}, custom_features)


class ArtiAgentPairs(datasets.GeneratorBasedBuilder):
    """See the module. Pictures keep their bytes; rows have the order of the source, however many processes read."""

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = PairsConfig
    BUILDER_CONFIGS = [
        PairsConfig(name="pairs", description="One row a pair."),
        PairsConfig(name="images", description="One row an image, clean or flawed, with its flaws as regions."),
        PairsConfig(name="vqa", description="One row an image, with a conversation about its flaws."),
        PairsConfig(name="masks", description="One row an image, with masks of its flaws."),
        PairsConfig(name="instructions", description="One row an image and task, with the answer in its form."),
        PairsConfig(name="comparisons", description="One row a pair, with the question which image is flawed."),
    ]
    DEFAULT_CONFIG_NAME = "pairs"
    DEFAULT_WRITER_BATCH_SIZE = 100

    config: PairsConfig

    def _info(self) -> datasets.DatasetInfo:
        check_config(self.config)
        others = {"pairs": PAIR_FEATURES, "images": images.FEATURES, "masks": masks.FEATURES}
        return datasets.DatasetInfo(
            description="Pairs of clean and structurally flawed images.",
            features=others.get(self.config.name, vqa.FEATURES),
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        files = find_shards(self.config.source)
        check_shards(files)
        splits = ["train", "test"] if self.config.test_share else ["train"]
        return [datasets.SplitGenerator(name=split, gen_kwargs={"files": files, "split": split}) for split in splits]

    def _generate_examples(self, files: list[str], split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in read_rows(files):
            if split_of(row["source_id"], self.config.test_share, self.config.seed) == split:
                for view in self._views(row):
                    yield view.get("id") or view["pair_id"], view

    def _views(self, row: dict[str, Any]) -> Iterable[dict[str, Any]]:
        config = self.config
        if config.name == "images":
            return images.image_rows(row)
        if config.name == "masks":
            return masks.mask_rows(row)
        if config.name == "comparisons":
            return [comparison_row(row, config.seed)]
        box_format = BoxFormat(config.coordinates, config.min_pixels, config.max_pixels)
        if config.name == "vqa":
            return vqa.vqa_rows(row, box_format, config.seed)
        if config.name == "instructions":
            return instruction_rows(row, box_format)
        return [row]


def check_config(config: PairsConfig) -> None:
    """
    Raises:
        UserError: the coordinates, the limits of pixels or the share is none there is.
    """
    BoxFormat(config.coordinates, config.min_pixels, config.max_pixels)
    if not 0 <= config.test_share < 1:
        raise UserError(f"test_share must be at least 0 and below 1, got {config.test_share}")
