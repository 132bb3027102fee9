"""Guards and the loop: runs continue exactly, and stop where something gets worse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator

from datasets_script.comparison.measures import sharpness as sharpness_of_pil
from datasets_script.utils.errors import UserError
from training.denoiser.guards import (
    Band,
    Guards,
    Reading,
    blockiness,
    denoising_measure,
    detector_measure,
    diversity,
    picture_measures,
    sharpness,
)
from training.denoiser.loop import DenoiserLoop, LoopArguments, Objective, Update
from training.denoiser.lora import LoraSettings, add_lora
from training.denoiser.pictures import Pictures, PictureSet
from training.denoiser.rollout import Denoiser, SamplingSettings
from training.run_folder import find_checkpoint

from ...helpers.tiny_detectors import red_detector
from ...helpers.tiny_pipelines import tiny_flux


class Dark(Objective):
    """Makes images darker, through the last step; its state is the mean of what it has seen."""

    def __init__(self, denoiser: Denoiser, fails_at: int = -1) -> None:
        self.denoiser, self.fails_at = denoiser, fails_at
        self.conditions = denoiser.encode_prompts(["a cat", "a dog", "a cup"])
        self.mean = torch.zeros(())

    def step(self, update):
        if update.step == self.fails_at:
            raise KeyboardInterrupt
        rows = update.rows(2, len(self.conditions))
        start = self.denoiser.start(self.denoiser.noise([update.seed("noise", row) for row in rows]))
        latents = self.denoiser.rollout(start, self.conditions.select(rows), 1)
        loss = self.denoiser.decode(latents).mean() + 0 * self.mean
        update.backward(loss)
        norm = update.apply()
        self.mean = 0.5 * self.mean + 0.5 * loss.detach()
        return {"loss": float(loss.detach()), "mean": float(self.mean), "norm": norm}

    def score(self, pictures):
        return -float(pictures.images.mean())

    def state(self):
        return {"mean": self.mean}

    def load_state(self, state):
        self.mean = state["mean"]


def make_loop(folder, fails_at: int = -1, guards=None, **changes) -> DenoiserLoop:
    denoiser = Denoiser(tiny_flux(), SamplingSettings(2, 3.5, 32, 32, max_sequence_length=8))
    objective = Dark(denoiser, fails_at)
    parameters = add_lora(denoiser, LoraSettings(rank=2), seed=0)
    prompts = ("a cat", "a cat", "a boat")
    pictures = PictureSet(prompts, (7, 8, 9), denoiser.encode_prompts(prompts), batch_size=2)
    settings = LoopArguments(
        **{
            "output_dir": str(folder),
            "max_steps": 8,
            "learning_rate": 0.1,
            "max_grad_norm": 100.0,
            "ema_decay": 0.5,
            "guard_steps": 4,
            "save_steps": 2,
            "disable_tqdm": True,
            **changes,
        }
    )
    settings.check()
    measures = picture_measures(denoiser)
    accelerator = Accelerator(cpu=True)
    return DenoiserLoop(
        denoiser, parameters, objective, guards or Guards(measures, {}), pictures, settings, accelerator
    )


def weights_of(loop: DenoiserLoop) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in loop.parameters.items()}


def test_an_interrupted_run_continues_bit_for_bit(tmp_path):
    whole = make_loop(tmp_path / "whole")
    result = whole.run()
    assert result.steps == 8 and result.stopped is None and result.kept.step == 8
    assert result.kept.score > result.before.score
    assert [reading.step for reading in result.readings] == [0, 4, 8]
    last = find_checkpoint(tmp_path / "whole")
    assert last is not None and last.name == "checkpoint-8"
    assert sorted(path.name for path in (tmp_path / "whole").glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-8"]

    # Once before and once after a step that no checkpoint holds; the second checkpoint lies after a reading.
    for fails_at, kept in ((3, 2), (8, 6)):
        folder = tmp_path / f"cut{fails_at}"
        with pytest.raises(KeyboardInterrupt):
            make_loop(folder, fails_at).run()
        with (folder / "log.jsonl").open("a") as file:
            file.write('{"step": 9, "lo')  # a kill while writing
        checkpoint = find_checkpoint(folder)
        assert checkpoint is not None and checkpoint.name == f"checkpoint-{kept}"
        loop = make_loop(folder)
        again = loop.run(checkpoint)
        assert all(torch.equal(weight, weights_of(whole)[name]) for name, weight in weights_of(loop).items())
        assert again == result
        assert (folder / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
        for name in ("step-000000.png", "step-000004.png", "step-000008.png"):
            first, second = (root / "pictures" / name for root in (tmp_path / "whole", folder))
            assert first.read_bytes() == second.read_bytes()


def test_what_a_kill_left_of_a_checkpoint_is_no_obstacle(tmp_path):
    """A kill after its files were written, and before it was moved into place."""
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, fails_at=5, max_steps=6).run()
    (tmp_path / "checkpoint-4").rename(tmp_path / "checkpoint-4.incomplete")
    (tmp_path / "checkpoint-40.incomplete").mkdir()
    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.name == "checkpoint-2"
    make_loop(tmp_path, max_steps=6).run(checkpoint)
    found = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert found == ["checkpoint-4", "checkpoint-40.incomplete", "checkpoint-6"]


def test_a_guard_stops_a_run_and_the_best_weights_come_back(tmp_path):
    free = make_loop(tmp_path / "free", max_steps=12, guard_steps=2)
    readings = {reading.step: reading for reading in free.run().readings}
    moved = {
        step: reading.values["sharpness"] / readings[0].values["sharpness"] - 1 for step, reading in readings.items()
    }
    # The first reading keeps to it and a later one does not.
    limit = (abs(moved[2]) + max(map(abs, moved.values()))) / 2
    loop = make_loop(tmp_path / "guarded", max_steps=12, guard_steps=2)
    loop.guards = Guards(loop.guards.measures, {"sharpness": Band(-limit, limit)})
    result = loop.run()
    broken = min(step for step, change in moved.items() if abs(change) > limit)
    assert result.steps == broken
    assert result.stopped is not None and f"sharpness moved by {moved[broken]:+.1%}" in result.stopped
    held = [step for step in readings if step < broken]
    assert result.kept.step == max(held, key=lambda step: readings[step].score)
    # What is kept draws the pictures of the best step, not of the last.
    pictures = loop.pictures.draw(loop.denoiser)
    assert loop.objective.score(pictures) == result.kept.score
    stated = loop.guards.to_dict(result.before, result.kept)
    assert {one["guard"] for one in stated} == {"sharpness", "blockiness", "diversity"}
    assert stated[0]["band"] == str(Band(-limit, limit)) and stated[1]["band"] == "not limited"


def test_the_last_weights_are_kept_where_they_are_asked_for(tmp_path):
    loop = make_loop(tmp_path, max_steps=4, guard_steps=2, learning_rate=1e-3, keep="last")
    # Each step is worse than none.
    loop.objective.score = lambda pictures: -float(len(loop._readings))  # type: ignore[method-assign]
    result = loop.run()
    assert result.kept == result.readings[-1] and result.kept.step == 4
    drawn = loop.pictures.draw(loop.denoiser).images
    sheet = tmp_path / "again.png"
    loop.pictures.draw(loop.denoiser).write_sheet(sheet)
    assert drawn.isfinite().all() and sheet.read_bytes() == (tmp_path / "pictures" / "step-000004.png").read_bytes()
    assert any(weight.any() for name, weight in loop.parameters.items() if "lora_B" in name)
    with pytest.raises(UserError, match="--keep must be one of best, last, got 'all'"):
        make_loop(tmp_path, keep="all")


def test_a_first_reading_outside_all_bands_keeps_the_model_before_training(tmp_path):
    loop = make_loop(tmp_path, guard_steps=1)
    loop.guards = Guards(loop.guards.measures, {"sharpness": Band(-1e-9, 1e-9)})
    result = loop.run()
    assert result.steps == 1 and result.kept.step == 0
    assert all(not weight.any() for name, weight in loop.parameters.items() if "lora_B" in name)


def test_rows_are_each_seen_once_before_any_comes_again(tmp_path):
    loop = make_loop(tmp_path)
    seen = [row for step in range(1, 7) for row in Update(loop, step).rows(2, 4)]
    assert all(sorted(seen[place : place + 4]) == [0, 1, 2, 3] for place in (0, 4, 8))
    assert seen[:4] != seen[4:8] or seen[4:8] != seen[8:]
    one, two = Update(loop, 1), Update(loop, 2)
    assert one.seed("noise") == Update(loop, 1).seed("noise") != two.seed("noise")


def test_arguments_are_checked(tmp_path):
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"output_dir": ""}, "--output_dir must be given"),
        ({"max_steps": 0}, "`max_steps` must be at least 1"),
        ({"learning_rate": 0.0}, "--learning_rate must be above 0"),
        ({"ema_decay": 1.0}, r"--ema_decay must lie in \[0, 1\)"),
        ({"adam_beta1": 1.0}, r"--adam_beta1 must lie in \[0, 1\), got 1.0"),
        ({"adam_beta2": -0.1}, r"--adam_beta2 must lie in \[0, 1\), got -0.1"),
        ({"weight_decay": -0.01}, "--weight_decay must be at least 0, got -0.01"),
        ({"weight_decay": float("nan")}, "--weight_decay must be at least 0, got nan"),
        ({"warmup_steps": -1}, "--warmup_steps must be at least 0, got -1"),
    )
    for changes, message in mistakes:
        with pytest.raises(UserError, match=message):
            LoopArguments(**{"output_dir": str(tmp_path), **changes}).check()


def test_a_band_is_relative_and_nan_never_holds():
    band = Band(low=-0.1, high=0.1)
    assert band.holds(10, 11) and band.holds(10, 9) and not band.holds(10, 11.1) and not band.holds(10, float("nan"))
    assert band.holds(-10, -9) and not band.holds(-10, -8)
    assert Band(high=0.1, floor=0.01).holds(0.0, 0.001) and not Band(high=0.1, floor=0.01).holds(0.0, 0.002)
    assert str(Band(high=0.02)) == "no limit to +2%" and str(Band(-0.15, 0.005)) == "-15% to +0.5%"
    before = Reading(0, 0.0, {"sharpness": 10.0})
    guards = Guards({"sharpness": lambda pictures: 20.0}, {"sharpness": band})
    assert "sharpness moved by +100.0%, from 10 to 20, where -10% to +10% is allowed" == (
        guards.read(1, 0.0, some_pictures(), before).broken
    )


def some_pictures(count: int = 4) -> Pictures:
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Pictures(images, tuple("aabb"[:count]), tuple(range(count)))


def test_measures_of_pictures():
    pictures = some_pictures()
    wanted = sum(sharpness_of_pil(image) for image in pictures.as_pil()) / 4
    assert abs(sharpness(pictures.images) / wanted - 1) < 0.01
    flat = torch.full((2, 3, 32, 32), 0.5)
    assert sharpness(flat) == 0

    assert abs(blockiness(pictures.images, 8) - 1) < 0.1
    # Steps of .1 across borders, and of .01 elsewhere.
    ramp = torch.arange(32) * 0.01 + (torch.arange(32) // 8) * 0.09
    grid = (ramp[None, :] + ramp[:, None]).expand(1, 3, 32, 32)
    assert abs(blockiness(grid, 8) - 10) < 1e-3
    with pytest.raises(ValueError, match="`side` must be at least 2"):
        blockiness(flat, 1)

    same = torch.cat([flat[:1], flat[:1], flat[:1] + 0.3, flat[:1] + 0.5])
    assert abs(diversity(same, ["a", "a", "b", "b"]) - 0.1) < 1e-6
    assert abs(diversity(same, ["a", "b", "c", "d"]) - (0 + 0.3 + 0.5 + 0.3 + 0.5 + 0.2) / 6) < 1e-6

    detector = red_detector()
    maps = detector.maps(pictures.as_pil())
    measured = detector_measure(detector, batch_size=3)(pictures)
    assert abs(measured - sum(float(found.mean()) for found in maps) / 4) < 2e-3


def test_the_loss_on_real_images_is_the_same_in_each_measurement(tmp_path):
    denoiser = make_loop(tmp_path).denoiser
    clean = torch.randn(3, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    conditions = denoiser.encode_prompts(["a", "b", "c"])
    measures = [denoising_measure(denoiser, clean, conditions, seed=0, batch_size=size) for size in (1, 3)]
    values = [measure(some_pictures()) for measure in measures]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert denoising_measure(denoiser, clean, conditions, seed=1)(some_pictures()) != values[0]
