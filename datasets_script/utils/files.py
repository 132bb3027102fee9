"""Atomic writing of files and folders, and revisions of models."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .hub_ids import is_hub_id


# `errno` values for which nothing more can be written: no space, no quota, file size limit.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Files beside the weights that decide what a model answers, as transformers, peft and diffusers name them.
_MODEL_ENDINGS = ("config.json", "index.json", ".jinja")
_MODEL_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
)
# A fingerprint samples at most about this many blocks of this many bytes of a weights file.
_BLOCKS, _BLOCK = 1024, 4096


@contextmanager
def replacing(path: Path, shared: bool = False) -> Iterator[Path]:
    """
    Yield a temporary path beside `path` to write to, and move it into place once the block has succeeded.

    Args:
        path (`Path`): The file to write. Missing parent folders are created.
        shared (`bool`, *optional*, defaults to `False`): Whether several processes may write the file at once; each
            then gets its own temporary name.
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
    Yield an empty temporary folder beside `folder` to write to, and move it into place once the block has succeeded.
    By then `folder` must be missing or empty.
    """
    folder = folder.absolute()
    temporary = folder.with_name(f"{folder.name}.incomplete")
    # A killed process may have left one.
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
    """
    Write a UTF-8 text file atomically.

    Args:
        path (`Path`): The file.
        text (`str`): Its content.
        shared (`bool`, *optional*, defaults to `False`): See [`replacing`].
    """
    with replacing(path, shared) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, shared: bool = False) -> None:
    """
    Write a JSON file atomically, as UTF-8 with a line break at the end.

    Args:
        path (`Path`): The file.
        content (`Any`): JSON-serialisable.
        shared (`bool`, *optional*, defaults to `False`): See [`replacing`].
    """
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", shared)


def check_model_name(model: str) -> None:
    """
    Refuse a name that can be neither a folder nor the id of a repository on the Hub, before the Hub is asked.

    Args:
        model (`str`): A folder, or the id of a repository on the Hub.

    Raises:
        OSError: It is a URL, a file, or a path where there is nothing.
    """
    if Path(model).is_dir():
        return
    if "://" in model:
        url = urlsplit(model)
        name = "/".join(url.path.strip("/").split("/")[:2])
        of_hub = (url.hostname or "").endswith(("huggingface.co", "hf.co")) and is_hub_id(name)
        raise OSError("it is a URL; give " + (f"the id '{name}'" if of_hub else "a folder or the id of a repository"))
    if Path(model).exists():
        raise OSError("it is a file; give the folder of a model")
    if not is_hub_id(model) and not is_hub_id(f"owner/{model}"):
        raise OSError(f"there is no folder '{model}'; check the path, or give the id of a repository on the Hub")


def resolve_revision(model: str, revision: str | None) -> tuple[str | None, str]:
    """
    Pin the revision of a model: return which revision to load, and which to record.

    Args:
        model (`str`): A folder, or the id of a repository on the Hub.
        revision (`str`, *optional*): Branch, tag or commit of a repository.

    Returns:
        `tuple[str | None, str]`: For a repository its commit, twice, since a branch may move while the model's files
        are loaded. For a folder, `revision` unchanged and the folder's [`fingerprint`].

    Raises:
        OSError: The repository does not exist or cannot be reached, or no repository can have this name.
    """
    check_model_name(model)
    folder = Path(model)
    if folder.is_dir():
        return revision, fingerprint(folder)
    from huggingface_hub import hf_hub_download

    commit = Path(hf_hub_download(model, "config.json", revision=revision)).parent.name
    return commit, commit


def fingerprint(folder: Path) -> str:
    """
    Compute the revision of a local model: a hash of what is loaded of it. That is its configuration, its processor's
    and its adapter's files, and the names, sizes and sampled bytes of its weights. It changes when the model in the
    folder is retrained, and not with reports, predictions, checkpoints and records of training that lie there too.
    """
    digest = hashlib.sha256()
    for path in sorted(_files_of_model(folder)):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        if path.suffix == ".safetensors":
            _update_with_sample(digest, path)
        else:
            digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def data_fingerprint(files: Iterable[Path]) -> str:
    """Compute a hash of data files: of their names, sizes and sampled bytes."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        _update_with_sample(digest, path)
    return f"sha256:{digest.hexdigest()[:16]}"


def _files_of_model(folder: Path) -> Iterator[Path]:
    """Yield the files that make up a model; of a pipeline, those of its components too."""
    folders = [folder]
    with suppress(FileNotFoundError, ValueError):
        parts = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        folders += [folder / name for name in parts if (folder / name).is_dir()]
    for place in folders:
        for path in place.iterdir():
            name = path.name
            of_model = name in _MODEL_FILES or name.endswith((*_MODEL_ENDINGS, ".safetensors"))
            if of_model and path.is_file():
                yield path


def _update_with_sample(digest: hashlib._Hash, path: Path) -> None:
    """
    Hash a small file as a whole and evenly spaced blocks of a large one: reading 16 GB takes longer than loading it.
    """
    stride = max(_BLOCK, path.stat().st_size // _BLOCKS)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            file.seek(stride - _BLOCK, os.SEEK_CUR)
