"""
Heads of reward models, an MLP on features of the trunk each:

- `pooled`: one score from the pooled vector of the whole image (ArtiAgent, appendix C.1);
- `token`: a score of each token, of which the lowest count, because an artifact is a small part of an image;
- `tiled`: a pooled score of the whole and of each of k×k tiles, seen at the size of the whole, of which the lowest
  count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from ...utils.errors import ArgumentError, check_at_least, check_choice
from .features import Channels, TrunkFeatures
from .self_similarity import QUANTILES, percentiles, self_similarity


HEADS = ("pooled", "token", "tiled")


@dataclass(frozen=True)
class HeadSettings:
    """
    Which head, and how it makes one score of several.

    Args:
        kind (`str`, *optional*, defaults to `"pooled"`): One of `HEADS`.
        aggregation (`str`, *optional*, defaults to `"worst_mean"`): One of [`AGGREGATIONS`]: the `"minimum"`, a
            `"soft_minimum"`, or the mean of the worst, `"worst_mean"`. Without effect on `"pooled"`.
        temperature (`float`, *optional*, defaults to 1.0): Of the soft minimum, above 0; the minimum near 0, the mean
            at infinity.
        worst_share (`float`, *optional*, defaults to 0.05): Share of the scores that the mean of the worst is taken
            of, in (0, 1]; at least one score.
        tiles (`int`, *optional*, defaults to 2): Tiles along each side, at least 2, of `"tiled"`.
        hidden_size (`int`, *optional*, defaults to 256): Units of the MLP's hidden layer.
        self_similarity (`bool`, *optional*, defaults to `False`): Whether the MLP also sees how much places look like
            others, which is meant to tell duplications: of each token its similarity, of the whole its percentiles.

    Raises:
        ArgumentError: A value is not as described.
    """

    kind: str = "pooled"
    aggregation: str = "worst_mean"
    temperature: float = 1.0
    worst_share: float = 0.05
    tiles: int = 2
    hidden_size: int = 256
    self_similarity: bool = False

    def __post_init__(self) -> None:
        check_choice("head", self.kind, HEADS)
        check_choice("aggregation", self.aggregation, tuple(AGGREGATIONS))
        if not self.temperature > 0:
            raise ArgumentError(f"`temperature` must be above 0, got {self.temperature}")
        if not 0 < self.worst_share <= 1:
            raise ArgumentError(f"`worst_share` must be above 0 and at most 1, got {self.worst_share}")
        check_at_least("tiles", self.tiles, 2)
        check_at_least("hidden_size", self.hidden_size)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> HeadSettings:
        """
        Read the output of [`to_dict`].

        Raises:
            ArgumentError: A field is unknown, missing, or not as described.
        """
        names = [field.name for field in fields(cls)]
        if sorted(content) != sorted(names):
            raise ArgumentError(f"`head` must have the fields {', '.join(names)}, got {', '.join(content)}")
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-serialisable."""
        return asdict(self)


class RewardHead(nn.Module):
    """
    An MLP with one hidden layer that scores vectors.

    Args:
        settings (`HeadSettings`): Which vectors it scores.
        channels (`Channels`): Sizes of the trunk's features.
    """

    def __init__(self, settings: HeadSettings, channels: Channels) -> None:
        super().__init__()
        self.settings = settings
        is_token = settings.kind == "token"
        more = channels.maps * (1 if is_token else len(QUANTILES)) if settings.self_similarity else 0
        self.hidden = nn.Linear((channels.tokens if is_token else channels.pooled) + more, settings.hidden_size)
        self.score = nn.Linear(settings.hidden_size, 1)

    def forward(self, vectors: torch.Tensor, counts: torch.Tensor, views: int) -> torch.Tensor:
        """
        Score images.

        Args:
            vectors, counts (`torch.Tensor`): Result of [`inputs`].
            views (`int`): Number of views of an image.

        Returns:
            `torch.Tensor` of shape `(images,)`: Scores, higher for fewer artifacts.
        """
        scores = self.score(nn.functional.gelu(self.hidden(vectors)))[..., 0]
        return aggregate(
            scores.unflatten(0, (-1, views)).flatten(1), counts.unflatten(0, (-1, views)).flatten(1), self.settings
        )

    def inputs(self, features: TrunkFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return what is scored of a trunk's features; no weight of the head has a part in it.

        Args:
            features (`TrunkFeatures`): Features of the views of each image in turn.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Vectors of shape `(views, vectors, channels)`, and which of them
            count, `bool` of shape `(views, vectors)`.
        """
        alike = []
        if self.settings.self_similarity:
            alike = [self_similarity(one, features.inside) for one in features.maps]
        if self.settings.kind == "token":
            tokens = torch.cat([features.tokens, *(one[:, None] for one in alike)], 1)
            return tokens.flatten(2).transpose(1, 2), features.inside.flatten(1)
        pooled = torch.cat([features.pooled, *(percentiles(one, features.inside) for one in alike)], 1)
        return pooled[:, None], features.inside.flatten(1).any(1, keepdim=True)


def aggregate(scores: torch.Tensor, counts: torch.Tensor, settings: HeadSettings) -> torch.Tensor:
    """
    Make one score of several.

    Args:
        scores (`torch.Tensor` of shape `(images, scores)`): The scores.
        counts (`torch.Tensor` of shape `(images, scores)`, `bool`): Which of them count, at least one of each image.
        settings (`HeadSettings`): How.

    Returns:
        `torch.Tensor` of shape `(images,)`.
    """
    return AGGREGATIONS[settings.aggregation](scores, counts, settings)


def _minimum(scores: torch.Tensor, counts: torch.Tensor, settings: HeadSettings) -> torch.Tensor:
    return scores.masked_fill(~counts, torch.inf).amin(1)


def _soft_minimum(scores: torch.Tensor, counts: torch.Tensor, settings: HeadSettings) -> torch.Tensor:
    """Compute -t log of the mean of exp(-s / t)."""
    scaled = (-scores / settings.temperature).masked_fill(~counts, -torch.inf)
    return -settings.temperature * (scaled.logsumexp(1) - counts.sum(1).to(scores.dtype).log())


def _worst_mean(scores: torch.Tensor, counts: torch.Tensor, settings: HeadSettings) -> torch.Tensor:
    ordered = scores.masked_fill(~counts, torch.inf).sort(1).values
    worst = torch.tensor(
        [max(1, math.ceil(settings.worst_share * number)) for number in counts.sum(1).tolist()], device=scores.device
    )
    taken = torch.arange(scores.shape[1], device=scores.device) < worst[:, None]
    return ordered.masked_fill(~taken, 0).sum(1) / worst


AGGREGATIONS: Mapping[str, Callable[[torch.Tensor, torch.Tensor, HeadSettings], torch.Tensor]] = {
    "minimum": _minimum,
    "soft_minimum": _soft_minimum,
    "worst_mean": _worst_mean,
}
"""Ways to make one score of several, of which some count."""
