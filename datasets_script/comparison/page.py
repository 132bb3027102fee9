"""HTML page of a comparison: the table, and side-by-side pictures, worst changes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from ..figures.drawing import fitted, with_mask
from ..figures.page import embedded_image, html_page
from ..figures.style import ORANGE
from .measures import THRESHOLD
from .scores import CHOSEN_NOTE, ColumnScores, score_cells, score_heading


_WIDTH = 1008
_GAP = 8
_TILE = 336

_STYLE = """
.tiles { display: flex; flex-wrap: wrap; gap: 8px; }
.scores { overflow-x: auto; } .scores td, .scores th { white-space: nowrap; }
.worse { color: #b02020; font-weight: bold; } .better { color: #008c69; font-weight: bold; }
"""


@dataclass(frozen=True, eq=False)
class Picture:
    """
    An image of one folder.

    Attributes:
        image (`PIL.Image.Image`): The image, RGB.
        value (`float`): Its value in the column that the page is sorted by.
        artifact_map (`np.ndarray` of shape `(height, width)`, *optional*): What the first detector sees.
    """

    image: Image.Image
    value: float
    artifact_map: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class PictureRow:
    """
    The images of all folders that belong together.

    Attributes:
        name, prompt (`str`): Their name and prompt.
        pictures (`tuple[Picture, ...]`): Image of each folder.
    """

    name: str
    prompt: str
    pictures: tuple[Picture, ...]


def comparison_page(
    names: Sequence[str],
    scores: Sequence[ColumnScores],
    rows: Sequence[PictureRow],
    sorted_by: str,
    notes: Sequence[str],
) -> str:
    """
    Compose the page.

    Args:
        names (`Sequence[str]`): Names of the folders.
        scores (`Sequence[ColumnScores]`): Scores, in the order to show.
        rows (`Sequence[PictureRow]`): Images to show, worst changes first.
        sorted_by (`str`): Column that the images are sorted by, for readers.
        notes (`Sequence[str]`): Remarks below the table, plain text.

    Returns:
        `str`: The HTML document.
    """
    title = " against ".join([", ".join(names[1:]), names[0]])
    total = scores[0].n
    sections = [
        f"<h1>{escape(title)}</h1>",
        _table(names, scores),
        *(f'<p class="faint">{escape(note)}</p>' for note in notes),
        "<h2>Pictures</h2>",
        f'<p class="faint">{len(rows)} of {total} images, those first whose {escape(sorted_by)} worsened most. Below '
        f"an image, what the first detector sees: pixels above {THRESHOLD} of its map.</p>",
        *(_row(names, row) for row in rows),
    ]
    return html_page(title, "\n".join(sections), _STYLE)


def _table(names: Sequence[str], scores: Sequence[ColumnScores]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in score_heading(names))
    body = "".join(f"<tr>{_cells(of)}</tr>" for of in scores)
    note = f'<p class="faint">{CHOSEN_NOTE}</p>' if any(of.is_marked for of in scores) else ""
    return f'<div class="scores"><table><tr>{head}</tr>{body}</table></div>{note}'


def _cells(scores: ColumnScores) -> str:
    """Compose the cells of a row, with certain changes in colour."""
    kinds = [""] * 3
    for change in scores.changes:
        worse = scores.column.worsening(change.difference)
        is_told = change.is_certain and scores.column.better != "neither" and not (change.chosen or scores.chosen)
        kinds += ["", ("worse" if worse > 0 else "better") if is_told else "", ""]
    cells = zip([*kinds, ""], score_cells(scores), strict=True)
    return "".join(
        f'<td class="{kind}">{escape(cell)}</td>' if kind else f"<td>{escape(cell)}</td>" for kind, cell in cells
    )


def _row(names: Sequence[str], row: PictureRow) -> str:
    side = min(_TILE, (_WIDTH - _GAP * (len(names) - 1)) // len(names))
    tiles = [_tile(name, row.name, picture, side) for name, picture in zip(names, row.pictures, strict=True)]
    prompt = f"<p>{escape(row.prompt)}</p>" if row.prompt else ""
    return (
        f'<div class="section">{prompt}<div class="tiles">{"".join(tiles)}</div>'
        f'<p class="faint">{escape(row.name)}</p></div>'
    )


def _tile(folder: str, name: str, picture: Picture, side: int) -> str:
    shown = fitted(picture.image, side)
    images = [embedded_image(shown, f"{name} of {folder}", "JPEG", *shown.size)]
    if picture.artifact_map is not None and (seen := picture.artifact_map > THRESHOLD).any():
        marked = with_mask(shown, seen, ORANGE, 0.4, outline=2)
        images.append(embedded_image(marked, f"artifacts in {name} of {folder}", "JPEG", *shown.size))
    caption = f'<figcaption class="faint">{escape(folder)}: {picture.value:.4g}</figcaption>'
    return f"<figure>{''.join(images)}{caption}</figure>"
