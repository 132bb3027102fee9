"""What a run's result depends on, and the seeds that derive from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from diffusers_artifact.choices import CONFINEMENTS, SOLVER_NAMES, VALUE_SOURCES, Confinement, ValueSource
from diffusers_artifact.presets import EMBEDDED, PRESETS
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..agents.curation.verdicts import CurationSettings
from ..utils.errors import check_at_least, check_choice


@dataclass(frozen=True)
class InjectionSettings:
    """
    How artifacts are injected; see [`ArtifactInjectionPipeline.__call__`]. `preset="auto"` is `"embedded"` for the
    embedded model and `"paper"` for all others; without `num_inference_steps` the preset's are taken.

    Raises:
        ArgumentError: fewer steps than one, or an unknown preset.
    """

    num_inference_steps: int | None = None
    solver: str = "fireflow"
    value_source: ValueSource = "reconstruction"
    confine: Confinement = "none"
    allow_distilled: bool = False
    preset: str = "auto"

    def __post_init__(self) -> None:
        check_at_least("num_inference_steps", self.num_inference_steps)
        check_choice("preset", self.preset, ("auto", *PRESETS))

    def check(self) -> None:
        """
        Check the names that only the pipeline knows, before a model is loaded.

        Raises:
            ArgumentError: an unknown solver, source of values or confinement.
        """
        check_choice("solver", self.solver, tuple(sorted(SOLVER_NAMES)))
        check_choice("value_source", self.value_source, VALUE_SOURCES)
        check_choice("confine", self.confine, CONFINEMENTS)


Balance = Literal["sample", "shard"]
BALANCES: tuple[Balance, ...] = get_args(Balance)
PERCEPTUAL_METRICS = ("stlpips", "lpips")

# The short side that [`~datasets_script.utils.photos.fit_multiple`] enlarges photos to.
_LEAST_LONG_SIDE = 480


@dataclass(frozen=True)
class RunSettings:
    """
    Everything that a run's result depends on, beside the sources, the models of perception and curation, and the
    versions of packages.

    Args:
        tools (`tuple[str, ...]`): Tools to choose from.
        max_artifacts (`int`): Most artifacts in one artifact image; each gets one to that many.
        max_target_share (`float`): Largest share of the image that one artifact may take; large ones fall apart.
        pairs_per_image (`int`): Artifact variants of each photo; they share one inversion and the clean image.
        max_rerolls (`int`): How many times what curation rejects is tried again, at another place or with another
            kernel, before it is left out.
        balance (`str`): How the four types are kept in balance. With `"sample"` a photo's artifacts depend on nothing
            but the seed and itself: types come in random order, and its variants take turns. With `"shard"` the types
            that are rare so far in the shard come first, so that a photo's artifacts depend on its shard too.
        max_long_side (`int`): Photos longer than this are shrunk, in pixels; FLUX.1 and SD3.5 were trained at
            about 1024. The embedded model takes 256×256 px alone.
        seed (`int`): Every sample's randomness derives from it and from the sample's id.
        shard_size (`int`): Source images a shard. Shards are what a resumed run keeps.
        perceptual_metric (`str`): `"lpips"` or `"stlpips"`.
        model, revision (`str`): See [`Injector`].
        injection (`InjectionSettings`): Solver, steps and so on.
        curation (`CurationSettings`): Thresholds of acceptance.

    Raises:
        ArgumentError: a number that is too small, or an unknown tool, balance or metric.
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

    def __post_init__(self) -> None:
        for tool in self.tools or ("",):
            check_choice("tools", tool, tuple(ARTIFACT_TYPE_OF_TOOL))
        check_choice("balance", self.balance, BALANCES)
        check_choice("perceptual_metric", self.perceptual_metric, PERCEPTUAL_METRICS)
        for name in ("max_artifacts", "pairs_per_image", "shard_size"):
            check_at_least(name, getattr(self, name))
        check_at_least("max_rerolls", self.max_rerolls, 0)
        check_at_least("max_long_side", self.max_long_side, _LEAST_LONG_SIDE)
