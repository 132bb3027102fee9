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
from training.denoiser.data import (
    Item,
    Items,
    encode_pictures,
    encode_texts,
    image_items,
    prompt_items,
    split,
    without,
)
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


LOADED = ("base", "data")
"""What of a run's identity is known once everything is loaded; see [`Preparation.identity`]."""


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
        facts (`Mapping[str, Any]`): What the record says of the data, and of a LoRA beneath the one that is trained.
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

    def identity(self, more: Mapping[str, Any]) -> dict[str, str]:
        """
        Return texts, by the names of [`LOADED`], that change with the model, and with what is trained on and what
        guards. On another model, or of other data, a checkpoint would continue another run.

        Args:
            more (`Mapping[str, Any]`): What the script adds to `facts`.
        """
        model = {**self.base.to_dict(), "base_lora": self.facts["base_lora"]}
        return {
            "base": json.dumps(model, sort_keys=True),
            "data": json.dumps({**self.facts, **more}, sort_keys=True),
        }

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
    chosen, left_out = _chosen(model_args, guard_args, seed, items, trains_on_real)
    if left_out:
        accelerator.print(
            f"{left_out:,} prompts or images are left out, as they are equal to held-out or guarding ones"
        )
    pipeline, base = load_pipeline(model_args, device)
    denoiser = Denoiser(
        pipeline,
        model_args.sampling(),
        None if scheduler is None else scheduler(pipeline.scheduler),
        vae_dtype=getattr(torch, model_args.vae_dtype),
    )
    base_lora = None if model_args.base_lora is None else load_base_lora(denoiser, model_args.base_lora)
    texts = _encoded_texts(denoiser, chosen, device)
    pipeline.to(device)
    parameters = add_lora(denoiser, model_args.lora(), seed)
    if model_args.gradient_checkpointing:
        denoiser.enable_checkpointing()
    groups = [
        Items(tuple(some), conditions, encode_pictures(denoiser, some)) if some else None
        for some, conditions in zip(chosen, texts, strict=True)
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
        "base_lora": base_lora,
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


def _chosen(
    model_args: DenoiserArguments,
    guard_args: GuardArguments,
    seed: int,
    items: tuple[list[Item], list[Item]] | None,
    trains_on_real: bool,
) -> tuple[list[list[Item]], int]:
    """
    Return what to train on, what is held out, real images to train on, and those that guard; and how many were left
    out, because they equal one that is held out or guards.
    """
    given = _items(model_args, seed) if items is None else [*items[0], *items[1]]
    train, held_out = items or split(given, guard_args.held_out, seed, "held_out")
    real: list[Item] = []
    guarding: list[Item] = []
    if guard_args.has_real_images:
        photos = image_items(guard_args.real_images, "real_images", guard_args.real_limit, seed)
        real, guarding = split(photos, guard_args.guard_images, seed, "guard_images")
        given += photos if trains_on_real else guarding
    # Start photos and real images may be of one folder, or of folders with the same files.
    train = without(train, guarding, "start_photos")
    real = without(real, held_out, "real_images") if trains_on_real else []
    chosen = [train, held_out, real, guarding]
    return chosen, len(given) - sum(map(len, chosen))


def _items(model_args: DenoiserArguments, seed: int) -> list[Item]:
    if model_args.start_photos is not None:
        return image_items(model_args.start_photos, "start_photos", model_args.prompt_limit, seed)
    assert model_args.prompts is not None, "checked"
    return prompt_items(model_args.prompts, model_args.prompt_limit)


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
