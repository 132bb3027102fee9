"""Records of the layer: an edit with what was before and after, and what the edits of a sample add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from ..schema.boxes import Box


Action = Literal["accept", "reject", "relabel", "box", "mask", "add", "remove", "undo"]
ACTIONS: tuple[Action, ...] = get_args(Action)

ACCEPTED, REJECTED = "accept", "reject"

Key = tuple[str, str]
"""Split and id of a sample; the split of pairs is empty, because their ids are unique in the dataset."""


@dataclass(frozen=True)
class Values:
    """
    What an edit finds or leaves of a sample. `None` stands for what the edit does not touch.

    Attributes:
        verdict (`str`, *optional*): `"accept"`, `"reject"`, or empty for undecided.
        region (`int`, *optional*): Number of a region in the data, from 0; added regions continue the count.
        present (`bool`, *optional*): Whether the region is there.
        type (`str`, *optional*): Its artifact type, or its class in a benchmark's words.
        box (`tuple[float, float, float, float]`, *optional*): `(x_min, y_min, x_max, y_max)`, exclusive maxima, px.
        mask (`Mapping`, *optional*): COCO's run-length encoding, `size` and `counts`; empty if it has no mask.
    """

    verdict: str | None = None
    region: int | None = None
    present: bool | None = None
    type: str | None = None
    box: Box | None = None
    mask: Mapping[str, Any] | None = None

    def over(self, earlier: Values) -> Values:
        """Return `earlier` with the values that this one has."""
        own = {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}
        return replace(earlier, **own)

    def contradicts(self, known: Values) -> bool:
        """Return whether a value of this one is known to be another."""
        named = (one.name for one in fields(self))
        both = ((getattr(self, name), getattr(known, name)) for name in named)
        return any(mine is not None and theirs is not None and mine != theirs for mine, theirs in both)

    def as_dict(self) -> dict[str, Any]:
        """Return the values that there are, JSON-serialisable."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        values = {name: value for name, value in named.items() if value is not None}
        return values | ({"box": list(self.box)} if self.box is not None else {})

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Values:
        """Return the values that [`as_dict`] stored."""
        box = stored.get("box")
        return cls(**{**stored, **({"box": (box[0], box[1], box[2], box[3])} if box else {})})


@dataclass(frozen=True)
class Edit:
    """
    A decision of a person on a sample.

    Attributes:
        sample, split (`str`): Id of the pair or image, and its split; the split of a pair is empty.
        action (`str`): One of `ACTIONS`.
        who (`str`): Name of the person.
        at (`str`): When, ISO 8601, UTC.
        data (`str`): Digest of the images and regions that the person saw; see
            [`~datasets_script.edits.digests.pair_digest`]. The edit holds for no others.
        before, after (`Values`): What the edit found, and what it left.
    """

    sample: str
    split: str
    action: Action
    who: str
    at: str
    data: str
    before: Values
    after: Values

    @property
    def key(self) -> Key:
        """Return what tells the sample from others."""
        return self.split, self.sample

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a line of the layer stores it, JSON-serialisable."""
        named = {name: getattr(self, name) for name in ("sample", "split", "action", "who", "at", "data")}
        return {**named, "before": self.before.as_dict(), "after": self.after.as_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Edit:
        """
        Return the record that [`as_dict`] stored.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        before, after = (Values.from_dict(stored[name]) for name in ("before", "after"))
        if stored["action"] not in ACTIONS:
            raise ValueError(f"`action` must be among {', '.join(ACTIONS)}, got {stored['action']!r}")
        named = {name: stored[name] for name in ("sample", "split", "action", "who", "at", "data")}
        return cls(**named, before=before, after=after)


@dataclass(frozen=True)
class SampleEdits:
    """
    What the edits of a sample add up to.

    Attributes:
        data (`str`): Digest of the data that they were made on.
        verdict (`str`): `"accept"`, `"reject"`, or empty for undecided.
        regions (`Mapping[int, Values]`): The last values of each region that was edited, by its number.
        standing (`tuple[Edit, ...]`): Edits that were not undone, in order.
    """

    data: str = ""
    verdict: str = ""
    regions: Mapping[int, Values] = field(default_factory=dict)
    standing: tuple[Edit, ...] = ()

    def then(self, edit: Edit) -> SampleEdits:
        """Return the sum with a further edit. One that was made on other data makes those before it void."""
        earlier = self if edit.data == self.data else SampleEdits(edit.data)
        standing = earlier.standing[:-1] if edit.action == "undo" else (*earlier.standing, edit)
        regions, after = dict(earlier.regions), edit.after
        if after.region is not None:
            regions[after.region] = after.over(regions.get(after.region, Values()))
        verdict = earlier.verdict if after.verdict is None else after.verdict
        return SampleEdits(edit.data, verdict, regions, standing)

    def known(self, values: Values) -> Values:
        """Return what the edits say about what `values` is about: the verdict, or a region."""
        if values.region is not None:
            return self.regions.get(values.region, Values())
        return Values(verdict=self.verdict)
