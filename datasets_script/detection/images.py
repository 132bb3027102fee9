"""Images that detectors take."""

from __future__ import annotations

import os

from PIL import Image

from ..utils.photos import SourceError, open_source, to_rgb


ImageInput = str | os.PathLike[str] | Image.Image


def upright(image: ImageInput) -> Image.Image:
    """
    Open an image as models are shown it: upright, in 8-bit RGB.

    Raises:
        SourceError: A file cannot be read as an image, see [`~datasets_script.utils.photos.open_source`]; the message
            names the file.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    try:
        return open_source(image, min_side=1)
    except SourceError as error:
        raise SourceError(f"{os.fspath(image)}: {error}") from error
