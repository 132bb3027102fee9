"""Card of a dataset of pairs: the README.md that the Hub and `load_dataset` read."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import DatasetCardData

from ..schema.run_record import RunRecord
from ..utils.data_cards import write_data_card
from ..utils.markdown import markdown_table


COLUMNS = {
    "pair_id": "name of the pair, unique in the dataset",
    "source_id": "file name of the photo, relative to the source folder",
    "variant": "number of the pair among those of its photo, from 0",
    "source": "the source photo as the model saw it, cropped and resized according to `transform`",
    "clean": "the clean image: the photo inverted and denoised again without an artifact",
    "flawed": "the artifact image: the same with the artifacts listed in `artifacts`",
    "caption": "what the image shows; the prompt of the diffusion model",
    "clean_description": "what the clean image shows, as an answer that finds nothing wrong",
    "explanation": "what is wrong with the artifact image as a whole",
    "explanation_source": "author of all texts except the caption: `template`, or the id of a vision-language model",
    "grid": "rows and columns of patches",
    "seed": "seed of the source's random choices",
    "solver": "ODE solver of the inversion and the denoising loop",
    "num_inference_steps": "number of solver steps",
    "model": "id of the diffusion model",
    "model_revision": "commit of the model, or a fingerprint of its files",
    "transform": "JSON: size of the photo, crop, output size, and the colour profile converted from, if any",
    "artifacts": "list of artifacts with the fields below",
    "clean_noise": "noise that `clean` inverts to, the content of an NPY file: latents of the model as float16 of "
    "shape `(channels, height, width)`; null unless the run was made with `--store-noise`",
    "flawed_noise": "the same of `flawed`",
}
ARTIFACT_FIELDS = {
    "type": "`duplication`, `omission`, `distortion`, `fusion` or `corruption`",
    "tool": "tool that made it: `add`, `remove`, `distort`, `fuse` or `corruption`; `none` if a generator drew it so",
    "kernel": "how a distortion permutes its patches, or the method of a corruption; empty for other tools",
    "entity": "the person, animal or thing that has the artifact; `region` for a region that is none",
    "part": "the part of the entity; empty where the whole entity is concerned, as by a fusion",
    "fused_entity": "the second entity of a fusion; empty for other types",
    "instance_id": "number of the part (for a fusion, of the entity) among those perceived in the photo",
    "bbox": "box of `mask` in pixels: x_min, y_min, x_max, y_max, maxima exclusive",
    "mask": "where `flawed` visibly differs from `clean` because of this artifact: 255 inside, 0 outside",
    "part_mask": "where the part (for a fusion, either entity) was or now is in the target patches: the copy of a "
    "duplication, the removed part of an omission; the region of a corruption; 255 inside, 0 outside",
    "target_patches": "row-major indices of the patches where the artifact appears",
    "reference_patches": "for each target patch, the patch it borrows content and position from; of a corruption, "
    "which borrows from no other, the patch itself",
    "label": "short description",
    "explanation": "description in one sentence",
    "scores": "JSON: measurements of curation (changes as mean absolute difference in [0, 1], PSNR in dB); "
    "`vlm_has_artifact` is the answer of a vision-language model; `unchanged` is 1 for a corruption that hardly "
    "changed its region",
    "parameters": "JSON: further settings of the tool",
}

_BODY = """\
# Pairs of clean and artifact images

{pairs} pairs made from {sources} photos. {method}
Both images carry the fingerprint of the model and differ only in the artifacts.

![Pairs of this dataset](contact_sheet.png)

```python
from datasets import load_dataset

pairs = load_dataset("path/to/this/folder", split="train")
```

`artiagent prepare artiagent --source path/to/this/folder --out other/folder` converts the pairs to further
configurations: single images with regions, conversations, and masks.

`contact_sheet.png` shows the first pairs, `rejected.jsonl` lists every rejection with its reason, and `run.json` holds
the settings.

## Columns

{columns}

Fields of `artifacts`:

{fields}

## Counts

{counts}

{rejected} rejections on record, including photos that could not be used and tools that found no place.

## Licence

The images are derived from the source photos and from the output of the model `{model}`; the licences of both apply.
Set `license` at the top of this file accordingly before publishing.

## Settings and versions

```json
{settings}
```
"""


_INJECTED = """\
With the method of [ArtiAgent](https://arxiv.org/abs/2602.20951), a photo is inverted and denoised again by a diffusion
transformer, once unchanged (`clean`) and once with artifacts injected at attention (`flawed`)."""
_CORRUPTED = """\
By artifact corruption (Menn et al., "Synthesizing Artifact Dataset for Pixel-level Detection"), a photo is inverted to
a level by a diffusion model and sampled again, once unchanged (`clean`) and once with the latent of some regions
corrupted (`flawed`)."""


def write_pair_card(folder: Path, run: RunRecord) -> None:
    """
    Write the card of a dataset of pairs atomically.

    Args:
        folder (`Path`): Folder of the dataset, with its shards in `data/*.parquet`.
        run (`RunRecord`): Record of the completed run.
    """
    write_data_card(folder, f"---\n{_front_matter(run)}\n---\n\n{_body(run)}")


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


def _methods(run: RunRecord) -> list[str]:
    """Return how the pairs were made, of which merged runs may have several."""
    corrupted, injected = "corruption" in run.made, set(run.made) - {"corruption"}
    return [*([_INJECTED] if injected or not corrupted else []), *([_CORRUPTED] if corrupted else [])]


def _body(run: RunRecord) -> str:
    counts = [(kind, run.accepted.get(kind, 0), made) for kind, made in sorted(run.made.items())]
    return _BODY.format(
        pairs=run.pairs,
        method="\n".join(_methods(run)),
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
