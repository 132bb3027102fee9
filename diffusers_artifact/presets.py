"""How strongly a model is steered, by the name of a preset; needs neither torch nor diffusers."""

from __future__ import annotations

from dataclasses import dataclass


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

    num_inference_steps: int = 25
    transfer_noise: bool = False
    position_share: float | None = None
    value_share: float | None = None
    value_in_all_blocks: bool = False
    hold_background: bool = False


# The embedded model is small: with the paper's settings its copies are smears, and a flaw tints what resembles it
# elsewhere. Chosen by eye and by the change outside the target, steps by `tests/benchmarks/injection.py`; the tables
# are in the model's card and in the benchmarks' README.
PRESETS = {
    "paper": InjectionPreset(),
    "transfer_noise": InjectionPreset(transfer_noise=True),
    "embedded": InjectionPreset(
        num_inference_steps=8,
        transfer_noise=True,
        position_share=0.5,
        value_share=1.0,
        value_in_all_blocks=True,
        hold_background=True,
    ),
}
