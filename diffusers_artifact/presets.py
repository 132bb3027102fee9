"""
Injection presets, what a run takes of them, and the pipeline's defaults beside them.

| | a call of the pipeline | `"paper"`, `"transfer_noise"` | `"embedded"` |
|---|---|---|---|
| steps | 8 | 25 | 8 |
| `hold_background`, values from the reconstruction | yes | no | yes |
| `hold_background`, values from the inversion | no | no | no |

A run takes `"embedded"` for the embedded model and `"paper"` for all others ([`preset_of`]): their settings are the
published ones, since none has been measured on them. `--preset`, `--num-inference-steps` and `--hold-background`
override it. This module imports neither torch nor diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .choices import ValueSource


NUM_INFERENCE_STEPS = 8
"""Default number of steps, chosen on the embedded model (`tests/benchmarks/injection.py --sweep`)."""

PAPER_NUM_INFERENCE_STEPS = 25
"""Number of steps in the paper (ArtiAgent §4.2.2)."""

EMBEDDED = "embedded"
"""Name of the default model, which is shipped with the package."""


@dataclass(frozen=True)
class InjectionPreset:
    """
    Strength of the injection for a model; see [`ArtifactInjectionPipeline.__call__`].

    Attributes:
        num_inference_steps (`int`): Steps of the inversion, and of denoising.
        transfer_noise (`bool`): Start targets from the inverted noise of their references.
        position_share (`float`, *optional*): Share of the steps with position injection, 0 to 1; by default the
            paper's share for the artifact type.
        value_share (`float`, *optional*): Share of the steps with value injection, 0 to 1; by default the paper's.
        value_in_all_blocks (`bool`): Inject values in every block instead of the last third.
        hold_background (`bool`): Also give tokens outside the target the reconstruction's queries, where values come
            from the reconstruction.
    """

    num_inference_steps: int = PAPER_NUM_INFERENCE_STEPS
    transfer_noise: bool = False
    position_share: float | None = None
    value_share: float | None = None
    value_in_all_blocks: bool = False
    hold_background: bool = False

    def arguments(self, num_inference_steps: int, num_blocks: int, value_source: ValueSource) -> dict[str, Any]:
        """
        Return the arguments of [`ArtifactInjectionPipeline.__call__`] that the preset sets.

        Args:
            num_inference_steps (`int`): Steps of the call.
            num_blocks (`int`): Number of transformer blocks.
            value_source (`str`): `value_source` of the call, `"reconstruction"` or `"inversion"`.

        Returns:
            `dict[str, Any]`: Keyword arguments; `None` stands for the pipeline's default.
        """
        blocks: Sequence[int] | None = range(num_blocks) if self.value_in_all_blocks else None
        return {
            "position_steps": None
            if self.position_share is None
            else round(self.position_share * num_inference_steps),
            "value_steps": None if self.value_share is None else round(self.value_share * num_inference_steps),
            "value_blocks": blocks,
            "transfer_noise": self.transfer_noise,
            "hold_background": self.hold_background and may_hold_background(value_source),
        }


def preset_name(model: str, preset: str = "auto") -> str:
    """
    Return the name of the preset that a model runs with.

    Args:
        model (`str`): `"embedded"`, a folder, or the id of a repository on the Hub.
        preset (`str`, *optional*, defaults to `"auto"`): Name of a preset; `"auto"` chooses by the model.
    """
    if preset != "auto":
        return preset
    return EMBEDDED if model == EMBEDDED else "paper"


def preset_of(model: str, preset: str = "auto") -> InjectionPreset:
    """Return the preset that a model runs with; see [`preset_name`]."""
    return PRESETS[preset_name(model, preset)]


def may_hold_background(value_source: ValueSource) -> bool:
    """Return whether `hold_background` is possible: an inversion has no queries at the evaluations of denoising."""
    return value_source == "reconstruction"


# The embedded model is small: with the paper's settings, copies smear and an artifact tints similar parts elsewhere.
# Its card (hub_cards/embedded_flux.md) and tests/benchmarks/README.md have the figures behind its preset.
PRESETS = {
    "paper": InjectionPreset(),
    "transfer_noise": InjectionPreset(transfer_noise=True),
    "embedded": InjectionPreset(
        num_inference_steps=NUM_INFERENCE_STEPS,
        transfer_noise=True,
        position_share=0.5,
        value_share=1.0,
        value_in_all_blocks=True,
        hold_background=True,
    ),
}
