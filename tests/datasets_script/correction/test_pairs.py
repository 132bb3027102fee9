"""An image before and after its correction as a pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from datasets_script.correction.pairs import correction_pair
from datasets_script.schema.features import pair_to_row
from datasets_script.schema.pair import Pair


BEFORE = np.full((32, 48, 3), 90, dtype=np.uint8)


def pair_of(after: np.ndarray) -> Pair | None:
    made: dict[str, Any] = {"model": "painter", "model_revision": "1", "num_inference_steps": 4}
    images = (Image.fromarray(BEFORE), Image.fromarray(after))
    return correction_pair(*images, "image-1", prompt="an owl", patch=8, **made)


def test_the_correction_is_the_clean_image_and_the_mask_where_it_is_to_be_seen():
    after = BEFORE.copy()
    after[8:16, 16:32] = 250
    pair = pair_of(after)
    assert pair is not None and pair.grid == (4, 6) and pair.caption == "an owl"
    assert np.array_equal(np.asarray(pair.clean), after) and np.array_equal(np.asarray(pair.flawed), BEFORE)
    artifact = pair.artifacts[0]
    assert artifact.mask[8:16, 16:32].all() and artifact.mask.mean() < 0.25
    assert {8, 9} <= set(artifact.mapping.targets) and artifact.mapping.targets == artifact.mapping.references
    assert artifact.tool == "none" and pair_to_row(pair)["pair_id"] == "image-1:0"


def test_what_nobody_can_see_is_no_pair():
    assert pair_of(BEFORE) is None and pair_of(BEFORE + 3) is None
