"""Labels and explanations from templates over type, entity and part, where no vision-language model writes them."""

from __future__ import annotations

from collections.abc import Sequence

from ...schema.pair import Artifact
from ...utils.english import capitalized, is_plural, plural, possessive, spelled_out


EXPLANATION_SOURCE = "template"


def label(artifact: Artifact) -> str:
    """A few words, e.g. `"duplicated ear"`, `"missing buttons"`, `"distorted face"`, `"fused cat and dog"`."""
    if artifact.type == "fusion":
        if artifact.entity == artifact.fused_entity:
            return f"fused {plural(artifact.entity)}"
        return f"fused {artifact.entity} and {artifact.fused_entity}"
    adjective = {"duplication": "duplicated", "omission": "missing", "distortion": "distorted"}[artifact.type]
    return f"{adjective} {artifact.part}"


def local_explanation(artifact: Artifact, image_size: tuple[int, int]) -> str:
    """
    One sentence on what is wrong with one artifact, and roughly where.

    Args:
        artifact (`Artifact`): Its type, names and box are used.
        image_size (`tuple[int, int]`): `(width, height)` of the image, pixels.
    """
    plural_part = is_plural(artifact.part)
    endings = {
        "duplication": "",
        "omission": "",
        "distortion": f": {'their' if plural_part else 'its'} pieces do not fit together",
        "fusion": ", with no clear boundary between them",
    }
    place = _place(artifact.bbox, image_size)
    return capitalized(f"{clause(artifact, place)}{endings[artifact.type]}.")


def global_explanation(artifacts: Sequence[Artifact]) -> str:
    """
    One sentence for a flawed image as a whole, without places.

    Args:
        artifacts (`Sequence[Artifact]`): All artifacts of the image, at least one.

    Raises:
        ValueError: no artifact.
    """
    if not artifacts:
        raise ValueError("`artifacts` must hold at least one artifact, got none")
    clauses = [clause(artifact) for artifact in artifacts]
    if len(clauses) == 1:
        return f"{capitalized(clauses[0])}."
    listed = f"{', '.join(clauses[:-1])}{',' * (len(clauses) > 2)} and {clauses[-1]}"
    return f"The image has {spelled_out(len(clauses))} flaws: {listed}."


def clean_description(caption: str) -> str:
    """
    What a clean image shows, and that nothing is wrong with it.

    Args:
        caption (`str`): A phrase or a sentence, or nothing.
    """
    sound = "No part is doubled, missing, distorted or merged with another."
    return f"{capitalized(caption.rstrip(' .'))}. {sound}" if caption.strip(" .") else sound


def subject(artifact: Artifact) -> str:
    """What an artifact concerns: `"the ear of the cat"`, `"the cat and the dog"` or `"two coins"`."""
    if artifact.type != "fusion":
        return f"the {artifact.part} of the {artifact.entity}"
    if artifact.entity != artifact.fused_entity:
        return f"the {artifact.entity} and the {artifact.fused_entity}"
    return artifact.entity if is_plural(artifact.entity) else f"two {plural(artifact.entity)}"


def clause(artifact: Artifact, place: str = "") -> str:
    """
    What is wrong (and where, if a place is given), as a clause that can begin or continue a sentence: `"the cat has an
    extra ear"`.
    """
    part, owner = artifact.part, f"the {artifact.entity}"
    where = f" {place}" if place else ""
    pronoun, be = ("they", "are") if is_plural(part) else ("it", "is")
    if artifact.type == "duplication":
        have = "have" if is_plural(artifact.entity) else "has"
        return f"{owner} {have} {'extra' if is_plural(part) else 'an extra'} {part}{where}"
    if artifact.type == "omission":
        return f"{possessive(owner)} {part} {be} missing" + (f": {pronoun} should be{where}" if place else "")
    if artifact.type == "distortion":
        return f"{possessive(owner)} {part}{f',{where},' if place else ''} {be} distorted"
    if artifact.entity != artifact.fused_entity:
        return f"{owner} and the {artifact.fused_entity} merge into each other{where}"
    if is_plural(artifact.entity):
        return f"{owner} merge into one another{where}"
    return f"two {plural(artifact.entity)} merge into each other{where}"


def _place(bbox: tuple[float, float, float, float], image_size: tuple[int, int]) -> str:
    """The ninth of the image that holds the middle of a box."""
    column = _third((bbox[0] + bbox[2]) / 2, image_size[0])
    row = _third((bbox[1] + bbox[3]) / 2, image_size[1])
    places = (
        ("in the upper left", "at the top", "in the upper right"),
        ("on the left", "in the middle", "on the right"),
        ("in the lower left", "at the bottom", "in the lower right"),
    )
    return f"{places[row][column]} of the image"


def _third(position: float, length: int) -> int:
    return min(2, int(3 * position / length))
