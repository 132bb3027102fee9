"""Write clean renders as photos with annotations of all parts, as `artiagent synthesize --annotations` takes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from datasets_script.utils.files import replacing, replacing_folder, write_json
from tests.benchmarks.creatures.renderer import Render
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.words import SPECIES
from tests.benchmarks.learning_data import annotation


ANNOTATIONS = "annotations.json"
_LEVELS = {
    "ear": "peripheral",
    "horn": "peripheral",
    "eye": "peripheral",
    "nose": "peripheral",
    "mouth": "intermediate",
    "head": "intermediate",
}
_CATEGORIES: list[dict[str, Any]] = [
    *({"id": index, "name": name, "supercategory": "entity"} for index, name in enumerate(SPECIES, 1)),
    *(
        {"id": index, "name": name, "supercategory": "part", "level": level}
        for index, (name, level) in enumerate(_LEVELS.items(), len(SPECIES) + 1)
    ),
]
_ID_OF = {category["name"]: category["id"] for category in _CATEGORIES}
# Fewer visible pixels of a part, such as of an ear behind a horn, are no part.
_LEAST = 4


def coco_document(renders: Iterable[Render]) -> dict[str, Any]:
    """Return the annotations of renders that are stored as `file_name(index)`: creatures, and their parts in them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []

    def add(mask: np.ndarray, name: str, parent: int | None = None) -> int:
        number = len(annotations) + 1
        annotations.append(annotation(mask, number, len(images), _ID_OF[name], parent))
        return number

    for index, render in enumerate(renders):
        images.append(
            {
                "id": index + 1,
                "file_name": file_name(index),
                "width": SIDE,
                "height": SIDE,
                "caption": render.words.prompt,
            }
        )
        creature = add(np.any([mask for _, mask in render.parts], axis=0), render.words.species)
        for part, mask in render.parts:
            if mask.sum() >= _LEAST:
                add(mask, part.name, creature)
    return {"images": images, "categories": _CATEGORIES, "annotations": annotations}


def file_name(index: int) -> str:
    """Return the name of the file of a render."""
    return f"{index:05d}.png"


def write_photos(renders: list[Render], folder: Path) -> None:
    """Write renders and their annotations into a new folder, atomically."""
    with replacing_folder(folder) as temporary:
        for index, render in enumerate(renders):
            with replacing(temporary / file_name(index)) as path:
                render.picture.save(path, format="PNG")
        write_json(temporary / ANNOTATIONS, coco_document(renders))
