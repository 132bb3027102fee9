"""What a run's result depends on, and the seeds that derive from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from diffusers_artifact.presets import EMBEDDED
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..agents.curation.verdicts import CurationSettings
from .injector import InjectionSettings


Balance = Literal["sample", "shard"]
BALANCES: tuple[Balance, ...] = get_args(Balance)


@dataclass(frozen=True)
class RunSettings:
    """
    Everything that a run's result depends on, beside the sources, the models of perception and curation, and the
    versions of packages.

    Args:
        tools (`tuple[str, ...]`): Tools to choose from.
        max_artifacts (`int`): Most artifacts in one flawed image; each gets one to that many.
        max_target_share (`float`): Largest share of the image that one flaw may take; large ones fall apart.
        pairs_per_image (`int`): Flawed variants of each photograph; they share one inversion and the clean half.
        max_rerolls (`int`): How many times what curation rejects is tried again, at another place or with another
            kernel, before it is left out.
        balance (`str`): How the four types are kept in balance. With `"sample"` a photograph's flaws depend on nothing
            but the seed and itself: types come in random order, and its variants take turns. With `"shard"` the types
            that are rare so far in the shard come first, so that a photograph's flaws depend on its shard too.
        max_long_side (`int`): Photographs longer than this are shrunk, in pixels; FLUX.1 and SD3.5 were trained at
            about 1024. The embedded model takes 256×256 px alone.
        seed (`int`): Every sample's randomness derives from it and from the sample's id.
        shard_size (`int`): Source images a shard. Shards are what a resumed run keeps.
        perceptual_metric (`str`): `"lpips"` or `"stlpips"`.
        model, revision (`str`): See [`Injector`].
        injection (`InjectionSettings`): Solver, steps and so on.
        curation (`CurationSettings`): Thresholds of acceptance.
    """

    tools: tuple[str, ...] = tuple(ARTIFACT_TYPE_OF_TOOL)
    max_artifacts: int = 3
    max_target_share: float = 0.13
    pairs_per_image: int = 1
    max_rerolls: int = 1
    balance: Balance = "sample"
    max_long_side: int = 1024
    seed: int = 0
    shard_size: int = 32
    perceptual_metric: str = "stlpips"
    model: str = EMBEDDED
    revision: str | None = None
    injection: InjectionSettings = field(default_factory=InjectionSettings)
    curation: CurationSettings = field(default_factory=CurationSettings)
