"""Cards of datasets keep the rows of two folders of one name apart."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from datasets_script.utils.data_cards import write_data_card


CARD = """\
---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# Numbers

Some text: with a colon.
"""


@pytest.fixture
def write(tmp_path):
    def write(place: str, *values: int) -> str:
        folder = tmp_path / place / "out"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"value": values}), folder / "data" / "rows.parquet")
        write_data_card(folder, CARD)
        return str(folder)

    return write


def test_folders_of_one_name_are_told_apart(write):
    first, second = write("a", 1, 2), write("b", 3, 4)
    assert [list(load_dataset(folder, split="train")["value"]) for folder in (first, second)] == [[1, 2], [3, 4]]


def test_a_folder_whose_rows_changed_is_read_again(write):
    assert list(load_dataset(write("a", 1, 2), split="train")["value"]) == [1, 2]
    assert list(load_dataset(write("a", 5, 6), split="train")["value"]) == [5, 6]


def test_equal_rows_have_equal_cards(write):
    cards = [DatasetCard.load(f"{write(place, 1, 2)}/README.md") for place in ("a", "b")]
    assert str(cards[0]) == str(cards[1])
    assert cards[0].text.strip() == CARD.split("---")[2].strip()
    assert cards[0].data.license == "mit"
