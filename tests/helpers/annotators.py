"""Annotators that answer a queue one item after the other, each in a process of its own, until nothing is left."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from datasets_script.annotation.queue import AnnotationQueue, QueueSettings
from datasets_script.annotation.records import Mark, Marking


SIZE = (32, 24)


def make_queue(folder: Path, count: int, **settings: object) -> AnnotationQueue:
    """Make a queue of `count` small images that all differ."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number in range(count):
        pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        pixels[0, 0] = number % 256, number // 256, 1
        Image.fromarray(pixels).save(photos / f"{number:04d}.png")
    queue = AnnotationQueue.create(folder / "queue", QueueSettings(**settings))  # type: ignore[arg-type]
    queue.add(sorted(photos.iterdir()))
    return queue


def a_marking(left: float = 2.0, kind: str = "duplication") -> Marking:
    return Marking((Mark(kind, (left, 3.0, left + 8, 12.0), "an extra one"),), "It has an extra one.")


def annotate(folder: Path, name: str) -> None:
    """Classify all that is left as `name`, even numbers as with artifacts, and mark those."""
    queue = AnnotationQueue(folder)
    for phase in ("classify", "mark"):
        while claim := queue.claim(name, phase, f"page of {name}"):
            number = int(claim.item.id.partition(".")[0])
            queue.answer(claim, a_marking() if phase == "mark" else ("no" if number % 2 else "yes"))


if __name__ == "__main__":
    annotate(Path(sys.argv[1]), sys.argv[2])
