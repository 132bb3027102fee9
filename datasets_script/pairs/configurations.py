"""Configurations of a dataset of pairs: their names and what a row of each holds. Imports no heavy library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


# Image folders of a prepared dataset: all configurations show the two images of a pair, only some the others.
HALVES, SOURCES, MASKS = "images", "sources", "masks"
IMAGE_FOLDERS = (HALVES, SOURCES, MASKS)


@dataclass(frozen=True)
class Configuration:
    """
    Form in which pairs are read.

    Args:
        name (`str`): Name to give to `load_dataset`.
        row (`str`): What a row is, with its columns; Markdown.
        has_boxes (`bool`, *optional*, defaults to `False`): Whether its texts contain boxes, whose convention depends
            on the model.
        shows (`tuple[str, ...]`, *optional*, defaults to `("images",)`): The folders among `IMAGE_FOLDERS` that hold
            its images.
    """

    name: str
    row: str
    has_boxes: bool = False
    shows: tuple[str, ...] = (HALVES,)


CONFIGURATIONS = (
    Configuration("pairs", "a pair as written by `artiagent synthesize`", shows=IMAGE_FOLDERS),
    Configuration(
        "images",
        "a clean image or an artifact image, in the columns of benchmarks: `image`, `has_artifact`, `regions`",
        shows=(HALVES, MASKS),
    ),
    Configuration("vqa", "a conversation about an image: `id`, `images`, `messages`", has_boxes=True),
    Configuration(
        "masks", "an image and masks: `image`, `mask` of all artifacts, `mask_<type>`", shows=(HALVES, MASKS)
    ),
    Configuration(
        "instructions",
        "an image and a question of `artiagent predict` with the right answer; columns of `vqa`",
        has_boxes=True,
    ),
    Configuration("comparisons", "a question on which image of a pair has artifacts; columns of `vqa`, two images"),
)
NAMES = tuple(configuration.name for configuration in CONFIGURATIONS)


def configurations_table(names: Iterable[str] = NAMES) -> str:
    """Describe configurations in a Markdown table, in the order of `names`."""
    by_name = {configuration.name: configuration for configuration in CONFIGURATIONS}
    rows = "\n".join(f"| `{name}` | {by_name[name].row} |" for name in names)
    return f"| name | a row is |\n|---|---|\n{rows}\n"
