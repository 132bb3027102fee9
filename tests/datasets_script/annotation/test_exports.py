"""What a queue exports is read back as it was marked, and by what reads ArtiBench."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets_script.annotation.brush import encode_brush
from datasets_script.annotation.exports import (
    ARTIBENCH_FILE,
    COCO_FILE,
    EXPORTS,
    LABEL_STUDIO_FILE,
    export_queue,
    read_drafts,
)
from datasets_script.annotation.filling import open_queue
from datasets_script.annotation.progress import progress
from datasets_script.annotation.queue import AnnotationQueue
from datasets_script.annotation.records import Mark, Marking
from datasets_script.benchmarks.artibench import ArtiBench
from datasets_script.schema.image import BenchmarkImage
from datasets_script.utils.errors import UserError
from datasets_script.utils.image_texts import METADATA

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


def mark_all(queue: AnnotationQueue, marking: Marking) -> None:
    while claim := queue.claim("ann", "classify", "page"):
        queue.answer(claim, "yes")
    while claim := queue.claim("ann", "mark", "page"):
        queue.answer(claim, marking)


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


@pytest.mark.parametrize("format", EXPORTS)
def test_copies_bear_the_suffix_of_their_format_and_drafts_the_name_in_the_queue(format: str, tmp_path: Path) -> None:
    queue, photos = AnnotationQueue.create(tmp_path / "queue"), tmp_path / "photos"
    photos.mkdir()
    names = ["a.bmp", "a.png", "a.tiff", "b.JPG", "c.tiff"]
    for number, name in enumerate(names):
        Image.new("RGB", SIZE, (40 * number, 0, 0)).save(photos / name)
    queue.add([photos / name for name in names])
    mark_all(queue, a_marking())
    export_queue(queue, tmp_path / "out", format)
    copies = ["a-2.png", "a.png", "a-3.png", "b.JPG", "c.png"]
    if format == "artibench":
        rows = pq.read_table(tmp_path / "out" / ARTIBENCH_FILE).to_pylist()
        assert [row["id"] for row in rows] == names
        contents = {row["image"]["path"]: row["image"]["bytes"] for row in rows}
    else:
        contents = {path.name: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()}
    assert set(contents) == set(copies)
    for name, copy in zip(names, copies, strict=True):
        with Image.open(io.BytesIO(contents[copy])) as image:
            assert image.format == ("JPEG" if copy == "b.JPG" else "PNG")
        assert contents[copy] == (queue.folder / queue.item(name).file).read_bytes()
    if format == "coco":
        images = json.loads((tmp_path / "out" / COCO_FILE).read_text())["images"]
        assert [image["file_name"] for image in images] == copies
    assert read_drafts(tmp_path / "out") == dict.fromkeys(names, a_marking())


def test_types_are_escaped_in_the_configuration_of_label_studio(tmp_path: Path) -> None:
    types = ('"odd" & <new>', "it's", "duplication")
    queue = make_queue(tmp_path / "made", 1, types=types)
    mark_all(queue, a_marking())
    export_queue(queue, tmp_path / "out", "label_studio")
    view = ElementTree.parse(tmp_path / "out" / "label_config.xml").getroot()
    for labels in ("RectangleLabels", "BrushLabels"):
        assert tuple(label.get("value") for label in view.findall(f"{labels}/Label")) == types


def test_prompts_of_subfolders_and_of_equal_names_are_read(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number, name in enumerate(("a.png", "one/a.png", "one/b.png", "two/c.png")):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (number, 0, 0)).save(photos / name)
    prompts = {"a.png": "a", "one/a.png": "another a", "one/b.png": "b", "two/c.png": "c"}
    lines = [json.dumps({"file_name": name, "prompt": prompt}) for name, prompt in prompts.items()]
    (photos / METADATA).write_text("\n".join(lines))
    (photos / "two" / METADATA).write_text(json.dumps({"file_name": "c.png", "prompt": "nearer"}))
    queue, added, left_out = open_queue(tmp_path / "queue", photos)
    assert added == 3 and set(left_out) == {"a.png"}
    assert {item.id: item.prompt for item in queue.items()} == {"a.png": "a", "b.png": "b", "c.png": "nearer"}


def test_drafts_that_do_not_fit_are_told_with_their_file(queue: AnnotationQueue, tmp_path: Path) -> None:
    export_queue(queue, tmp_path / "out", "coco")
    photos = tmp_path / "made" / "photos"
    with pytest.raises(
        UserError, match=r"out' must hold drafts that fit .* '0000.png', region 1 must be of type hole"
    ):
        open_queue(tmp_path / "holes", photos, tmp_path / "out", {"types": ("hole",)})
    (photos / "0002.png").unlink()
    other, added, left_out = open_queue(tmp_path / "other", photos, tmp_path / "out")
    assert added == 4 and set(left_out) == {"0002.png"} and other.item("0000.png").draft == MARKING
    file = tmp_path / "out" / COCO_FILE
    content = json.loads(file.read_text())
    content["annotations"] = [content["annotations"][0] | {"bbox": [1.0, 2.0, 31.00002, 22.0]}]
    file.write_text(json.dumps(content))
    other, _, left_out = open_queue(tmp_path / "other", drafts=file)
    draft = other.item("0000.png").draft
    assert not left_out and draft is not None and draft.marks[0].box == (1, 2, 32, 24), "rounding does not matter"


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
