"""Settings that the result of a run depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from diffusers_artifact.choices import (
    COMPUTE_MODES,
    CONFINEMENTS,
    CORRUPTION_NAMES,
    SOLVER_NAMES,
    VALUE_SOURCES,
    ComputeMode,
    Confinement,
    ValueSource,
)
from diffusers_artifact.corruption_levels import CORRUPTION_PRESETS, NUM_STEPS, CorruptionPreset, sigma_of_step
from diffusers_artifact.presets import EMBEDDED, PRESETS, may_hold_background, preset_of
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from ..agents.curation.thresholds import CurationSettings, RegionGates
from ..utils.errors import ArgumentError, check_at_least, check_choice


DType = Literal["float32", "bfloat16", "float16"]
DTYPES: tuple[DType, ...] = get_args(DType)
Offload = Literal["none", "model", "group", "sequential"]
OFFLOADS: tuple[Offload, ...] = get_args(Offload)
Quantization = Literal["none", "float8", "8bit", "4bit"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)


@dataclass(frozen=True)
class LoadSettings:
    """
    How the diffusion model is loaded and run, as far as its images depend on it. What they do not depend on, such as
    where weights wait, is the plan's, see [`RunPlan`].

    Args:
        dtype (`str`, *optional*): `"float32"`, `"bfloat16"` or `"float16"`; by default float32 for the embedded model
            and on a CPU, else bfloat16. A run records the one in effect.
        quantization (`str`, *optional*, defaults to `"none"`): Weights of the transformer or U-Net: `"float8"`
            (torchao), `"8bit"` or `"4bit"` (bitsandbytes, NF4).
        attention_backend (`str`, *optional*): Attention kernel, as diffusers' `set_attention_backend` names it.
        compile (`bool`, *optional*, defaults to `False`): Compile the transformer's blocks.
        vae_tiling (`bool`, *optional*, defaults to `False`): Encode and decode images one by one, large ones in
            overlapping tiles.

    Raises:
        ArgumentError: A name is unknown.
    """

    dtype: DType | None = None
    quantization: Quantization = "none"
    attention_backend: str | None = None
    compile: bool = False
    vae_tiling: bool = False

    def __post_init__(self) -> None:
        if self.dtype is not None:
            check_choice("dtype", self.dtype, DTYPES)
        check_choice("quantization", self.quantization, QUANTIZATIONS)


@dataclass(frozen=True)
class InjectionSettings:
    """
    Settings of the injection; see [`ArtifactInjectionPipeline.__call__`].

    Args:
        num_inference_steps (`int`, *optional*): Steps of the inversion and of the denoising; by default the preset's.
        solver (`str`, *optional*, defaults to `"fireflow"`): One of `SOLVER_NAMES`.
        value_source (`str`, *optional*): One of `VALUE_SOURCES`; by default the preset's.
        confine (`str`, *optional*, defaults to `"visible"`): One of `CONFINEMENTS`. With `"visible"`, artifacts also
            end at the outline of their part.
        compute (`str`, *optional*): One of `COMPUTE_MODES`; by default `"target"` with a preset that holds the
            background, else `"full"`.
        allow_distilled (`bool`, *optional*, defaults to `False`): Allow few-step models, although they invert poorly.
        preset (`str`, *optional*, defaults to `"auto"`): Name of a preset, or `"auto"`: `"embedded"` for the embedded
            model and `"paper"` for all others.
        hold_background (`bool`, *optional*): Give tokens outside the target the clean image's queries too; by default
            the preset's.

    Raises:
        ArgumentError: The number of steps is below 1, a name is unknown, the preset needs another source of values,
            or the background cannot be held.
    """

    num_inference_steps: int | None = None
    solver: str = "fireflow"
    value_source: ValueSource | None = None
    confine: Confinement = "visible"
    compute: ComputeMode | None = None
    allow_distilled: bool = False
    preset: str = "auto"
    hold_background: bool | None = None

    def __post_init__(self) -> None:
        check_at_least("num_inference_steps", self.num_inference_steps)
        check_choice("preset", self.preset, ("auto", *PRESETS))
        check_choice("solver", self.solver, tuple(sorted(SOLVER_NAMES)))
        if self.value_source is not None:
            check_choice("value_source", self.value_source, VALUE_SOURCES)
        check_choice("confine", self.confine, CONFINEMENTS)
        if self.compute is not None:
            check_choice("compute", self.compute, COMPUTE_MODES)
        preset = preset_of(EMBEDDED, self.preset)  # `auto` takes the same source for all models
        source = self.value_source or preset.value_source
        if preset.rule == "released" and source != "inversion":
            raise ArgumentError(
                f"`value_source` must be inversion with `preset` {self.preset}, got {source!r}; leave it out"
            )
        if self.hold_background and not may_hold_background(source):
            raise ArgumentError(
                f"`hold_background` must be False with `value_source` {source}, which has no queries of "
                "the clean image, got True"
            )


@dataclass(frozen=True)
class CorruptionSettings:
    """
    Settings of the corruption; see [`ArtifactCorruptionPipeline.__call__`].

    Args:
        methods (`tuple[str, ...]`, *optional*, defaults to `("proposed",)`): Methods to choose from, of
            `CORRUPTION_NAMES`.
        steps (`tuple[int, ...]`, *optional*): Levels to choose from, as steps of DDIM with 50 steps; fewer mean more
            noise.
        sigmas (`tuple[float, ...]`, *optional*): The same as sigmas of a rectified flow, in (0, 1]. By default the
            level of the preset of method and model.
        num_inference_steps (`int`, *optional*): Steps of the whole schedule, of which those below the level are run;
            by default the preset's.
        solver (`str`, *optional*, defaults to `"midpoint"`): One of `SOLVER_NAMES`; U-Nets have DDIM.
        confine (`str`, *optional*, defaults to `"visible"`): One of `CONFINEMENTS`.
        allow_distilled (`bool`, *optional*, defaults to `False`): Allow few-step models, although they invert poorly.

    Raises:
        ArgumentError: A name is unknown, a number out of range, or levels are given both ways.
    """

    methods: tuple[str, ...] = CORRUPTION_NAMES[:1]
    steps: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()
    num_inference_steps: int | None = None
    solver: str = "midpoint"
    confine: Confinement = "visible"
    allow_distilled: bool = False

    def __post_init__(self) -> None:
        for method in self.methods or ("",):
            check_choice("methods", method, CORRUPTION_NAMES)
        if self.steps and self.sigmas:
            raise ArgumentError(
                f"`step` and `sigma` both set the level, got step {_listed(self.steps)} and sigma "
                f"{_listed(self.sigmas)}; leave out one of them"
            )
        for step in self.steps:
            if not isinstance(step, int) or not 0 <= step < NUM_STEPS:
                raise ArgumentError(f"`step` must be a whole number from 0 to {NUM_STEPS - 1}, got {step}")
        for sigma in self.sigmas:
            if not 0 < sigma <= 1:
                raise ArgumentError(f"`sigma` must be above 0 and at most 1, got {sigma:g}")
        check_at_least("num_inference_steps", self.num_inference_steps)
        check_choice("solver", self.solver, tuple(sorted(SOLVER_NAMES)))
        check_choice("confine", self.confine, CONFINEMENTS)

    def levels(self, model: str) -> list[tuple[str, float]]:
        """Return the pairs of a method and its level, as a sigma, that a model's photos are corrupted with."""
        sigmas = self.sigmas or tuple(map(sigma_of_step, self.steps))
        preset = corruption_preset(model)
        return [(method, sigma) for method in self.methods for sigma in sigmas or (preset.level(method),)]


def corruption_preset(model: str) -> CorruptionPreset:
    """Return the levels and steps of a model's corruptions where the settings name none."""
    return CORRUPTION_PRESETS["embedded" if model == EMBEDDED else "published"]


def _listed(numbers: Iterable[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


Balance = Literal["sample", "shard"]
BALANCES: tuple[Balance, ...] = get_args(Balance)
PERCEPTUAL_METRICS = ("stlpips", "lpips")

# [`~datasets_script.utils.photos.fit_multiple`] enlarges photos to a short side of this many pixels.
_LEAST_LONG_SIDE = 480


@dataclass(frozen=True)
class CommonSettings:
    """
    Settings that the result of any run depends on, besides the source photos, the models of perception and curation,
    and the versions of packages.

    Args:
        max_artifacts (`int`): Maximum number of artifacts in an artifact image, each of which gets at least one.
        max_target_share (`float`): Largest share of the image, in [0, 1], that one artifact may cover; larger ones
            fall apart.
        min_part_patches (`int`): Smallest part to work on: it has more pixels than this many patches of the model.
        pairs_per_image (`int`): Artifact variants of each photo; they share one inversion and the clean image.
        max_rerolls (`int`): Number of times a rejected artifact is replaced, at another place or with another kernel,
            before it is left out.
        max_long_side (`int`): Longer photos are shrunk to this long side, in pixels, at least 480. FLUX.1 and SD3.5
            were trained at about 1024; the embedded model only takes 256×256.
        seed (`int`): Seed from which, with the sample's id, all randomness of a sample derives.
        shard_size (`int`): Source photos per shard.
        perceptual_metric (`str`): `"lpips"` or `"stlpips"`.
        model, revision (`str`): See [`DiffusionModel`].
        loading (`LoadSettings`): How the diffusion model is loaded and run.
        curation (`CurationSettings`): Thresholds of acceptance.

    Raises:
        ArgumentError: A number is too small, or a metric is unknown.
    """

    command: ClassVar[str]
    """Command of `artiagent` that makes such runs."""
    takes_unnamed: ClassVar[bool] = False
    """Whether artifacts can be made at regions without a name."""

    max_artifacts: int = 3
    max_target_share: float = 0.13
    min_part_patches: int = 2
    pairs_per_image: int = 1
    max_rerolls: int = 1
    max_long_side: int = 1024
    seed: int = 0
    shard_size: int = 32
    perceptual_metric: str = "stlpips"
    model: str = EMBEDDED
    revision: str | None = None
    loading: LoadSettings = field(default_factory=LoadSettings)
    curation: CurationSettings = field(default_factory=CurationSettings)

    def __post_init__(self) -> None:
        check_choice("perceptual_metric", self.perceptual_metric, PERCEPTUAL_METRICS)
        for name in ("max_artifacts", "min_part_patches", "pairs_per_image", "shard_size"):
            check_at_least(name, getattr(self, name))
        check_at_least("max_rerolls", self.max_rerolls, 0)
        check_at_least("max_long_side", self.max_long_side, _LEAST_LONG_SIDE)

    @property
    def depends_on_shard(self) -> bool:
        """Return whether a photo's artifacts depend on the other photos of its shard."""
        return False

    @property
    def region_gates(self) -> RegionGates | None:
        """Return the gates that corrupted regions must pass, if any are made."""
        return None

    @property
    def stores_noise(self) -> bool:
        """Return whether the images of each pair are inverted to noise, which is stored."""
        return False


@dataclass(frozen=True)
class RunSettings(CommonSettings):
    """
    Settings of a run that injects artifacts with tools; those of all runs are in [`CommonSettings`].

    Args:
        tools (`tuple[str, ...]`): Tools to choose from.
        balance (`str`): How the artifact types of the tools are balanced. `"sample"`: a photo's types come in random
            order and its variants take turns, so its artifacts depend only on the photo and the seed. `"shard"`: the
            types that are rare so far in the shard come first, so they depend on the shard too.
        injection (`InjectionSettings`): Settings of the injection.
        store_noise (`bool`): Whether both images of each pair are inverted, and their noise is stored with them.

    Raises:
        ArgumentError: A tool or balance is unknown; or see [`CommonSettings`].
    """

    command: ClassVar[str] = "synthesize"

    tools: tuple[str, ...] = tuple(ARTIFACT_TYPE_OF_TOOL)
    balance: Balance = "sample"
    injection: InjectionSettings = field(default_factory=InjectionSettings)
    store_noise: bool = False

    def __post_init__(self) -> None:
        for tool in self.tools or ("",):
            check_choice("tools", tool, tuple(ARTIFACT_TYPE_OF_TOOL))
        check_choice("balance", self.balance, BALANCES)
        super().__post_init__()

    @property
    def depends_on_shard(self) -> bool:
        return self.balance == "shard"

    @property
    def stores_noise(self) -> bool:
        return self.store_noise


@dataclass(frozen=True)
class CorruptionRunSettings(CommonSettings):
    """
    Settings of a run that corrupts regions; those of all runs are in [`CommonSettings`].

    Args:
        corruption (`CorruptionSettings`): Settings of the corruption.
        gates (`RegionGates`): Gates that regions must pass.

    Raises:
        ArgumentError: See [`CommonSettings`].
    """

    command: ClassVar[str] = "corrupt"
    takes_unnamed: ClassVar[bool] = True

    corruption: CorruptionSettings = field(default_factory=CorruptionSettings)
    gates: RegionGates = field(default_factory=RegionGates)

    @property
    def region_gates(self) -> RegionGates:
        return self.gates
