"""Runs of the engine on a small model and three of the demo's photos, in this process or in others."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image

from datasets_script.agents.curation.thresholds import CurationSettings
from datasets_script.agents.perception import AnnotationPerception, Perception, PerceptionAgent
from datasets_script.demo.settings import prepare_demo
from datasets_script.engine.card import Card
from datasets_script.engine.corruptor import Corruptor
from datasets_script.engine.diffusion_model import DiffusionModel
from datasets_script.engine.injector import Injector
from datasets_script.engine.run import Run
from datasets_script.engine.settings import (
    CommonSettings,
    CorruptionRunSettings,
    InjectionSettings,
    RunSettings,
)
from datasets_script.engine.synthesizer import Synthesizer
from diffusers_artifact import ArtifactCorruptionPipeline, ArtifactInjectionPipeline


KEEP_ALL = CurationSettings(
    stlpips_band=(-10.0, 10.0),
    min_change_inside=0.0,
    require_closer=False,
    min_inside_to_outside=0.0,
    max_change_outside=1.0,
    min_visible_contrast=0.0,
    min_clean_psnr=0.0,
)
SETTINGS = RunSettings(
    pairs_per_image=2,
    max_artifacts=2,
    shard_size=1,
    injection=InjectionSettings(num_inference_steps=1),
    curation=KEEP_ALL,
)
SOURCES = ["astronaut_face.png", "coffee_cup.png", "motorcycle_front.png"]

# Children are forked from a server that has imported all of this once and has no threads.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload([__name__])


class SmallInjector(Injector):
    """Injector with a small model: a quarter of the time, and artifacts that tests of rows and files can use."""

    def _load(self, revision: str | None) -> tuple[ArtifactInjectionPipeline, str]:
        pipeline, recorded = super()._load(revision)
        _cut(pipeline)
        return pipeline, recorded


class SmallCorruptor(Corruptor):
    """Corruptor with a small model."""

    def _load(self, revision: str | None) -> tuple[ArtifactCorruptionPipeline, str]:
        pipeline, recorded = super()._load(revision)
        _cut(pipeline)
        return pipeline, recorded


def _cut(pipeline: Any) -> None:
    """Leave the embedded model two of its eight blocks, and images of 128 px."""
    network = pipeline.transformer
    for blocks, count in (("transformer_blocks", "num_layers"), ("single_transformer_blocks", "num_single_layers")):
        setattr(network, blocks, getattr(network, blocks)[:1])
        network.register_to_config(**{count: 1})
    pipeline.vae.register_to_config(sample_size=128)


SMALL: dict[type[CommonSettings], type[DiffusionModel]] = {
    RunSettings: SmallInjector,
    CorruptionRunSettings: SmallCorruptor,
}


def make_photos(folder: Path, scratch: Path, sources: Sequence[str] = SOURCES) -> Path:
    """Make a folder of photos with their annotations."""
    prepare_demo(scratch)
    folder.mkdir(parents=True, exist_ok=True)
    for name in [*sources, "annotations.json"]:
        shutil.copyfile(scratch / name, folder / name)
    return folder


def make_run(
    photos: Path,
    out: Path,
    injector: DiffusionModel | None = None,
    settings: CommonSettings = SETTINGS,
    sources: Sequence[str] = SOURCES,
    perception: PerceptionAgent | None = None,
    **options: Any,
) -> Run:
    """Open a run with a model, by default a small one."""
    injector = injector or SMALL[type(settings)].of(settings, "cpu", "none", Card("cpu", takes_turns=False))
    perception = perception or AnnotationPerception(photos / "annotations.json")
    world = {name: options.pop(name) for name in ("rank", "world_size") if name in options}
    return Run(out, photos, sources, Synthesizer.of(photos, perception, injector, settings, **options), **world)


def rows(out: Path) -> list[dict[str, Any]]:
    """Read all rows as stored, with encoded images."""
    return [row for path in sorted((out / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def start(photos: Path, out: Path, **options: Any) -> BaseProcess:
    """Start a run in another process."""
    process = CHILDREN.Process(target=_execute, args=(photos, out), kwargs=options)
    process.start()
    return process


def start_killed_at(photos: Path, out: Path, source_id: str, **options: Any) -> BaseProcess:
    """Start a run in a process that is killed, as by the out-of-memory killer, when it perceives photo `source_id`."""
    return start(photos, out, perception=KilledPerception(photos / "annotations.json", source_id), **options)


def _execute(photos: Path, out: Path, **options: Any) -> None:
    torch.set_num_threads(1)
    make_run(photos, out, **options).execute(show_progress=False)


class KilledPerception(AnnotationPerception):
    def __init__(self, path: Path, source_id: str) -> None:
        super().__init__(path)
        self.killed_at = source_id

    def perceive(self, image: Image.Image, source_id: str) -> Perception:
        if source_id == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().perceive(image, source_id)
