"""
Queue of images that several people annotate at once, in a folder.

The folder holds `queue.sqlite` and `images/`. SQLite is what makes it safe: each step is a transaction, so that no two
pages get one item, and a process that is killed loses nothing but what was not sent yet. It has to lie on a local
disk, because locks of network file systems cannot be relied on.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from diffusers_artifact.mapping import ARTIFACT_TYPES

from ..utils.errors import ArgumentError, UserError, check_at_least, check_choice
from ..utils.files import replacing
from ..utils.photos import SourceError, open_source
from .records import PHASES, VERDICTS, Answer, Claim, Item, Marking, Phase


QUEUE_FILE = "queue.sqlite"
VERSION = 1
ADMIN = "admin"
# Number of the tag in an image's metadata.
_ORIENTATION = 0x0112
OPEN = "open"

GUIDELINE = """\
**Is anything wrong with the structure of the image?** Say *yes* for parts that are doubled, missing, distorted or
grown together: six fingers, an absent ear, a bent wheel, a hand that merges with a cup. Say *no* for what is only
ugly, blurred, oddly lit or unlikely. Say *unsure* if you would not defend either answer; an admin decides then.

**Mark each artifact tightly**, with what belongs to it and nothing else: the extra hand, not the person. For a missing
part, mark where it should be. A caption says what is wrong in a few words, *"the left hand has six fingers"*; the
explanation says in one to three sentences what is wrong with the image as a whole."""

_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, file TEXT NOT NULL, sha256 TEXT UNIQUE NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, prompt TEXT NOT NULL, draft TEXT,
    verdict TEXT NOT NULL DEFAULT '');
CREATE TABLE leases (
    phase TEXT NOT NULL, item INTEGER NOT NULL REFERENCES items(number), annotator TEXT NOT NULL, holder TEXT NOT NULL,
    since REAL NOT NULL, until REAL NOT NULL, PRIMARY KEY (phase, item, annotator)) WITHOUT ROWID;
CREATE TABLE answers (
    phase TEXT NOT NULL, item INTEGER NOT NULL REFERENCES items(number), annotator TEXT NOT NULL,
    content TEXT NOT NULL, seconds REAL NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (phase, item, annotator)) WITHOUT ROWID;
CREATE TABLE log (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, annotator TEXT NOT NULL, action TEXT NOT NULL,
    phase TEXT NOT NULL, item TEXT NOT NULL, before TEXT, after TEXT);
CREATE TABLE people (name TEXT PRIMARY KEY, role TEXT NOT NULL, token_sha256 TEXT NOT NULL);
CREATE INDEX verdicts ON items (verdict, number);
"""

# Made when a queue is opened, because queues of earlier packages lack it. `turn` counts up.
_SKIPPED = """
CREATE TABLE IF NOT EXISTS skipped (
    turn INTEGER PRIMARY KEY AUTOINCREMENT, phase TEXT NOT NULL, item INTEGER NOT NULL REFERENCES items(number),
    annotator TEXT NOT NULL, UNIQUE (phase, item, annotator))
"""

_ITEM = "number, id, file, width, height, prompt, draft, verdict"
# Each phase hands out the first item that enough people have neither answered nor hold, and that this one has not;
# what this one has given back comes last, the longest ago first.
_NEXT = f"""
SELECT {_ITEM} FROM items WHERE {{of_phase}}
AND (SELECT count(*) FROM answers a WHERE a.phase = :phase AND a.item = number)
  + (SELECT count(*) FROM leases l WHERE l.phase = :phase AND l.item = number) < :overlap
AND NOT EXISTS (SELECT 1 FROM answers a WHERE a.phase = :phase AND a.item = number AND a.annotator = :annotator)
AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.phase = :phase AND l.item = number AND l.annotator = :annotator)
ORDER BY coalesce(
    (SELECT turn FROM skipped s WHERE s.phase = :phase AND s.item = number AND s.annotator = :annotator), 0), number
LIMIT 1
"""
_OF_PHASE: Mapping[Phase, str] = {"classify": "1", "decide": f"verdict = '{OPEN}'", "mark": "verdict = 'yes'"}


@dataclass(frozen=True)
class QueueSettings:
    """
    Settings of a queue.

    Args:
        overlap (`int`, *optional*, defaults to 1): People who classify each image; 2 or more for agreement.
        mark_overlap (`int`, *optional*, defaults to 1): People who mark each image with artifacts.
        types (`tuple[str, ...]`, *optional*): Types of artifacts; by default all of this package.
        guideline (`str`, *optional*): Guideline in Markdown.
        lease_seconds (`float`, *optional*, defaults to 1800): Time after which an item that was handed out and not
            answered goes to others.

    Raises:
        ArgumentError: A number is below 1, or there is no type.
    """

    overlap: int = 1
    mark_overlap: int = 1
    types: tuple[str, ...] = ARTIFACT_TYPES
    guideline: str = GUIDELINE
    lease_seconds: float = 1800.0

    def __post_init__(self) -> None:
        check_at_least("overlap", self.overlap)
        check_at_least("mark_overlap", self.mark_overlap)
        check_at_least("lease_seconds", self.lease_seconds, 0)
        if not self.types:
            raise ArgumentError("`types` must name at least one type, got none")


class LostClaimError(UserError):
    """Error for an answer to an item that is no longer held; the item was handed on, and its page must be reloaded."""


class DraftError(UserError):
    """Error for a draft that does not fit its image or the queue. The message names the image."""


class AnnotationQueue:
    """
    Queue in a folder. Any number of objects, threads and processes may use one folder at a time.

    Args:
        folder (`Path`): Folder of a queue that [`create`] made.
        clock (`Callable`, *optional*): Returns the time in seconds since the epoch.

    Attributes:
        settings (`QueueSettings`): Settings of the queue.

    Raises:
        UserError: The folder holds no queue, or one of a newer version.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        if not (folder / QUEUE_FILE).is_file():
            raise UserError(f"'{folder}' must hold an annotation queue, found no {QUEUE_FILE}; add images to make one")
        with self._reading() as connection:
            stored = dict(connection.execute("SELECT name, value FROM settings"))
            version = json.loads(stored.pop("version"))
            if version > VERSION:
                raise UserError(
                    f"'{folder}' holds a queue of version {version}, this package reads {VERSION}; update it"
                )
            connection.execute(_SKIPPED)
        values = {name: json.loads(value) for name, value in stored.items()}
        self.settings = QueueSettings(**values | {"types": tuple(values["types"])})

    @classmethod
    def create(cls, folder: Path, settings: QueueSettings | None = None) -> AnnotationQueue:
        """
        Make an empty queue.

        Args:
            folder (`Path`): The folder; it may hold other files.
            settings (`QueueSettings`, *optional*): Settings, which stay.

        Raises:
            UserError: There is a queue already.
        """
        if (folder / QUEUE_FILE).exists():
            raise UserError(f"'{folder}' holds a queue already; open it, or choose another folder")
        (folder / "images").mkdir(parents=True, exist_ok=True)
        with replacing(folder / QUEUE_FILE) as temporary:
            connection = sqlite3.connect(temporary)
            connection.executescript(_TABLES)
            values = {"version": VERSION, **asdict(settings or QueueSettings())}
            with connection:
                connection.executemany(
                    "INSERT INTO settings VALUES (?, ?)", [(name, json.dumps(value)) for name, value in values.items()]
                )
            connection.close()
        return cls(folder)

    def add(
        self,
        images: Sequence[Path],
        prompts: Mapping[str, str] | None = None,
        drafts: Mapping[str, Marking] | None = None,
    ) -> tuple[int, dict[str, str]]:
        """
        Copy images into the queue. Those that it holds already, by name or content, are left out. Images that are
        turned by their metadata, or in a format that browsers do not show, are stored upright as PNG, because boxes
        are those of the upright image.

        Drafts are taken all or none; those of images that are not in the queue, or marked already, are left out.

        Args:
            images (`Sequence[Path]`): The files, in order.
            prompts (`Mapping[str, str]`, *optional*): Prompt by path as in `images`, or else by file name.
            drafts (`Mapping[str, Marking]`, *optional*): Regions to begin the second phase with, by file name; also of
                images that the queue holds already, unless they are marked.

        Returns:
            `tuple[int, dict[str, str]]`: Number of images added, and for each image and each draft left out the
            reason, by file name.

        Raises:
            DraftError: A draft has a type that the queue lacks, leaves its image, or has a mask that is not of it. The
                images were added.
        """
        prompts = prompts or {}
        added, left_out = 0, dict[str, str]()
        for path in images:
            try:
                image = open_source(path, min_side=1)
            except SourceError as error:
                left_out[path.name] = str(error)
                continue
            size, as_it_is = image.size, _is_plain(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            file = f"images/{digest[:16]}{path.suffix.lower() if as_it_is else '.png'}"
            with self._transaction() as connection:
                known = connection.execute(
                    "SELECT id FROM items WHERE sha256 = ? OR id = ?", (digest, path.name)
                ).fetchone()
                if known:
                    same = "content" if known["id"] != path.name else "name"
                    left_out[path.name] = f"the queue holds an image of the same {same}, '{known['id']}'"
                    continue
                if not (self.folder / file).exists():
                    with replacing(self.folder / file, shared=True) as temporary:
                        if as_it_is:
                            shutil.copyfile(path, temporary)
                        else:
                            image.save(temporary, format="PNG")
                connection.execute(
                    "INSERT INTO items (id, file, sha256, width, height, prompt) VALUES (?, ?, ?, ?, ?, ?)",
                    (path.name, file, digest, *size, prompts.get(str(path), prompts.get(path.name, ""))),
                )
            added += 1
        for name, reason in self._begin_with(drafts or {}).items():
            left_out[name] = f"{left_out[name]}; {reason}" if name in left_out else reason
        return added, left_out

    def _begin_with(self, drafts: Mapping[str, Marking]) -> dict[str, str]:
        """Store drafts; return the reason for each one left out."""
        left_out = {}
        with self._transaction() as connection:
            for name, draft in drafts.items():
                row = connection.execute(
                    "SELECT number, width, height, "
                    "EXISTS (SELECT 1 FROM answers WHERE phase = 'mark' AND item = number) AS marked "
                    "FROM items WHERE id = ?",
                    (name,),
                ).fetchone()
                if row is None:
                    left_out[name] = "its draft is left out, because the queue holds no image of this name"
                    continue
                if row["marked"]:
                    left_out[name] = "its draft is left out, because the image is marked already"
                    continue
                _check_draft(name, draft, (row["width"], row["height"]), self.settings.types)
                connection.execute(
                    "UPDATE items SET draft = ? WHERE number = ?", (json.dumps(draft.as_dict()), row["number"])
                )
        return left_out

    def claim(self, annotator: str, phase: Phase, holder: str) -> Claim | None:
        """
        Hand out the next item, or again the one that the page holds already.

        Args:
            annotator (`str`): Name of the annotator.
            phase (`str`): One of `PHASES`.
            holder (`str`): Id of the page.

        Returns:
            `Claim`, *optional*: `None` if nothing is left for this annotator now.

        Raises:
            ArgumentError: There is no such phase, or the name is none.
        """
        _check_name(annotator)
        check_choice("phase", phase, PHASES)
        now = self._clock()
        with self._transaction() as connection:
            held = connection.execute(
                f"SELECT {_ITEM} FROM items JOIN leases ON item = number "
                "WHERE phase = ? AND annotator = ? AND holder = ?",
                (phase, annotator, holder),
            ).fetchone()
            until = now + self.settings.lease_seconds
            if held:
                connection.execute(
                    "UPDATE leases SET until = ? WHERE phase = ? AND item = ? AND annotator = ?",
                    (until, phase, held["number"], annotator),
                )
                return self._claim(connection, held, annotator, phase, holder)
            connection.execute("DELETE FROM leases WHERE until <= ?", (now,))
            overlap = {"classify": self.settings.overlap, "mark": self.settings.mark_overlap}.get(phase, 1)
            row = connection.execute(
                _NEXT.format(of_phase=_OF_PHASE[phase]),
                {"phase": phase, "annotator": annotator, "overlap": overlap},
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?)", (phase, row["number"], annotator, holder, now, until)
            )
            return self._claim(connection, row, annotator, phase, holder)

    def answer(self, claim: Claim, content: str | Marking) -> None:
        """
        Answer an item.

        Args:
            claim (`Claim`): What was handed out.
            content (`str` or `Marking`): A verdict; in the second phase, regions with their explanation.

        Raises:
            LostClaimError: The item was answered already, or handed on because the time was over.
            UserError: The answer cannot be taken; the message tells why.
        """
        stored = self._checked(claim.phase, claim.item, content)
        now = self._clock()
        with self._transaction() as connection:
            lease = connection.execute(
                "SELECT item, since FROM leases JOIN items ON item = number "
                "WHERE phase = ? AND id = ? AND annotator = ? AND holder = ?",
                (claim.phase, claim.item.id, claim.annotator, claim.holder),
            ).fetchone()
            if lease is None:
                raise LostClaimError(
                    f"'{claim.item.id}' is no longer yours: it was answered on another page, or handed on because the "
                    "time was over. Go on with the next one"
                )
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                (claim.phase, lease["item"], claim.annotator, stored, round(now - lease["since"], 3), self._now()),
            )
            connection.execute(
                "DELETE FROM leases WHERE phase = ? AND item = ? AND annotator = ?",
                (claim.phase, lease["item"], claim.annotator),
            )
            self._log(connection, claim.annotator, "answer", claim.phase, claim.item.id, None, stored)
            self._settle(connection, lease["item"])

    def revise(self, annotator: str, phase: Phase, item: str, content: str | Marking) -> None:
        """
        Replace an answer by another of the same annotator; the log keeps both.

        Args:
            annotator (`str`): Name of the annotator.
            phase (`str`): One of `PHASES`.
            item (`str`): Id of the item.
            content (`str` or `Marking`): The new answer.

        Raises:
            UserError: There is no such answer, or the new one cannot be taken.
        """
        stored = self._checked(phase, self.item(item), content)
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT number, content FROM answers JOIN items ON item = number "
                "WHERE phase = ? AND id = ? AND annotator = ?",
                (phase, item, annotator),
            ).fetchone()
            if row is None:
                raise UserError(f"'{annotator}' has not answered '{item}' in the phase {phase}")
            connection.execute(
                "UPDATE answers SET content = ?, at = ? WHERE phase = ? AND item = ? AND annotator = ?",
                (stored, self._now(), phase, row["number"], annotator),
            )
            self._log(connection, annotator, "revise", phase, item, row["content"], stored)
            self._settle(connection, row["number"])

    def release(self, claim: Claim) -> None:
        """
        Give an item back unanswered, so that others get it. The same person gets it again only when nothing else is
        left for them in this phase. What is no longer held stays where it is.
        """
        with self._transaction() as connection:
            lease = connection.execute(
                "SELECT item FROM leases JOIN items ON item = number "
                "WHERE phase = ? AND id = ? AND annotator = ? AND holder = ?",
                (claim.phase, claim.item.id, claim.annotator, claim.holder),
            ).fetchone()
            if lease is None:
                return
            of_lease = (claim.phase, lease["item"], claim.annotator)
            connection.execute("DELETE FROM leases WHERE phase = ? AND item = ? AND annotator = ?", of_lease)
            # Replacing gives it a new turn, behind what was given back before.
            connection.execute("INSERT OR REPLACE INTO skipped (phase, item, annotator) VALUES (?, ?, ?)", of_lease)

    def item(self, item: str) -> Item:
        """
        Return an item by its id.

        Raises:
            UserError: There is none.
        """
        with self._reading() as connection:
            row = connection.execute(f"SELECT {_ITEM} FROM items WHERE id = ?", (item,)).fetchone()
        if row is None:
            raise UserError(f"the queue in '{self.folder}' must hold '{item}', found no such image")
        return _item(row)

    def items(self) -> list[Item]:
        """Return all items, in order."""
        with self._reading() as connection:
            return [_item(row) for row in connection.execute(f"SELECT {_ITEM} FROM items ORDER BY number")]

    def answers(self, phase: Phase | None = None) -> list[Answer]:
        """Return all answers, or those of a phase, in the order of the items and of time."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT phase, id, annotator, content, seconds, at FROM answers JOIN items ON item = number "
                "WHERE phase = coalesce(?, phase) ORDER BY number, at, annotator",
                (phase,),
            ).fetchall()
        return [
            Answer(
                row["phase"],
                row["id"],
                row["annotator"],
                _read_content(row["phase"], row["content"]),
                row["seconds"],
                row["at"],
            )
            for row in rows
        ]

    def log(self) -> Iterator[dict[str, Any]]:
        """Yield what was answered and revised: who, when, before and after."""
        with self._reading() as connection:
            rows = connection.execute("SELECT * FROM log ORDER BY number").fetchall()
        for row in rows:
            yield dict(row)

    def add_person(self, name: str, role: str = "annotator") -> str:
        """
        Let a person in, or give them a new token.

        Args:
            name (`str`): Name of the person.
            role (`str`, *optional*, defaults to `"annotator"`): `"annotator"` or `"admin"`.

        Returns:
            `str`: Their token. Only its hash is kept.
        """
        _check_name(name)
        if role not in ("annotator", ADMIN):
            raise ArgumentError(f"`role` must be annotator or admin, got '{role}'")
        token = secrets.token_urlsafe(12)
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO people VALUES (?, ?, ?)", (name, role, _digest(token)))
        return token

    def admits(self, name: str, token: str) -> bool:
        """Return whether a name and a token belong together."""
        with self._reading() as connection:
            row = connection.execute("SELECT token_sha256 FROM people WHERE name = ?", (name,)).fetchone()
        return row is not None and secrets.compare_digest(row["token_sha256"], _digest(token))

    def people(self) -> dict[str, str]:
        """Return the role of everybody who was let in, by name."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT name, role FROM people ORDER BY name").fetchall())

    def _claim(
        self, connection: sqlite3.Connection, row: sqlite3.Row, annotator: str, phase: Phase, holder: str
    ) -> Claim:
        others = {}
        if phase == "decide":
            others = {
                name: json.loads(content)
                for name, content in connection.execute(
                    "SELECT annotator, content FROM answers WHERE phase = 'classify' AND item = ?", (row["number"],)
                )
            }
        return Claim(phase, _item(row), annotator, holder, others)

    def _checked(self, phase: Phase, item: Item, content: str | Marking) -> str:
        """Return the stored form of an answer."""
        check_choice("phase", phase, PHASES)
        if phase == "mark":
            if not isinstance(content, Marking):
                raise ArgumentError(f"`content` must be regions in the phase mark, got {content!r}")
            content.check(item.size, self.settings.types)
            return json.dumps(content.as_dict(), ensure_ascii=False)
        legal = VERDICTS if phase == "classify" else VERDICTS[:2]
        if content not in legal:
            raise ArgumentError(f"`content` must be among {', '.join(legal)} in the phase {phase}, got {content!r}")
        return json.dumps(content)

    def _settle(self, connection: sqlite3.Connection, number: int) -> None:
        """Set the verdict of an item from its answers: an admin's, else what all classifiers agree on."""
        decided = connection.execute(
            "SELECT content FROM answers WHERE phase = 'decide' AND item = ?", (number,)
        ).fetchone()
        if decided:
            verdict = json.loads(decided["content"])
        else:
            given = [
                json.loads(row["content"])
                for row in connection.execute(
                    "SELECT content FROM answers WHERE phase = 'classify' AND item = ?", (number,)
                )
            ]
            if "unsure" in given or len(set(given)) > 1:
                verdict = OPEN
            else:
                verdict = given[0] if len(given) >= self.settings.overlap else ""
        connection.execute("UPDATE items SET verdict = ? WHERE number = ?", (verdict, number))

    def _log(self, connection: sqlite3.Connection, *entry: str | None) -> None:
        connection.execute(
            "INSERT INTO log (at, annotator, action, phase, item, before, after) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self._now(), *entry),
        )

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.folder / QUEUE_FILE, timeout=60, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            # Readers do not wait for writers, and what is committed outlives a power cut too.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _item(row: sqlite3.Row) -> Item:
    draft = None if row["draft"] is None else Marking.from_dict(json.loads(row["draft"]))
    return Item(row["id"], row["file"], (row["width"], row["height"]), row["prompt"], draft, row["verdict"])


def _read_content(phase: str, stored: str) -> str | Marking:
    content = json.loads(stored)
    return Marking.from_dict(content) if phase == "mark" else content


def _is_plain(path: Path) -> bool:
    """Return whether an image is in a format that everything reads, and not turned by its metadata."""
    with Image.open(path) as image:
        return image.format in ("JPEG", "PNG", "WEBP") and image.getexif().get(_ORIENTATION, 1) == 1


def _check_draft(name: str, draft: Marking, size: tuple[int, int], types: tuple[str, ...]) -> None:
    try:
        if draft.marks:
            draft.check(size, types)
        for number, mark in enumerate(draft.marks, start=1):
            try:
                mark.mask(size)
            except ValueError as error:
                raise UserError(
                    f"region {number} must have a mask of {size[0]} × {size[1]} pixels, got another: {error}"
                ) from error
    except UserError as error:
        raise DraftError(f"in the draft of '{name}', {error}; mend it or take it out") from error


def _check_name(name: str) -> None:
    if not name.strip() or name != name.strip() or len(name) > 64:
        raise ArgumentError(f"`annotator` must be a name of up to 64 characters, got {name!r}; type yours")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
