"""Writing files so that they are either whole or absent, and telling folders of models apart."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


# Numbers of an `OSError` that says that nothing more can be written: no space, no quota, a limit on file sizes.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of a file of weights, so many blocks of so many bytes tell whether it is another.
_BLOCKS, _BLOCK = 1024, 4096


@contextmanager
def replacing(path: Path, shared: bool = False) -> Iterator[Path]:
    """
    Gives a temporary name beside `path` to write to, and moves it into place once the block has succeeded. Where
    several processes may write it at once (`shared`), each has a temporary name of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.incomplete" if shared else f"{path.name}.incomplete")
    try:
        yield temporary
        # A rename that outlives its content after a power cut would look like a whole file.
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """
    Gives an empty temporary folder beside `folder` to write to, and moves it into place once the block has succeeded.
    `folder` must be missing or empty then.
    """
    folder = folder.absolute()
    temporary = folder.with_name(f"{folder.name}.incomplete")
    # What a killed process has left.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str, shared: bool = False) -> None:
    with replacing(path, shared) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, shared: bool = False) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", shared)


def resolve_revision(model: str, revision: str | None) -> tuple[str | None, str]:
    """
    What to load of a model, and what to record of it.

    Args:
        model (`str`): A folder, or the id of a repository on the Hub.
        revision (`str`, *optional*): Branch, tag or commit of a repository.

    Returns:
        `tuple[str | None, str]`: For a repository its commit, twice: what a branch points to may change between the
        files of a model. For a folder `revision` as it is, and a fingerprint.

    Raises:
        OSError: there is no such repository, or it cannot be had.
    """
    folder = Path(model)
    if folder.is_dir():
        return revision, fingerprint(folder)
    from huggingface_hub import hf_hub_download

    commit = Path(hf_hub_download(model, "config.json", revision=revision)).parent.name
    return commit, commit


def fingerprint(folder: Path) -> str:
    """
    Revision of a local model: a hash of its configurations, and of its weights the names, the sizes, and a sample of
    the bytes, so that a model trained anew in its folder is another.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors"):
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
        elif path.suffix == ".safetensors":
            _update_with_sample(digest, path)
    return f"sha256:{digest.hexdigest()[:16]}"


def _update_with_sample(digest: hashlib._Hash, path: Path) -> None:
    """All of a small file, and of others blocks at regular places: to read 16 GB would take longer than to load it."""
    stride = max(_BLOCK, path.stat().st_size // _BLOCKS)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            file.seek(stride - _BLOCK, os.SEEK_CUR)
