"""What the tab Browse does at a command: find the sample to show, edit it, and say what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..utils.errors import UserError
from .viewer import viewer_value


if TYPE_CHECKING:
    # Not imported at run time: it loads pyarrow and datasets, which only the first look needs.
    from ..edits.records import Key
    from .browsing import Choice, Library, Sample

WORDS = {
    "accept": "accepted",
    "reject": "rejected",
    "relabel": "has a region of another type",
    "box": "has another box",
    "mask": "has another mask",
    "add": "has a new region",
    "remove": "lost a region",
}
"""What is said of a sample after an edit, by action."""

NOTHING = "No sample fits the filter."
_NO_SAMPLE = {"sample": None, "where": "", "memory": None}
# Commands after which the same sample is shown, even if it does not fit the filter any more.
_STAYING = ("stay", "undo", "relabel", "box", "mask", "add", "remove")


@dataclass(frozen=True)
class Choices:
    """What samples can be chosen by: types and parts of regions, names of scores, and whether judges saw them."""

    types: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    has_judges: bool = False


class Desk:
    """
    Run or benchmark on a page. It knows no page: each command says which sample it is about, and what was seen of it.

    Args:
        folder (`Path`): Folder of the data; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._library: Library | None = None
        self._lock = Lock()

    @property
    def library(self) -> Library:
        """
        Return the data, which the first call indexes.

        Raises:
            UserError: There is none.
        """
        from .browsing import Library

        with self._lock:
            if self._library is None:
                opened = Library(self.folder)
                opened.refresh()
                self._library = opened
            return self._library

    def act(self, given: Mapping[str, Any], choice: Choice, who: str) -> dict[str, Any]:
        """
        Obey a command.

        Args:
            given (`Mapping`): `do`, which is `open` (index what is new, and show), `show` (this sample, or the next
                that is chosen), `stay` (this sample in any case), `next`, `previous`, `first`, `last`, `undo` or an
                action of an edit; `key` and `stamp` of the sample that was seen; `region`, `type`, `box` or
                `painted` (an array) of the edit; and `turn`, which comes back.
            choice (`Choice`): Samples that are gone through.
            who (`str`): Name of the person.

        Returns:
            `dict`: What the viewer is to show, JSON-serialisable.
        """
        value: dict[str, Any] = {"turn": given.get("turn"), "who": who, "mode": "", "region": None, "error": False}
        try:
            library = self.library
        except UserError as error:
            return value | {**_NO_SAMPLE, "message": str(error), "error": True}
        do, key, message = given["do"], _key(given), ""
        # What other threads index or edit is seen before or after, never in between.
        with library.guard:
            try:
                if do == "open":
                    library.refresh()
                elif do == "undo":
                    message, key = self._undo(who)
                elif do in WORDS and do != "mask" or given.get("painted") is not None:
                    assert key is not None
                    message, value["region"] = self._edit(library, key, given, who)
                elif do == "mask":
                    value |= {"mode": "mask", "region": given["region"]}
            except UserError as error:
                message, value["error"] = f"{error}.", True
                do = "stay"
            try:
                chosen = library.chosen(choice)
                key, at_end = _next(library, chosen, key, do)
                if at_end and not value["error"]:
                    message = f"{message} That was the {at_end} one." if message else f"This is the {at_end} one."
                return value | self._shown(library, chosen, key, message)
            except UserError as error:
                return value | {**_NO_SAMPLE, "message": f"{message} {error}.".strip(), "error": True}

    def choices(self) -> Choices:
        """Return what samples can be chosen by."""
        try:
            library = self.library
            return Choices(library.types, library.parts, library.scores, library.has_judges)
        except UserError:  # which `act` tells
            return Choices()

    def sample(self, key: Key) -> Sample:
        """Read a sample with its pictures and edits."""
        return self.library.sample(key)

    def _shown(self, library: Library, chosen: list[int], key: Key | None, message: str) -> dict[str, Any]:
        if key is None:
            return {**_NO_SAMPLE, "message": message or NOTHING}
        if library.layer.torn:
            message = f"{message} The last line of {library.layer.path.name} is torn and left out.".strip()
        place = library.place(key)
        number = f"{chosen.index(place) + 1} of {len(chosen)}" if place in chosen else f"not among the {len(chosen)}"
        of_all = f" chosen, {len(library.entries)} in all" if len(chosen) < len(library.entries) else ""
        return {
            "sample": viewer_value(library.sample(key), library.types),
            "message": message,
            "where": f"{number}{of_all}{_counted(library)}",
        }

    def _edit(self, library: Library, key: Key, given: Mapping[str, Any], who: str) -> tuple[str, int | None]:
        """Carry out an edit; return what to say, and the region to choose."""
        _check_name(who)
        library.layer.refresh()
        sample = library.sample(key)
        if sample.stamp != given.get("stamp", ""):
            by = sample.edits.standing[-1].who if sample.edits.standing else "somebody"
            raise UserError(f"'{key[1]}' was changed by {by} meanwhile; look at it again")
        do, region = given["do"], cast(int, given.get("region"))
        chosen: int | None = region
        if do in ("accept", "reject"):
            library.judge(sample, do, who)
            chosen = None
        elif do == "relabel":
            library.relabel(sample, region, given["type"], who)
        elif do == "box":
            library.move(sample, region, tuple(given["box"]), who)
        elif do == "mask":
            library.paint(sample, region, given["painted"], who)
        elif do == "add":
            chosen = library.add(sample, tuple(given["box"]), given["type"], who)
        elif do == "remove":
            library.remove(sample, region, who)
            chosen = None
        return f"{key[1]} {WORDS[do]}.", chosen

    def _undo(self, who: str) -> tuple[str, Key]:
        _check_name(who)
        undone = self.library.layer.undo(who)
        return f"Undone: the last edit of {undone.sample}.", undone.key


def _check_name(who: str) -> None:
    if not who:
        raise UserError("type your name first, which every edit carries")


def _key(given: Mapping[str, Any]) -> Key | None:
    key = given.get("key")
    return (str(key[0]), str(key[1])) if key else None


def _next(library: Library, chosen: list[int], key: Key | None, do: str) -> tuple[Key | None, str]:
    """Return the sample to show after a command, and whether that stayed at an end: `"first"`, `"last"` or empty."""
    place = library.place(key) if key is not None else None
    if place is not None and do in _STAYING:
        return key, ""
    if not chosen:
        return None, ""
    at_end, target = "", chosen[0]
    if do == "last":
        target = chosen[-1]
    elif place is not None and do != "first":
        if do == "previous":
            before = [number for number in chosen if number < place]
            target, at_end = (before[-1], "") if before else (chosen[0], "first")
        else:
            moves = do in ("next", "accept", "reject")
            after = [number for number in chosen if (number > place if moves else number >= place)]
            target, at_end = (after[0], "") if after else (chosen[-1], "last" if moves else "")
    return library.entries[target].key, at_end


def _counted(library: Library) -> str:
    samples = library.held().values()
    counts = {
        "accepted": sum(edits.verdict == "accept" for edits in samples),
        "rejected": sum(edits.verdict == "reject" for edits in samples),
        "changed": sum(any(edit.after.region is not None for edit in edits.standing) for edits in samples),
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f" · {told}" if told else ""


def begun_mask(sample: Sample, number: int) -> np.ndarray:
    """Return the mask that painting a region begins with, of shape `(height, width)`, `bool`: its own, or its box."""
    from ..edits.shapes import filled, within

    region = sample.region(number)
    if region.mask is not None:
        return region.mask
    if region.box is None:
        return np.zeros(sample.size[::-1], dtype=bool)
    return filled(within(region.box, sample.size), sample.size)
