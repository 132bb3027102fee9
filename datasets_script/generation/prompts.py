"""Prompts from a file, or a prompt itself."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..schema.generation import Prompt
from ..utils.errors import ArgumentError


Prompts = str | os.PathLike[str] | Sequence[str | Prompt]

_SUFFIXES = (".txt", ".jsonl", ".csv")
# Ids are parts of file names.
_ID = re.compile(r"\w[\w.-]{0,99}")


def find_prompts(prompts: Prompts) -> list[Prompt]:
    """
    Return prompts with ids: those of a file, of a list, or a single one.

    Args:
        prompts (`str`, `os.PathLike`, or `Sequence[str | Prompt]`): A text file with a prompt on each line;
            a JSON Lines or CSV file with a column `prompt` and, optionally, `id`; a list; or a prompt. Prompts without
            an id are numbered in order, from 00000, so that prompts can be added at the end.

    Returns:
        `list[Prompt]`: At least one, with distinct ids.

    Raises:
        ArgumentError: There is no such file, or it holds something else; the message names the line.
    """
    if isinstance(prompts, str | os.PathLike):
        found = _read(Path(prompts)) if _is_file(prompts) else [Prompt(_numbered(0), str(prompts).strip())]
    else:
        found = [
            prompt if isinstance(prompt, Prompt) else Prompt(_numbered(number), prompt)
            for number, prompt in enumerate(prompts)
        ]
    _check(found)
    return found


def _is_file(prompts: str | os.PathLike[str]) -> bool:
    """Tell a file from a prompt; a name without spaces that looks like that of a file is one that is missing."""
    text = os.fspath(prompts)
    try:
        if Path(text).is_file():
            return True
        is_folder = Path(text).is_dir()
    except (OSError, ValueError):  # a prompt may be too long for a path
        return False
    looks_like_one = " " not in text.strip() and (text.endswith(_SUFFIXES) or os.sep in text)
    if is_folder or looks_like_one or not isinstance(prompts, str):
        raise ArgumentError(
            f"`prompts` must be a file ({', '.join(_SUFFIXES)}) or a prompt, got '{text}', which is "
            f"{'a folder' if is_folder else 'no file; check the path'}"
        )
    return False


def _read(path: Path) -> list[Prompt]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"`prompts` must be a UTF-8 file that can be read, got '{path}': {error}") from error
    if path.suffix == ".jsonl":
        return _of_rows(_json_rows(text, path), path)
    if path.suffix == ".csv":
        return _of_rows(_csv_rows(text, path), path)
    lines = (line.strip() for line in text.split("\n"))
    return [Prompt(_numbered(number), line) for number, line in enumerate(filter(None, lines))]


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ArgumentError(f"`prompts`, '{path}', line {number}: must be a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise ArgumentError(f"`prompts`, '{path}', line {number}: must be a JSON object, got {line.strip():.60}")
        yield number, row


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ArgumentError(f"`prompts`, '{path}', line {reader.line_num}: must be CSV: {error}") from error


def _of_rows(rows: Iterable[tuple[int, Mapping[str, Any]]], path: Path) -> list[Prompt]:
    prompts: list[Prompt] = []
    for line, row in rows:
        text = row.get("prompt")
        if not isinstance(text, str):
            got = ", ".join(map(str, row)) or "nothing"
            raise ArgumentError(f"`prompts`, '{path}', line {line}: must have a text `prompt`, got the columns {got}")
        name = row.get("id")
        prompts.append(Prompt(_numbered(len(prompts)) if name is None else str(name), text.strip()))
    return prompts


def _check(prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise ArgumentError("`prompts` must hold at least one prompt, got none")
    seen: set[str] = set()
    for prompt in prompts:
        if not isinstance(prompt.text, str):
            raise ArgumentError(f"`prompts` must be texts, got {prompt.text!r} with the id '{prompt.id}'")
        if not prompt.text:
            raise ArgumentError(f"`prompts` must be texts, got an empty one with the id '{prompt.id}'")
        if not _ID.fullmatch(prompt.id):
            raise ArgumentError(
                "`prompts` must have ids of letters, digits and . _ -, at most 100, as they name files, got "
                f"'{prompt.id:.120}'"
            )
        # Some file systems do not tell upper from lower case.
        if prompt.id.lower() in seen:
            raise ArgumentError(f"`prompts` must have distinct ids, also in lower case, got '{prompt.id}' twice")
        seen.add(prompt.id.lower())


def _numbered(number: int) -> str:
    return f"{number:05d}"
