"""Folders of images that are compared, and which of their images belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ..schema.generation import IMAGES_FOLDER, GenerationRecord, is_generated, read_images
from ..utils.errors import ArgumentError
from ..utils.photos import list_sources


_NAMES_SHOWN = 3


@dataclass(frozen=True)
class ComparedImage:
    """
    An image in each of the folders, made from the same prompt and noise or with the same name.

    Attributes:
        name (`str`): Its name, without an extension.
        prompt (`str`): Its prompt; empty if it is not known.
        group (`str`): Images of a prompt are a group; without prompts, each image is one.
        paths (`tuple[Path, ...]`): Its file in each folder.
    """

    name: str
    prompt: str
    group: str
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Compared:
    """
    Folders that are compared.

    Attributes:
        names (`tuple[str, ...]`): A short name of each folder.
        images (`tuple[ComparedImage, ...]`): Their images.
        scorers (`tuple[tuple[Mapping, ...], ...]`): What chose or guided the images of each folder, as its run
            recorded; empty if nothing did, or it is not known.
    """

    names: tuple[str, ...]
    images: tuple[ComparedImage, ...]
    scorers: tuple[tuple[Mapping[str, Any], ...], ...]

    @property
    def groups(self) -> list[str]:
        """Return the group of each image."""
        return [image.group for image in self.images]


@dataclass(frozen=True)
class _Folder:
    """A folder: the files by name, and the run that made them, if it is known."""

    path: Path
    files: Mapping[str, Path]
    prompts: Mapping[str, tuple[str, str]]
    record: GenerationRecord | None


def match_folders(paths: Sequence[Path]) -> Compared:
    """
    Find the images of folders that belong together.

    Args:
        paths (`Sequence[Path]`): At least two folders, each written by `artiagent generate` or any folder of images.
            Images belong together if they have the same prompt and number, or the same path in their folder but for
            the extension. The image of prompt ID and number K has the name ID-K.

    Raises:
        ArgumentError: A folder holds other images or was made with another seed or other prompts; the message names
            some.
    """
    if len(paths) < 2:
        raise ArgumentError(f"`folders` must be at least two, got {len(paths)}")
    if same := next((path for path, other in combinations(paths, 2) if path.resolve() == other.resolve()), None):
        raise ArgumentError(f"`folders` must be different ones, got '{same}' twice; leave one out")
    folders = [_generated(path) if is_generated(path) else _plain(path) for path in paths]
    first = folders[0]
    for other in folders[1:]:
        _check_same_names(first, other)
    with_prompts = [folder for folder in folders if folder.record]
    for other in with_prompts[1:]:
        _check_same_run(with_prompts[0], other)
    prompts = with_prompts[0].prompts if with_prompts else {}
    images = tuple(
        ComparedImage(name, *prompts.get(name, ("", name)), tuple(folder.files[name] for folder in folders))
        for name in first.files
    )
    return Compared(
        _short_names(paths), images, tuple(folder.record.chosen_by if folder.record else () for folder in folders)
    )


def _generated(path: Path) -> _Folder:
    record = GenerationRecord.read(path)
    if record.status != "complete":
        raise ArgumentError(f"`folders` must hold complete runs, got '{path}', which is not; continue its run first")
    images = read_images(path)
    files = {image.id: path / IMAGES_FOLDER / image.file_name for image in images}
    if lost := [file for file in files.values() if not file.is_file()]:
        raise ArgumentError(
            f"`folders` must hold all images of their runs, got '{path}' without '{lost[0].name}'; repeat the command "
            "that made it, which draws them again"
        )
    return _Folder(path, files, {image.id: (image.prompt, image.prompt_id) for image in images}, record)


def _plain(path: Path) -> _Folder:
    from PIL import Image

    if not path.is_dir():
        raise ArgumentError(f"`folders` must be folders of images, got '{path}'")
    known = {*Image.registered_extensions(), ".heic", ".heif"}
    files: dict[str, Path] = {}
    for name in list_sources(path):
        file = path / name
        if file.suffix.lower() not in known:
            continue
        stem = Path(name).with_suffix("").as_posix()
        if stem in files:
            raise ArgumentError(f"`folders` must hold one image of each name, got '{name}' and '{files[stem].name}'")
        files[stem] = file
    if not files:
        raise ArgumentError(f"`folders` must hold images, found none in '{path}'")
    return _Folder(path, files, {}, None)


def _check_same_names(first: _Folder, other: _Folder) -> None:
    for lacks, has in ((other, first), (first, other)):
        missing = [name for name in has.files if name not in lacks.files]
        if missing:
            shown = ", ".join(missing[:_NAMES_SHOWN]) + (", …" if len(missing) > _NAMES_SHOWN else "")
            raise ArgumentError(
                f"`folders` must hold the same images, but '{lacks.path}' lacks {len(missing)} of {len(has.files)} in "
                f"'{has.path}': {shown}; generate both from the same prompts, with equal --images-per-prompt"
            )


def _check_same_run(first: _Folder, other: _Folder) -> None:
    assert first.record is not None and other.record is not None
    seeds = [folder.record.settings.get("seed") for folder in (first, other) if folder.record]
    if seeds[0] != seeds[1]:
        raise ArgumentError(
            f"`folders` must be generated with one --seed, got {seeds[0]} for '{first.path}' and {seeds[1]} for "
            f"'{other.path}'; intervals of pairs need equal noises"
        )
    for name, (prompt, _) in first.prompts.items():
        if other.prompts[name][0] != prompt:
            raise ArgumentError(
                f"`folders` must be generated from the same prompts, got {prompt!r} for '{name}' in '{first.path}' "
                f"and {other.prompts[name][0]!r} in '{other.path}'"
            )


def _short_names(paths: Sequence[Path]) -> tuple[str, ...]:
    names = tuple(path.resolve().name for path in paths)
    return names if len(set(names)) == len(names) else tuple(map(str, paths))
