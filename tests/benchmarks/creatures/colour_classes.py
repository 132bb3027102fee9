"""Say of every pixel which of the world's colours it has."""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.benchmarks.creatures.scene import EYE, HORN, INNER_EAR, MOUTH, NOSE, PUPIL
from tests.benchmarks.creatures.words import BACKGROUNDS, COLOURS


PARTS = {"eye": EYE, "pupil": PUPIL, "nose": NOSE, "mouth": MOUTH, "inner_ear": INNER_EAR, "horn": HORN}
# Brightness of fur in light and shade, and of its darker outline; of the background from top to bottom.
_FUR, _BACKGROUND = (0.75, 0.85, 0.95, 1.05, 1.15, 1.25), (0.94, 1.0, 1.06)
_LINE = 0.45
# RGB distance from every colour of the picture beyond which a pixel belongs to none, not even to a blend of two.
STRANGE = 75.0


def classify(
    image: np.ndarray, fur: str | None = None, background: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    Find the nearest colour for every pixel.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)`, `uint8`): Picture.
        fur, background (`str`, *optional*): Only this colour of fur and this background. By default all of them.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Names of shape `(height, width)`, such as `"eye"`, `"fur green"`,
        `"background sky"` or `"line"`, and RGB distances of the same shape.
    """
    names, colours = _references(fur, background)
    pixels = image.reshape(-1, 3).astype(np.float64)
    squares = (pixels**2).sum(1)[:, None] - 2 * pixels @ colours.T + (colours**2).sum(1)
    nearest = squares.argmin(1)
    distance = np.sqrt(np.maximum(squares[np.arange(len(nearest)), nearest], 0))
    return names[nearest].reshape(image.shape[:2]), distance.reshape(image.shape[:2])


@cache
def _references(fur: str | None, background: str | None) -> tuple[np.ndarray, np.ndarray]:
    furs = {fur: COLOURS[fur]} if fur else COLOURS
    backgrounds = {background: BACKGROUNDS[background]} if background else BACKGROUNDS
    found = [(name, np.asarray(colour, float)) for name, colour in PARTS.items()]
    found += [(f"fur {name}", light * np.asarray(colour)) for name, colour in furs.items() for light in _FUR]
    found += [
        (f"background {name}", light * np.asarray(colour))
        for name, colour in backgrounds.items()
        for light in _BACKGROUND
    ]
    shades = [tuple(light * np.asarray(colour)) for colour in furs.values() for light in (0.8, 1, 1.2)]
    lines = [colour for name, colour in PARTS.items() if name != "pupil"] + shades
    found += [("line", _LINE * np.asarray(colour)) for colour in lines]
    names, colours = zip(*found, strict=True)
    return np.asarray(names), np.minimum(np.stack(colours), 255)


def most_common(names: np.ndarray, kind: str) -> str:
    """Return which colour of a kind, `"fur"` or `"background"`, most pixels have; the first if none has one."""
    found, counts = np.unique(names[np.char.startswith(names, f"{kind} ")], return_counts=True)
    known = COLOURS if kind == "fur" else BACKGROUNDS
    return str(found[counts.argmax()]).removeprefix(f"{kind} ") if len(found) else next(iter(known))
