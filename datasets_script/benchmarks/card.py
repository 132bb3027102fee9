"""The card of a benchmark: a README.md that the Hub and `load_dataset` read."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import DatasetCardData

from ..utils.files import write_text
from ..utils.markdown import markdown_table
from .base import Benchmark
from .survey import Survey


COLUMNS = {
    "id": "unique in its split; predictions refer to it",
    "image": "the image file as published",
    "width": "of the image, px",
    "height": "of the image, px",
    "has_artifact": "whether the image has an artifact; null where the benchmark does not say",
    "regions": "where the artifacts are, a list of the fields below",
    "caption": "the prompt or caption of the image",
    "explanation": "what is wrong with the image as a whole",
    "metadata": "JSON: what else is published of the image",
}
REGION_FIELDS = {
    "shape": "`box`, `polygon`, `mask` or `heat_map`: what the benchmark publishes",
    "bbox": "around the region, px: x_min, y_min, x_max, y_max, maxima exclusive; null if it is empty",
    "polygons": "x, y, x, y, ... each, px; for `polygon`",
    "mask": "as large as the image: for `mask` 8-bit, 255 inside and 0 outside; for `heat_map` 16-bit, 65535 is 1",
    "class": "the class of the artifact, in the benchmark's words",
    "caption": "what is wrong there",
}

_BODY = """\
# {title}

Published at <{homepage}>, licence: {license}.

Converted to the columns that all benchmarks of ArtiAgent for Hugging Face share; images, labels and texts are its
authors'.

{summary}

The converter follows the published layout; it has been run on small fixtures in that layout only, since the data could
not be downloaded where it was written. It refuses files whose counts differ from those published, and lists every
record it leaves out, with the reason, in `skipped.jsonl`.

## Counts

{counts}

## Preparing it

{instructions}

```bash
# in the cache, for load_dataset("{name}")
artiagent prepare {name} --source {name}-source
# as a folder, to load or to push to the Hub
artiagent prepare {name} --source {name}-source --out {name}-parquet
```

## Loading it

```python
from datasets import load_dataset

images = load_dataset("{name}", split="{split}")
stream = load_dataset("{name}-parquet", split="{split}", streaming=True)
```

Without preparing, in a process that asks for it:

```python
import datasets_script
from datasets import load_dataset

datasets_script.register()
images = load_dataset("{name}", source="{name}-source", split="{split}")
```

## Columns

{columns}

Each of `regions`:

{fields}

## Citation

```bibtex
{citation}
```
"""


def render_card(benchmark: Benchmark, surveys: Sequence[Survey] = ()) -> str:
    """
    The card of a benchmark, or of a prepared folder of it.

    Args:
        benchmark (`Benchmark`): Tells its title, licence, layout and so on.
        surveys (`Sequence[Survey]`): Of a prepared folder, what its splits hold.
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


def write_benchmark_card(folder: Path, benchmark: Benchmark, surveys: Sequence[Survey]) -> None:
    """Writes `README.md` of a folder with `data/<name>-<split>*.parquet`, whole or not at all."""
    write_text(folder / "README.md", render_card(benchmark, surveys))


def _front_matter(benchmark: Benchmark, splits: Sequence[str]) -> str:
    # The Hub accepts its own identifiers alone.
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
