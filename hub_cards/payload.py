"""What a push sends: files that are on a list of those allowed, and a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from datasets_script.utils.errors import UserError

from .checks import check_card, check_text, is_text


CARD = "README.md"

_LICENSES = ("LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class Option:
    """
    An option of `artiagent push KIND` that only some kinds have.

    Attributes:
        name (`str`): Without dashes; also the argument of the kind's `build`.
        help (`str`): What it is.
    """

    name: str
    help: str


LICENSE = Option("license", "licence by its Hub identifier, e.g. apache-2.0, cc-by-4.0, other")
"""For kinds whose licence depends on what they were made from."""


def given_folder(path: str | None) -> Path:
    """Return PATH as a folder."""
    if path is None:
        raise UserError("PATH is needed: the folder to push")
    return Path(path)


@dataclass(frozen=True)
class Kind:
    """
    A kind of thing that can be pushed.

    Attributes:
        name (`str`): What stands after `artiagent push`.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        help (`str`): What it is, in a line.
        path_help (`str`): What PATH is.
        examples (`tuple[str, ...]`): Commands for the help, without `artiagent push`.
        allowed (`tuple[str, ...]`): All that its repository may hold, as patterns; their `*` stays within a folder.
        build (`Callable[..., Payload]`): Makes the payload from the folder, the repository's id, and the values of
            `options` by name.
        find_folder (`Callable[[str | None], Path]`): Gives the folder that PATH means.
        needs_path (`bool`): Whether PATH must be given.
        options (`tuple[Option, ...]`): What else the command takes.
        space_sdk (`str`, *optional*): Of a new Space.
    """

    name: str
    repo_type: str
    help: str
    path_help: str
    examples: tuple[str, ...]
    allowed: tuple[str, ...]
    build: Callable[..., Payload]
    find_folder: Callable[[str | None], Path] = given_folder
    needs_path: bool = True
    options: tuple[Option, ...] = ()
    space_sdk: str | None = None


@dataclass(frozen=True)
class SentFile:
    """A file of the repository, and where its content comes from: a file as it is, or bytes made for it."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True)
class Payload:
    """
    All that one push sends.

    Attributes:
        kind (`Kind`): What it is.
        repo_id (`str`): Where to.
        files (`tuple[SentFile, ...]`): Card included, in order of their paths.
        left_out (`tuple[str, ...]`): What else lies in the folder: files, and folders with a slash.
    """

    kind: Kind
    repo_id: str
    files: tuple[SentFile, ...]
    left_out: tuple[str, ...]

    @classmethod
    def of(
        cls, kind: Kind, repo_id: str, folder: Path, files: Sequence[SentFile], card: str, left_out: Sequence[str]
    ) -> Payload:
        """
        Checks everything that is to be sent.

        Raises:
            UserError: something must not be published.
        """
        check_card(card, kind.repo_type)
        everything = tuple(sorted([*files, SentFile(CARD, card.encode())], key=lambda file: file.path))
        for file in everything:
            _check_link(file, folder)
            if is_text(file.path):
                check_text(file.path, file.read(), folder)
        return cls(kind, repo_id, everything, tuple(left_out))

    @property
    def repo_type(self) -> str:
        return self.kind.repo_type

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def card(self) -> str:
        return next(file.read().decode() for file in self.files if file.path == CARD)


def is_allowed(kind: Kind, path: str) -> bool:
    """Whether a repository of a kind may hold such a file, its card aside."""
    patterns = (*kind.allowed, *_LICENSES)
    return any(fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)


def divide(kind: Kind, folder: Path) -> tuple[list[SentFile], list[str]]:
    """
    The files of a folder that may be sent, and the others, whole folders of them as one.

    Raises:
        UserError: PATH is no folder.
    """
    if not folder.is_dir():
        raise UserError(f"PATH must be a folder, got '{folder}'")
    allowed, others = [], set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name == CARD:
            continue
        if is_allowed(kind, name):
            allowed.append(SentFile(name, path))
        else:
            others.add(name)
    used = {file.path.partition("/")[0] for file in allowed}
    return allowed, sorted({name if name.partition("/")[0] in used else _top(name) for name in others})


def replaced(files: Sequence[SentFile], make: Callable[[SentFile], bytes | None]) -> Iterator[SentFile]:
    """Files with new contents where `make` gives any."""
    for file in files:
        content = make(file)
        yield file if content is None else SentFile(file.path, content)


def _top(name: str) -> str:
    top, slash, _ = name.partition("/")
    return top + slash


def _check_link(file: SentFile, folder: Path) -> None:
    if isinstance(file.content, Path) and not file.content.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{file.path} is a link out of the folder, to what may not be meant to be published: put a copy there"
        )
