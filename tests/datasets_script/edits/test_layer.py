"""The layer of edits: torn lines, two writers, undo, and edits of the same thing by two people."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datasets_script.edits.layer import EDITS_FILE, ConflictError, EditLayer, now
from datasets_script.edits.records import Edit, Values
from datasets_script.utils.errors import ArgumentError, UserError

from ...helpers.paths import ROOT


# Writes edits until it is killed, and tells each that is safe.
WRITER = """
import sys
from pathlib import Path
from datasets_script.edits.layer import EditLayer
from datasets_script.edits.records import Edit, Values
layer, who = EditLayer(Path(sys.argv[1])), sys.argv[2]
for number in range(int(sys.argv[3])):
    name = f"{who} {number}"
    layer.record(Edit(name, "", "accept", who, "now", "d", Values(verdict=""), Values(verdict="accept")))
    print(name, flush=True)
"""


def verdict(sample: str, who: str = "ann", before: str = "", after: str = "accept", data: str = "d") -> Edit:
    action = "accept" if after == "accept" else "reject"
    return Edit(sample, "", action, who, now(), data, Values(verdict=before), Values(verdict=after))  # type: ignore


def test_edits_come_back_in_another_process_and_add_up(tmp_path: Path) -> None:
    layer = EditLayer(tmp_path)
    assert not layer.samples and not layer.path.exists()
    layer.record(verdict("a"))
    region = Values(region=1, type="omission", box=(1.0, 2.0, 3.0, 4.0), mask={"size": [4, 5], "counts": "0"})
    layer.record(replace(verdict("a"), action="mask", before=Values(region=1, type="fusion"), after=region))
    layer.record(replace(verdict("a"), action="relabel", before=Values(region=1), after=Values(region=1, type="x")))
    again = EditLayer(tmp_path).of(("", "a"))
    assert again == layer.of(("", "a"))
    assert again.verdict == "accept" and again.regions == {1: replace(region, type="x")}
    assert [edit.action for edit in again.standing] == ["accept", "mask", "relabel"]


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path: Path) -> None:
    EditLayer(tmp_path).record(verdict("a"))
    whole = (tmp_path / EDITS_FILE).read_bytes()
    (tmp_path / EDITS_FILE).write_bytes(whole + whole[:-20])
    layer = EditLayer(tmp_path)
    assert layer.torn and list(layer.samples) == [("", "a")]
    layer.record(verdict("b"))
    assert not layer.torn and list(EditLayer(tmp_path).samples) == [("", "a"), ("", "b")]
    assert len((tmp_path / EDITS_FILE).read_text().splitlines()) == 2


@pytest.mark.parametrize("line", ["{}", "nonsense", '{"sample": "a", "split": "", "action": "paint"}'])
def test_a_line_that_is_no_edit_is_told_with_its_number(line: str, tmp_path: Path) -> None:
    EditLayer(tmp_path).record(verdict("a"))
    with (tmp_path / EDITS_FILE).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=r"line 2 of '.*edits.jsonl' must be an edit, and is not"):
        EditLayer(tmp_path)


def test_a_line_that_is_no_edit_is_told_at_each_reading_until_it_is_gone(tmp_path: Path) -> None:
    layer = EditLayer(tmp_path)
    layer.record(verdict("a"))
    other = EditLayer(tmp_path / "other")
    other.record(verdict("b"))
    good = layer.path.read_bytes()
    layer.path.write_bytes(good + b"nonsense\n" + other.path.read_bytes())
    for _ in range(2):
        with pytest.raises(UserError, match="line 2 of"):
            layer.refresh()
        assert list(layer.samples) == [("", "a")]
    layer.path.write_bytes(good + other.path.read_bytes())
    layer.refresh()
    assert list(layer.samples) == [("", "a"), ("", "b")]


def test_undo_is_a_further_line_and_takes_back_ones_own_last_edit(tmp_path: Path) -> None:
    layer = EditLayer(tmp_path)
    with pytest.raises(UserError, match="there must be an edit of ann to undo"):
        layer.undo("ann")
    layer.record(verdict("a"))
    layer.record(verdict("b", after="reject"))
    layer.record(verdict("c", who="ben"))
    assert layer.undo("ann").sample == "b" and layer.of(("", "b")).verdict == ""
    assert layer.undo("ann").sample == "a" and not layer.of(("", "a")).standing
    assert EditLayer(tmp_path).samples == layer.samples and layer.of(("", "c")).verdict == "accept"
    lines = [json.loads(line) for line in (tmp_path / EDITS_FILE).read_text().splitlines()]
    assert [line["action"] for line in lines] == ["accept", "reject", "accept", "undo", "undo"]
    assert lines[3]["before"] == {"verdict": "reject"} and lines[3]["after"] == {"verdict": ""}
    with pytest.raises(UserError, match="found none that stands"):
        layer.undo("ann")


def test_an_edit_of_what_somebody_else_changed_is_refused(tmp_path: Path) -> None:
    mine, other = EditLayer(tmp_path), EditLayer(tmp_path)
    other.record(verdict("a", who="ben", after="reject"))
    with pytest.raises(ConflictError, match="'a' was changed by ben meanwhile; look at it again"):
        mine.record(verdict("a"))
    mine.record(verdict("a", before="reject"))
    with pytest.raises(ConflictError, match="'a' was changed by ann since"):
        other.undo("ben")
    with pytest.raises(ArgumentError, match="`who` must be a name"):
        mine.record(verdict("b", who=" "))


def test_edits_of_other_data_void_those_before(tmp_path: Path) -> None:
    layer = EditLayer(tmp_path)
    layer.record(verdict("a", after="reject"))
    layer.record(verdict("a", data="new", after="accept"))
    assert layer.of(("", "a")).data == "new" and len(layer.of(("", "a")).standing) == 1


def test_two_writers_lose_nothing_and_a_killed_one_only_the_line_in_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    options = {"stdout": subprocess.PIPE, "text": True, "cwd": ROOT, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    first, second = (subprocess.Popen([*command, who, "100000"], **options) for who in ("ann", "ben"))  # type: ignore
    told = [first.stdout.readline(), second.stdout.readline()]
    time.sleep(0.3)
    for process in (first, second):
        process.send_signal(signal.SIGKILL)
    told += [*first.communicate()[0].splitlines(True), *second.communicate()[0].splitlines(True)]
    safe = {line.strip() for line in told if line.endswith("\n")}
    layer = EditLayer(tmp_path)
    assert len(safe) > 4 and safe <= {sample for _, sample in layer.samples}
    layer.record(verdict("after"))
    assert len(EditLayer(tmp_path).samples) == len(layer.samples)
