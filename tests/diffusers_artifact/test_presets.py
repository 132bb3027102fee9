"""The arguments that presets set in place of the pipeline's defaults."""

from __future__ import annotations

import inspect

import pytest

from diffusers_artifact import ArtifactInjectionPipeline
from diffusers_artifact.presets import PRESETS, InjectionPreset, preset_of


CALL = inspect.signature(ArtifactInjectionPipeline.__call__).parameters


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_arguments_are_the_pipelines(preset: InjectionPreset):
    assert set(preset.arguments(8, 6, "reconstruction")) <= set(CALL)


def test_defaults_are_those_on_record():
    steps = {name: preset.num_inference_steps for name, preset in PRESETS.items()}
    assert steps == {"paper": 25, "as-released": 25, "transfer_noise": 25, "embedded": 8}
    assert CALL["num_inference_steps"].default == 8 and CALL["hold_background"].default is None


def test_a_run_takes_the_preset_of_its_model():
    assert preset_of("embedded") is PRESETS["embedded"]
    assert preset_of("black-forest-labs/FLUX.1-dev") is preset_of("a/folder") is PRESETS["paper"]
    assert preset_of("embedded", "paper") is PRESETS["paper"]


def test_the_papers_preset_leaves_shares_to_the_pipeline():
    assert PRESETS["paper"].arguments(25, 57, "reconstruction") == {
        "position_steps": None,
        "value_steps": None,
        "value_blocks": None,
        "value_source": "reconstruction",
        "rule": "paper",
        "transfer_noise": False,
        "hold_background": False,
    }


def test_as_released_differs_from_the_papers_by_rule_and_source():
    paper, released = (PRESETS[name].arguments(25, 57) for name in ("paper", "as-released"))
    assert released == paper | {"rule": "released", "value_source": "inversion"}


def test_shares_are_of_the_steps_of_the_call():
    arguments = PRESETS["embedded"].arguments(6, 4, "reconstruction")
    assert (arguments["position_steps"], arguments["value_steps"], arguments["value_blocks"]) == (3, 6, range(4))
    assert arguments["transfer_noise"] and arguments["hold_background"]


def test_no_background_is_held_with_values_from_the_inversion():
    assert not PRESETS["embedded"].arguments(6, 4, "inversion")["hold_background"]
