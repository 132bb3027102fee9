"""The examples beside the guideline: small pictures that are there, and how they are made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from datasets_script.app.examples import EXAMPLES, FOLDER, examples_html, write_examples
from datasets_script.utils.errors import UserError

from ...helpers.made_pairs import make_pair, write_run


def test_each_example_has_its_small_picture() -> None:
    files = {path.stem: path for path in FOLDER.iterdir()}
    assert set(files) == {example.name for example in EXAMPLES}
    assert sum(path.stat().st_size for path in files.values()) < 150_000
    assert {example.verdict for example in EXAMPLES} == {"yes", "no", "unsure"}
    for path in files.values():
        with Image.open(path) as picture:
            assert picture.size == (200, 200)


def test_examples_of_other_types_are_left_out_and_nothing_is_asked_for() -> None:
    everything, some = examples_html(("duplication", "omission", "distortion", "fusion")), examples_html(("fusion",))
    assert everything.count("<figure") == len(EXAMPLES) and some.count("<figure") == len(EXAMPLES) - 3
    assert "omission" in everything and "omission" not in some
    assert everything.count('src="data:image/jpeg;base64,') == len(EXAMPLES) and "http" not in everything


def test_they_are_made_of_pairs_of_the_demo(tmp_path: Path) -> None:
    ids = sorted({example.pair_id for example in EXAMPLES})
    pairs = [replace(make_pair(number), pair_id=pair_id) for number, pair_id in enumerate(ids)]
    paths = write_examples(write_run(tmp_path / "run", pairs, shards=1), tmp_path / "out")
    assert [path.stem for path in paths] == [example.name for example in EXAMPLES]
    with pytest.raises(UserError, match="must be a run of `artiagent demo`, got one without"):
        write_examples(write_run(tmp_path / "other", [make_pair(0)], shards=1), tmp_path / "out")
