"""Annotation files of other tools, recognised so that an error can say how to convert them to COCO format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ForeignFormat:
    """
    Format that is not COCO's.

    Args:
        name (`str`): What a file in it is, with its article.
        way (`str`): How to get a COCO file from the same annotations, as an instruction.
    """

    name: str
    way: str


LABELME = ForeignFormat(
    "a labelme file, which describes one photo",
    "convert the folder of these files with `pip install labelme2coco` and `labelme2coco FOLDER`",
)
VIA = ForeignFormat(
    "a project or an export of VIA 2 (VGG Image Annotator)",
    "open it there and choose Annotation, Export Annotations (COCO format), with labels in a dropdown attribute",
)
VIA_3 = ForeignFormat("a project of VIA 3 (VGG Image Annotator)", "export it in COCO format, or annotate in VIA 2")
CVAT = ForeignFormat(
    "a CVAT XML file", "in CVAT, choose Export task dataset (or Export project dataset) and the format COCO 1.0"
)
VOC = ForeignFormat(
    "a Pascal VOC XML file, which holds boxes",
    "export from the annotation tool in COCO format, with polygons or masks",
)
LABEL_STUDIO = ForeignFormat(
    "an export of Label Studio in its own JSON",
    "in Label Studio, choose Export and the format COCO",
)
COCO_RESULTS = ForeignFormat(
    "a list of COCO results, which has no `images` and `categories`",
    "put the list under `annotations` of an object that has the other two, and give each annotation its own `id`",
)


def format_of_json(document: Any) -> ForeignFormat | None:
    """
    Recognise the format of a JSON document that is not COCO's.

    Args:
        document (`Any`): As read from JSON.

    Returns:
        `ForeignFormat`: The format, or `None` if it is not known.
    """
    if isinstance(document, list):
        first = document[0] if document and isinstance(document[0], dict) else {}
        if isinstance(first.get("data"), dict) or "annotation_id" in first or "lead_time" in first:
            return LABEL_STUDIO
        return COCO_RESULTS if {"image_id", "category_id"} <= first.keys() else None
    if not isinstance(document, dict):
        return None
    if "shapes" in document and "imagePath" in document:
        return LABELME
    records = [record for record in document.values() if isinstance(record, dict)]
    is_export = any({"filename", "regions"} <= record.keys() for record in records[:1])
    if "_via_img_metadata" in document or is_export:
        return VIA
    if {"project", "metadata", "file", "view"} <= document.keys():
        return VIA_3
    if isinstance(document.get("data"), dict) and ("annotations" in document or "predictions" in document):
        return LABEL_STUDIO
    return None


def format_of_text(content: bytes) -> ForeignFormat | None:
    """
    Recognise the format of a file that is not JSON.

    Args:
        content (`bytes`): Its content.

    Returns:
        `ForeignFormat`: The format, or `None` if it is not known.
    """
    root = re.search(rb"<([A-Za-z_][\w.-]*)", content[:4096].replace(b"\0", b""))
    return {b"annotations": CVAT, b"annotation": VOC}.get(root[1]) if root else None
