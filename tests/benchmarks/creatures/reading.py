"""Measure a picture: connected pieces of every colour that belongs to a part, and the creature's silhouette."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy import ndimage

from tests.benchmarks.creatures.bodies import neutral_scene
from tests.benchmarks.creatures.colour_classes import STRANGE, classify, most_common
from tests.benchmarks.creatures.renderer import render_scene
from tests.benchmarks.creatures.words import SPECIES, Words


_NEIGHBOURS = np.ones((3, 3), int)
# Fewer pixels of a colour than this are blends along an edge.
CRUMB = 4
# Half the thickness in px of lines one or two pixels wide, which blends along an edge are.
LINE = 1.0


@dataclass(frozen=True)
class Piece:
    """
    A connected piece of a picture.

    Args:
        area (`float`): Pixels.
        x, y (`float`): Its centroid in px.
        breadth, height (`float`): Standard deviations of its pixels in px, across and down.
        fill (`float`): Area divided by that of the ellipse with the same moments: 1 for ellipses, less for torn
            shapes and for two in one.
    """

    area: float
    x: float
    y: float
    breadth: float
    height: float
    fill: float


def measure(mask: np.ndarray) -> Piece:
    """Measure the pixels of a mask, of which there must be one."""
    rows, columns = np.nonzero(mask)
    # A pixel is a square, whose own variance is 1/12.
    across, down = columns.var() + 1 / 12, rows.var() + 1 / 12
    both = ((columns - columns.mean()) * (rows - rows.mean())).mean()
    ellipse = 4 * np.pi * np.sqrt(max(across * down - both**2, 1e-6))
    breadth, height, fill = np.sqrt(across), np.sqrt(down), len(rows) / ellipse
    return Piece(float(len(rows)), columns.mean() + 0.5, rows.mean() + 0.5, float(breadth), float(height), float(fill))


def pieces(mask: np.ndarray, least: float = CRUMB) -> list[np.ndarray]:
    """Return masks of the connected pieces of at least so many pixels, from left to right."""
    labels, number = ndimage.label(mask, _NEIGHBOURS)
    sizes = np.bincount(labels.ravel(), minlength=number + 1)
    found = [labels == index for index in range(1, number + 1) if sizes[index] >= least]
    return sorted(found, key=lambda piece: float(np.nonzero(piece)[1].mean()))


def thickness(mask: np.ndarray) -> float:
    """Return the radius in px of the largest disc within a mask."""
    return float(ndimage.distance_transform_edt(np.pad(mask, 1)).max())


class Reading:
    """
    What a picture shows, measured without knowing what it should.

    Args:
        image (`np.ndarray` of shape `(64, 64, 3)`, `uint8`): Picture.
    """

    def __init__(self, image: np.ndarray):
        self.image = image
        names, _ = classify(image)
        border = np.concatenate([names[0], names[-1], names[:, 0], names[:, -1]])
        self.background = most_common(border, "background")
        self.colour = most_common(names, "fur")
        self.names, self.distance = classify(image, self.colour, self.background)

    @cached_property
    def silhouettes(self) -> list[np.ndarray]:
        """Masks of what is not background, holes filled, largest first."""
        background = np.char.startswith(self.names, "background")
        # Background that is cut off from the border is a hole.
        return sorted(pieces(ndimage.binary_fill_holes(~background)), key=np.sum, reverse=True)

    @cached_property
    def silhouette(self) -> np.ndarray:
        """Mask of the creature; all pixels if there is nothing but background."""
        return self.silhouettes[0] if self.silhouettes else np.ones(self.names.shape, bool)

    @cached_property
    def body(self) -> Piece:
        """Measures of the creature."""
        return measure(self.silhouette)

    def pieces(self, kind: str, least: float = CRUMB) -> list[np.ndarray]:
        """Return masks of the pieces of a kind of part that are no mere lines; an eye includes its pupil."""
        mask = self.names == kind
        if kind == "eye":
            mask = ndimage.binary_fill_holes(mask | self._pupils_in_white)
        return [piece for piece in pieces(mask, least) if thickness(piece) > LINE]

    @cached_property
    def _pupils_in_white(self) -> np.ndarray:
        """Pixels of pupils that touch the white of an eye or a pixel that does."""
        near = ndimage.binary_dilation(self.names == "eye", _NEIGHBOURS, iterations=2)
        touching = [piece for piece in pieces(self.names == "pupil", 1) if (piece & near).any()]
        return np.any(touching, axis=0) if touching else np.zeros_like(near)

    @cached_property
    def strange(self) -> int:
        """Pixels within 3×3 squares of colours that belong to nothing in this picture."""
        return int(ndimage.binary_opening(self.distance > STRANGE, _NEIGHBOURS).sum())

    @cached_property
    def debris(self) -> int:
        """Pixels that are neither background nor part of the creature."""
        return int(sum(mask.sum() for mask in self.silhouettes[1:]))

    @cached_property
    def mottle(self) -> float:
        """Standard deviation of the fur's brightness in 0 to 255, away from edges, around an even slope of light."""
        fur = ndimage.binary_erosion(np.char.startswith(self.names, "fur"), _NEIGHBOURS)
        rows, columns = np.nonzero(fur)
        if len(rows) < CRUMB:
            return 255.0
        slope = np.column_stack([rows, columns, np.ones(len(rows))])
        brightness = self.image[fur].mean(1)
        return float((brightness - slope @ np.linalg.lstsq(slope, brightness, rcond=None)[0]).std())

    def likeness(self, species: str, horns: int) -> float:
        """Compute the IoU of the silhouette with that of a species, put in its place and to its size."""
        expected = silhouette_of(species, horns, self.body)
        return float((expected & self.silhouette).sum() / (expected | self.silhouette).sum())

    def bulge(self, species: str, horns: int) -> float:
        """Return half the thickness in px of the thickest that sticks out of a species' silhouette."""
        return thickness(self.silhouette & ~silhouette_of(species, horns, self.body))

    def dent(self, species: str, horns: int) -> float:
        """Return half the thickness in px of the thickest that a species' silhouette lacks."""
        return thickness(silhouette_of(species, horns, self.body) & ~self.silhouette)

    @cached_property
    def species(self) -> str:
        """The species with the most similar silhouette."""
        likeness = {name: max(self.likeness(name, horns) for horns in range(3)) for name in SPECIES}
        return max(likeness, key=likeness.__getitem__)

    @cached_property
    def horns(self) -> int:
        return len(self.pieces("horn", least=8))

    @property
    def words(self) -> Words:
        """The condition that the picture meets, as far as there are words for it."""
        return Words(self.species, self.colour, self.background, min(self.horns, 2))


@cache
def _template(species: str, horns: int) -> tuple[np.ndarray, Piece]:
    scene = neutral_scene(Words(species, "green", "navy", horns))
    mask = np.any([shown for _, shown in render_scene(scene).parts], axis=0)
    return mask.astype(float), measure(mask)


def silhouette_of(species: str, horns: int, body: Piece) -> np.ndarray:
    """Return the mask of a species' average silhouette, moved and scaled to a body's centroid and area."""
    template, average = _template(species, horns)
    factor = np.sqrt(average.area / body.area)
    offset = (average.y - 0.5 - factor * (body.y - 0.5), average.x - 0.5 - factor * (body.x - 0.5))
    return ndimage.affine_transform(template, (factor, factor), offset, order=1) > 0.5
