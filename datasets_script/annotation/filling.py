"""A queue from a folder of images, with their prompts and with regions to begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.errors import ArgumentError, UserError
from ..utils.image_texts import METADATA, image_texts
from ..utils.photos import list_sources
from .exports import read_drafts
from .queue import QUEUE_FILE, AnnotationQueue, DraftError, QueueSettings


def open_queue(
    folder: Path,
    images: Path | None = None,
    drafts: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[AnnotationQueue, int, dict[str, str]]:
    """
    Open a queue, or make one, and add images to it.

    Args:
        folder (`Path`): Folder of the queue.
        images (`Path`, *optional*): Folder of images to add, with prompts in `metadata.jsonl` if there is one: in the
            folder, or in subfolders for their own images.
        drafts (`Path`, *optional*): Regions to begin with; see [`~datasets_script.annotation.exports.read_drafts`].
        settings (`Mapping[str, Any]`, *optional*): Arguments of [`QueueSettings`] for a new queue; an old one must
            have them already.

    Returns:
        `tuple[AnnotationQueue, int, dict[str, str]]`: The queue, the number of images added, and for each image and
        each draft left out the reason.

    Raises:
        UserError: There is no queue and no folder of images, settings are given for a queue that has its own, or a
            draft has another type than the queue's or leaves its image; no draft is taken then.
    """
    if (folder / QUEUE_FILE).exists():
        queue = AnnotationQueue(folder)
        for name, value in (settings or {}).items():
            if value != (made := getattr(queue.settings, name)):
                raise ArgumentError(
                    f"`{name}` must stay {made!r}, as the queue in '{folder}' was made, got {value!r}; leave it "
                    "out, or begin another queue"
                )
    elif images is None:
        raise UserError(
            f"'{folder}' must hold an annotation queue, found none; give a folder of images to make one of"
        )
    else:
        queue = AnnotationQueue.create(folder, QueueSettings(**settings or {}))
    listed = [] if images is None else [images / name for name in list_sources(images)]
    found = [path for path in listed if path.name != METADATA]
    marked = {} if drafts is None else read_drafts(drafts)
    try:
        added, left_out = queue.add(found, _prompts(listed), marked)
    except DraftError as error:
        raise UserError(f"'{drafts}' must hold drafts that fit the queue, and does not: {error}") from error
    return queue, added, left_out


def _prompts(listed: Sequence[Path]) -> dict[str, str]:
    """Return the prompts of images by path; those of a file nearer to an image count."""
    folders = [path.parent for path in listed if path.name == METADATA]
    return {
        str(folder / name): prompt
        for folder in sorted(folders, key=lambda folder: len(folder.parts))
        for name, prompt in image_texts(folder).items()
    }
