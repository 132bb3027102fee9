"""
The defaults of a call, and what presets put in their place; needs neither torch nor diffusers.

| | a call of the pipeline | `"paper"`, `"transfer_noise"` | `"embedded"` |
|---|---|---|---|
| steps | 8 | 25 | 8 |
| `hold_background`, values from the reconstruction | yes | no | yes |
| `hold_background`, values from the inversion | no | no | no |

A run takes the steps of its preset where its settings name none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .choices import ValueSource


NUM_INFERENCE_STEPS = 8
"""Steps of a call that names none, chosen on the embedded model (`tests/benchmarks/injection.py --sweep`)."""

PAPER_NUM_INFERENCE_STEPS = 25
"""Steps of ArtiAgent §4.2.2."""

EMBEDDED = "embedded"
"""Name of the default model, the one shipped inside the package."""


@dataclass(frozen=True)
class InjectionPreset:
    """
    How strongly a model is steered; see [`ArtifactInjectionPipeline.__call__`].

    Attributes:
        num_inference_steps (`int`): Steps of inversion, and of denoising.
        transfer_noise (`bool`): Start targets from the inverted noise of their reference.
        position_share (`float`, *optional*): Share of the steps with position injection; by default the
            paper's, by type.
        value_share (`float`, *optional*): Share of the steps with value injection; by default the paper's.
        value_in_all_blocks (`bool`): Inject values in every block, not only in the last third.
        hold_background (`bool`): Give what is no target the reconstruction's queries too, where values come from it.
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
            num_blocks (`int`): Blocks of the transformer.
            value_source (`str`): Of the call.
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


def may_hold_background(value_source: ValueSource) -> bool:
    """Tell whether the background can be held: an inversion has no queries at the evaluations of the denoising."""
    return value_source == "reconstruction"


# The embedded model is small: with the paper's settings its copies are smears, and an artifact tints what resembles it
# elsewhere. Chosen by eye and by the change outside the target, steps by `tests/benchmarks/injection.py`; the tables
# are in the model's card and in the benchmarks' README.
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
