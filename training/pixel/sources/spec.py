"""An entry of a mixture: what is read from where, how often, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from datasets_script.utils.errors import UserError


ROLES = ("train", "test")
LABELS = ("mask", "majority", "soft")
PHOTOS_BY = ("path", "name")


@dataclass(frozen=True)
class SourceSpec:
    """
    An entry of a mixture.

    Args:
        kind (`str`): `"pairs"` (of `artiagent synthesize` or `artiagent corrupt`), `"benchmark"` (of `artiagent
            prepare` or `artiagent pseudo-label`) or `"photos"` (a folder of real photos without artifacts).
        source (`str`): Folder, pattern for Parquet files of pairs, name of a prepared benchmark, or id of a dataset on
            the Hub.
        weight (`float`, *optional*, defaults to 1.0): How often units are drawn from it, relative to other sources.
        limit (`int`, *optional*): Number of units to use, chosen by the seed. Defaults to all.
        role (`str`, *optional*, defaults to `"train"`): `"train"`, or `"test"` for one that is held out.
        split (`str`, *optional*): Split to read. Defaults to all of pairs, and to the benchmark's test split.
        labels (`str`, *optional*, defaults to `"mask"`): How marks of a benchmark become labels: `"mask"` (at least
            half), `"majority"` (of RichHF-18K: images of three annotators, pixels that two of them marked) or `"soft"`
            (heat maps as they are).
        revision (`str`, *optional*): Branch, tag or commit of a dataset on the Hub.
        photos_by (`str`, *optional*, defaults to `"path"`): By what units show the same photo, so that they are held
            out together: `"path"` of the photo in its folder, or `"name"` of the file, for views of photos in several
            folders.

    Raises:
        UserError: A value is not as described.
    """

    kind: str
    source: str
    weight: float = 1.0
    limit: int | None = None
    role: str = "train"
    split: str | None = None
    labels: str = "mask"
    revision: str | None = None
    photos_by: str = "path"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("role", self.role, ROLES),
            ("labels", self.labels, LABELS),
            ("photos_by", self.photos_by, PHOTOS_BY),
        ):
            if value not in known:
                raise UserError(f"--sources must have a {name} among {', '.join(known)}, got '{value}'")
        if not isinstance(self.source, str) or not self.source:
            raise UserError(f"--sources must name a source of kind '{self.kind}', got {self.source!r}")
        if not (isinstance(self.weight, int | float) and self.weight > 0):
            raise UserError(f"--sources must have weights above 0, got {self.weight} for '{self.source}'")
        if self.limit is not None and not (isinstance(self.limit, int) and self.limit >= 1):
            raise UserError(f"--sources must have a limit of at least 1, got {self.limit} for '{self.source}'")

    @classmethod
    def parse(cls, value: str | Mapping[str, Any]) -> SourceSpec:
        """
        Read an entry as a recipe or the command line gives it.

        Args:
            value (`str` or `Mapping`): The arguments of this class by name, or a text `KIND=SOURCE`, with others of
                them after commas: `"pairs=runs/held_out,role=test,limit=100"`.

        Raises:
            UserError: It has another form.
        """
        if isinstance(value, str):
            value = _read_text(value)
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise UserError(f"--sources must have entries with {', '.join(sorted(known))}, got '{unknown[0]}'")
        if missing := sorted({"kind", "source"} - set(value)):
            raise UserError(f"--sources must have entries with kind and source, got one without {missing[0]}")
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults, JSON-serialisable."""
        return {
            field.name: value
            for field, value in zip(fields(self), asdict(self).values(), strict=True)
            if value != field.default
        }


def _read_text(text: str) -> dict[str, Any]:
    first, *others = text.split(",")
    parts = [part.partition("=") for part in others]
    kind, equals, source = first.partition("=")
    if not equals or any(not equals for _, equals, _ in parts):
        raise UserError(
            f"--sources must be KIND=SOURCE, such as pairs=runs/demo or pairs=runs/demo,role=test, got '{text}'"
        )
    values: dict[str, Any] = {name: value for name, _, value in parts}
    for name, read in (("weight", float), ("limit", int)):
        try:
            values |= {name: read(values[name])} if name in values else {}
        except ValueError:
            raise UserError(f"--sources must have a number as {name}, got '{values[name]}' in '{text}'") from None
    return {"kind": kind, "source": source, **values}
