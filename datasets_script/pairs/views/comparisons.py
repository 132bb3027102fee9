"""One row a pair: both images side by side, and which of them is flawed."""

from __future__ import annotations

from typing import Any

from ...utils.seeds import derive_seed
from .stored_rows import SIDES
from .vqa import Turn, to_messages


WHICH = "Which of the two images has visual artifacts?"
WHAT = "What is wrong with it?"
_PLACES = ("first", "second")


def comparison_row(row: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """
    The comparison of a pair as a row of [`~datasets_script.pairs.views.vqa.FEATURES`] with two images.

    Args:
        row (`dict`): A row of `PAIR_FEATURES` as it is stored. Without an explanation only the first question is
            asked.
        seed (`int`): With the id of the pair it tosses a coin for the order of the images.
    """
    name = f"{row['pair_id']}#comparison"
    sides = SIDES if derive_seed(seed, name) % 2 else SIDES[::-1]
    turns = [Turn(WHICH, f"The {_PLACES[sides.index('flawed')]} image.")]
    if row["explanation"]:
        turns.append(Turn(WHAT, row["explanation"]))
    return {
        "id": name,
        "images": [row[side] for side in sides],
        "messages": list(to_messages(turns, pictures=len(sides))),
    }
