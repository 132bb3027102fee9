"""A box in an image."""

from __future__ import annotations


# `(x_min, y_min, x_max, y_max)`, exclusive maxima; px of the image as it is stored, unless another unit is named.
Box = tuple[float, float, float, float]
