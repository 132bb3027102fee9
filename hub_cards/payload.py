"""Payload of a push: a card, and the files of a folder that are allowed in a repository of its kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
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
    Option of `artiagent push KIND` that only some kinds have.

    Attributes:
        name (`str`): Name without dashes, and argument of the kind's `build`.
        help (`str`): Help text.
    """

    name: str
    help: str


LICENSE = Option("license", "Hub identifier of the licence, e.g. apache-2.0, cc-by-4.0, other")
"""Option of kinds whose licence depends on the licences of their sources."""


def given_folder(path: str | None) -> Path:
    """
    Return PATH as a folder.

    Raises:
        UserError: PATH is not given.
    """
    if path is None:
        raise UserError("PATH must be the folder to push, got none")
    return Path(path)


@dataclass(frozen=True)
class Kind:
    """
    Kind of repository that can be pushed.

    Attributes:
        name (`str`): Name of the subcommand of `artiagent push`.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        help (`str`): Description in one line.
        path_help (`str`): Help text of PATH.
        examples (`tuple[str, ...]`): Commands for the help, without `artiagent push`.
        allowed (`tuple[str, ...]`): Patterns of all files that a repository may hold. `*` does not match `/`.
        marks (`tuple[tuple[str, ...], ...]`): Files that tell a repository of this kind from others: every payload
            holds at least one of each tuple. `{name}` stands for the name of the repository.
        build (`Callable[..., Payload]`): Builds the payload from the folder, the repository's id, and the values of
            `options` by name.
        find_folder (`Callable[[str | None], Path]`, *optional*): Returns the folder that PATH stands for.
        needs_path (`bool`, *optional*, defaults to `True`): Whether PATH must be given.
        options (`tuple[Option, ...]`, *optional*): Further options of the command.
        space_sdk (`str`, *optional*): SDK of a new Space.
    """

    name: str
    repo_type: str
    help: str
    path_help: str
    examples: tuple[str, ...]
    allowed: tuple[str, ...]
    marks: tuple[tuple[str, ...], ...]
    build: Callable[..., Payload]
    find_folder: Callable[[str | None], Path] = given_folder
    needs_path: bool = True
    options: tuple[Option, ...] = ()
    space_sdk: str | None = None


@dataclass(frozen=True)
class SentFile:
    """
    File of a repository.

    Attributes:
        path (`str`): Path in the repository.
        content (`Path` or `bytes`): Local file to send unchanged, or the content itself.
    """

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
    Everything that a push sends.

    Attributes:
        kind (`Kind`): Kind of the repository.
        repo_id (`str`): Id of the repository, `owner/name`.
        files (`tuple[SentFile, ...]`): Files to send including the card, sorted by path.
        left_out (`tuple[str, ...]`): Files in the folder that are not sent, and folders with a trailing slash.
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
        Build a payload after checking everything that would be sent.

        Args:
            kind (`Kind`): Kind of the repository.
            repo_id (`str`): Id of the repository, `owner/name`.
            folder (`Path`): Local folder of the files.
            files (`Sequence[SentFile]`): Files to send without the card.
            card (`str`): Text of the card.
            left_out (`Sequence[str]`): Files in the folder that are not sent.

        Returns:
            `Payload`: The payload.

        Raises:
            UserError: The card is invalid, or a file must not be published.
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
    """Return whether a repository of a kind may hold a file, not counting its card."""
    return _matches(path, kind.allowed) or is_license(path)


def is_license(path: str) -> bool:
    """Return whether a file holds a licence or a notice, which a repository of any kind may hold."""
    return _matches(path, _LICENSES)


def missing_mark(kind: Kind, repo_id: str, paths: Collection[str]) -> str | None:
    """
    Find what a repository lacks to be one of a kind.

    Args:
        kind (`Kind`): The kind.
        repo_id (`str`): Id of the repository, `owner/name`.
        paths (`Collection[str]`): Files that it holds.

    Returns:
        `str` or `None`: The files of [`Kind.marks`] of which it holds none, in words, or `None` if it is of the kind.
    """
    name = repo_id.rpartition("/")[2]
    for alternatives in kind.marks:
        files = [file.format(name=name) for file in alternatives]
        if not set(files).intersection(paths):
            return " or ".join(files)
    return None


def divide(kind: Kind, folder: Path) -> tuple[list[SentFile], list[str]]:
    """
    Divide the files of a folder into those that may be sent and all others.

    Args:
        kind (`Kind`): Kind whose patterns decide.
        folder (`Path`): The folder.

    Returns:
        `tuple[list[SentFile], list[str]]`: Files to send, and paths of the others. A folder without files to send is
        one path with a trailing slash.

    Raises:
        UserError: PATH is not a folder.
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
    """Yield files, replacing the content of those for which `make` returns one."""
    for file in files:
        content = make(file)
        yield file if content is None else SentFile(file.path, content)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)


def _top(name: str) -> str:
    top, slash, _ = name.partition("/")
    return top + slash


def _check_link(file: SentFile, folder: Path) -> None:
    if isinstance(file.content, Path) and not file.content.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{file.path} must be inside the folder, got a link to '{file.content.resolve()}'; replace it by a copy"
        )
