"""Folders of real photos, which have no artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasets_script.utils.errors import UserError
from datasets_script.utils.photos import SourceError, list_sources, open_source
from datasets_script.utils.stored_images import stored_png
from training.pixel.sources.spec import SourceSpec
from training.pixel.sources.units import CLEAN, LabelledImage, skipped_row, unit_row
from training.source_files import SourceFiles


def find_files(spec: SourceSpec) -> SourceFiles:
    """
    List the photos of a folder.

    Raises:
        UserError: It is no folder, or is empty.
    """
    folder = Path(spec.source)
    if not folder.is_dir() or not (names := list_sources(folder)):
        raise UserError(f"--sources must name a folder with photos for kind 'photos', got '{spec.source}'")
    return SourceFiles("", {"train": [str((folder / name).absolute()) for name in names]}, str(folder.absolute()))


def read_units(spec: SourceSpec, files: SourceFiles) -> Iterator[dict[str, Any]]:
    """Yield the photos as rows of `UNIT_FEATURES`, upright, or the reason why a file cannot be used."""
    for path in files.all():
        name = Path(path).relative_to(files.opened).as_posix()
        try:
            photo = open_source(path)
        except SourceError as error:
            yield skipped_row(name, f"not a photo that can be read: {error}")
            continue
        category = name.rpartition("/")[0]
        yield unit_row(name, name, [LabelledImage(stored_png(np.asarray(photo)), None, CLEAN)], category)
