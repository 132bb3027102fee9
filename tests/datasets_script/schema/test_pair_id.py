"""Ids of pairs and images: composing and parsing them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_script.schema.pair_id import PairId, image_id, pair_id_of


@given(st.text(), st.integers(0, 10_000), st.sampled_from(["clean", "flawed", "flawed.localization"]))
def test_an_id_is_read_as_it_was_composed(source_id, variant, name):
    pair_id = PairId(source_id, variant)
    assert PairId.parse(str(pair_id)) == pair_id
    assert pair_id_of(image_id(str(pair_id), name)) == str(pair_id)


def test_the_written_form():
    assert str(PairId("a:b/cat.png", 2)) == "a:b/cat.png:2"
    assert image_id("cat.png:2", "clean") == "cat.png:2#clean"


@pytest.mark.parametrize("text", ["cat.png", "cat.png:", "cat.png:two", "cat.png:-1"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="`text` must be '<source_id>:<variant>', got "):
        PairId.parse(text)
