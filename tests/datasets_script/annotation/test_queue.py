"""The queue of an annotation: who gets what, what becomes of the answers, and what a kill costs."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_script.annotation.progress import progress
from datasets_script.annotation.queue import AnnotationQueue, LostClaimError, QueueSettings
from datasets_script.annotation.records import Claim, Mark, Marking
from datasets_script.utils.errors import ArgumentError, UserError

from ...helpers.annotators import a_marking, make_queue
from ...helpers.paths import ROOT


def claimed(queue: AnnotationQueue, name: str, phase: str = "classify", holder: str = "") -> Claim:
    claim = queue.claim(name, phase, holder or f"page of {name}")  # type: ignore[arg-type]
    assert claim is not None
    return claim


def test_two_pages_never_get_the_same_item(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 3)
    ann, ben = claimed(queue, "ann"), claimed(queue, "ben")
    other_page = claimed(queue, "ann", holder="second page")
    assert [claim.item.id for claim in (ann, ben, other_page)] == ["0000.png", "0001.png", "0002.png"]
    assert claimed(queue, "ann").item == ann.item, "a page that is loaded again goes on with its item"
    assert queue.claim("cem", "classify", "page") is None
    queue.answer(ann, "no")
    with pytest.raises(LostClaimError, match="'0000.png' is no longer yours"):
        queue.answer(ann, "yes")
    queue.release(ben)
    assert claimed(queue, "cem").item.id == "0001.png"


def test_a_phase_that_there_is_not_is_told(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 1)
    with pytest.raises(ValueError, match="`phase` must be among classify, decide, mark, got 'brag'"):
        queue.claim("ann", "brag", "page")  # type: ignore[arg-type]


def test_an_item_that_is_not_answered_goes_to_others_in_time(tmp_path: Path) -> None:
    folder = make_queue(tmp_path, 1, lease_seconds=60.0).folder
    now = 1000.0
    queue = AnnotationQueue(folder, clock=lambda: now)
    late = claimed(queue, "ann")
    assert queue.claim("ben", "classify", "page") is None
    now += 61
    assert claimed(queue, "ben").item.id == "0000.png"
    with pytest.raises(LostClaimError):
        queue.answer(late, "yes")


def test_overlap_asks_different_people(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 2, overlap=2)
    for name in ("ann", "ben"):
        for _ in range(2):
            claim = claimed(queue, name)
            queue.answer(claim, "yes" if claim.item.id == "0000.png" or name == "ann" else "no")
    assert all(queue.claim(name, "classify", "page") is None for name in ("ann", "ben", "cem"))
    assert [item.verdict for item in queue.items()] == ["yes", "open"]


def test_an_admin_decides_what_is_unsure(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 2)
    queue.answer(claimed(queue, "ann"), "unsure")
    queue.answer(claimed(queue, "ann"), "no")
    assert queue.claim("ann", "mark", "page") is None
    decision = claimed(queue, "ada", "decide")
    assert decision.item.id == "0000.png" and decision.others == {"ann": "unsure"}
    with pytest.raises(ArgumentError, match="must be among yes, no in the phase decide, got 'unsure'"):
        queue.answer(decision, "unsure")
    queue.answer(decision, "yes")
    assert queue.claim("ada", "decide", "page") is None
    mark = claimed(queue, "ben", "mark")
    queue.answer(mark, a_marking())
    assert [item.verdict for item in queue.items()] == ["yes", "no"]
    assert queue.answers("mark")[0].content == a_marking() and progress(queue).is_complete


def test_answers_are_revised_and_the_log_keeps_both(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 1)
    queue.answer(claimed(queue, "ann"), "no")
    queue.revise("ann", "classify", "0000.png", "yes")
    assert queue.item("0000.png").verdict == "yes"
    with pytest.raises(UserError, match="'ben' has not answered '0000.png'"):
        queue.revise("ben", "classify", "0000.png", "no")
    entries = [(entry["annotator"], entry["action"], entry["before"], entry["after"]) for entry in queue.log()]
    assert entries == [("ann", "answer", None, '"no"'), ("ann", "revise", '"no"', '"yes"')]
    assert all(entry["at"] for entry in queue.log())


@pytest.mark.parametrize(
    ("marking", "message"),
    [
        (Marking(), "must have a marked region"),
        (Marking((Mark("hole", (0, 0, 4, 4)),)), "region 1 must be of type duplication.*got 'hole'"),
        (Marking((Mark("fusion", (0, 0, 33, 4)),)), "region 1 must lie in the image of 32 × 24 pixels"),
    ],
)
def test_regions_that_cannot_be_scored_are_refused(tmp_path: Path, marking: Marking, message: str) -> None:
    queue = make_queue(tmp_path, 1)
    queue.answer(claimed(queue, "ann"), "yes")
    claim = claimed(queue, "ann", "mark")
    with pytest.raises(UserError, match=message):
        queue.answer(claim, marking)
    queue.answer(claim, a_marking())


def test_masks_are_kept_exactly_at_three_sizes() -> None:
    for size in ((32, 24), (427, 640), (1024, 683)):
        mask = np.random.default_rng(0).random(size[::-1]) < 0.3
        mark = Mark.from_dict(Mark.of_mask("fusion", mask, "two").as_dict())
        assert np.array_equal(np.asarray(mark.mask(size)), mask) and mark.box[2] <= size[0]


def test_images_are_added_once_and_what_is_none_is_told(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 2)
    photos = tmp_path / "photos"
    (photos / "copy.png").write_bytes((photos / "0001.png").read_bytes())
    (photos / "text.txt").write_text("no image")
    Image.new("RGB", (19, 19)).save(photos / "new.png")
    added, left_out = queue.add(sorted(photos.iterdir()), {"new.png": "a hand"}, {"new.png": a_marking()})
    assert added == 1 and queue.item("new.png").prompt == "a hand" and queue.item("new.png").draft == a_marking()
    assert set(left_out) == {"0000.png", "0001.png", "copy.png", "text.txt"}
    assert "same content, '0001.png'" in left_out["copy.png"]


def test_what_a_person_gave_back_comes_last_for_them(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 3)
    queue.release(claimed(queue, "ann"))
    queue = AnnotationQueue(queue.folder)  # what is killed and begun again knows it
    second = claimed(queue, "ann")
    assert second.item.id == "0001.png"
    assert claimed(queue, "ben").item.id == "0000.png", "others get it first"
    queue.release(claimed(queue, "ben"))
    assert claimed(queue, "ben").item.id == "0002.png"
    queue.answer(second, "no")
    back = claimed(queue, "ann")
    assert back.item.id == "0000.png", "nothing else is left"
    queue.release(second)
    assert claimed(queue, "ann").item.id == "0000.png", "an old page gives nothing else back"
    queue.release(claimed(queue, "ben"))
    queue.release(back)
    order = []
    for _ in range(3):
        claim = claimed(queue, "ann")
        order.append(claim.item.id)
        queue.release(claim)
    assert order == ["0002.png", "0000.png", "0002.png"], "what was given back longest ago is the next"


def test_what_was_given_back_in_a_phase_is_first_in_another(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 2)
    queue.release(claimed(queue, "ann"))
    for _ in range(2):
        queue.answer(claimed(queue, "ann"), "yes")
    assert claimed(queue, "ann", "mark").item.id == "0000.png"


def test_a_queue_of_an_earlier_package_takes_items_back(tmp_path: Path) -> None:
    folder = make_queue(tmp_path, 2).folder
    connection = sqlite3.connect(folder / "queue.sqlite")
    connection.execute("DROP TABLE skipped")
    connection.close()
    queue = AnnotationQueue(folder)
    queue.release(claimed(queue, "ann"))
    assert claimed(queue, "ann").item.id == "0001.png"


def test_drafts_without_an_image_and_of_marked_ones_are_told(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 2)
    queue.answer(claimed(queue, "ann"), "yes")
    queue.answer(claimed(queue, "ann", "mark"), a_marking())
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "photos" / "0001.png").read_bytes())
    drafts = dict.fromkeys(("0000.png", "0001.png", "copy.png", "other.png"), a_marking(5.0))
    added, left_out = queue.add([copy], drafts=drafts)
    assert added == 0 and set(left_out) == {"0000.png", "copy.png", "other.png"}
    assert "marked already" in left_out["0000.png"] and "no image of this name" in left_out["other.png"]
    assert "same content, '0001.png'; its draft is left out" in left_out["copy.png"]
    assert queue.item("0000.png").draft is None and queue.item("0001.png").draft == a_marking(5.0)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (Mark("hole", (0, 0, 4, 4)), "region 1 must be of type duplication.*got 'hole'"),
        (Mark("fusion", (0, 0, 33, 4)), "region 1 must lie in the image of 32 × 24 pixels"),
        (
            Mark("fusion", (0, 0, 4, 4), "", Mark.of_mask("", np.ones((60, 60), bool)).counts),
            "region 1 must have a mask of 32 × 24 pixels",
        ),
    ],
)
def test_drafts_that_do_not_fit_are_refused(tmp_path: Path, mark: Mark, message: str) -> None:
    queue = make_queue(tmp_path, 2)
    with pytest.raises(UserError, match=f"in the draft of '0001.png', {message}"):
        queue.add([], drafts={"0000.png": a_marking(), "0001.png": Marking((mark,))})
    assert queue.item("0000.png").draft is None, "all or none"


def test_tokens_let_people_in(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, 1)
    token = queue.add_person("ann", "admin")
    assert queue.admits("ann", token) and not queue.admits("ann", token + "x") and not queue.admits("ben", token)
    assert queue.people() == {"ann": "admin"} and token.encode() not in (queue.folder / "queue.sqlite").read_bytes()
    queue.add_person("ann", "admin")
    assert not queue.admits("ann", token), "a new token replaces the old one"


def test_folders_that_hold_no_queue_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must hold an annotation queue"):
        AnnotationQueue(tmp_path)
    AnnotationQueue.create(tmp_path / "one")
    with pytest.raises(UserError, match="holds a queue already"):
        AnnotationQueue.create(tmp_path / "one")
    with pytest.raises(ArgumentError, match="`overlap` must be at least 1, got 0"):
        QueueSettings(overlap=0)
    with pytest.raises(ArgumentError, match="must be a name of up to 64 characters"):
        AnnotationQueue(tmp_path / "one").claim(" ", "classify", "page")


def test_killed_annotators_lose_and_double_nothing(tmp_path: Path) -> None:
    """Three at once; one is killed twice and begins again. Four at once with five kills are in the benchmark."""
    queue = make_queue(tmp_path, 40)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def begin(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.helpers.annotators", str(queue.folder), name]
        return subprocess.Popen(command, env=environment, cwd=ROOT)

    others = [begin("ann"), begin("ben")]
    for _ in range(2):
        victim = begin("cem")
        before, patience = len(queue.answers()), time.monotonic() + 60
        while len(queue.answers()) < min(before + 3, 60) and time.monotonic() < patience:
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert all(process.wait() == 0 for process in [*others, begin("cem")])
    times = Counter((answer.phase, answer.item) for answer in queue.answers())
    assert set(times.values()) == {1} and len(times) == 40 + 20
    assert progress(queue).is_complete
