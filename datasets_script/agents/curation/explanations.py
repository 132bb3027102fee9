"""Labels and explanations from templates over type, entity and part, for runs without a vision-language model."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers_artifact.artifact_types import RECORDS

from ...schema.pair import Artifact
from ...schema.perception import UNNAMED
from ...utils.english import capitalized, is_plural, plural, possessive, spelled_out


EXPLANATION_SOURCE = "template"


def label(artifact: Artifact) -> str:
    """Write a label of a few words, e.g. `"duplicated ear"`, `"missing buttons"`, `"fused cat and dog"`."""
    return RECORDS[artifact.type].label.format(**_words(artifact))


def local_explanation(artifact: Artifact, image_size: tuple[int, int]) -> str:
    """
    Write one sentence on what is wrong with one artifact, and roughly where.

    Args:
        artifact (`Artifact`): Its type, names and box are used.
        image_size (`tuple[int, int]`): `(width, height)` of the image in pixels.
    """
    place = _place(artifact.bbox, image_size)
    ending = RECORDS[artifact.type].ending.format(**_words(artifact))
    return capitalized(f"{clause(artifact, place)}{ending}.")


def global_explanation(artifacts: Sequence[Artifact]) -> str:
    """
    Write one sentence on what is wrong with an image as a whole, without places.

    Args:
        artifacts (`Sequence[Artifact]`): All artifacts of the image, at least one.

    Raises:
        ValueError: There is no artifact.
    """
    if not artifacts:
        raise ValueError("`artifacts` must hold at least one artifact, got none")
    clauses = _clauses(artifacts)
    if len(clauses) == 1:
        return f"{capitalized(clauses[0])}."
    listed = f"{', '.join(clauses[:-1])}{',' * (len(clauses) > 2)} and {clauses[-1]}"
    return f"The image has {spelled_out(len(artifacts))} flaws: {listed}."


def _clauses(artifacts: Sequence[Artifact]) -> list[str]:
    """Return a clause for each artifact, but one for all at regions without a name, which nothing tells apart."""
    clauses = [clause(artifact) for artifact in artifacts if artifact.entity != UNNAMED]
    regions = [artifact for artifact in artifacts if artifact.entity == UNNAMED]
    if len(regions) == 1:
        clauses.append(clause(regions[0]))
    elif regions:
        words = {
            **_words(regions[0]),
            "the_thing": f"{spelled_out(len(regions))} {plural(UNNAMED)}",
            "thing_is": "are",
        }
        clauses.append(RECORDS[regions[0].type].clause.format(**words))
    return clauses


def clean_description(caption: str) -> str:
    """
    Describe a clean image: what it shows, and that nothing is wrong with it.

    Args:
        caption (`str`): A phrase, a sentence, or empty.
    """
    sound = "No part is doubled, missing, distorted or merged with another."
    return f"{capitalized(caption.rstrip(' .'))}. {sound}" if caption.strip(" .") else sound


def subject(artifact: Artifact) -> str:
    """
    Name what an artifact concerns: `"the ear of the cat"`, `"the cat"`, `"a region"`, `"the cat and the dog"` or
    `"two coins"`.
    """
    if not RECORDS[artifact.type].of_two_entities:
        return f"the {artifact.part} of the {artifact.entity}" if artifact.part else _whole(artifact.entity)
    if artifact.entity != artifact.fused_entity:
        return f"the {artifact.entity} and the {artifact.fused_entity}"
    return artifact.entity if is_plural(artifact.entity) else f"two {plural(artifact.entity)}"


def clause(artifact: Artifact, place: str = "") -> str:
    """
    Write what is wrong, and where if a place is given, as a clause that can begin or continue a sentence:
    `"the cat has an extra ear"`.
    """
    record = RECORDS[artifact.type]
    template = record.clause_with_place if place else record.clause
    return template.format(**_words(artifact), place=place)


def _words(artifact: Artifact) -> dict[str, str]:
    """Return the words for the templates of [`~diffusers_artifact.artifact_types.ArtifactTypeRecord`]."""
    entity, part, owner = artifact.entity, artifact.part, f"the {artifact.entity}"
    thing = part or entity
    words = {
        "part": part,
        "owner": owner,
        "owners": possessive(owner),
        "have": "have" if is_plural(entity) else "has",
        "an_extra": "extra" if is_plural(part) else "an extra",
        "are": "are" if is_plural(part) else "is",
        "they": "they" if is_plural(part) else "it",
        "their": "their" if is_plural(part) else "its",
        "thing": thing,
        "the_thing": f"{possessive(owner)} {part}" if part else _whole(entity),
        "thing_is": "are" if is_plural(thing) else "is",
    }
    if not RECORDS[artifact.type].of_two_entities:
        return words
    if entity != artifact.fused_entity:
        return {
            **words,
            "couple": f"{entity} and {artifact.fused_entity}",
            "both": f"{owner} and the {artifact.fused_entity}",
            "each_other": "each other",
        }
    if is_plural(entity):
        return {**words, "couple": plural(entity), "both": owner, "each_other": "one another"}
    return {**words, "couple": plural(entity), "both": f"two {plural(entity)}", "each_other": "each other"}


def _whole(entity: str) -> str:
    return f"a {entity}" if entity == UNNAMED else f"the {entity}"


def _place(bbox: tuple[float, float, float, float], image_size: tuple[int, int]) -> str:
    """Name the ninth of the image that holds the centre of a box."""
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
