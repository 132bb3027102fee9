"""What the scripts load before they train."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline, FluxPipeline

from datasets_script.comparison.measures import labels_of
from datasets_script.comparison.text_image import pickscore
from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.detection.scoring import load_detector
from datasets_script.engine.loading import load_checkpoint, resolved
from datasets_script.schema.training_record import BaseModel
from datasets_script.utils.errors import UserError
from datasets_script.utils.seeds import derive_seed
from diffusers_artifact import ArtifactInjectionPipeline
from diffusers_artifact.presets import EMBEDDED
from training.denoiser.arguments import DenoiserArguments, GuardArguments
from training.denoiser.data import Item, Items, encode_pictures, encode_texts, image_items, prompt_items, split
from training.denoiser.guards import (
    Guards,
    Measure,
    denoising_measure,
    detector_measure,
    picture_measures,
    text_measure,
)
from training.denoiser.loop import DenoiserLoop, LoopArguments, Objective
from training.denoiser.lora import add_lora, load_base_lora
from training.denoiser.pictures import PictureSet
from training.denoiser.rollout import Denoiser


@dataclass(frozen=True, eq=False)
class Preparation:
    """
    What a script trains with.

    Attributes:
        accelerator (`accelerate.Accelerator`): Device and processes.
        denoiser (`Denoiser`): The model, with its LoRA and without text encoders.
        parameters (`Mapping[str, torch.nn.Parameter]`): Weights of the LoRA.
        base (`BaseModel`): Where the model comes from.
        train (`Items`): Prompts, or photos to start from, to train on.
        real (`Items`, *optional*): Real images to train on, for a term of the model's own loss, where there is one.
        pictures (`PictureSet`): What is drawn to judge the training.
        guards (`Guards`): What must not get worse.
        judges (`Mapping[str, PixelDetector]`): Detectors that are never trained against, by label.
        facts (`Mapping[str, Any]`): What the record says of the data.
    """

    accelerator: Accelerator
    denoiser: Denoiser
    parameters: Mapping[str, torch.nn.Parameter]
    base: BaseModel
    train: Items
    real: Items | None
    pictures: PictureSet
    guards: Guards
    judges: Mapping[str, PixelDetector]
    facts: Mapping[str, Any]

    def identity(self, more: Mapping[str, Any]) -> str:
        """
        Return a text that changes with what is trained on and what guards. Of other data, a checkpoint would continue
        with another order.

        Args:
            more (`Mapping[str, Any]`): What the script adds to `facts`.
        """
        return json.dumps({**self.facts, **more}, sort_keys=True)

    def loop(self, objective: Objective, loop_args: LoopArguments) -> DenoiserLoop:
        """Return the loop that trains on an objective."""
        parts = self.guards, self.pictures, loop_args, self.accelerator
        return DenoiserLoop(self.denoiser, self.parameters, objective, *parts)

    def announce(self, loop_args: LoopArguments, images: int, made_of: str, more: str = "") -> None:
        """
        Print what will be trained, on what, and what guards it.

        Args:
            loop_args (`LoopArguments`): Arguments of the loop.
            images (`int`): Images that a device draws in a step.
            made_of (`str`): What they are the product of.
            more (`str`, *optional*): What else it is trained by, with a semicolon and a space.
        """
        count, devices = sum(one.numel() for one in self.parameters.values()), self.accelerator.num_processes
        self.accelerator.print(
            f"{len(self.train):,} to draw, {len(self.pictures.prompts):,} pictures of others to judge by\n"
            f"{count:,} parameters are trained; {more}guards: {', '.join(self.guards.measures)}\n"
            f"{loop_args.max_steps:,} steps of {images * devices} images = {made_of} x {devices} devices"
        )


def prepare(
    model_args: DenoiserArguments,
    guard_args: GuardArguments,
    loop_args: LoopArguments,
    scheduler: Any = None,
    items: tuple[list[Item], list[Item]] | None = None,
    trains_on_real: bool = False,
) -> Preparation:
    """
    Load everything.

    Text encoders are on the device first, and the model once they have left it.

    Args:
        model_args, guard_args, loop_args: Checked arguments.
        scheduler (`Callable`, *optional*): From the pipeline's scheduler to one to use in its place.
        items (`tuple[list[Item], list[Item]]`, *optional*): What to train on, and what to draw to judge the training;
            by default the prompts or start photos of the arguments.
        trains_on_real (`bool`, *optional*, defaults to `False`): Whether real images are trained on too. Else only
            those that guard are encoded.

    Raises:
        UserError: Something does not exist, cannot be loaded, or does not go together.
    """
    accelerator = Accelerator(cpu=loop_args.use_cpu)
    device, seed = accelerator.device, loop_args.seed
    # What is cheap to find wrong comes first.
    train, held_out = items or _items(model_args, guard_args, seed)
    real, guarding = _real_items(guard_args, seed)
    if not trains_on_real:
        real = []
    pipeline, base = load_pipeline(model_args, device)
    denoiser = Denoiser(
        pipeline,
        model_args.sampling(),
        None if scheduler is None else scheduler(pipeline.scheduler),
        vae_dtype=getattr(torch, model_args.vae_dtype),
    )
    if model_args.base_lora is not None:
        load_base_lora(denoiser, model_args.base_lora)
    texts = _encoded_texts(denoiser, [train, held_out, real, guarding], device)
    pipeline.to(device)
    parameters = add_lora(denoiser, model_args.lora(), seed)
    if model_args.gradient_checkpointing:
        denoiser.enable_checkpointing()
    groups = [
        Items(tuple(some), conditions, encode_pictures(denoiser, some)) if some else None
        for some, conditions in zip((train, held_out, real, guarding), texts, strict=True)
    ]
    trained, drawn, real_items, guards_items = groups
    assert trained is not None and drawn is not None, "there is at least one of each"
    judges = _judges(guard_args.detectors, str(device))
    pictures = _picture_set(drawn, guard_args, seed)
    measures = _measures(denoiser, guards_items, judges, guard_args, str(device), seed)
    facts = {
        "prompts": trained.record(),
        "held_out": {
            **drawn.record(),
            "ids": [item.id for item in drawn.items],
            "pictures": len(pictures.prompts),
            "seeds": list(pictures.seeds),
        },
        "real_images": None if real_items is None else real_items.record(),
        "guard_images": None if guards_items is None else guards_items.record(),
        "guard_detectors": {label: judge.identity() for label, judge in judges.items()},
    }
    guards = Guards(measures, guard_args.bands())
    return Preparation(accelerator, denoiser, parameters, base, trained, real_items, pictures, guards, judges, facts)


def load_pipeline(model_args: DenoiserArguments, device: torch.device) -> tuple[Any, BaseModel]:
    """
    Load the stock pipeline into host memory.

    Returns:
        `tuple`: The pipeline, and the model's entry in the record.

    Raises:
        UserError: It cannot be loaded.
    """
    name = model_args.model_name_or_path
    loading = resolved(model_args.loading(), name, str(device))
    kind = ArtifactInjectionPipeline if name == EMBEDDED else DiffusionPipeline
    pipeline, revision = load_checkpoint(kind, name, model_args.model_revision, loading, str(device))
    if name == EMBEDDED:
        parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        pipeline = FluxPipeline(
            scheduler=pipeline.scheduler,
            vae=pipeline.vae,
            transformer=pipeline.transformer,
            **dict.fromkeys(parts),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, BaseModel(Path(name).name if Path(name).is_dir() else name, revision)


def load_opponents(names: Sequence[str], judges: Mapping[str, PixelDetector], device: str) -> dict[str, PixelDetector]:
    """
    Load the detectors that are trained against.

    Args:
        names (`Sequence[str]`): Folders, ids on the Hub, or `"embedded"`.
        judges (`Mapping[str, PixelDetector]`): Detectors that must be others.
        device (`str`): Device.

    Raises:
        UserError: One cannot be loaded, or is a judge too.
    """
    found = {label: load_detector(name, device) for label, name in zip(labels_of(names), names, strict=True)}
    check_judges(judges, found, "--detector")
    return found


def check_judges(judges: Mapping[str, PixelDetector], opponents: Mapping[str, PixelDetector], argument: str) -> None:
    """
    Check that no detector that is trained against is a judge too.

    Args:
        judges, opponents (`Mapping[str, PixelDetector]`): Judges, and detectors that are trained against, by label.
        argument (`str`): Argument that names the latter.

    Raises:
        UserError: One is both.
    """
    # The same weights under another name are the same detector.
    known = [detector.revision for detector in opponents.values() if detector.revision is not None]
    for label, judge in judges.items():
        if judge.revision in known:
            raise UserError(
                f"--guard_detector must be another than those of {argument}, got '{label}' for both; a detector that "
                "is trained against is silenced and can judge nothing. Give another, or 'none'"
            )


def _items(model_args: DenoiserArguments, guard_args: GuardArguments, seed: int) -> tuple[list[Item], list[Item]]:
    if model_args.start_photos is not None:
        items = image_items(model_args.start_photos, "start_photos", model_args.prompt_limit, seed)
    else:
        assert model_args.prompts is not None, "checked"
        items = prompt_items(model_args.prompts, model_args.prompt_limit)
    return split(items, guard_args.held_out, seed, "held_out")


def _real_items(guard_args: GuardArguments, seed: int) -> tuple[list[Item], list[Item]]:
    if not guard_args.has_real_images:
        return [], []
    items = image_items(guard_args.real_images, "real_images", guard_args.real_limit, seed)
    return split(items, guard_args.guard_images, seed, "guard_images")


def _encoded_texts(denoiser: Denoiser, groups: Sequence[list[Item]], device: torch.device) -> list[Any]:
    """Encode the prompts of all groups, and free the text encoders."""
    pipeline = denoiser.pipeline
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder") and part is not None:
            part.to(device)
    encoded = [encode_texts(denoiser, some, device) if some else None for some in groups]
    denoiser.drop_text_encoders()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return encoded


def _picture_set(drawn: Items, guard_args: GuardArguments, seed: int) -> PictureSet:
    each = range(guard_args.pictures_per_prompt)
    rows = [row for row in range(len(drawn)) for _ in each]
    seeds = tuple(derive_seed(seed, f"picture:{item.id}:{number}") for item in drawn.items for number in each)
    return PictureSet(
        # Photos without a text are told apart by their ids.
        tuple(drawn.items[row].prompt or drawn.items[row].id for row in rows),
        seeds,
        drawn.conditions.select(rows),
        None if drawn.clean is None else drawn.clean[rows],
        guard_args.picture_batch_size,
    )


def _judges(names: Sequence[str], device: str) -> dict[str, PixelDetector]:
    return {
        label: load_detector(name, device, "guard_detector")
        for label, name in zip(labels_of(names), names, strict=True)
    }


def _measures(
    denoiser: Denoiser,
    guarding: Items | None,
    judges: Mapping[str, PixelDetector],
    guard_args: GuardArguments,
    device: str,
    seed: int,
) -> dict[str, Measure]:
    measures = picture_measures(denoiser)
    for label, judge in judges.items():
        measures[f"second_detector:{label}"] = detector_measure(judge, guard_args.picture_batch_size)
    if guarding is not None:
        assert guarding.clean is not None, "they are images"
        measures["denoising_loss"] = denoising_measure(
            denoiser, guarding.clean, guarding.conditions, seed, guard_args.picture_batch_size
        )
    if guard_args.pickscore is not None:
        measures["pickscore"] = text_measure(pickscore(guard_args.pickscore, device))
    return measures
