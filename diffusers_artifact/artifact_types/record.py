"""What is said and shown of a type of artifact, wherever it is: in explanations, on sheets and in reports."""

from __future__ import annotations

from dataclasses import dataclass

from ..mapping import ArtifactType


@dataclass(frozen=True)
class ArtifactTypeRecord:
    """
    A type of artifact in words and colour.

    Texts are templates for `str.format`. For an artifact on a part they may hold `{part}` (`"ear"`), `{owner}` (`"the
    cat"`), `{owners}` (`"the cat's"`), `{have}` (has, have), `{an_extra}` (an extra, extra), `{are}` (is, are),
    `{they}` (it, they) and `{their}` (its, their); for one on two entities `{couple}` (`"cat and dog"`), `{both}`
    (`"the cat and the dog"`) and `{each_other}` (each other, one another); those with a place `{place}` (`"in the
    upper left of the image"`).

    Args:
        name (`str`): As in [`~diffusers_artifact.mapping.ArtifactType`].
        plural (`str`): What several are called.
        short_name (`str`): Three letters, for lines of progress.
        color (`tuple[int, int, int]`): RGB, 0 to 255, of Okabe and Ito's palette, which stays apart for the
            colour-blind.
        marker (`str`): Of its points in charts, as matplotlib names it.
        label (`str`): A few words without an article.
        clause (`str`): What is wrong, as a clause that can begin or continue a sentence.
        clause_with_place (`str`): The same, and where.
        ending (`str`, *optional*, defaults to `""`): Ends the clause in a sentence on one artifact alone.
        of_two_entities (`bool`, *optional*, defaults to `False`): It concerns two entities and no part.
    """

    name: ArtifactType
    plural: str
    short_name: str
    color: tuple[int, int, int]
    marker: str
    label: str
    clause: str
    clause_with_place: str
    ending: str = ""
    of_two_entities: bool = False
