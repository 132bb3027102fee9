"""What a push sends: files that are on a list of those allowed, and a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from datasets_script.pairs.configurations import IMAGE_FOLDERS
from datasets_script.utils.errors import UserError

from .checks import check_card, check_text, is_text


Kind = Literal["model", "dataset", "metric", "pipeline"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REPO_TYPES: dict[Kind, str] = {"model": "model", "dataset": "dataset", "metric": "space", "pipeline": "model"}
CARD = "README.md"

# All that a repository of a kind may hold; a pattern's `*` stays within a folder.
ALLOWED: dict[Kind, tuple[str, ...]] = {
    "model": (
        "*.safetensors",
        "*.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "adapter_config.json",
        "processor_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/*.jinja",
        "training.json",
        "evaluation/*.json",
    ),
    "dataset": (
        "run.json",
        "prepared.json",
        "rejected.jsonl",
        "skipped.jsonl",
        "contact_sheet.png",
        "*.parquet",
        "*/*.parquet",
        *(f"{folder}/*/*/*.png" for folder in IMAGE_FOLDERS),
    ),
    "metric": ("*.py", "requirements.txt"),
    "pipeline": ("*.py", "modular_config.json"),
}
_LICENSES = ("LICENSE*", "NOTICE*")


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
        kind (`str`): One of `KINDS`.
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
        check_card(card, REPO_TYPES[kind])
        everything = tuple(sorted([*files, SentFile(CARD, card.encode())], key=lambda file: file.path))
        for file in everything:
            _check_link(file, folder)
            if is_text(file.path):
                check_text(file.path, file.read(), folder)
        return cls(kind, repo_id, everything, tuple(left_out))

    @property
    def repo_type(self) -> str:
        return REPO_TYPES[self.kind]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def card(self) -> str:
        return next(file.read().decode() for file in self.files if file.path == CARD)


def is_allowed(kind: Kind, path: str) -> bool:
    """Whether a repository of a kind may hold such a file, its card aside."""
    patterns = (*ALLOWED[kind], *_LICENSES)
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
