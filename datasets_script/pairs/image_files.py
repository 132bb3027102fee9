"""The images of pairs as files of the cache, each stored once, however many rows of however many sets show it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


class ImageFiles:
    """
    A folder of images under the hash of their bytes. Rows of `datasets` name a file instead of holding its bytes, and
    the `Image` feature opens it when the row is read, in any program that has `datasets` alone.

    Args:
        folder (`Path`): Made where it is missing. Any number of processes may add to it at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, content: bytes) -> str:
        """
        Store an image that is not stored yet.

        Args:
            content (`bytes`): Of an image file.

        Returns:
            `str`: Absolute path.
        """
        digest = hashlib.sha256(content).hexdigest()
        path = self.folder.absolute() / digest[:2] / digest[2:]
        if not _is_whole(path, len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not synced to the disk one by one, which would take longer than all else: a file that a power cut has
            # emptied is known by its size.
            temporary = path.with_name(f"{path.name}.{os.getpid()}.incomplete")
            temporary.write_bytes(content)
            temporary.replace(path)
        return str(path)


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
