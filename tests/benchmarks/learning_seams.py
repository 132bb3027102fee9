"""Seams of artifacts on the grid of tokens: whether its borders alone tell artifact images from clean ones."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter


# Added to steepness, so that its ratio does not depend on rounding where the image is flat.
_LEAST_STEEPNESS = 0.01
# Side of the windows that ratios are averaged in, tokens. One line alone is steep by chance in any image.
_WINDOW = 5


def seam_score(image: np.ndarray, patch_size: int) -> float:
    """
    Compute how much steeper an image is across the borders of tokens than across lines in the middle of tokens: the
    logarithm of the ratio of mean absolute differences, averaged over windows of 5×5 tokens, where it is greatest.
    Whole images count, the inside of artifacts included.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)`, `uint8`): The image.
        patch_size (`int`): Side of a token in pixels.
    """
    inner = seam_map(image, patch_size)[_WINDOW // 2 : -(_WINDOW // 2), _WINDOW // 2 : -(_WINDOW // 2)]
    return float(inner.max())


def seam_map(image: np.ndarray, patch_size: int) -> np.ndarray:
    """
    Compute where an image is steeper across the borders of tokens than within tokens; see [`seam_score`].

    Args:
        image (`np.ndarray` of shape `(height, width, 3)`, `uint8`): The image.
        patch_size (`int`): Side of a token in pixels.

    Returns:
        `np.ndarray` of shape `(rows - 1, columns - 1)` in tokens: Means over windows of the logarithms of ratios.
    """
    grey = image.astype(np.float32).mean(axis=2) / 255
    across, down = _log_ratios(grey, patch_size), _log_ratios(grey.T, patch_size).T
    rows, columns = len(down), across.shape[1]
    windows: np.ndarray = uniform_filter(across[:rows, :columns] + down[:rows, :columns], _WINDOW)
    return windows


def _log_ratios(grey: np.ndarray, patch_size: int) -> np.ndarray:
    """Return log ratios for the borders between columns of tokens, of shape `(rows, columns - 1)` in tokens."""
    steps = np.abs(np.diff(grey, axis=1))
    steps = steps.reshape(len(grey) // patch_size, patch_size, -1).mean(axis=1)  # per row of tokens
    borders = np.arange(patch_size, grey.shape[1], patch_size) - 1
    half = patch_size // 2
    middles = np.mean([steps[:, borders + sign * half + shift] for sign in (-1, 1) for shift in (-1, 0, 1)], axis=0)
    return np.log((steps[:, borders] + _LEAST_STEEPNESS) / (middles + _LEAST_STEEPNESS))


def seam_auc(images: np.ndarray, patch_size: int, resamples: int = 1000) -> tuple[float, list[float]]:
    """
    Compute the area under the ROC curve of [`seam_score`] for telling artifact images from clean ones.

    Args:
        images (`np.ndarray` of shape `(pairs, 2, height, width, 3)`, `uint8`): Clean and artifact images.
        patch_size (`int`): Side of a token in pixels.
        resamples (`int`, *optional*, defaults to 1000): Resamples of pairs for the interval.

    Returns:
        `tuple[float, list[float]]`: The area, .5 at chance, and its 95 % bootstrap interval.
    """
    scores = np.array([[seam_score(image, patch_size) for image in pair] for pair in images])
    wins = (scores[:, 1, None] > scores[None, :, 0]) + 0.5 * (scores[:, 1, None] == scores[None, :, 0])
    generator = np.random.default_rng(0)
    drawn = (generator.integers(0, len(scores), len(scores)) for _ in range(resamples))
    interval = np.quantile([wins[np.ix_(pairs, pairs)].mean() for pairs in drawn], (0.025, 0.975))
    return float(wins.mean()), [float(value) for value in interval]
