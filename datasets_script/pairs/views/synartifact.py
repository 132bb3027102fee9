"""One row an image of SynArtifact-1K: which kinds of artifacts it has, or the paper's four questions on where."""

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
# What follows would read as the next entry of a list.
_END_OF_REMARK = re.compile(r"[.;:\n]")


def classification_row(image: BenchmarkImage, box_format: BoxFormat) -> dict[str, Any] | None:
    """
    The task of SynArtifact §3.3 as a row of [`~datasets_script.pairs.views.vqa.FEATURES`]: the question of `artiagent
    predict`, answered with a numbered list of classes.

    Args:
        image (`BenchmarkImage`): Of SynArtifact-1K.
        box_format (`BoxFormat`): Has no part in it; as of [`detection_row`].

    Returns:
        `dict`: `None` where the benchmark does not say which kinds there are.

    Raises:
        UserError: a region has a class that is none of SynArtifact's.
    """
    if not _is_known(image):
        return None
    return _row(image, [Turn(asked("classification", box_format.coordinates, image.image), classes_answer(image))])


def detection_row(image: BenchmarkImage, box_format: BoxFormat) -> dict[str, Any] | None:
    """
    The four turns of SynArtifact §A.3 as a row: are there artifacts, of which kinds, where, and any other. Clean
    images are asked all four as well, so that no question gives away its answer. Arguments and errors as of
    [`classification_row`].
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
    """The numbered list of an image's classes in the order of the taxonomy; what is other than those is described."""
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
        raise UserError(
            f"image '{image.id}' has a region of the class '{region.name}', which is none of SynArtifact's"
        )
    return kind


def _row(image: BenchmarkImage, turns: list[Turn]) -> dict[str, Any]:
    return {
        "id": image.id,
        "images": [{"bytes": image.image, "path": None}],
        "messages": list(to_messages(turns)),
    }
