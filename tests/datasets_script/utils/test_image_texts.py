"""Texts beside images."""

from __future__ import annotations

import json

import pytest

from datasets_script.utils.errors import UserError
from datasets_script.utils.image_texts import METADATA, image_texts


def test_texts_are_prompts_or_captions(tmp_path):
    assert image_texts(tmp_path) == {}
    rows = [
        {"file_name": "0.png", "prompt": "an owl", "text": "a bird"},
        {"file_name": "1.png", "text": "a cat"},
        {"file_name": "2.png", "prompt": None},
        {"file_name": "3.png", "label": 3},
        {"file_name": "4.png", "prompt": "a fox\u2028and\x85a cup"},
    ]
    (tmp_path / METADATA).write_text("\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert image_texts(tmp_path) == {"0.png": "an owl", "1.png": "a cat", "4.png": "a fox\u2028and\x85a cup"}


@pytest.mark.parametrize(
    "line", ["not JSON", '{"prompt": "an owl"}', "3", '{"file_name": "0.png", "prompt": ["an owl"]}']
)
def test_what_cannot_be_read_is_told(tmp_path, line):
    (tmp_path / METADATA).write_text(line)
    with pytest.raises(UserError, match="metadata.jsonl' must hold a JSON object with `file_name`"):
        image_texts(tmp_path)
