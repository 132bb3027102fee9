"""Workbench: photos held ready, into which artifacts are injected one by one, at regions that a person marks."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffusers_artifact import HeldPhoto, PatchMapping, map_region
from diffusers_artifact.confinement import soft_outline
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL, artifact_mask, bbox_of_mask

from ..agents.curation import explanations
from ..agents.curation.labels import labelled
from ..agents.curation.measures import ImageChange, as_array, change_inside, target_pixels
from ..engine.injector import Injector
from ..engine.settings import InjectionSettings
from ..schema.pair import Artifact, Pair
from ..schema.pair_id import PairId
from ..utils.errors import ArgumentError, check_choice
from ..utils.photos import CONVERTED_FROM, fit, fit_multiple
from ..utils.seeds import derive_seed
from .wishes import BenchPhoto, Made, Wish


# Each holds 0.2 GB of the embedded model's clean row.
_MOST_HELD = 3
# Longest side, in pixels, of photos for models that are not limited to one size.
_LONG_SIDE = 512
# What a preset sets of a held photo.
_STRENGTH = ("position_steps", "value_steps", "value_blocks", "transfer_noise")
# Places that shuffling a duplication goes through: its tool always takes the best one that is free.
_PLACES = 6


@dataclass(eq=False)
class Workbench:
    """
    Loaded model with the photos that it holds ready. One artifact is made at a time, whatever thread asks.

    Args:
        model (`str`, *optional*, defaults to `"embedded"`): `"embedded"`, a folder, or the id of a repository.
        revision, device (`str`, *optional*): See [`~datasets_script.engine.diffusion_model.DiffusionModel`].

    Raises:
        ModelLoadError: The model cannot be loaded.
    """

    model: str = "embedded"
    revision: str | None = None
    device: str | None = None
    _held: OrderedDict[str, HeldPhoto] = field(default_factory=OrderedDict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        # The background is held whatever the preset says: only so does an artifact cost its target alone.
        settings = InjectionSettings(compute="target", hold_background=True, value_source="reconstruction")
        self.injector = Injector(self.model, settings, self.revision, self.device)

    def photo(self, source: Image.Image, name: str) -> BenchPhoto:
        """
        Crop and resize a photo for the model.

        Args:
            source (`PIL.Image.Image`): The photo as [`~datasets_script.utils.photos.open_source`] opens it.
            name (`str`): Its file name.
        """
        side = self.injector.sample_size
        if side:
            transform = fit(source.size, (side, side))
        else:
            patch = self.injector.pipeline.patch_size
            transform = fit_multiple(source.size, patch, max_long_side=_LONG_SIDE)
        transform = replace(transform, converted_from=source.info.get(CONVERTED_FROM, ""))
        image = transform.apply(source)
        key = hashlib.sha256(image.tobytes() + repr(image.size).encode()).hexdigest()
        return BenchPhoto(name, image, transform, key)

    def hold(self, photo: BenchPhoto) -> Image.Image:
        """Invert a photo and walk its clean row, unless that was done; return the clean image."""
        with self._lock:
            return self._of(photo).clean

    def make(self, photo: BenchPhoto, wish: Wish) -> Made:
        """
        Make an artifact.

        Raises:
            ArgumentError: The wish cannot be met; the message tells why, and what to do.
        """
        start = time.perf_counter()
        artifact = self._plan(photo, wish)
        with self._lock:
            held = self._of(photo)
            made = held.inject([artifact.mapping], outlines=[soft_outline(artifact.part_mask, artifact.type)])
        flawed = made.images[0]
        (artifact,) = labelled([artifact], held.clean, flawed)
        clean, changed = as_array(held.clean), as_array(flawed)
        targets = target_pixels([artifact.mapping], self.injector.pipeline.patch_size)
        change = ImageChange.of(clean, changed, targets)
        artifact = replace(
            artifact,
            label=explanations.label(artifact),
            explanation=explanations.local_explanation(artifact, flawed.size),
            scores={
                "change_inside": change_inside(clean, changed, targets),
                "change_outside": change.outside,
                "psnr_outside": change.psnr_outside,
            },
        )
        seconds = time.perf_counter() - start
        return Made(photo, held.clean, flawed, artifact, wish.seed, seconds, made.token_evaluations)

    def pair(self, made: Made, variant: int) -> Pair:
        """Return the pair of an artifact, as variant number `variant` of its photo."""
        artifacts, injector = (made.artifact,), self.injector
        return Pair(
            pair_id=str(PairId(made.photo.name, variant)),
            source_id=made.photo.name,
            variant=variant,
            source=made.photo.image,
            clean=made.clean,
            flawed=made.flawed,
            caption="",
            clean_description=explanations.clean_description(""),
            explanation=explanations.global_explanation(artifacts),
            explanation_source=explanations.EXPLANATION_SOURCE,
            grid=made.artifact.mapping.grid,
            seed=made.seed,
            solver=injector.solver,
            num_inference_steps=injector.num_inference_steps,
            model=injector.model,
            model_revision=injector.revision,
            transform=made.photo.transform.as_dict(),
            artifacts=artifacts,
        )

    def _of(self, photo: BenchPhoto) -> HeldPhoto:
        if photo.key not in self._held:
            while len(self._held) >= _MOST_HELD:
                self._held.popitem(last=False)
            injector = self.injector
            strength = injector.preset.arguments(injector.num_inference_steps, injector.pipeline.family.num_blocks)
            self._held[photo.key] = HeldPhoto(
                injector.pipeline,
                photo.image,
                num_inference_steps=injector.num_inference_steps,
                solver=injector.solver,
                allow_distilled=injector.settings.allow_distilled,
                **{name: strength[name] for name in _STRENGTH},
            )
        self._held.move_to_end(photo.key)
        return self._held[photo.key]

    def _plan(self, photo: BenchPhoto, wish: Wish) -> Artifact:
        check_choice("tool", wish.tool, tuple(ARTIFACT_TYPE_OF_TOOL))
        patch = self.injector.pipeline.patch_size
        region, other = wish.region, wish.other if wish.tool == "fuse" else None
        if not region.any():
            raise ArgumentError("`region` must be painted first, got nothing; paint what the artifact is to happen to")
        if wish.tool == "fuse":
            if other is None or not other.any():
                raise ArgumentError(
                    "`other` must be painted for fuse, got nothing; paint the second thing in the second colour, next "
                    "to the first"
                )
            region, other = _grown(region, 2 * patch), _grown(other, 2 * patch)
        try:
            mapping = self._map(photo, wish, region, other)
        except ValueError as error:
            raise ArgumentError(str(error).replace("`mask`", "`region`")) from error
        whole = region if other is None else region | other
        part_mask = artifact_mask(mapping, whole, patch)
        return Artifact(
            type=ARTIFACT_TYPE_OF_TOOL[wish.tool],
            tool=wish.tool,
            kernel=wish.kernel if wish.tool == "distort" else "",
            entity=wish.entity.strip() or Wish.entity,
            part="" if wish.tool == "fuse" else wish.part.strip() or Wish.part,
            fused_entity=(wish.second.strip() or Wish.second) if wish.tool == "fuse" else "",
            mapping=mapping,
            mask=part_mask,
            bbox=bbox_of_mask(part_mask),
            part_mask=part_mask,
            parameters={"reach": wish.reach} if wish.reach else {},
        )

    def _map(self, photo: BenchPhoto, wish: Wish, region: np.ndarray, other: np.ndarray | None) -> PatchMapping:
        options: dict[str, Any] = {"kernel": wish.kernel} if wish.tool == "distort" else {}
        if wish.reach and wish.tool != "distort":
            options["band_radius" if wish.tool == "fuse" else "radius"] = wish.reach
        # The places of a duplication keep their order, so that each seed shows another one.
        seed = 0 if wish.tool == "add" else wish.seed
        generator = torch.Generator().manual_seed(derive_seed(seed, f"{photo.name}:{wish.tool}"))
        taken: list[PatchMapping] = []

        def mapped() -> PatchMapping:
            return map_region(
                photo.image,
                mask=region,
                other=other,
                tool=wish.tool,
                patch_size=self.injector.pipeline.patch_size,
                occupied=taken,
                generator=generator,
                **options,
            )

        mapping = mapped()
        for _ in range(wish.seed % _PLACES if wish.tool == "add" else 0):
            # The targets alone: the references are the part itself, which every copy takes.
            taken.append(_targets_only(mapping))
            try:
                mapping = mapped()
            except ValueError:  # no place is left, so that the round begins again
                taken.clear()
                mapping = mapped()
        return mapping


def _targets_only(mapping: PatchMapping) -> PatchMapping:
    return PatchMapping(mapping.targets, mapping.targets, mapping.grid, mapping.types)


def _grown(mask: np.ndarray, margin: int) -> np.ndarray:
    """Enlarge a mask by `margin` px on every side, and by as much along its diagonals."""
    for axis in (0, 1):
        grown = mask.copy()
        for step in range(1, margin + 1):
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            grown[tuple(ahead)] |= mask[tuple(behind)]
            grown[tuple(behind)] |= mask[tuple(ahead)]
        mask = grown
    return mask
