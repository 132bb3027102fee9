"""The first stage: open the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...utils.photos import SourceError, open_source
from .base import Sample, Stage


class Read(Stage):
    """
    Stage that opens photos.

    Args:
        folder (`Path`): Folder that source ids are relative to.
    """

    name = "read"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def process(self, samples: Sequence[Sample]) -> list[Sample]:
        return [self._open(sample) for sample in samples]

    def _open(self, sample: Sample) -> Sample:
        try:
            return replace(sample, image=open_source(self.folder / sample.source_id))
        except SourceError as error:
            return sample.rejected(self.name, str(error))
