"""Settings that corrections depend on."""

from __future__ import annotations

from dataclasses import dataclass

from ..utils.errors import ArgumentError, check_at_least


@dataclass(frozen=True)
class CorrectionSettings:
    """
    Settings of a correction.

    Args:
        max_rounds (`int`, *optional*, defaults to 4): Rounds of a region at most; 0 only looks.
        candidates (`int`, *optional*, defaults to 4): Repairs of each round, from different seeds.
        max_regions (`int`, *optional*, defaults to 3): Regions of an image to repair at most, those that the detector
            is surest of. Others are recorded, and stay as they are.
        strength, last_strength (`float`, *optional*): Strength of the first and of the last round, in (0, 1]; between
            them it grows evenly. By default those of the repairer.
        margin (`float`, *optional*, defaults to 0.03): Share of the region's longer side, or 6 px if that is more, by
            which it is grown in the first round; in round n, n times as much.
        threshold (`float`, *optional*): Score in [0, 1] of the verifier up to which a region counts as clean; by
            default as the verifier decides.
        least_gain (`float`, *optional*, defaults to 0.25): Share of the score before by which it must have fallen, at
            the bound, for a repair to be kept although the verifier still sees an artifact.
        seed (`int`, *optional*, defaults to 0): Seed of the run.

    Raises:
        ArgumentError: A value is out of range.
    """

    max_rounds: int = 4
    candidates: int = 4
    max_regions: int = 3
    strength: float | None = None
    last_strength: float | None = None
    margin: float = 0.03
    threshold: float | None = None
    least_gain: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("max_rounds", self.max_rounds, 0)
        check_at_least("candidates", self.candidates)
        check_at_least("max_regions", self.max_regions)
        check_at_least("margin", self.margin, 0)
        for name in ("strength", "last_strength"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ArgumentError(f"`{name}` must be above 0 and at most 1, got {value}")
        for name in ("threshold", "least_gain"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ArgumentError(f"`{name}` must be from 0 to 1, got {value}")

    def strength_of(self, number: int, strengths: tuple[float, float]) -> float:
        """
        Return the strength of a round.

        Args:
            number (`int`): Number of the round, from 1.
            strengths (`tuple[float, float]`): First and last strength of the repairer.
        """
        first = self.strength or strengths[0]
        last = max(first, self.last_strength or max(first, strengths[1]))
        share = (number - 1) / max(1, self.max_rounds - 1)
        return round(first + share * (last - first), 4)
