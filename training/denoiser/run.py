"""A training from its first step to its LoRA and record, once everything is loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.schema.training_record import TrainingMethod, TrainingRecord
from evaluate_metrics.functional.versions import versions
from training.denoiser.frequencies import frequencies
from training.denoiser.loop import LoopArguments, LoopResult, Objective
from training.denoiser.lora import LORA_FILE, save_lora, without_lora
from training.denoiser.preparation import Preparation
from training.denoiser.rollout import Denoiser
from training.run_folder import begin_run, step_of
from training.source_files import without_paths


class Trained(NamedTuple):
    """Outcome of the loop, and the record that was written of it."""

    result: LoopResult
    record: TrainingRecord


def train(
    prepared: Preparation,
    objective: Objective,
    loop_args: LoopArguments,
    *,
    script: str,
    recipe: Mapping[str, Any],
    data: Mapping[str, Any],
    opponents: Mapping[str, PixelDetector],
    images: int,
    made_of: str,
    trained_by: str = "",
) -> Trained | None:
    """
    Train, and write LoRA and record.

    Args:
        prepared (`Preparation`): What is trained with.
        objective (`Objective`): What is learned.
        loop_args (`LoopArguments`): Arguments of the loop.
        script, recipe, data, opponents: See [`finish`]. A run of other data or of another model is not continued.
        images, made_of, trained_by: What is printed before; see
            [`~training.denoiser.preparation.Preparation.announce`].

    Returns:
        `Trained`, or `None` in processes other than the main one.

    Raises:
        UserError: The folder holds a run with other arguments or data, or of another model.
    """
    is_main = prepared.accelerator.is_main_process
    checkpoint = begin_run(Path(loop_args.output_dir), {**recipe, **prepared.identity(data)}, is_main)
    loop = prepared.loop(objective, loop_args)
    prepared.announce(loop_args, images, made_of, trained_by)
    begun = time.monotonic()
    result = loop.run(checkpoint)
    if not is_main:
        return None
    record = finish(
        prepared,
        result,
        script=script,
        recipe=recipe,
        data=data,
        loop_args=loop_args,
        begun=begun,
        checkpoint=checkpoint,
        opponents=opponents,
    )
    return Trained(result, record)


def finish(
    prepared: Preparation,
    result: LoopResult,
    *,
    script: str,
    recipe: Mapping[str, Any],
    data: Mapping[str, Any],
    loop_args: LoopArguments,
    begun: float,
    checkpoint: Path | None,
    opponents: Mapping[str, PixelDetector],
) -> TrainingRecord:
    """
    Measure what training changed, and write LoRA and record. The main process calls it.

    Args:
        prepared (`Preparation`): What was trained with.
        result (`LoopResult`): Outcome of the loop.
        script (`str`): Script, e.g. `"training/treat_lora.py"`.
        recipe (`Mapping[str, Any]`): Its arguments, as `training.json` records them.
        data (`Mapping[str, Any]`): What the record says besides the facts of `prepared`.
        loop_args (`LoopArguments`): Arguments of the loop.
        begun (`float`): Time at which training began, of `time.monotonic`.
        checkpoint (`Path`, *optional*): Checkpoint that it continued from.
        opponents (`Mapping[str, PixelDetector]`): Detectors that were trained against, by label.

    Returns:
        `TrainingRecord`: The record that was written.
    """
    denoiser, folder = prepared.denoiser, Path(loop_args.output_dir)
    after = prepared.pictures.draw(denoiser)
    with without_lora(denoiser):
        before = prepared.pictures.draw(denoiser)
    before.write_sheet(folder / "pictures" / "before.png")
    after.write_sheet(folder / "pictures" / "after.png")
    save_lora(denoiser, folder)
    counts = {True: 0, False: 0}
    for parameter in denoiser.model.parameters():
        counts[parameter.requires_grad] += parameter.numel()
    record = TrainingRecord(
        script=script,
        recipe=without_paths(dict(recipe)),
        base=prepared.base,
        method=TrainingMethod(
            peft=True,
            frozen=("text_encoder", "vae", denoiser.component),
            trainable_parameters=counts[True],
            parameters=counts[True] + counts[False],
        ),
        data={
            **prepared.facts,
            **data,
            "pipeline": type(denoiser.pipeline).__name__,
            **schedulers_of(denoiser),
            "stopped": result.stopped,
            "kept_step": result.kept.step,
            "guards": prepared.guards.to_dict(result.before, result.kept),
            "frequencies": [
                *frequencies(before, after, opponents, trained_against=True),
                *frequencies(before, after, prepared.judges, trained_against=False),
            ],
        },
        seed=loop_args.seed,
        versions=versions("torch", "diffusers", "peft", "accelerate", "transformers"),
        device=torch.cuda.get_device_name(denoiser.device) if denoiser.device.type == "cuda" else denoiser.device.type,
        devices=prepared.accelerator.num_processes,
        seconds=round(time.monotonic() - begun, 1),
        resumed_from_step=step_of(checkpoint) if checkpoint else None,
        steps=result.steps,
        loss=tuple((int(entry["step"]), entry["loss"]) for entry in result.log),
        eval_loss=tuple((reading.step, -reading.score) for reading in result.readings),
    )
    record.write(folder)
    return record


def schedulers_of(denoiser: Denoiser) -> dict[str, str]:
    """Return with which scheduler pictures were drawn, and that of the pipeline."""
    return {
        "scheduler": type(denoiser.scheduler).__name__,
        "pipeline_scheduler": type(denoiser.pipeline.scheduler).__name__,
    }


def outcome(record: TrainingRecord, folder: Path) -> str:
    """Return what to tell at the end of a training, in some lines."""
    lines = [_told(one) for one in record.data["frequencies"]]
    if record.data["stopped"]:
        lines.append(f"stopped after step {record.steps}: {record.data['stopped']}")
    if record.data["kept_step"] == 0:
        lines.append("no step was better than the model before training; the LoRA changes nothing")
    lines.append(
        f"LoRA of step {record.data['kept_step']} saved to {folder / LORA_FILE}; "
        f"`pipe.load_lora_weights('{folder}')` loads it, `artiagent push lora {folder} REPO` publishes it"
    )
    return "\n".join(lines)


def _told(one: Mapping[str, Any]) -> str:
    frequency, mean = one["frequency"], one["mean_map"]
    return (
        f"{'trained against' if one['trained_against'] else 'judge'} {one['detector']}: artifact frequency "
        f"{frequency['first']:.1%} -> {frequency['second']:.1%}, mean map {mean['first']:.4f} -> {mean['second']:.4f} "
        f"(n = {frequency['n']})"
    )
