"""Card of a benchmark: the README.md that the Hub and `load_dataset` read."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import DatasetCardData

from ..utils.data_cards import write_data_card
from ..utils.markdown import markdown_table
from .base import Benchmark
from .survey import Survey


COLUMNS = {
    "id": "id of the image, unique in its split; predictions refer to it",
    "image": "the image file as published",
    "width": "width of the image, px",
    "height": "height of the image, px",
    "has_artifact": "whether the image has an artifact; null where the benchmark does not say",
    "regions": "list of the regions with artifacts, with the fields below",
    "caption": "prompt or caption of the image",
    "explanation": "what is wrong with the image as a whole",
    "metadata": "JSON: further published fields of the image",
}
REGION_FIELDS = {
    "shape": "published form of the region: `box`, `polygon`, `mask` or `heat_map`",
    "bbox": "box around the region, px: x_min, y_min, x_max, y_max, maxima exclusive; null if the region is empty",
    "polygons": "for `polygon`: lists of x, y, x, y, ..., px",
    "mask": "image of the same size: for `mask` 8-bit, 255 inside and 0 outside; for `heat_map` 16-bit, 65535 is 1",
    "class": "class of the artifact, as named by the benchmark",
    "caption": "what is wrong in the region",
}

_BODY = """\
# {title}

Published at <{homepage}>, licence: {license}.

Converted to the columns shared by all benchmarks of ArtiAgent for Hugging Face; images, labels and texts are those of
the authors.

{summary}

The converter follows the published layout, and is tested on small fixtures in that layout, not on the published files.
It refuses files whose counts differ from those published, and lists every record it leaves out, with the reason, in
`skipped.jsonl`.

## Counts

{counts}

## Prepare

{instructions}

```bash
# into the cache, for load_dataset("{name}")
artiagent prepare {name} --source {name}-source
# to a folder, to load it from there or push it to the Hub
artiagent prepare {name} --source {name}-source --out {name}-parquet
```

## Load

```python
from datasets import load_dataset

images = load_dataset("{name}", split="{split}")
stream = load_dataset("{name}-parquet", split="{split}", streaming=True)
```

Without preparing it, in the current process only:

```python
import datasets_script
from datasets import load_dataset

datasets_script.register()
images = load_dataset("{name}", source="{name}-source", split="{split}")
```

## Columns

{columns}

Fields of `regions`:

{fields}

## Citation

```bibtex
{citation}
```
"""


def render_card(benchmark: Benchmark, surveys: Sequence[Survey] = ()) -> str:
    """
    Compose the card of a benchmark, or of a folder in which it was prepared.

    Args:
        benchmark (`Benchmark`): The benchmark.
        surveys (`Sequence[Survey]`, *optional*, defaults to `()`): Surveys of the splits of a prepared folder.

    Returns:
        `str`: The card, Markdown with front matter.
    """
    splits = [survey.split for survey in surveys] or list(benchmark.splits)
    body = _BODY.format(
        name=benchmark.name,
        title=benchmark.title,
        homepage=benchmark.homepage,
        license=benchmark.license,
        summary=inspect.cleandoc(type(benchmark).__doc__ or ""),
        counts=_counts(benchmark, surveys),
        instructions=benchmark.instructions,
        split="test" if "test" in splits else splits[0],
        columns=markdown_table(["column", "content"], [(f"`{name}`", content) for name, content in COLUMNS.items()]),
        fields=markdown_table(
            ["field", "content"], [(f"`{name}`", content) for name, content in REGION_FIELDS.items()]
        ),
        citation=benchmark.citation.strip(),
    )
    return f"---\n{_front_matter(benchmark, splits)}\n---\n\n{body}"


def write_benchmark_card(folder: Path, benchmark: Benchmark, surveys: Sequence[Survey], more: str = "") -> None:
    """
    Write the card of a prepared benchmark atomically.

    Args:
        folder (`Path`): Folder with `data/<name>-<split>*.parquet`.
        benchmark (`Benchmark`): The benchmark.
        surveys (`Sequence[Survey]`): Surveys of its splits.
        more (`str`, *optional*): Section to end with.
    """
    write_data_card(folder, render_card(benchmark, surveys) + more)


def _front_matter(benchmark: Benchmark, splits: Sequence[str]) -> str:
    # The Hub accepts only its own identifiers.
    license = benchmark.license if " " not in benchmark.license else "other"
    files = [{"split": split, "path": f"data/{benchmark.name}-{split}*.parquet"} for split in splits]
    return DatasetCardData(
        license=license,
        pretty_name=benchmark.title,
        task_categories=["image-classification", "object-detection", "image-segmentation"],
        tags=["artiagent", "image-artifacts", "benchmark"],
        configs=[{"config_name": "default", "data_files": files}],
    ).to_yaml()


def _counts(benchmark: Benchmark, surveys: Sequence[Survey]) -> str:
    published = {split: "not stated" if count is None else count for split, count in benchmark.splits.items()}
    if not surveys:
        return markdown_table(["split", "images published"], list(published.items()))
    rows = [
        (
            survey.split,
            published[survey.split],
            survey.images,
            survey.with_artifact.get(True, 0),
            survey.with_artifact.get(False, 0),
            len(survey.skipped),
        )
        for survey in surveys
    ]
    table = markdown_table(["split", "images published", "here", "with artifacts", "without", "left out"], rows)
    problems = [f"- {survey.split}: {problem}" for survey in surveys for problem in survey.problems]
    return "\n".join([table, *(["", "Differs from the publication:", "", *problems] if problems else [])])
