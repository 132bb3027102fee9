"""Render creatures with smooth edges, and say of every part which pixels show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from datasets_script.utils.seeds import derive_seed
from tests.benchmarks.creatures.bodies import make_scene
from tests.benchmarks.creatures.scene import SIDE, Layer, Part, Scene
from tests.benchmarks.creatures.shapes import pixel_centres
from tests.benchmarks.creatures.words import BACKGROUNDS, Words, draw_words


_OUTLINE_WIDTH, _OUTLINE_SHADE = 1.1, 0.45  # px; share of the colour's brightness
_LIGHT = (0.07, 0.15)  # change of brightness across a head's half width and half height
_HEAD = 18  # px, half a head
_BACKGROUND_LIGHT = 0.06


@dataclass(frozen=True)
class Render:
    """
    A picture and what it shows.

    Args:
        image (`np.ndarray` of shape `(64, 64, 3)`, `uint8`): RGB.
        words (`Words`): What the creature was made for.
        parts (`list[tuple[Part, np.ndarray]]`): Parts from back to front with their visible pixels, masks of shape
            `(64, 64)`.
    """

    image: np.ndarray
    words: Words
    parts: list[tuple[Part, np.ndarray]]

    @property
    def picture(self) -> Image.Image:
        return Image.fromarray(self.image)


def render(words: Words, seed: int) -> Render:
    """
    Render a creature. The same words and seed give the same pixels.

    Args:
        words (`Words`): What it has to be.
        seed (`int`): Seed of pose and proportions.
    """
    return render_scene(make_scene(words, np.random.default_rng(seed)))


def render_many(number: int, seed: int, name: str) -> list[Render]:
    """Render creatures with random conditions; `name` tells sets of one seed apart, such as `"train"`."""
    return [render(words_of(index, seed, name), seed_of(index, seed, name)) for index in range(number)]


def seed_of(index: int, seed: int, name: str) -> int:
    """Return the seed of one creature of [`render_many`]."""
    return derive_seed(seed, f"creatures:{name}:{index}")


def words_of(index: int, seed: int, name: str) -> Words:
    """Return the condition of one creature of [`render_many`]."""
    return draw_words(np.random.default_rng(derive_seed(seed, f"creatures:words:{name}:{index}")))


def render_scene(scene: Scene) -> Render:
    """Render a scene, which may have artifacts planted in it."""
    x, y = pixel_centres(SIDE)
    canvas, light = _background(scene), _light(scene, x, y)
    masks: list[tuple[Part, np.ndarray]] = []
    for part in scene.parts:
        shown = np.zeros((SIDE, SIDE), bool)
        for layer in part.layers:
            window = _window(layer)
            distance = layer.shape.distance(x[window], y[window])
            canvas[window] = _paint(canvas[window], layer, distance, light[window])
            shown[window] |= distance < (_OUTLINE_WIDTH if layer.outlined else 0)
        masks = [(before, mask & ~shown) for before, mask in masks] + [(part, shown)]
    return Render(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), scene.words, masks)


def _window(layer: Layer) -> tuple[slice, slice]:
    """Return the rows and columns outside of which a layer changes nothing."""
    reach = layer.shape.reach + _OUTLINE_WIDTH + 1
    # Two pixels at least, from which a slope can be computed.
    low = [int(np.clip(middle - reach, 0, SIDE - 2)) for middle in layer.shape.centre]
    high = [int(np.clip(np.ceil(middle + reach), 2, SIDE)) for middle in layer.shape.centre]
    columns, rows = (slice(first, max(last, first + 2)) for first, last in zip(low, high, strict=True))
    return rows, columns


def _background(scene: Scene) -> np.ndarray:
    light = 1 + _BACKGROUND_LIGHT * np.linspace(1, -1, SIDE)[:, None]
    return np.asarray(BACKGROUNDS[scene.words.background]) * light.repeat(SIDE, 1)[..., None]


def _light(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute the brightness of shaded surfaces, lit from above and the left."""
    across, down = ((axis - middle) / (_HEAD * scene.scale) for axis, middle in zip((x, y), scene.centre, strict=True))
    return 1 - _LIGHT[0] * np.clip(across, -1.5, 1.5) - _LIGHT[1] * np.clip(down, -1.5, 1.5)


def _paint(canvas: np.ndarray, layer: Layer, distance: np.ndarray, light: np.ndarray) -> np.ndarray:
    colour = np.asarray(layer.colour, float) * (light[..., None] if layer.shaded else 1.0)
    if layer.outlined:
        canvas = _blend(canvas, colour * _OUTLINE_SHADE, distance - _OUTLINE_WIDTH)
    return _blend(canvas, colour, distance)


def _blend(canvas: np.ndarray, colour: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Cover the canvas as far as each pixel lies inside."""
    return canvas + np.clip(0.5 - distance, 0, 1)[..., None] * (colour - canvas)
