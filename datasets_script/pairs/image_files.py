"""Image files of the cache, each stored once however many rows refer to it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


class ImageFiles:
    """
    Content-addressed folder of images, named by the hash of their bytes. Rows of `datasets` hold the path of a file
    instead of its bytes, and the `Image` feature opens it when a row is read; this package is not needed for that.

    Args:
        folder (`Path`): The folder; created when the first image is added. Any number of processes may add images at
            once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, content: bytes) -> str:
        """
        Store an image, unless it is stored already.

        Args:
            content (`bytes`): Content of an image file.

        Returns:
            `str`: Absolute path of the stored file.
        """
        digest = hashlib.sha256(content).hexdigest()
        path = self.folder.absolute() / digest[:2] / digest[2:]
        if not _is_whole(path, len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Syncing each file to the disk would dominate the running time. A file that a power cut has emptied is
            # recognised by its size instead.
            temporary = path.with_name(f"{path.name}.{os.getpid()}.incomplete")
            temporary.write_bytes(content)
            temporary.replace(path)
        return str(path)


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
