"""Exports of an annotation: ArtiBench's layout, COCO and Label Studio; and what they give back as drafts."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..utils.errors import UserError, check_choice
from ..utils.files import replacing_folder
from .brush import decode_brush, encode_brush
from .queue import AnnotationQueue
from .records import Item, Mark, Marking


# Rows hold images of up to several megabytes.
_ROWS_AT_ONCE = 16
ARTIBENCH_FILE = "data/test-00000-of-00001.parquet"
COCO_FILE = "annotations.json"
LABEL_STUDIO_FILE = "tasks.json"


@dataclass(frozen=True)
class _Annotated:
    item: Item
    path: Path
    copy: str  # file name in the export
    marking: Marking
    annotator: str


def export_queue(queue: AnnotationQueue, out: Path, format: str) -> int:
    """
    Export the finished items of a queue: images without artifacts, and marked ones. Where several people marked an
    image, the first answer counts.

    Args:
        queue (`AnnotationQueue`): The queue.
        out (`Path`): Folder to write; must be missing or empty.
        format (`str`): One of `EXPORTS`. `"artibench"`: Parquet in ArtiBench's layout, which `artiagent prepare
            artibench --source` reads; boxes only. `"coco"`: `annotations.json` and `images/`, with masks.
            `"label_studio"`: `tasks.json`, `label_config.xml` and `images/`, with masks as brushes whose parents are
            their boxes.

    Returns:
        `int`: Number of images.

    Raises:
        UserError: Nothing is finished, or `out` is not empty.
    """
    check_choice("format", format, tuple(EXPORTS))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"`out` must be missing or empty, got '{out}'; choose another folder")
    finished = list(_finished(queue))
    if not finished:
        raise UserError(
            "the queue must hold finished images, found none; classify some, and mark those with artifacts"
        )
    with replacing_folder(out) as folder:
        EXPORTS[format](queue, finished, folder)
    return len(finished)


def read_drafts(source: Path) -> dict[str, Marking]:
    """
    Read regions to begin with: of a model or an earlier annotation, in a format that [`export_queue`] writes.

    Args:
        source (`Path`): Folder of an export, or its file: COCO's or Label Studio's JSON, or ArtiBench's Parquet.

    Returns:
        `dict[str, Marking]`: Regions and explanation by file name, of images that have any.

    Raises:
        UserError: The source is in none of these formats.
    """
    for name in (COCO_FILE, LABEL_STUDIO_FILE, ARTIBENCH_FILE):
        if (source / name).is_file():
            return read_drafts(source / name)
    if not source.is_file():
        raise UserError(f"`source` must be a file or the folder of an export, got '{source}', which holds none")
    try:
        if source.suffix == ".parquet":
            return _drafts_of_artibench(source)
        content = json.loads(source.read_text(encoding="utf-8"))
        return _drafts_of_label_studio(content) if isinstance(content, list) else _drafts_of_coco(content)
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"'{source}' must be in COCO's, Label Studio's or ArtiBench's layout, and is not: {error!r}; export it "
            "again"
        ) from error


def _finished(queue: AnnotationQueue) -> Iterator[_Annotated]:
    first: dict[str, tuple[Marking, str]] = {}
    for answer in sorted(queue.answers("mark"), key=lambda one: one.at):
        assert isinstance(answer.content, Marking)  # of this phase
        first.setdefault(answer.item, (answer.content, answer.annotator))
    items = queue.items()
    copies = _copies(items)
    for item in items:
        if item.verdict == "no":
            yield _Annotated(item, queue.folder / item.file, copies[item.id], Marking(), "")
        elif item.verdict == "yes" and item.id in first:
            yield _Annotated(item, queue.folder / item.file, copies[item.id], *first[item.id])


def _copies(items: Sequence[Item]) -> dict[str, str]:
    """
    Return the file names of copies by id: the id, with the suffix of what the queue stores. Formats that browsers do
    not show are stored as PNG, and readers trust a suffix.
    """
    suffixes = {item.id: Path(item.file).suffix for item in items}
    copies = {name: name for name, suffix in suffixes.items() if Path(name).suffix.lower() == suffix}
    taken = set(suffixes)
    for name, suffix in suffixes.items():
        if name not in copies:
            endings = chain([suffix], (f"-{number}{suffix}" for number in count(2)))
            stem = Path(name).stem
            copies[name] = next(stem + ending for ending in endings if stem + ending not in taken)
            taken.add(copies[name])
    return copies


def _write_artibench(queue: AnnotationQueue, finished: list[_Annotated], folder: Path) -> None:
    (folder / "data").mkdir()
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("has_artifacts", pa.bool_()),
            ("explanation", pa.string()),
            (
                "bboxes",
                pa.list_(
                    pa.struct([("bbox", pa.list_(pa.float64())), ("category", pa.string()), ("caption", pa.string())])
                ),
            ),
            ("prompt", pa.string()),
            ("annotator", pa.string()),
        ]
    )
    with pq.ParquetWriter(folder / ARTIBENCH_FILE, schema) as writer:
        for start in range(0, len(finished), _ROWS_AT_ONCE):
            rows = [_artibench_row(one) for one in finished[start : start + _ROWS_AT_ONCE]]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _artibench_row(one: _Annotated) -> dict[str, Any]:
    width, height = one.item.size
    return {
        "id": one.item.id,
        "image": {"bytes": one.path.read_bytes(), "path": one.copy},
        "has_artifacts": bool(one.marking.marks),
        "explanation": one.marking.explanation,
        "bboxes": [
            {
                "bbox": [mark.box[0] / width, mark.box[1] / height, mark.box[2] / width, mark.box[3] / height],
                "category": mark.type,
                "caption": mark.caption,
            }
            for mark in one.marking.marks
        ],
        "prompt": one.item.prompt,
        "annotator": one.annotator,
    }


def _drafts_of_artibench(path: Path) -> dict[str, Marking]:
    drafts = {}
    for row in pq.read_table(path).to_pylist():
        if not row["bboxes"]:
            continue
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            width, height = image.size
        marks = [Mark(box["category"], _scaled(box["bbox"], width, height), box["caption"]) for box in row["bboxes"]]
        drafts[row["id"]] = Marking(tuple(marks), row["explanation"])
    return drafts


def _scaled(box: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    return _thousandths(*(part * side for part, side in zip(box, (width, height) * 2, strict=True)))


def _thousandths(x_min: float, y_min: float, x_max: float, y_max: float) -> tuple[float, float, float, float]:
    # Thousandths of a pixel are kept, so that a box in whole pixels comes back as it went, and within its image.
    return round(x_min, 3), round(y_min, 3), round(x_max, 3), round(y_max, 3)


def _write_coco(queue: AnnotationQueue, finished: list[_Annotated], folder: Path) -> None:
    (folder / "images").mkdir()
    categories = {kind: number for number, kind in enumerate(queue.settings.types, start=1)}
    images, annotations = [], list[dict[str, Any]]()
    for number, one in enumerate(finished, start=1):
        shutil.copyfile(one.path, folder / "images" / one.copy)
        width, height = one.item.size
        images.append(
            {
                "id": number,
                "file_name": one.copy,
                "queue_item": one.item.id,  # the name in the queue, which may have another suffix
                "width": width,
                "height": height,
                "has_artifacts": bool(one.marking.marks),
                "explanation": one.marking.explanation,
                "prompt": one.item.prompt,
            }
        )
        for mark in one.marking.marks:
            x_min, y_min, x_max, y_max = mark.box
            mask = mark.mask(one.item.size)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[mark.type],
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "area": (x_max - x_min) * (y_max - y_min) if mask is None else int(mask.sum()),
                    "segmentation": {"size": [height, width], "counts": mark.counts} if mark.counts else [],
                    "iscrowd": 0,
                    "caption": mark.caption,
                    "annotator": one.annotator,
                }
            )
    content = {
        "info": {"description": "Images annotated with artiagent app"},
        "categories": [
            {"id": number, "name": kind, "supercategory": "artifact"} for kind, number in categories.items()
        ],
        "images": images,
        "annotations": annotations,
    }
    (folder / COCO_FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _drafts_of_coco(content: dict[str, Any]) -> dict[str, Marking]:
    names = {category["id"]: category["name"] for category in content["categories"]}
    images = {image["id"]: image for image in content["images"]}
    marks: dict[int, list[Mark]] = {}
    for one in content["annotations"]:
        left, top, width, height = one["bbox"]
        box = _thousandths(left, top, left + width, top + height)
        segmentation = one.get("segmentation")
        counts = segmentation.get("counts", "") if isinstance(segmentation, dict) else ""
        if not isinstance(counts, str):
            raise ValueError(f"annotation {one['id']} has counts that are not compressed; encode them as a string")
        mark = Mark(names[one["category_id"]], box, one.get("caption", ""), counts)
        marks.setdefault(one["image_id"], []).append(mark)
    return {
        images[image].get("queue_item") or Path(images[image]["file_name"]).name: Marking(
            tuple(of_image), images[image].get("explanation", "")
        )
        for image, of_image in marks.items()
    }


def _write_label_studio(queue: AnnotationQueue, finished: list[_Annotated], folder: Path) -> None:
    (folder / "images").mkdir()
    tasks = []
    for one in finished:
        shutil.copyfile(one.path, folder / "images" / one.copy)
        results = [
            {
                "from_name": "has_artifacts",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": ["yes" if one.marking.marks else "no"]},
            }
        ]
        for number, mark in enumerate(one.marking.marks):
            results += _label_studio_results(f"region{number}", mark, one.item.size)
        if one.marking.explanation:
            text = {"text": [one.marking.explanation]}
            results.append({"from_name": "explanation", "to_name": "image", "type": "textarea", "value": text})
        data = {
            "image": f"/data/local-files/?d=images/{one.copy}",
            "prompt": one.item.prompt,
            "queue_item": one.item.id,
        }
        tasks.append({"data": data, "annotations": [{"result": results, "annotator": one.annotator}]})
    (folder / LABEL_STUDIO_FILE).write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")
    labels = "".join(f"<Label value={quoteattr(kind)}/>" for kind in queue.settings.types)
    (folder / "label_config.xml").write_text(
        '<View><Image name="image" value="$image"/><Text name="prompt" value="$prompt"/>'
        '<Choices name="has_artifacts" toName="image"><Choice value="yes"/><Choice value="no"/></Choices>'
        f'<RectangleLabels name="label" toName="image">{labels}</RectangleLabels>'
        f'<BrushLabels name="mask" toName="image">{labels}</BrushLabels>'
        '<TextArea name="caption" toName="image" perRegion="true"/>'
        '<TextArea name="explanation" toName="image"/></View>\n',
        encoding="utf-8",
    )


def _label_studio_results(region: str, mark: Mark, size: tuple[int, int]) -> list[dict[str, Any]]:
    (x_min, y_min, x_max, y_max), (width, height) = mark.box, size
    place = {
        "x": 100 * x_min / width,
        "y": 100 * y_min / height,
        "width": 100 * (x_max - x_min) / width,
        "height": 100 * (y_max - y_min) / height,
        "rotation": 0,
    }
    common = {"id": region, "to_name": "image", "original_width": width, "original_height": height}
    results = [
        {
            **common,
            "from_name": "label",
            "type": "rectanglelabels",
            "value": {**place, "rectanglelabels": [mark.type]},
        }
    ]
    if mark.caption:
        value = {**place, "text": [mark.caption]}
        results.append({**common, "from_name": "caption", "type": "textarea", "value": value})
    if (mask := mark.mask(size)) is not None:
        brush = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [mark.type]}
        own = {"id": f"{region}-mask", "parentID": region, "from_name": "mask", "type": "brushlabels"}
        results.append({**common, **own, "value": brush})
    return results


def _drafts_of_label_studio(tasks: list[dict[str, Any]]) -> dict[str, Marking]:
    drafts = {}
    for task in tasks:
        results = (task["annotations"] or [{"result": []}])[0]["result"]
        captions = {one["id"]: one["value"]["text"][0] for one in results if one["from_name"] == "caption"}
        explanation = next((one["value"]["text"][0] for one in results if one["from_name"] == "explanation"), "")
        marks: dict[str, Mark] = {}
        for one in results:
            if one["type"] == "rectanglelabels":
                place = one["value"]
                left, top = place["x"] / 100, place["y"] / 100
                box = [left, top, left + place["width"] / 100, top + place["height"] / 100]
                scaled = _scaled(box, one["original_width"], one["original_height"])
                marks[one["id"]] = Mark(place["rectanglelabels"][0], scaled, captions.get(one["id"], ""))
        for one in results:
            if one["type"] == "brushlabels":
                mask = decode_brush(one["value"]["rle"], (one["original_width"], one["original_height"]))
                if not mask.any():  # all of it was erased
                    continue
                kind, parent = one["value"]["brushlabels"][0], marks.get(one.get("parentID"))
                if parent is None or parent.type != kind:  # a region of its own
                    marks[one["id"]] = Mark.of_mask(kind, mask, captions.get(one["id"], ""))
                    continue
                painted = parent.mask(mask.shape[::-1])  # by another brush of the same region
                whole = mask if painted is None else mask | painted
                caption = parent.caption or captions.get(one["id"], "")
                marks[one["parentID"]] = Mark.of_mask(kind, whole, caption)
        if marks:
            name = task["data"].get("queue_item") or task["data"]["image"].rpartition("/")[2]
            drafts[name] = Marking(tuple(marks.values()), explanation)
    return drafts


EXPORTS: dict[str, Callable[[AnnotationQueue, list[_Annotated], Path], None]] = {
    "artibench": _write_artibench,
    "coco": _write_coco,
    "label_studio": _write_label_studio,
}
"""Writers of the formats by name."""
