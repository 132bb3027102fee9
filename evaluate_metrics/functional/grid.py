"""Overlap of predicted and true artifact regions in the cells of a grid, as VIEScore2 compares detectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .intervals import Bootstrap
from .lengths import check_lengths
from .miou import score_pixel_counts
from .regions import RESIZE_POLICIES, Region, Size, region_mask


GRID_PROTOCOL = "viescore2"
GRID = 16
"""Cells along each side."""


def grid_iou(
    predictions: Iterable[Region],
    references: Iterable[Region],
    sizes: Iterable[Size],
    threshold: float = 0.5,
    cell_share: float = 0.0,
    grid: int = GRID,
    empty: str = "one",
    resize: str = "error",
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Compute IoU, F1, precision and recall of the cells of a grid that hold artifacts.

    VIEScore2 (arXiv 2610.00994) puts detectors that answer in boxes, masks or heat maps on one grid of 16×16 cells.
    How much of a cell must be an artifact, and how images are combined, is not stated in what this was written from.
    The published pairs of IoU and F1 do not follow from one rule: some F1 are below their IoU, others above
    2 IoU / (1 + IoU). Here a cell counts if any of its pixels does, and scores are averaged over the images that have
    artifacts. They should not be put beside the published ones.

    Args:
        predictions, references (`Iterable[Region]`): Region of each image, as in [`region_mask`].
        sizes (`Iterable[tuple[int, int]]`): Width and height of each image in pixels.
        threshold (`float`, *optional*, defaults to 0.5): Value in [0, 1) above which a pixel of a heat map belongs to
            the region.
        cell_share (`float`, *optional*, defaults to 0.0): Share of a cell's pixels in [0, 1) that must be exceeded.
        grid (`int`, *optional*, defaults to 16): Cells along each side.
        empty (`str`, *optional*, defaults to `"one"`): See [`~evaluate_metrics.functional.miou.score_pixel_counts`].
        resize (`str`, *optional*, defaults to `"error"`): What to do with predicted maps of another size than the
            image: `"error"`, or `"prediction"` to resize them.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `miou`, `f1`, `precision` and `recall` in [0, 1], each with an `_interval`; `protocol`,
        `average`, `empty`, `grid`, `cell_share`, `threshold`, `n`, `n_scored`, `versions`.

    Raises:
        ValueError: Predictions, references and sizes differ in number, a setting is out of range, or a region cannot
            be read; the message names the image.

    Example:

    ```python
    >>> result = grid_iou([[(0, 0, 8, 4)]], [[(0, 0, 4, 4)]], [(64, 64)])
    >>> result["miou"], round(result["f1"], 3)
    (0.5, 0.667)

    ```
    """
    check_lengths(references, predictions=predictions, sizes=sizes)
    counts = []
    for index, (prediction, reference, size) in enumerate(zip(predictions, references, sizes, strict=True)):
        try:
            counts.append(cell_counts(prediction, reference, size, threshold, cell_share, grid, resize))
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from error
    result = score_cell_counts(np.array(counts).reshape(-1, 4), cell_share, grid, empty, bootstrap)
    return {**result, "threshold": threshold, "resize": resize}


def cell_counts(
    prediction: Region,
    reference: Region,
    size: Size,
    threshold: float = 0.5,
    cell_share: float = 0.0,
    grid: int = GRID,
    resize: str = "error",
) -> np.ndarray:
    """
    Count the cells of an image that hold artifacts of both regions, of one of them, and of neither.

    Args:
        prediction, reference (`Region`): Regions, as in [`region_mask`].
        size (`tuple[int, int]`): Width and height of the image in pixels.
        threshold, cell_share, grid, resize (*optional*): See [`grid_iou`].

    Returns:
        `np.ndarray` of shape `(4,)`, `int64`: true positives, false positives, false negatives, true negatives.

    Raises:
        ValueError: A region cannot be read or has another size, or a setting is out of range.
    """
    if resize not in RESIZE_POLICIES:
        raise ValueError(f"`resize` must be one of {', '.join(RESIZE_POLICIES)}, got {resize!r}")
    predicted = grid_cells(region_mask(prediction, size, threshold, resize == "prediction"), cell_share, grid)
    true = grid_cells(region_mask(reference, size, threshold), cell_share, grid)
    return np.array(
        [(predicted & true).sum(), (predicted & ~true).sum(), (~predicted & true).sum(), (~predicted & ~true).sum()],
        dtype=np.int64,
    )


def grid_cells(mask: np.ndarray, cell_share: float = 0.0, grid: int = GRID) -> np.ndarray:
    """
    Compute which cells of a grid a mask covers. A pixel belongs to the cell that its centre lies in.

    Args:
        mask (`np.ndarray` of shape `(height, width)`, `bool`): The mask.
        cell_share (`float`, *optional*, defaults to 0.0): Share of a cell's pixels in [0, 1) that must be exceeded.
        grid (`int`, *optional*, defaults to 16): Cells along each side.

    Returns:
        `np.ndarray` of shape `(grid, grid)`, `bool`. In an image with fewer pixels than cells, cells without a pixel
        are not covered.

    Raises:
        ValueError: `cell_share` or `grid` is out of range.

    Example:

    ```python
    >>> mask = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=bool)
    >>> grid_cells(mask, grid=2).astype(int).tolist(), grid_cells(mask, 0.5, grid=2).astype(int).tolist()
    ([[1, 0], [0, 1]], [[0, 0], [0, 1]])

    ```
    """
    if not 0 <= cell_share < 1:
        raise ValueError(f"`cell_share` must lie in [0, 1), got {cell_share}")
    if grid < 1:
        raise ValueError(f"`grid` must be at least 1, got {grid}")
    rows, columns = (((np.arange(length) + 0.5) * grid // length).astype(np.int64) for length in mask.shape)
    cells = (rows[:, None] * grid + columns).ravel()
    covered = np.bincount(cells, weights=mask.ravel(), minlength=grid * grid)
    pixels = np.bincount(cells, minlength=grid * grid)
    return (covered > cell_share * pixels).reshape(grid, grid)


def score_cell_counts(
    counts: np.ndarray,
    cell_share: float = 0.0,
    grid: int = GRID,
    empty: str = "one",
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Compute IoU, F1, precision and recall from the counts of cells.

    Args:
        counts (`np.ndarray` of shape `(images, 4)`): Output of [`cell_counts`] of each image.
        cell_share, grid (*optional*): Those that they were counted with.
        empty, bootstrap (*optional*): See [`grid_iou`].

    Returns:
        `dict[str, Any]`: As of [`grid_iou`].

    Raises:
        ValueError: There is no image, or a setting is not among those above.
    """
    result = score_pixel_counts(counts, "artiagent", empty, bootstrap=bootstrap)
    return {**result, "protocol": GRID_PROTOCOL, "grid": grid, "cell_share": cell_share}
