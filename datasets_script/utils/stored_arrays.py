"""Arrays as the bytes of NPY files, for columns of datasets."""

from __future__ import annotations

import io

import numpy as np


def stored_array(array: np.ndarray | None) -> bytes | None:
    """Return the content of an NPY file, which holds shape and precision too; `None` for `None`."""
    if array is None:
        return None
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_array(content: bytes | None) -> np.ndarray | None:
    """
    Read what [`stored_array`] returned.

    Raises:
        ValueError: The bytes are no NPY file, or one of pickled objects.
    """
    return None if content is None else np.load(io.BytesIO(content), allow_pickle=False)
