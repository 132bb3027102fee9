"""The configurations of a dataset of pairs: their names, and what a row of each is. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


# Folders that a prepared folder has its images in: the halves of pairs, which all configurations show, and what only
# some do.
HALVES, SOURCES, MASKS = "images", "sources", "masks"
IMAGE_FOLDERS = (HALVES, SOURCES, MASKS)


@dataclass(frozen=True)
class Configuration:
    """
    A form that pairs are read in.

    Args:
        name (`str`): What `load_dataset` is given.
        row (`str`): What a row is, with its columns; Markdown.
        has_boxes (`bool`, *optional*, defaults to `False`): Whether its texts write boxes, in a convention that
            depends on the model.
        shows (`tuple[str, ...]`, *optional*, defaults to `("images",)`): Where its images are, among `IMAGE_FOLDERS`.
    """

    name: str
    row: str
    has_boxes: bool = False
    shows: tuple[str, ...] = (HALVES,)


CONFIGURATIONS = (
    Configuration("pairs", "a pair, as `artiagent synthesize` writes it", shows=IMAGE_FOLDERS),
    Configuration(
        "images",
        "an image, clean or with artifacts: `image`, `has_artifact`, `regions`, as benchmarks have them",
        shows=(HALVES, MASKS),
    ),
    Configuration("vqa", "a conversation about an image: `id`, `images`, `messages`", has_boxes=True),
    Configuration("masks", "an image: `image`, `mask` of all artifacts, `mask_<type>`", shows=(HALVES, MASKS)),
    Configuration(
        "instructions",
        "an image and a question of `artiagent predict` with the right answer: columns as of `vqa`",
        has_boxes=True,
    ),
    Configuration("comparisons", "a pair, which of its images has artifacts and why: columns as of `vqa`, two images"),
)
NAMES = tuple(configuration.name for configuration in CONFIGURATIONS)


def configurations_table(names: Iterable[str] = NAMES) -> str:
    """Describe configurations in a Markdown table, in the order of `names`."""
    by_name = {configuration.name: configuration for configuration in CONFIGURATIONS}
    rows = "\n".join(f"| `{name}` | {by_name[name].row} |" for name in names)
    return f"| name | a row is |\n|---|---|\n{rows}\n"
