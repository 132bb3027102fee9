"""
How much each place of an image looks like another place of it. A duplicated part is a part like any other where it
lies; what gives it away is its twin. The idea is that of detectors of copied regions: self-correlation of features,
and its percentiles for the whole image (BusterNet, Wu et al., ECCV 2018).
"""

from __future__ import annotations

import torch
from torch.nn import functional


QUANTILES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Shares of the places that lie above the values kept of a whole image."""

# Places nearer than this share of the longer side are alike because they belong together.
_REACH = 1 / 8
# Fisher's transformation of correlations between the places of photos is about 1.5 ± .3.
_LIMIT, _CENTRE, _SCALE = 0.999, 1.5, 3.0


def self_similarity(tokens: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """
    Compute for each place the similarity with the place that is most like it, and not near it. Gradients pass.

    Args:
        tokens (`torch.Tensor` of shape `(batch, channels, rows, columns)`): A vector for each place.
        inside (`torch.Tensor` of shape `(batch, rows, columns)`, `bool`): Which places count.

    Returns:
        `torch.Tensor` of shape `(batch, rows, columns)`: Fisher's transformation of the greatest correlation, centred
        and scaled to about ±1; the least value where there is no other place.
    """
    counts = inside.flatten(1)
    vectors = tokens.float().flatten(2).transpose(1, 2)
    mean = (vectors * counts[..., None]).sum(1, keepdim=True) / counts.sum(1)[:, None, None]
    unit = functional.normalize(vectors - mean, dim=2)
    excluded = _near(tokens.shape[2], tokens.shape[3], tokens.device) | ~counts[:, None]
    greatest = (unit @ unit.transpose(1, 2)).masked_fill(excluded, -1).amax(2)
    scaled = (greatest.clamp(-_LIMIT, _LIMIT).atanh() - _CENTRE) * _SCALE
    return scaled.to(tokens.dtype).unflatten(1, tokens.shape[2:])


def percentiles(values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """
    Return the values that [`QUANTILES`] of the places lie above.

    Args:
        values (`torch.Tensor` of shape `(batch, rows, columns)`): A value for each place.
        inside (`torch.Tensor` of shape `(batch, rows, columns)`, `bool`): Which places count, at least one.

    Returns:
        `torch.Tensor` of shape `(batch, quantiles)`.
    """
    counts = inside.flatten(1)
    ordered = values.flatten(1).masked_fill(~counts, -torch.inf).sort(1, descending=True).values
    shares = torch.tensor(QUANTILES, dtype=torch.float64, device=values.device)
    return ordered.gather(1, (shares * counts.sum(1, keepdim=True)).long())


def _near(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Return which places are near each other, `bool` of shape `(places, places)`."""
    reach = max(1, round(max(rows, columns) * _REACH))
    places = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))
    return (places[:, None] - places[None]).abs().amax(2) < reach
