"""The part that shows failures of training and the guards that stop them, with random weights and few steps."""

from __future__ import annotations

import importlib
import json

import numpy as np
from PIL import Image

from tests.benchmarks.creatures import loras
from tests.benchmarks.creatures.parts import failures
from tests.creatures.tiny_world import tiny_world
from training.denoiser.guards import BANDS


SMALL = {"max_steps": 2, "guard_steps": 1, "save_steps": 2, "held_out": 1, "guard_images": 2, "lora_rank": 2}
TREATING = {**failures.TREATING, **SMALL, "batch_size": 1, "real_batch_size": 1, "ema_decay": 0}
REWARDED = {**failures.REWARDED, **SMALL, "num_inference_steps": 2, "noisy_steps": 0, "noisy_count": 1}
REWARDED |= {"prompts_per_step": 1, "group_size": 2, "batch_size": 2, "ema_decay": 0}


def test_a_failure_goes_to_its_end_without_guards_and_is_stopped_by_one(tmp_path, monkeypatch):
    world = tiny_world(tmp_path, number=2, steps=2)
    trials = {
        "no_regularisation": failures.Trial("treat_lora", TREATING, {"gamma": 0}, ("oracle",)),
        "no_kl": failures.Trial("ddpo", REWARDED, {"kl_weight": 0}, ("oracle",)),
    }
    monkeypatch.setattr(failures, "FAILURES", trials)
    monkeypatch.setattr(failures, "RECOMMENDED", {})
    monkeypatch.setattr(loras, "REAL_IMAGES", 4)
    # Random weights hardly change what random weights draw, so that every change is too much.
    narrow = ["--guard_bands", *(f"{name}=-1e-9:1e-9" for name in BANDS)]

    def train_here(*command: object) -> None:
        words = [str(word) for word in command[1:]]
        free = "--guard_bands" in words
        importlib.import_module(words[0]).main([*words[1:], *([] if free else narrow)])

    monkeypatch.setattr(loras, "run_python", train_here)
    block = failures.run(world)
    assert block["pictures"] == 2 and block["settings"]["unguarded"]["keep"] == "last"
    for name in trials:
        free, held = (block[name][guards] for guards in ("unguarded", "guarded"))
        assert free["training"]["steps"] == free["training"]["kept_step"] == 2 and not free["training"]["stopped"]
        assert all(guard["band"] == "no limit to no limit" for guard in free["training"]["guards"])
        assert held["training"]["steps"] == 1 and held["training"]["kept_step"] == 0
        assert "moved by" in held["training"]["stopped"]
        for part in (free, held):
            assert {"artifact_rate", "diversity", "sharpness", "conditions_met", "frequency"} <= part.keys()
        sheet = Image.open(world.work / "failures" / f"{name}.png")
        assert sheet.height > sheet.width  # three rows of two pictures
        # The guards kept the model of before.
        kept = world.pictures(f"failures/{name}_guarded")
        assert np.array_equal(kept, world.pictures("base"))
        assert not np.array_equal(world.pictures(f"failures/{name}_unguarded"), kept)
    assert block["no_kl"]["trained_against"] == ("oracle",)
    json.dumps(block)


def test_each_failure_differs_from_what_is_recommended_in_one_thing():
    for trial in failures.FAILURES.values():
        (like,) = (one for one in failures.RECOMMENDED.values() if one.script == trial.script)
        assert trial.settings == like.settings and not like.changed
        assert len(trial.changed) + (trial.detectors != like.detectors) == 1
        assert all(trial.settings[name] != value for name, value in trial.changed.items())
