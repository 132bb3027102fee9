"""Prompts from files, lists and the command line."""

from __future__ import annotations

import pytest

from datasets_script.generation.prompts import find_prompts
from datasets_script.schema.generation import Prompt
from datasets_script.utils.errors import ArgumentError


NUMBERED = [Prompt("00000", "a red fox"), Prompt("00001", "two hands, a cup")]


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("lines.txt", "\ufeffa red fox\n\n  two hands, a cup  \r\n", NUMBERED),
        ("no_suffix", "a red fox\ntwo hands, a cup", NUMBERED),
        ("rows.jsonl", '{"prompt": "a red fox", "seed": 1}\n\n{"prompt": "two hands, a cup"}\n', NUMBERED),
        ("rows.csv", 'prompt\na red fox\n"two hands, a cup"\n', NUMBERED),
        ("ids.csv", "id,prompt\nfox_1,a red fox\n", [Prompt("fox_1", "a red fox")]),
        ("breaks.jsonl", '{"prompt": "a fox\u2028a cup"}\r\n', [Prompt("00000", "a fox\u2028a cup")]),
        ("breaks.csv", 'prompt\r\n"a fox\u2028a cup"\r\n', [Prompt("00000", "a fox\u2028a cup")]),
        ("ids.jsonl", '{"id": 7, "prompt": "ein Fuchs 🦊"}', [Prompt("7", "ein Fuchs 🦊")]),
        ("breaks.csv", 'id,prompt\n1,"a fox\nand a cup"\n', [Prompt("1", "a fox\nand a cup")]),
    ],
)
def test_files_are_read(name, content, prompts, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert find_prompts(tmp_path / name) == find_prompts(str(tmp_path / name)) == prompts


def test_lists_and_single_prompts():
    assert find_prompts(["a red fox", "two hands, a cup"]) == NUMBERED
    assert find_prompts([Prompt("fox", "a red fox")]) == [Prompt("fox", "a red fox")]
    assert find_prompts("a red fox") == NUMBERED[:1]
    assert find_prompts("cat/dog hybrid, " * 40)[0].text.startswith("cat/dog hybrid")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text\na fox\n", "line 2: must have a text `prompt`, got the columns text"),
        ("a.csv", "id,prompt\n1,a fox\n1,a cup\n", "distinct ids, also in lower case, got '1' twice"),
        ("a.jsonl", '{"prompt": "a fox"}\n["a cup"]', "line 2: must be a JSON object, got"),
        ("a.jsonl", '{"prompt": "a fox"', "line 1: must be a JSON object: "),
        ("a.jsonl", '{"prompt": 3}', "line 1: must have a text `prompt`, got the columns prompt"),
        ("a.jsonl", '{"prompt": " "}', "must be texts, got an empty one with the id '00000'"),
        ("a.jsonl", '{"prompt": "a fox", "id": "../fox"}', "letters, digits and . _ -, .* got '../fox'"),
        ("a.txt", "\n\n", "at least one prompt, got none"),
        ("a.txt", b"\xff\xfe\x00", "a UTF-8 file that can be read"),
    ],
)
def test_other_content_is_refused(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArgumentError, match=message):
        find_prompts(path)


def test_a_missing_file_is_no_prompt(tmp_path):
    for text in ("promts.txt", str(tmp_path / "gone"), "runs/prompts.csv"):
        with pytest.raises(ArgumentError, match="which is no file; check the path"):
            find_prompts(text)
    with pytest.raises(ArgumentError, match="which is a folder"):
        find_prompts(str(tmp_path))
