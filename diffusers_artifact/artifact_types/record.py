"""Record of an artifact type: its words and colour in explanations, figures and reports."""

from __future__ import annotations

from dataclasses import dataclass

from ..mapping import ArtifactType


@dataclass(frozen=True)
class ArtifactTypeRecord:
    """
    Words and colour of an artifact type.

    Texts are templates for `str.format`. For an artifact on a part they may contain `{part}` (`"ear"`), `{owner}`
    (`"the cat"`), `{owners}` (`"the cat's"`), `{have}` (has, have), `{an_extra}` (an extra, extra), `{are}` (is, are),
    `{they}` (it, they) and `{their}` (its, their); for one on two entities `{couple}` (`"cat and dog"`), `{both}`
    (`"the cat and the dog"`) and `{each_other}` (each other, one another); with a place also `{place}` (`"in the
    upper left of the image"`). One that may be on a part, a whole entity or a region without a name takes `{thing}`
    (`"ear"`, `"cat"`, `"region"`), `{the_thing}` (`"the cat's ear"`, `"the cat"`, `"a region"`) and `{thing_is}` (is,
    are).

    Args:
        name (`str`): Name of the type, a value of [`~diffusers_artifact.mapping.ArtifactType`].
        plural (`str`): Plural of the name.
        short_name (`str`): Three letters, for progress messages.
        color (`tuple[int, int, int]`): RGB, 0 to 255, from Okabe and Ito's colour-blind-safe palette.
        marker (`str`): matplotlib's name of the marker in charts.
        label (`str`): Short noun phrase without an article.
        clause (`str`): Clause that says what is wrong, to begin or continue a sentence.
        clause_with_place (`str`): The same clause with the place.
        ending (`str`, *optional*, defaults to `""`): End of the clause in a sentence about this artifact only.
        of_two_entities (`bool`, *optional*, defaults to `False`): Whether it concerns two entities instead of a part.
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
