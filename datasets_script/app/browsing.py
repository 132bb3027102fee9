"""Samples of a run or a prepared benchmark: an index of all of them, and one at a time with its pictures and edits."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from PIL import Image

from diffusers_artifact.mapping import ARTIFACT_TYPES
from diffusers_artifact.tools import bbox_of_mask
from evaluate_metrics.functional.regions import region_mask

from ..edits.digests import image_digest, pair_digest
from ..edits.image_rows import edited_image
from ..edits.layer import ConflictError, EditLayer, now
from ..edits.pair_rows import edited_pair
from ..edits.records import Action, Edit, Key, SampleEdits, Values
from ..edits.shapes import boxed, within
from ..pairs.named_images import columns_of, names_images, restored_row
from ..schema.boxes import Box
from ..schema.features import NOISE_COLUMNS, PAIR_FEATURES, current_row
from ..schema.image import BENCHMARK_FEATURES
from ..utils.errors import ArgumentError, UserError
from ..utils.run_lengths import encode_mask
from ..utils.stored_images import stored_pixels


DECISIONS = ("all", "undecided", "accepted", "rejected", "changed")
AGREEMENTS = ("all judges see it", "judges disagree", "no judge sees it")
# Scores that are the answer of a judge, 1 or 0.
_JUDGES = ("vlm_has_artifact", "detector_has_artifact")
# Columns that nobody looks at here.
_UNSEEN = ("source", *NOISE_COLUMNS)
_NO_CLASS = "artifact"


@dataclass(frozen=True)
class Entry:
    """
    A sample in the index.

    Attributes:
        key (`tuple[str, str]`): Split and id.
        file, group, row (`str`, `int`, `int`): Where it lies: Parquet file, row group, and row within.
        types, parts (`tuple[str, ...]`): Of its regions, in order; parts of pairs only.
        scores (`Mapping[str, tuple[float, ...]]`): By name, one of each region that has it. Of a benchmark, the
            numbers in `metadata`.
    """

    key: Key
    file: str
    group: int
    row: int
    types: tuple[str, ...]
    parts: tuple[str, ...]
    scores: Mapping[str, tuple[float, ...]]

    @property
    def of_pairs(self) -> bool:
        """Return whether it is a pair, not an image of a benchmark."""
        return not self.key[0]

    @property
    def agreement(self) -> str:
        """Return what the judges of curation say together, one of `AGREEMENTS`; empty without judges."""
        answers = [answer for name in _JUDGES for answer in self.scores.get(name, ())]
        if not answers:
            return ""
        seen = sum(answers)
        return AGREEMENTS[0] if seen == len(answers) else AGREEMENTS[1] if seen else AGREEMENTS[2]


@dataclass(frozen=True)
class Choice:
    """
    Choice of samples.

    Args:
        types, parts (`tuple[str, ...]`, *optional*): Samples with a region of any of these; empty for all.
        decision (`str`, *optional*, defaults to `"all"`): One of `DECISIONS`.
        score (`str`, *optional*): Name of a score; empty for none.
        least, most (`float`, *optional*): Bounds of that score, of any region.
        agreement (`str`, *optional*): One of `AGREEMENTS`; empty for all.
        find (`str`, *optional*): Part of the id.
    """

    types: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    decision: str = "all"
    score: str = ""
    least: float | None = None
    most: float | None = None
    agreement: str = ""
    find: str = ""

    def fits(self, entry: Entry, edits: SampleEdits) -> bool:
        """Return whether a sample is chosen, as it is with its edits."""
        return (
            self.find.lower() in entry.key[1].lower()
            and (not self.types or bool(set(self.types) & set(_types_with(entry, edits))))
            and (not self.parts or bool(set(self.parts) & set(entry.parts)))
            and (not self.agreement or entry.agreement == self.agreement)
            and self._fits_decision(edits)
            and self._fits_score(entry)
        )

    def _fits_decision(self, edits: SampleEdits) -> bool:
        return {
            "undecided": not edits.verdict,
            "accepted": edits.verdict == "accept",
            "rejected": edits.verdict == "reject",
            "changed": _changes_regions(edits),
        }.get(self.decision, True)

    def _fits_score(self, entry: Entry) -> bool:
        if not self.score:
            return True
        low = -np.inf if self.least is None else self.least
        high = np.inf if self.most is None else self.most
        return any(low <= value <= high for value in entry.scores.get(self.score, ()))


@dataclass(frozen=True, eq=False)
class SeenRegion:
    """
    A region as it is with its edits.

    Attributes:
        number (`int`): Its number in the data; added ones continue the count.
        type (`str`): Artifact type, or class.
        box (`tuple[float, float, float, float]`, *optional*): `(x_min, y_min, x_max, y_max)`, exclusive maxima, px.
        mask (`np.ndarray` of shape `(height, width)`, `bool`, *optional*): Its pixels, if it has more than a box; of a
            heat map those of at least a half, or what is above 0 if there are none.
        is_mask (`bool`): Whether the data has these pixels as a mask, not as polygons or a heat map.
        label, caption (`str`): A few words, and a sentence.
        facts (`Mapping[str, str]`): Further fields, by name.
    """

    number: int
    type: str
    box: Box | None
    mask: np.ndarray | None
    is_mask: bool
    label: str
    caption: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sample:
    """
    A sample that is looked at.

    Attributes:
        key (`tuple[str, str]`): Split and id.
        row (`Mapping`): Its row as stored.
        edits (`SampleEdits`): Edits that hold for it.
        void (`bool`): Whether there are others, made on other images or regions.
        of_pairs (`bool`): Whether it is a pair, not an image of a benchmark.
    """

    key: Key
    row: Mapping[str, Any]
    edits: SampleEdits
    void: bool
    of_pairs: bool

    @cached_property
    def digest(self) -> str:
        """Return the digest of its images and regions."""
        return (pair_digest if self.of_pairs else image_digest)(self.row)

    @property
    def stamp(self) -> str:
        """Return what tells whether somebody has edited it since."""
        standing = self.edits.standing
        return f"{len(standing)} {standing[-1].at}" if standing else ""

    @cached_property
    def edited(self) -> Mapping[str, Any]:
        """Return the row with its edits, even if it is rejected."""
        apply = edited_pair if self.of_pairs else edited_image
        return apply(self.row, replace(self.edits, verdict="")) or self.row

    @property
    def pictures(self) -> dict[str, bytes]:
        """Return the image files by name, that with artifacts last."""
        if not self.of_pairs:
            return {"image": self.row["image"]["bytes"]}
        return {"clean": self.row["clean"]["bytes"], "artifact": self.row["flawed"]["bytes"]}

    @property
    def image(self) -> Image.Image:
        """Return the image that regions are marked in, RGB."""
        with Image.open(io.BytesIO(list(self.pictures.values())[-1])) as image:
            return image.convert("RGB")

    @cached_property
    def size(self) -> tuple[int, int]:
        """Return width and height, px."""
        with Image.open(io.BytesIO(list(self.pictures.values())[-1])) as image:
            return image.size

    @cached_property
    def regions(self) -> tuple[SeenRegion, ...]:
        """Return its regions, with their edits."""
        name = "artifacts" if self.of_pairs else "regions"
        edited = self.edits.regions
        numbers = sorted({*range(len(self.row[name])), *edited})
        kept = [number for number in numbers if edited.get(number, Values()).present is not False]
        seen = _seen_artifact if self.of_pairs else _seen_region
        return tuple(seen(number, one, self.size) for number, one in zip(kept, self.edited[name], strict=True))

    def region(self, number: int) -> SeenRegion:
        """
        Return a region.

        Raises:
            UserError: It is not there.
        """
        found = next((one for one in self.regions if one.number == number), None)
        if found is None:
            raise UserError(f"region {number + 1} of '{self.key[1]}' is not there; choose one of those shown")
        return found


class Library:
    """
    Run or prepared benchmark that is looked at and edited.

    Args:
        folder (`Path`): A folder written by `artiagent synthesize`, `corrupt`, `merge` or `prepare --out`, or by the
            tab Make.

    Raises:
        UserError: Its layer of edits is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.layer = folder, EditLayer(folder)
        self.entries: list[Entry] = []
        self.guard = RLock()
        self._place: dict[Key, int] = {}
        self._read: dict[str, tuple[tuple[int, int] | None, list[Entry]]] = {}
        # Of samples that were edited.
        self._digests: dict[Key, str] = {}

    def refresh(self) -> None:
        """
        Index files that are new or have changed, and read edits of others.

        Raises:
            UserError: The folder holds neither pairs nor images of a benchmark.
        """
        with self.guard:
            self.layer.refresh()
            stamps = {path: _stamp(path) for path in data_files(self.folder)}
            if stamps == {path: stamp for path, (stamp, _) in self._read.items()} and self.entries:
                return
            known = {path: read for path, read in self._read.items() if stamps.get(path) == read[0]}
            self._read = {
                path: known[path] if path in known else (stamp, list(_index(path))) for path, stamp in stamps.items()
            }
            same = {entry.key for _, entries in known.values() for entry in entries}
            self._digests = {key: digest for key, digest in self._digests.items() if key in same}
            self.entries = [entry for _, entries in self._read.values() for entry in entries]
            self._place = {entry.key: number for number, entry in enumerate(self.entries)}

    @property
    def types(self) -> tuple[str, ...]:
        """Return types of regions, those that a region can be given: of pairs all, of a benchmark those it has."""
        if self.entries and self.entries[0].of_pairs:
            return tuple(ARTIFACT_TYPES)
        held = self.held()
        kinds = (kind for entry in self.entries for kind in _types_with(entry, held.get(entry.key, SampleEdits())))
        return tuple(kind for kind, _ in Counter(filter(None, kinds)).most_common()) or (_NO_CLASS,)

    @property
    def parts(self) -> tuple[str, ...]:
        """Return names of parts, the most frequent first."""
        counts = Counter(part for entry in self.entries for part in entry.parts if part)
        return tuple(part for part, _ in counts.most_common())

    @property
    def scores(self) -> tuple[str, ...]:
        """Return names of scores."""
        return tuple(sorted({name for entry in self.entries for name in entry.scores}))

    @property
    def has_judges(self) -> bool:
        """Return whether any sample was judged, so that one can choose by agreement."""
        return any(entry.agreement for entry in self.entries)

    def chosen(self, choice: Choice) -> list[int]:
        """Return the places of the samples that are chosen, ascending."""
        held = self.held()
        return [
            number
            for number, entry in enumerate(self.entries)
            if choice.fits(entry, held.get(entry.key, SampleEdits()))
        ]

    def held(self) -> dict[Key, SampleEdits]:
        """
        Return the edits that hold: those that were made on the images and regions that are there.

        Raises:
            UserError: A file of the data cannot be read.
        """
        with self.guard:
            edited = {key: edits for key, edits in self.layer.samples.items() if edits.standing and key in self._place}
            self._find_digests([self.entries[self._place[key]] for key in edited if key not in self._digests])
            return {key: edits for key, edits in edited.items() if self._digests[key] == edits.data}

    def place(self, key: Key) -> int | None:
        """Return the place of a sample; `None` if it is not there."""
        return self._place.get(key)

    def sample(self, key: Key) -> Sample:
        """
        Read a sample with its pictures.

        Raises:
            UserError: It is not there.
        """
        with self.guard:
            entry = self._entry(key)
            if _stamp(entry.file) != self._read[entry.file][0]:
                self.refresh()
                entry = self._entry(key)
            ((_, sample),) = _read_samples([entry])
            edits = self.layer.of(key)
        if not edits.standing:
            return sample
        holds = edits.data == sample.digest
        return replace(sample, edits=edits if holds else SampleEdits(), void=not holds)

    def judge(self, sample: Sample, verdict: str, who: str) -> None:
        """
        Accept or reject a sample; nothing is written if that was decided already.

        Args:
            sample (`Sample`): The sample, as it was looked at.
            verdict (`str`): `"accept"` or `"reject"`.
            who (`str`): Name of the person.

        Raises:
            ArgumentError: Nobody is named.
            ConflictError: Somebody else has edited it meanwhile.
        """
        if verdict == sample.edits.verdict:
            return
        action: Action = "accept" if verdict == "accept" else "reject"
        self._record(sample, action, Values(verdict=sample.edits.verdict), Values(verdict=verdict), who)

    def relabel(self, sample: Sample, number: int, kind: str, who: str) -> None:
        """
        Give a region another type.

        Raises:
            UserError: The region is not there, or has the type already, or pairs know no such type.
            ArgumentError, ConflictError: See [`judge`].
        """
        region = sample.region(number)
        if kind == region.type:
            raise UserError(f"region {number + 1} has the type {kind} already; choose another")
        if not kind or (sample.of_pairs and kind not in ARTIFACT_TYPES):
            raise ArgumentError(f"the type must be among {', '.join(ARTIFACT_TYPES)}, got '{kind}'")
        before, after = Values(region=number, type=region.type), Values(region=number, type=kind)
        self._record(sample, "relabel", before, after, who)

    def move(self, sample: Sample, number: int, box: Box, who: str) -> None:
        """
        Give a region another box. Its mask, if it has one, is cut to it or becomes it; see
        [`~datasets_script.edits.shapes.boxed`].

        Raises:
            UserError: The region is not there, or nothing of it is left.
            ArgumentError, ConflictError: See [`judge`].
        """
        region, area = sample.region(number), within(box, sample.size)
        if not sample.of_pairs and not region.is_mask:
            self._reshape(sample, region, "box", area, None, who)
            return
        assert region.mask is not None  # of pairs, and where `is_mask`
        self._reshape(sample, region, "box", area, boxed(region.mask, area), who)

    def paint(self, sample: Sample, number: int, mask: np.ndarray, who: str) -> None:
        """
        Give a region another mask, of shape `(height, width)`, `bool`. Pixels that belong to another artifact of a
        pair stay its.

        Raises:
            UserError: The region is not there, or nothing of it is left.
            ArgumentError, ConflictError: See [`judge`].
        """
        self._reshape(sample, sample.region(number), "mask", None, mask, who)

    def add(self, sample: Sample, box: Box, kind: str, who: str) -> int:
        """
        Add a region to an image of a benchmark, and return its number.

        Raises:
            UserError: The sample is a pair, whose artifacts are those that were made.
            ArgumentError, ConflictError: See [`judge`].
        """
        if sample.of_pairs:
            raise UserError("a pair has the artifacts that were made, and none can be added; reject it instead")
        number = max([len(sample.row["regions"]) - 1, *sample.edits.regions]) + 1
        after = Values(region=number, present=True, type=kind, box=within(box, sample.size), mask={})
        self._record(sample, "add", Values(region=number, present=False), after, who)
        return number

    def remove(self, sample: Sample, number: int, who: str) -> None:
        """
        Take a region out.

        Raises:
            UserError: It is not there, or the last artifact of a pair.
            ArgumentError, ConflictError: See [`judge`].
        """
        sample.region(number)
        if sample.of_pairs and len(sample.regions) == 1:
            raise UserError("a pair must keep an artifact; reject the pair instead")
        before, after = Values(region=number, present=True), Values(region=number, present=False)
        self._record(sample, "remove", before, after, who)

    def _reshape(
        self, sample: Sample, region: SeenRegion, action: Action, box: Box | None, mask: np.ndarray | None, who: str
    ) -> None:
        if region.box is None:
            raise UserError(f"region {region.number + 1} was published without a place; take it out, and add another")
        if mask is not None and sample.of_pairs:
            others = [one.mask for one in sample.regions if one.number != region.number and one.mask is not None]
            mask = mask & ~np.any(others, axis=0) if others else mask
        if mask is not None and not mask.any():
            raise UserError("a region must keep a pixel of its own; paint some, or take the region out")
        has_mask = region.is_mask and region.mask is not None
        before_mask = encode_mask(region.mask) if has_mask and region.mask is not None else {}
        before = Values(region=region.number, box=region.box, mask=before_mask)
        after_box = box if mask is None else bbox_of_mask(mask)
        after = Values(region=region.number, box=after_box, mask={} if mask is None else encode_mask(mask))
        if before == after:
            raise UserError("nothing was changed")
        self._record(sample, action, before, after, who)

    def _record(self, sample: Sample, action: Action, before: Values, after: Values, who: str) -> None:
        split, name = sample.key
        self.layer.refresh()
        known = self.layer.of(sample.key)
        if known.data == sample.digest and known.standing != sample.edits.standing:
            by = known.standing[-1].who if known.standing else "somebody"
            raise ConflictError(f"'{name}' was changed by {by} meanwhile; look at it again")
        self.layer.record(Edit(name, split, action, who, now(), sample.digest, before, after))

    def _entry(self, key: Key) -> Entry:
        if key not in self._place:
            raise UserError(f"'{key[1]}' is not in '{self.folder}'; choose another sample")
        return self.entries[self._place[key]]

    def _find_digests(self, entries: list[Entry]) -> None:
        for key, sample in _read_samples(entries):
            self._digests[key] = sample.digest


def data_files(folder: Path) -> list[str]:
    """
    Find the Parquet files of a run, of prepared pairs or of a prepared benchmark.

    Raises:
        UserError: There are none.
    """
    for place, pattern in ((folder / "data", "*.parquet"), (folder, "pairs-*.parquet"), (folder, "images-*.parquet")):
        if files := sorted(map(str, place.glob(pattern))):
            return files
    raise UserError(
        f"'{folder}' must be a run, or a benchmark that `artiagent prepare --out` has written, and holds no data yet; "
        "keep pairs in the tab Make, or name another folder by --data"
    )


def _index(path: str) -> Iterator[Entry]:
    """Yield an entry for each row of a file, read without pictures."""
    try:
        with pq.ParquetFile(path) as file:
            names = columns_of(file.schema_arrow.names)
            of_pairs = "pair_id" in names
            if not of_pairs and not {"id", "has_artifact", "regions"} <= set(names):
                raise UserError(f"'{path}' must hold pairs or images of a benchmark, and holds neither")
            wanted = _PAIR_COLUMNS if of_pairs else _IMAGE_COLUMNS
            leaves = [file.schema.column(number).path for number in range(len(file.schema))]
            columns = [leaf for leaf in leaves if (leaf.split(".")[0], leaf.split(".")[-1]) in wanted]
            split = "" if of_pairs else split_of_file(path)
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=columns).to_pylist()
                for number, row in enumerate(rows):
                    described = _of_pair(row) if of_pairs else _of_image(row)
                    name = row["pair_id" if of_pairs else "id"]
                    yield Entry((split, name), path, group, number, *described)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(f"'{path}' is not a complete Parquet file: {error}; restore a copy of it")


_PAIR_COLUMNS = {("pair_id", "pair_id"), *(("artifacts", name) for name in ("type", "part", "scores"))}
_IMAGE_COLUMNS = {("id", "id"), ("metadata", "metadata"), ("regions", "class")}


def split_of_file(path: str) -> str:
    """Return the split of a Parquet file of a prepared dataset, named `NAME-SPLIT-00000-of-00001` or `NAME-SPLIT`."""
    parts = Path(path).stem.split("-")
    if len(parts) > 3 and parts[-2] == "of" and parts[-1].isdecimal():
        parts = parts[:-3]
    return parts[-1]


Described = tuple[tuple[str, ...], tuple[str, ...], Mapping[str, tuple[float, ...]]]


def _of_pair(row: Mapping[str, Any]) -> Described:
    artifacts = row["artifacts"]
    scores: dict[str, tuple[float, ...]] = {}
    for artifact in artifacts:
        for name, value in json.loads(artifact["scores"]).items():
            scores[name] = (*scores.get(name, ()), value)
    return tuple(one["type"] for one in artifacts), tuple(one["part"] for one in artifacts), scores


def _of_image(row: Mapping[str, Any]) -> Described:
    numbers = {
        name: (float(value),)
        for name, value in json.loads(row["metadata"]).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    return tuple(region["class"] for region in row["regions"] or ()), (), numbers


def _stamp(path: str) -> tuple[int, int] | None:
    """Return what tells whether a file has changed; `None` if it is gone."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _read_samples(entries: Iterable[Entry]) -> Iterator[tuple[Key, Sample]]:
    """
    Yield samples as they are without edits, a row group at a time.

    Raises:
        UserError: A file cannot be read, or has changed.
    """
    groups: dict[tuple[str, int], dict[int, Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.file, entry.group), {})[entry.row] = entry
    for (path, group), wanted in groups.items():
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                names = [name for name in file.schema_arrow.names if columns_of([name])[0] not in _UNSEEN]
                batches = islice(file.iter_batches(1, row_groups=[group], columns=names), max(wanted) + 1)
                rows = {number: batch.to_pylist()[0] for number, batch in enumerate(batches) if number in wanted}
                named = names_images(file.schema_arrow)
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(path, error) from error
        for number, entry in wanted.items():
            row = rows.get(number, {})
            if row.get("pair_id" if entry.of_pairs else "id") != entry.key[1]:
                raise UserError(f"'{path}' was changed while it was read; load the page again")
            if named:
                features = PAIR_FEATURES if entry.of_pairs else BENCHMARK_FEATURES
                seen = Features({name: feature for name, feature in features.items() if name not in _UNSEEN})
                row = restored_row(row, seen, Path(path).parent)
            yield (
                entry.key,
                Sample(entry.key, current_row(row) if entry.of_pairs else row, SampleEdits(), False, entry.of_pairs),
            )


def _types_with(entry: Entry, edits: SampleEdits) -> Iterable[str]:
    if not edits.regions:
        return entry.types
    kinds: dict[int, str] = dict(enumerate(entry.types))
    for number, values in edits.regions.items():
        if values.present is False:
            kinds.pop(number, None)
        elif values.type is not None:
            kinds[number] = values.type
    return kinds.values()


def _changes_regions(edits: SampleEdits) -> bool:
    return any(edit.after.region is not None for edit in edits.standing)


def _seen_artifact(number: int, row: Mapping[str, Any], size: tuple[int, int]) -> SeenRegion:
    named = {name: row[name] for name in ("tool", "kernel", "entity", "part", "fused_entity") if row[name]}
    scores = {name: f"{value:.3g}" for name, value in json.loads(row["scores"]).items()}
    mask = stored_pixels(row["mask"]) > 127
    texts = (row["label"], row["explanation"])
    return SeenRegion(number, row["type"], _box(row["bbox"]), mask, True, *texts, named | scores)


def _seen_region(number: int, row: Mapping[str, Any], size: tuple[int, int]) -> SeenRegion:
    mask: np.ndarray | None = None
    if row["shape"] == "mask" and row["mask"]:
        mask = stored_pixels(row["mask"]) > 127
    elif row["shape"] == "heat_map" and row["mask"]:
        heat = stored_pixels(row["mask"])
        mask = heat > 32767 if (heat > 32767).any() else heat > 0
    elif row["shape"] == "polygon" and row["polygons"]:
        mask = region_mask([list(polygon) for polygon in row["polygons"]], size)
    facts = {} if row["shape"] in ("mask", "box") else {"published as": row["shape"].replace("_", " ")}
    box, caption = _box(row["bbox"]), row["caption"] or ""
    return SeenRegion(number, row["class"] or _NO_CLASS, box, mask, row["shape"] == "mask", "", caption, facts)


def _box(stored: Sequence[float] | None) -> Box | None:
    return None if stored is None else (stored[0], stored[1], stored[2], stored[3])
