"""
Runs the agents over a folder of photographs and writes the data set, shard by shard, so that it can be interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from datasets.arrow_writer import ParquetWriter
from PIL import Image
from tqdm import tqdm

from diffusers_artifact.mapping import ArtifactType, PatchMapping
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL

from .curation.explanations import EXPLANATION_SOURCE, global_explanation, label, local_explanation
from .curation.filters import CurationSettings, judge
from .curation.measures import measure, target_pixels
from .curation.perceptual import load_perceptual_metric
from .dataset_card import write_card
from .features import PAIR_FEATURES, pair_to_row, row_to_pair
from .files import replacing, write_json, write_text
from .injector import EMBEDDED, InjectionSettings, Injector
from .perception import (
    AnnotationError,
    NoAnnotation,
    Perception,
    PerceptionAgent,
    apply_to_perception,
    filter_perception,
)
from .records import Artifact, Pair
from .show import contact_sheet
from .sources import SourceError, SourceTransform, fit, fit_multiple, open_source
from .synthesis import Scene, plan_artifacts


RECORDED_PACKAGES = ("artiagent", "torch", "diffusers", "transformers", "datasets", "numpy", "pillow")


@dataclass(frozen=True)
class RunSettings:
    """
    Everything that a run's result depends on, beside the sources and the versions of packages.

    Args:
        tools (`tuple[str, ...]`): Tools to choose from.
        max_artifacts (`int`): Most artifacts in one flawed image; each gets one to that many.
        max_target_share (`float`): Largest share of the image that one flaw may take; large ones fall apart.
        pairs_per_image (`int`): Flawed variants of each photograph; they share one inversion and the clean half.
        max_long_side (`int`): Photographs longer than this are shrunk, in pixels; FLUX.1 and SD3.5 were trained at
            about 1024. The embedded model takes 256×256 px alone.
        seed (`int`): Every sample's randomness derives from it and from the sample's id.
        shard_size (`int`): Source images a shard. Shards are what a resumed run keeps.
        perceptual_metric (`str`): `"lpips"` or `"stlpips"`.
        model, revision (`str`): See [`Injector`].
        injection (`InjectionSettings`): Solver, steps and so on.
        curation (`CurationSettings`): Thresholds of acceptance.
    """

    tools: tuple[str, ...] = tuple(ARTIFACT_TYPE_OF_TOOL)
    max_artifacts: int = 3
    max_target_share: float = 0.13
    pairs_per_image: int = 1
    max_long_side: int = 1024
    seed: int = 0
    shard_size: int = 32
    perceptual_metric: str = "stlpips"
    model: str = EMBEDDED
    revision: str | None = None
    injection: InjectionSettings = field(default_factory=InjectionSettings)
    curation: CurationSettings = field(default_factory=CurationSettings)


@dataclass(frozen=True)
class Rejection:
    """Something that did not become part of the data set, and why. `stage` is what rejected it."""

    source_id: str
    stage: str
    reason: str
    pair_id: str = ""
    type: str = ""
    tool: str = ""
    entity: str = ""
    part: str = ""
    scores: dict[str, float] = field(default_factory=dict)


class RunMismatchError(ValueError):
    """The output folder holds a run with other settings, versions or sources."""


@dataclass
class Tally:
    """What processing a source cost and kept, added up."""

    made: Counter[ArtifactType] = field(default_factory=Counter)
    accepted: Counter[ArtifactType] = field(default_factory=Counter)
    num_function_evaluations: int = 0


def derive_seed(seed: int, sample_id: str) -> int:
    """A seed in [0, 2^63) from the run's seed and a sample's id."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()[:8], "big") >> 1


class Synthesizer:
    """
    Turns one source image into pairs.

    Args:
        source_folder (`Path`): Folder that source ids are relative to.
        perception (`PerceptionAgent`): Names and grounds entities and parts.
        injector (`Injector`): The loaded model.
        settings (`RunSettings`): Settings of the run.
    """

    def __init__(self, source_folder: Path, perception: PerceptionAgent, injector: Injector, settings: RunSettings):
        self.source_folder, self.perception, self.injector, self.settings = (
            source_folder,
            perception,
            injector,
            settings,
        )
        self.metric = load_perceptual_metric(settings.perceptual_metric)

    def process(self, source_id: str, tally: Tally) -> Iterator[Pair | Rejection]:
        """Pairs made of one source image, and everything that was rejected on the way."""
        try:
            image = open_source(self.source_folder / source_id)
        except SourceError as error:
            yield Rejection(source_id, "source", str(error))
            return
        try:
            perception = self.perception.perceive(image, source_id)
        except (NoAnnotation, AnnotationError) as error:
            yield Rejection(source_id, "perception", str(error))
            return
        if not perception.entities:
            yield Rejection(source_id, "perception", "no entity in the image")
            return
        patch_size = self.injector.pipeline.patch_size
        transform = self._frame(image, perception)
        perception, dropped = filter_perception(apply_to_perception(perception, transform), patch_size)
        for reason in dropped:
            yield Rejection(source_id, "perception", reason)
        if not perception.entities:
            yield Rejection(source_id, "perception", "no entity left to work on")
            return
        photo, scene = transform.apply(image), Scene.of(perception, patch_size)
        generator = torch.Generator().manual_seed(derive_seed(self.settings.seed, source_id))
        variants, reasons = self._plan(scene, tally.made, generator)
        for tool, reason in reasons.items():
            yield Rejection(source_id, "synthesis", reason, type=ARTIFACT_TYPE_OF_TOOL[tool], tool=tool)
        yield from self._realise(source_id, photo, transform, scene, variants, tally)

    def _frame(self, image: Image.Image, perception: Perception) -> SourceTransform:
        """The crop the model will see, centred on what was perceived."""
        left, top, right, bottom = zip(*(entity.bbox for entity in perception.entities), strict=True)
        focus = (min(left), min(top), max(right), max(bottom))
        if self.injector.sample_size:
            return fit(image.size, (self.injector.sample_size, self.injector.sample_size), focus)
        patch_size, longest = self.injector.pipeline.patch_size, self.settings.max_long_side
        return fit_multiple(image.size, patch_size, max_long_side=longest, focus=focus)

    def _plan(
        self, scene: Scene, made: Counter[ArtifactType], generator: torch.Generator
    ) -> tuple[dict[int, list[Artifact]], dict[str, str]]:
        variants: dict[int, list[Artifact]] = {}
        avoid: set[tuple[str, int]] = set()
        for variant in range(self.settings.pairs_per_image):
            most = int(torch.randint(1, self.settings.max_artifacts + 1, (), generator=generator))
            artifacts, reasons = plan_artifacts(
                scene, self.settings.tools, most, made, generator, self.settings.max_target_share, frozenset(avoid)
            )
            if artifacts:
                variants[variant] = artifacts
            made.update(artifact.type for artifact in artifacts)
            avoid |= {(artifact.tool, artifact.parameters["instance_id"]) for artifact in artifacts}
        return variants, reasons

    def _realise(
        self,
        source_id: str,
        photo: Image.Image,
        transform: SourceTransform,
        scene: Scene,
        variants: dict[int, list[Artifact]],
        tally: Tally,
    ) -> Iterator[Pair | Rejection]:
        """
        Injects, judges, and injects once more without what was rejected: an image must not hold a flaw that its
        labels do not mention.
        """
        finished: dict[int, Pair] = {}
        pending = dict(variants)
        while pending:
            output = self.injector.inject(
                photo,
                [PatchMapping.union(a.mapping for a in artifacts) for artifacts in pending.values()],
                scene.perception.caption,
            )
            tally.num_function_evaluations += output.num_function_evaluations
            clean, judged = output.reconstructions[0], {}
            for (variant, artifacts), flawed in zip(pending.items(), output.images, strict=True):
                pair_id = f"{source_id}:{variant}"
                kept, rejections = self._judge(source_id, pair_id, artifacts, clean, flawed, scene)
                yield from rejections
                if not rejections:
                    tally.accepted.update(artifact.type for artifact in kept)
                    finished[variant] = self._pair(source_id, pair_id, photo, clean, flawed, scene, transform, kept)
                elif kept:
                    judged[variant] = kept
            pending = judged
        for variant in sorted(finished):
            yield finished[variant]

    def _judge(
        self,
        source_id: str,
        pair_id: str,
        artifacts: Sequence[Artifact],
        clean: Image.Image,
        flawed: Image.Image,
        scene: Scene,
    ) -> tuple[list[Artifact], list[Rejection]]:
        targets = target_pixels([artifact.mapping for artifact in artifacts], scene.patch_size)
        kept, rejections = [], []
        for artifact in artifacts:
            artifact = replace(artifact, scores=measure(artifact, clean, flawed, targets, self.metric))
            verdict = judge(artifact, self.settings.curation)
            if verdict.kept:
                kept.append(artifact)
            else:
                rejections.append(
                    Rejection(
                        source_id,
                        "curation",
                        verdict.reason,
                        pair_id,
                        artifact.type,
                        artifact.tool,
                        artifact.entity,
                        artifact.part or artifact.fused_entity,
                        artifact.scores,
                    )
                )
        return kept, rejections

    def _pair(
        self,
        source_id: str,
        pair_id: str,
        photo: Image.Image,
        clean: Image.Image,
        flawed: Image.Image,
        scene: Scene,
        transform: SourceTransform,
        artifacts: Sequence[Artifact],
    ) -> Pair:
        explained = tuple(
            replace(artifact, label=label(artifact), explanation=local_explanation(artifact, photo.size))
            for artifact in artifacts
        )
        return Pair(
            pair_id=pair_id,
            source_id=source_id,
            source=photo,
            clean=clean,
            flawed=flawed,
            caption=scene.perception.caption,
            explanation=global_explanation(explained),
            explanation_source=EXPLANATION_SOURCE,
            grid=scene.grid,
            seed=derive_seed(self.settings.seed, source_id),
            solver=self.settings.injection.solver,
            num_inference_steps=self.injector.num_inference_steps,
            model=self.injector.model,
            model_revision=self.injector.revision,
            transform=transform.as_dict(),
            artifacts=explained,
        )


class Run:
    """
    A run of the synthesis in an output folder: `data/*.parquet`, `shards/*.json` (written last, one for each finished
    shard), `run.json`, `rejected.jsonl`, `README.md` and `contact_sheet.png`.

    Args:
        out (`Path`): Output folder. A run already there with the same settings is continued.
        sources (`Sequence[str]`): Source ids, in order.
        synthesizer (`Synthesizer`): Makes the pairs.

    Raises:
        RunMismatchError: the folder holds a run with other settings, versions or sources.
    """

    def __init__(self, out: Path, sources: Sequence[str], synthesizer: Synthesizer):
        self.out, self.synthesizer = out, synthesizer
        size = synthesizer.settings.shard_size
        self.shards = [sources[start : start + size] for start in range(0, len(sources), size)]
        self.identity = {
            "settings": json.loads(json.dumps(asdict(synthesizer.settings))),
            "model_revision": synthesizer.injector.revision,
            "versions": recorded_versions(),
            "sources": {"count": len(sources), "sha256": hashlib.sha256("\n".join(sources).encode()).hexdigest()},
        }
        self._check_identity()

    def _check_identity(self) -> None:
        path = self.out / "run.json"
        if not path.exists():
            write_json(path, {**self.identity, "status": "running"})
            return
        recorded = json.loads(path.read_text())
        different = sorted(differences(recorded, self.identity))
        if different:
            raise RunMismatchError(
                f"'{self.out}' holds a run with another {', '.join(different)}; "
                "choose another output folder, or give the same settings to continue that run"
            )

    def execute(self) -> dict[str, Any]:
        """Makes the missing shards, then the files that describe the whole. Returns the content of `run.json`."""
        sources = sum(len(shard) for shard in self.shards)
        pairs = rejected = 0
        with tqdm(total=sources, unit="image", desc="synthesize") as progress:
            for index, shard in enumerate(self.shards):
                marker = self.out / "shards" / f"{index:05d}.json"
                if not marker.exists():
                    write_json(marker, self._make_shard(index, shard, progress, pairs, rejected))
                else:
                    progress.update(len(shard))
                record = json.loads(marker.read_text())
                pairs, rejected = pairs + record["pairs"], rejected + len(record["rejected"])
        return self._finish()

    def _make_shard(
        self, index: int, sources: Sequence[str], progress: tqdm, pairs: int, rejected: int
    ) -> dict[str, Any]:
        start, tally, count = time.perf_counter(), Tally(), 0
        rejections: list[dict[str, Any]] = []
        path = self.out / "data" / f"pairs-{index:05d}.parquet"
        with replacing(path) as temporary:
            writer = ParquetWriter(features=PAIR_FEATURES, path=str(temporary))
            for source_id in sources:
                for item in self.synthesizer.process(source_id, tally):
                    if isinstance(item, Rejection):
                        rejections.append(asdict(item))
                    else:
                        writer.write(pair_to_row(item))
                        count += 1
                progress.update()
                progress.set_postfix(pairs=pairs + count, rejected=rejected + len(rejections))
            writer.finalize()
        return {
            "pairs": count,
            "sources": len(sources),
            "made": dict(tally.made),
            "accepted": dict(tally.accepted),
            "num_function_evaluations": tally.num_function_evaluations,
            "seconds": round(time.perf_counter() - start, 3),
            "rejected": rejections,
        }

    def _finish(self) -> dict[str, Any]:
        records = [json.loads(path.read_text()) for path in sorted((self.out / "shards").glob("*.json"))]
        rejected = [rejection for record in records for rejection in record["rejected"]]
        write_text(self.out / "rejected.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rejected))
        run = {
            **self.identity,
            "status": "complete",
            "pairs": sum(record["pairs"] for record in records),
            "rejected": len(rejected),
            "made": sum((Counter(record["made"]) for record in records), Counter()),
            "accepted": sum((Counter(record["accepted"]) for record in records), Counter()),
            "num_function_evaluations": sum(record["num_function_evaluations"] for record in records),
            "seconds": round(sum(record["seconds"] for record in records), 3),
        }
        write_json(self.out / "run.json", run)
        write_card(self.out, run)
        if run["pairs"]:
            with replacing(self.out / "contact_sheet.png") as temporary:
                contact_sheet(read_pairs(self.out)).save(temporary, format="PNG")
        return run


def recorded_versions() -> dict[str, str]:
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def differences(recorded: dict[str, Any], current: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the entries of `current` that are other in `recorded`."""
    for key, value in current.items():
        other = recorded.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from differences(other, value, f"{prefix}{key}.")
        elif value != other:
            yield f"{prefix}{key}"


def read_pairs(out: Path) -> Iterator[Pair]:
    """The pairs of a data set written by a run."""
    for row in load_dataset("parquet", data_files=str(out / "data" / "*.parquet"), split="train", streaming=True):
        yield row_to_pair(row)
