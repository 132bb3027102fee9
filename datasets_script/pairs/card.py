"""The card of a dataset of pairs: a README.md that the Hub and `load_dataset` read."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import DatasetCardData

from ..schema.run_record import RunRecord
from ..utils.files import write_text
from ..utils.markdown import markdown_table


COLUMNS = {
    "pair_id": "name of the pair, unique in the dataset",
    "source_id": "file name of the photo, relative to the source folder",
    "variant": "which of the pairs of its photo this is, from 0",
    "source": "the photo as the model saw it, cropped and resized by `transform`",
    "clean": "its reconstruction by the model, without artifacts: the clean image of the pair",
    "flawed": "the same reconstruction with the artifacts of `artifacts`",
    "caption": "what the image shows; the prompt of the model",
    "clean_description": "what the clean image shows, as an answer that finds nothing wrong",
    "explanation": "what is wrong with the artifact image as a whole",
    "explanation_source": "what wrote the texts but the caption: `template`, or the id of a vision-language model",
    "grid": "rows and columns of patches",
    "seed": "seed of the source's random choices",
    "solver": "ODE solver that inverted and denoised",
    "num_inference_steps": "its steps",
    "model": "the diffusion model",
    "model_revision": "commit of the model, or a fingerprint of its files",
    "transform": "JSON: size of the photo, crop and output size",
    "artifacts": "the artifacts, a list of the fields below",
}
ARTIFACT_FIELDS = {
    "type": "`duplication`, `omission`, `distortion` or `fusion`",
    "tool": "what made it: `add`, `remove`, `distort` or `fuse`",
    "kernel": "how a distortion permutes its patches; empty for other tools",
    "entity": "the person, animal or thing it sits on",
    "part": "the part of it; empty for a fusion",
    "fused_entity": "the second entity of a fusion, else empty",
    "instance_id": "number of the part, or of the entity of a fusion, among those perceived in the photo",
    "bbox": "box in pixels of `flawed`: x_min, y_min, x_max, y_max, maxima exclusive",
    "mask": "its pixels in `flawed`, 255 inside and 0 outside",
    "target_patches": "row-major indices of the patches where it was injected",
    "reference_patches": "for each of them, the patch its content and position come from",
    "label": "a few words",
    "explanation": "one sentence",
    "scores": "JSON: what curation measured (changes as mean absolute difference in [0, 1], PSNR in dB); "
    "`vlm_has_artifact` is a vision-language model's verdict",
    "parameters": "JSON: further settings of the tool",
}

_BODY = """\
# Pairs of clean and artifact images

{pairs} pairs made from {sources} photos with [ArtiAgent](https://arxiv.org/abs/2602.20951)'s method: each
photo is inverted and re-denoised by a diffusion transformer, once as it is (`clean`) and once with artifacts injected
at attention (`flawed`). Both halves share the model's fingerprint and differ in the artifacts.

![Pairs of this dataset](contact_sheet.png)

```python
from datasets import load_dataset

pairs = load_dataset("path/to/this/folder", split="train")
```

`artiagent prepare artiagent --source path/to/this/folder --out other/folder` gives the same pairs as single images
with their regions, as conversations, and as masks, each a configuration of its own.

`contact_sheet.png` shows the first pairs, `rejected.jsonl` everything that was not kept and why, `run.json` the
settings.

## Columns

{columns}

Each of `artifacts`:

{fields}

## Counts

{counts}

{rejected} rejections on record, those of photos and of tools without a fitting place included.

## Licence

The images derive from the source photos and from the output of the model `{model}`: the licences of both apply.
Set `license` at the top of this file accordingly before publishing.

## Settings and versions

```json
{settings}
```
"""


def write_pair_card(folder: Path, run: RunRecord) -> None:
    """
    Write `README.md`, whole or not at all.

    Args:
        folder (`Path`): The dataset's folder, with its shards in `data/*.parquet`.
        run (`RunRecord`): Complete.
    """
    write_text(folder / "README.md", f"---\n{_front_matter(run)}\n---\n\n{_body(run)}")


def _front_matter(run: RunRecord) -> str:
    return DatasetCardData(
        license=run.license or "unknown",
        pretty_name="Pairs of clean and artifact images",
        task_categories=["image-classification", "object-detection", "image-segmentation"],
        tags=["artiagent", "image-artifacts", "synthetic"],
        configs=[
            {
                "config_name": "pairs",
                "default": True,
                "data_files": [{"split": "train", "path": "data/*.parquet"}],
            }
        ],
    ).to_yaml()


def _body(run: RunRecord) -> str:
    counts = [(kind, run.accepted.get(kind, 0), made) for kind, made in sorted(run.made.items())]
    return _BODY.format(
        pairs=run.pairs,
        sources=run.sources["count"],
        columns=markdown_table(["column", "content"], [(f"`{name}`", content) for name, content in COLUMNS.items()]),
        fields=markdown_table(
            ["field", "content"], [(f"`{name}`", content) for name, content in ARTIFACT_FIELDS.items()]
        ),
        counts=markdown_table(["type", "kept", "made"], counts),
        rejected=run.rejected,
        model=run.settings["model"],
        settings=json.dumps(run.identity, indent=1, ensure_ascii=False),
    )
