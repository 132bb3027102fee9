"""Pairs with planned artifacts and random pixels, as a run writes them, made without a diffusion model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from datasets_script.agents.curation import explanations
from datasets_script.agents.planning import Scene, plan_artifacts
from datasets_script.pairs.storage import PairWriter
from datasets_script.schema.boxes import Box
from datasets_script.schema.features import NOISE_COLUMNS
from datasets_script.schema.pair import Artifact, Pair
from datasets_script.schema.perception import Entity, Part, Perception


PATCH = 16
HEIGHT, WIDTH = 8 * PATCH, 12 * PATCH
TOOLS = ("add", "remove", "distort", "fuse")
RUN = {
    "settings": {"model": "embedded", "seed": 0},
    "model_revision": "abc",
    "perception": {"backend": "annotations"},
    "curation": {"metric": "stlpips", "vlm": None},
    "versions": {"torch": "2.15.0"},
    "sources": {"count": 5, "sha256": "0"},
    "fingerprint": "abc",
}


def make_scene(seed: int) -> Scene:
    """Make a scene with a cat with two ears and a muzzle, and a dog whose tail it touches, at random places."""
    rng = np.random.default_rng(seed)
    top, left = (int(offset) for offset in rng.integers(0, 20, 2))
    ears = [
        _part("ear", 1, (left + 5, top + 3, left + 33, top + 30)),
        _part("ear", 2, (left + 60, top, left + 90, top + 25)),
    ]
    muzzle = _part("muzzle", 3, (left + 20, top + 50, left + 75, top + 88), "intermediate")
    cat = _entity("cat", 0, (left, top, left + 100, top + 100), (*ears, muzzle))
    tail = _part("tail", 5, (left + 130, top + 60, left + 170, top + 80), parent=4)
    dog = _entity("dog", 4, (left + 85, top + 10, left + 172, top + 100), (tail,))
    return Scene.of(Perception((cat, dog)), PATCH)


def make_artifacts(scene: Scene, seed: int, count: int = 3, tools: Sequence[str] = TOOLS) -> tuple[Artifact, ...]:
    artifacts, _ = plan_artifacts(scene, tools, count, Counter(), torch.Generator().manual_seed(seed))
    return tuple(
        replace(
            artifact,
            label=explanations.label(artifact),
            explanation=explanations.local_explanation(artifact, (WIDTH, HEIGHT)),
            scores={"change_inside": 0.25},
        )
        for artifact in artifacts
    )


def make_pair(index: int, source_id: str | None = None, with_noise: bool = False) -> Pair:
    rng = np.random.default_rng(index)
    source, clean, flawed = (
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)) for _ in range(3)
    )
    scene = make_scene(index)
    artifacts = make_artifacts(scene, index, 1 + index % 3)
    return Pair(
        pair_id=f"photo{index}.png:0",
        source_id=source_id or f"photo{index}.png",
        variant=0,
        source=source,
        clean=clean,
        flawed=flawed,
        caption="a cat and a dog",
        clean_description=explanations.clean_description("a cat and a dog"),
        explanation=explanations.global_explanation(artifacts),
        explanation_source="template",
        grid=scene.grid,
        seed=index,
        solver="fireflow",
        num_inference_steps=25,
        model="embedded",
        model_revision="abc",
        transform={"crop": [0, 0, WIDTH, HEIGHT]},
        artifacts=artifacts,
        **(make_noise(index) if with_noise else {}),
    )


def make_noise(index: int) -> dict[str, np.ndarray]:
    """Make noise of both images, of the shape of a model's latents with 16 channels."""
    rng = np.random.default_rng((index, 1))
    shape = (16, HEIGHT // 8, WIDTH // 8)
    return {name: rng.standard_normal(shape).astype(np.float16) for name in NOISE_COLUMNS}


def write_run(out: Path, pairs: Sequence[Pair], shards: int = 3, status: str = "complete", **run: Any) -> Path:
    """Write a folder as a run leaves it."""
    size = -(-len(pairs) // shards)
    (out / "data").mkdir(parents=True)
    for shard in range(shards):
        with PairWriter(out / "data" / f"pairs-{shard:05d}.parquet") as writer:
            writer.write(pairs[shard * size : (shard + 1) * size])
    (out / "run.json").write_text(json.dumps({**RUN, "status": status, "pairs": len(pairs), **run}))
    return out


def _box_mask(box: Box) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x_min, y_min, x_max, y_max = map(int, box)
    mask[y_min:y_max, x_min:x_max] = True
    return mask


def _part(name: str, number: int, box: Box, level: Any = "peripheral", parent: int = 0) -> Part:
    return Part(name, number, box, _box_mask(box), 1.0, parent, level)


def _entity(name: str, number: int, box: Box, parts: tuple[Part, ...]) -> Entity:
    return Entity(name, number, box, _box_mask(box), 1.0, parts)
