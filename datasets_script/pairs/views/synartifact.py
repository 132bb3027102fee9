"""SynArtifact-1K as conversations: one row per image, with the paper's classification or detection task."""

from __future__ import annotations

import re
from typing import Any

from evaluate_metrics.functional.classification import NO_ARTIFACTS, ArtifactClass, find_class

from ...schema.image import BenchmarkImage, Region
from ...utils.errors import UserError
from ...vlm.conventions import BoxFormat
from .instructions import asked, regions_answer
from .vqa import Turn, to_messages


ONLY_THOSE_KINDS = "Give those of the kinds that you have named, and say of each region which kind is there."
OTHER = (
    "Does this image have any other artifact, which is of none of these kinds or has no place?\n"
    "Describe it in a sentence. If there is none, answer only: No other artifacts."
)
_NO_OTHER = "No other artifacts."
_OTHER_CLASS = find_class("Other artifacts")
# A remark ends here: what follows would read as the next entry of the list.
_END_OF_REMARK = re.compile(r"[.;:\n]")


def classification_row(image: BenchmarkImage, box_format: BoxFormat) -> dict[str, Any] | None:
    """
    Convert an image to the classification task (SynArtifact, §3.3): the question of `artiagent predict`, answered with
    a numbered list of classes.

    Args:
        image (`BenchmarkImage`): An image of SynArtifact-1K.
        box_format (`BoxFormat`): Convention of boxes. The answer holds none; the signature is that of
            [`detection_row`].

    Returns:
        `dict`: A row of [`~datasets_script.pairs.views.vqa.FEATURES`]; `None` where the benchmark does not say which
        classes of artifacts the image has.

    Raises:
        UserError: a region has a class that is not in SynArtifact's taxonomy.
    """
    if not _is_known(image):
        return None
    return _row(image, [Turn(asked("classification", box_format.coordinates, image.image), classes_answer(image))])


def detection_row(image: BenchmarkImage, box_format: BoxFormat) -> dict[str, Any] | None:
    """
    Convert an image to the detection task (SynArtifact, §A.3) in four turns: are there artifacts, of which classes,
    where, and are there any others. All four are asked about clean images as well, so that no question gives away the
    answer.

    Args:
        image (`BenchmarkImage`): An image of SynArtifact-1K.
        box_format (`BoxFormat`): Convention to write boxes in.

    Returns:
        `dict`: As in [`classification_row`].

    Raises:
        UserError: a region has a class that is not in SynArtifact's taxonomy.
    """
    if not _is_known(image):
        return None
    where = asked("localization", box_format.coordinates, image.image)
    regions = [(region.bbox, _class_of(region, image).name) for region in image.regions if region.bbox]
    turns = [
        Turn(asked("detection", box_format.coordinates, image.image), "Yes" if image.has_artifact else "No"),
        Turn(asked("classification", box_format.coordinates, image.image), classes_answer(image)),
        Turn(f"{where}\n{ONLY_THOSE_KINDS}", regions_answer(regions, image.size, box_format)),
        Turn(OTHER, image.explanation or _NO_OTHER),
    ]
    return _row(image, turns)


def classes_answer(image: BenchmarkImage) -> str:
    """Write the classes of an image as a numbered list in the order of the taxonomy, with a remark on others."""
    remarks: dict[ArtifactClass, str] = {}
    for region in image.regions:
        kind = _class_of(region, image)
        remarks[kind] = remarks.get(kind) or _END_OF_REMARK.split(region.caption.strip())[0].strip()
    kinds = sorted(remarks, key=lambda kind: kind.id) or [NO_ARTIFACTS]
    lines = []
    for number, kind in enumerate(kinds, start=1):
        remark = f": {remarks[kind]}" if kind == _OTHER_CLASS and remarks[kind] else ""
        lines.append(f"{number}. {kind.name}{remark}.")
    return "\n".join(lines)


def _is_known(image: BenchmarkImage) -> bool:
    return image.has_artifact is not None and bool(image.regions) == image.has_artifact


def _class_of(region: Region, image: BenchmarkImage) -> ArtifactClass:
    kind = find_class(region.name)
    if kind is None:
        raise UserError(f"regions must have a class of SynArtifact, got '{region.name}' in the image '{image.id}'")
    return kind


def _row(image: BenchmarkImage, turns: list[Turn]) -> dict[str, Any]:
    return {
        "id": image.id,
        "images": [{"bytes": image.image, "path": None}],
        "messages": list(to_messages(turns)),
    }
