"""Comparisons: one row per pair, a conversation on which of its two images has artifacts."""

from __future__ import annotations

from typing import Any

from ...schema.pair_id import image_id
from ...utils.seeds import derive_seed
from .stored_rows import SIDES
from .vqa import Turn, to_messages


WHICH = "Which of the two images has visual artifacts?"
WHAT = "What is wrong with it?"
_PLACES = ("first", "second")


def comparison_row(row: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """
    Convert a pair to a conversation that compares its two images.

    Args:
        row (`dict`): A row of `PAIR_FEATURES` as stored. Without an explanation only the first question is asked.
        seed (`int`, *optional*, defaults to 0): Chooses the order of the images, together with the id of the pair.

    Returns:
        `dict`: A row of [`~datasets_script.pairs.views.vqa.FEATURES`] with two images.
    """
    name = image_id(row["pair_id"], "comparison")
    sides = SIDES if derive_seed(seed, name) % 2 else SIDES[::-1]
    turns = [Turn(WHICH, f"The {_PLACES[sides.index('flawed')]} image.")]
    if row["explanation"]:
        turns.append(Turn(WHAT, row["explanation"]))
    return {
        "id": name,
        "images": [row[side] for side in sides],
        "messages": list(to_messages(turns, images=len(sides))),
    }
