"""
Injection presets, what a run takes of them, and the pipeline's defaults beside them.

| | a call of the pipeline | `"paper"`, `"transfer_noise"` | `"as-released"` | `"embedded"` |
|---|---|---|---|---|
| steps | 8 | 25 | 25 | 8 |
| `rule` | `"paper"` | `"paper"` | `"released"` | `"paper"` |
| values from | the reconstruction | the reconstruction | the inversion | the reconstruction |
| `hold_background`, values from the reconstruction | yes | no | – | yes |
| `hold_background`, values from the inversion | no | no | no | no |

`"paper"` follows the text of ArtiAgent (arXiv 2602.20951v2, §4.2) in all but the source of values: the reconstruction,
denoised in the same batch, where the paper caches those of the inversion (`value_source="inversion"`). `"as-released"`
follows the code that the authors published, with values of the inversion; [`InjectionState`] lists the four ways in
which it differs from the text.

A run takes `"embedded"` for the embedded model and `"paper"` for all others ([`preset_of`]): their settings are the
published ones, since none has been measured on them. `--preset`, `--num-inference-steps`, `--value-source` and
`--hold-background` override it. This module imports neither torch nor diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .choices import InjectionRule, ValueSource


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
        rule (`str`): `"paper"` or `"released"`; which of the two the injection follows where they differ.
        value_source (`str`): Source of the values where a run names none.
    """

    num_inference_steps: int = PAPER_NUM_INFERENCE_STEPS
    transfer_noise: bool = False
    position_share: float | None = None
    value_share: float | None = None
    value_in_all_blocks: bool = False
    hold_background: bool = False
    rule: InjectionRule = "paper"
    value_source: ValueSource = "reconstruction"

    def arguments(
        self, num_inference_steps: int, num_blocks: int, value_source: ValueSource | None = None
    ) -> dict[str, Any]:
        """
        Return the arguments of [`ArtifactInjectionPipeline.__call__`] that the preset sets.

        Args:
            num_inference_steps (`int`): Steps of the call.
            num_blocks (`int`): Number of transformer blocks.
            value_source (`str`, *optional*): `"reconstruction"` or `"inversion"`; by default the preset's.

        Returns:
            `dict[str, Any]`: Keyword arguments; `None` stands for the pipeline's default.
        """
        blocks: Sequence[int] | None = range(num_blocks) if self.value_in_all_blocks else None
        source = value_source or self.value_source
        return {
            "position_steps": None
            if self.position_share is None
            else round(self.position_share * num_inference_steps),
            "value_steps": None if self.value_share is None else round(self.value_share * num_inference_steps),
            "value_blocks": blocks,
            "value_source": source,
            "rule": self.rule,
            "transfer_noise": self.transfer_noise,
            "hold_background": self.hold_background and may_hold_background(source),
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
    "as-released": InjectionPreset(rule="released", value_source="inversion"),
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
