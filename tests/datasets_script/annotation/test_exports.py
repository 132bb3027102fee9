"""What a queue exports is read back as it was marked, and by what reads ArtiBench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datasets_script.annotation.brush import encode_brush
from datasets_script.annotation.exports import EXPORTS, LABEL_STUDIO_FILE, export_queue, read_drafts
from datasets_script.annotation.progress import progress
from datasets_script.annotation.queue import AnnotationQueue
from datasets_script.annotation.records import Mark, Marking
from datasets_script.benchmarks.artibench import ArtiBench
from datasets_script.schema.image import BenchmarkImage
from datasets_script.utils.errors import UserError

from ...helpers.annotators import SIZE, a_marking, annotate, make_queue


PAINTED = np.zeros(SIZE[::-1], bool)
PAINTED[4:9, 5:20] = PAINTED[12, 7] = True
MARKING = Marking(
    (Mark("fusion", (1.0, 2.0, 9.0, 23.0), "grown together"), Mark.of_mask("omission", PAINTED)), "Two flaws."
)


@pytest.fixture
def queue(tmp_path: Path) -> AnnotationQueue:
    """Five images: 0 with two regions, 2 and 4 with one, 1 and 3 without; 4 is not marked yet."""
    queue = make_queue(tmp_path / "made", 5)
    while claim := queue.claim("ann", "classify", "page"):
        queue.answer(claim, "no" if int(claim.item.id[:4]) % 2 else "yes")
    for marking in (MARKING, a_marking()):
        claim = queue.claim("ann", "mark", "page")
        assert claim is not None
        queue.answer(claim, marking)
    return queue


@pytest.mark.parametrize("format", EXPORTS)
def test_an_export_is_read_back(queue: AnnotationQueue, format: str, tmp_path: Path) -> None:
    assert export_queue(queue, tmp_path / "out", format) == 4
    drafts = read_drafts(tmp_path / "out")
    assert set(drafts) == {"0000.png", "0002.png"} and drafts["0002.png"] == a_marking()
    if format != "artibench":
        assert drafts["0000.png"] == MARKING and np.array_equal(
            np.asarray(drafts["0000.png"].marks[1].mask(SIZE)), PAINTED
        )
    else:  # boxes only
        read = drafts["0000.png"]
        assert [(mark.type, mark.box, mark.caption) for mark in read.marks] == [
            (mark.type, mark.box, mark.caption) for mark in MARKING.marks
        ]
        assert read.explanation == MARKING.explanation
    other = make_queue(tmp_path / "other", 5)
    other.add([], drafts=drafts)
    assert other.item("0000.png").draft == drafts["0000.png"]
    with pytest.raises(UserError, match="`out` must be missing or empty"):
        export_queue(queue, tmp_path / "out", format)


def test_brushes_of_label_studio_add_up_and_those_of_another_label_are_regions(
    queue: AnnotationQueue, tmp_path: Path
) -> None:
    export_queue(queue, tmp_path / "out", "label_studio")
    file = tmp_path / "out" / LABEL_STUDIO_FILE
    tasks = json.loads(file.read_text())
    results = next(task for task in tasks if task["data"]["image"].endswith("0000.png"))["annotations"][0]["result"]
    (brush,) = [one for one in results if one["type"] == "brushlabels"]
    further = np.zeros(SIZE[::-1], bool)
    further[15:18, 1:4] = True
    for kind in ("omission", "distortion"):
        value = brush["value"] | {"rle": encode_brush(further), "brushlabels": [kind]}
        results.append({**brush, "id": f"by hand {kind}", "value": value})
    file.write_text(json.dumps(tasks))
    fusion, omission, distortion = read_drafts(file)["0000.png"].marks
    assert fusion == MARKING.marks[0] and omission == Mark.of_mask("omission", PAINTED | further)
    assert distortion == Mark.of_mask("distortion", further)


def test_the_reader_of_artibench_reads_the_export(queue: AnnotationQueue, tmp_path: Path) -> None:
    export_queue(queue, tmp_path / "out", "artibench")
    images = [image for image in ArtiBench().read(tmp_path / "out", "test") if isinstance(image, BenchmarkImage)]
    assert [image.id for image in images] == [f"{number:04d}.png" for number in (0, 1, 2, 3)]
    assert [image.has_artifact for image in images] == [True, False, True, False]
    assert images[0].regions[0].bbox == pytest.approx((1, 2, 9, 23)) and images[0].explanation == "Two flaws."
    assert not ArtiBench().check(images, "test")


def test_nothing_finished_and_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must hold finished images"):
        export_queue(make_queue(tmp_path / "made", 1), tmp_path / "out", "coco")
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="must be in COCO's, Label Studio's or ArtiBench's layout"):
        read_drafts(tmp_path / "other.json")
    with pytest.raises(UserError, match="which holds none"):
        read_drafts(tmp_path / "nowhere")


def test_progress_measures_agreement(tmp_path: Path) -> None:
    queue = make_queue(tmp_path / "made", 4, overlap=2, mark_overlap=2)
    for name in ("ann", "ben", "ann"):  # what ann may mark is known once ben has classified it
        annotate(queue.folder, name)
    queue.revise("ben", "mark", "0000.png", a_marking(left=20.0))
    state = progress(queue)
    (one,) = state.agreements
    assert (one.classified, one.kappa, one.marked, one.box_f1) == (4, 1.0, 2, 0.5)
    assert state.is_complete and state.people[0].classified == 4 and state.people[0].marked == 2
    assert "| ann, ben | 4 | 1.00 | 2 | .50 |" in state.as_text()
