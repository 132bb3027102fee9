"""Models that take turns on a device, and phases that give the rows of a run without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datasets_script.agents.perception import PerceptionSpec
from datasets_script.engine.card import Card
from datasets_script.engine.plan import RunPlan
from datasets_script.engine.settings import InjectionSettings

from ...helpers.engine_runs import SETTINGS, SOURCES, make_photos, rows
from ...helpers.tiny_pipelines import tiny_flux


TWO = SOURCES[:2]


class Placed(nn.Linear):
    """A layer that records where it is told to go, and may be too large for the device."""

    def __init__(self, too_large: bool = False) -> None:
        super().__init__(1, 1)
        self.place, self.too_large = "device", too_large

    def to(self, device):  # type: ignore[override]
        if self.too_large and device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.place = "host" if device == "cpu" else "device"
        return self


def card_with(**models: Placed) -> Card:
    card = Card("meta")
    for name, model in models.items():
        card.add(name, [model])
    return card


def test_only_what_a_phase_needs_is_on_the_device():
    vlm, detector, transformer = Placed(), Placed(), Placed()
    card = card_with(vlm=vlm, detectors=detector, transformer=transformer)

    def places():
        return [model.place for model in (vlm, detector, transformer)]

    assert places() == ["host", "host", "host"]
    card.enter("perceive", "vlm", "detectors")
    assert places() == ["device", "device", "host"]
    card.enter("judge", "vlm")
    assert places() == ["device", "device", "host"], "what is there already need not make way"
    card.enter("inject", "transformer")
    assert places() == ["host", "host", "device"]
    card.enter("explain", "an endpoint")
    assert places() == ["host", "host", "device"], "an endpoint needs no room"
    assert set(card.seconds) == {"perceive", "judge", "inject"}
    card.leave()
    assert "explain" in card.seconds and not card.peaks


def test_models_that_come_by_themselves_find_room():
    vlm = Placed()
    card = card_with(vlm=vlm)
    card.add("transformer")
    card.enter("judge", "vlm")
    card.enter("inject", "transformer")
    assert vlm.place == "host"


def test_a_model_that_does_not_fit_goes_back_and_leaves_the_card_usable():
    small, large = Placed(), Placed(too_large=True)
    card = card_with(small=small, large=large)
    card.enter("first", "small")
    with pytest.raises(torch.OutOfMemoryError):
        card.enter("second", "small", "large")
    assert (small.place, large.place) == ("device", "host")
    card.enter("first", "small")
    assert small.place == "device"


def test_nothing_moves_where_models_stay():
    model = Placed()
    card = Card("meta", takes_turns=False)
    card.add("vlm", [model])
    card.enter("inject", "transformer")
    assert model.place == "device"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"), TWO)


def test_phases_over_several_photos_give_the_rows_of_one_photo_at_a_time(photos, tmp_path):
    tiny_flux().save_pretrained(tmp_path / "model")
    settings = replace(
        SETTINGS,
        model=str(tmp_path / "model"),
        max_long_side=480,
        shard_size=2,
        injection=InjectionSettings(num_inference_steps=1),
    )
    plan = RunPlan(photos, tmp_path / "one", settings, PerceptionSpec("annotations"), device="cpu")
    plan.open().execute(show_progress=False)
    phases = replace(plan, out=tmp_path / "phases", phase_size=32)
    run = phases.open()
    order: list[str] = []
    card: Any = run.synthesizer.card
    enter = card.enter

    def entering(phase: str, *names: str) -> None:
        order.append(phase)
        enter(phase, *names)

    card.enter = entering
    run.execute(show_progress=False)
    assert rows(tmp_path / "phases") == rows(tmp_path / "one") and rows(tmp_path / "one")
    assert order[:3] == ["perceive", "perceive", "encode"] and order[3:].count("encode") == 0
    assert order.count("inject") >= 2 and order.count("explain") == 2
