"""Repair by re-denoising: a region is denoised again, and everything around it is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from .choices import COMPUTE_MODES, REPAIR_SOURCES, SOLVER_NAMES, ComputeMode, RepairSource
from .confinement import confine_tokens, dilated_targets
from .decoding import decode_targets
from .family import Conditioning, TransformerFamily
from .injection import InjectionState
from .inputs import one_of, preprocess_images
from .mapping import PatchMapping
from .path_flow import FlowPath
from .presets import NUM_INFERENCE_STEPS
from .repair_regions import smooth_fill
from .repair_sources import covered
from .target_rows import TargetInjectionState, TargetRows


class DenoisingInpainter:
    r"""
    Inpainter that needs no weights for inpainting: any text-to-image flow model that [`ArtifactInjectionPipeline`]
    supports, and the embedded model.

    The picture is inverted to a noise level, the strength; the tokens of the region get fresh noise of that level, and
    all is denoised again. At every step the other tokens are those of the picture on its way back, so that the region
    is drawn to fit them.

    Args:
        pipeline (`ArtifactInjectionPipeline`): The model.
        source (`str`, *optional*): What the region begins from. `"region"`: what is there; nothing of it is kept at a
            strength of 1. `"surroundings"`: another place of the picture with like surroundings; see [`covered`].
            Defaults to `"surroundings"` for models without text encoders, which no caption tells what to draw, and to
            `"region"` for others.
        num_inference_steps (`int`, *optional*): Steps of the whole schedule, of which those below the strength are
            run, in either direction. Defaults to 8 for models without text encoders, else to 28.
        solver (`str`, *optional*, defaults to `"fireflow"`): Solver of both directions.
        guidance_scale (`float`, *optional*): Guidance scale of the region; by default the family's.
        compute (`str`, *optional*, defaults to `"target"`): `"target"` computes the region alone, whose tokens attend
            to the picture's own keys and values. With `"full"`, what is around the region sees what is drawn there.
        allow_distilled (`bool`, *optional*, defaults to `False`): Run few-step models, which invert poorly.

    Attributes:
        side, multiple, cell (`int`): Side of pictures that the model draws, pixels of which their sides are multiples,
            and side of the smallest square that can be repaired.
        evaluations (`float`): Pictures' worth of tokens that went through the transformer so far.

    Raises:
        ValueError: An argument is not as described, or the model cannot be inverted.
    """

    def __init__(
        self,
        pipeline: Any,
        source: RepairSource | None = None,
        num_inference_steps: int | None = None,
        solver: str = "fireflow",
        guidance_scale: float | None = None,
        compute: ComputeMode = "target",
        allow_distilled: bool = False,
    ):
        pipeline.check_model(allow_distilled)
        family: TransformerFamily = pipeline.family
        is_blind = all(pipeline.components.get(name) is None for name in family.text_components)
        self.source: RepairSource = source or ("surroundings" if is_blind else "region")
        default = NUM_INFERENCE_STEPS if is_blind else 28
        self.num_inference_steps = default if num_inference_steps is None else num_inference_steps
        self.guidance_scale = family.default_guidance_scale if guidance_scale is None else guidance_scale
        self.pipeline, self.solver, self.compute = pipeline, solver, compute
        self.allow_distilled = allow_distilled
        one_of("source", self.source, REPAIR_SOURCES)
        one_of("solver", solver, SOLVER_NAMES)
        one_of("compute", compute, COMPUTE_MODES)
        family.check_guidance_scale("guidance_scale", self.guidance_scale)
        if self.num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` must be at least 1, got {num_inference_steps}")
        self.side = int(family.vae.config.get("sample_size") or 1024)
        self.multiple = self.cell = family.patch_size
        self.takes_prompts = not is_blind
        self.evaluations = 0.0

    @torch.no_grad()
    def __call__(
        self, image: Image.Image, mask: np.ndarray, prompt: str, strength: float, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Repair a region; see [`Inpainter`]."""
        side, (height, width) = self.cell, mask.shape
        tokens: np.ndarray = np.any(mask.reshape(height // side, side, width // side, side), axis=(1, 3))
        begun = self._beginnings(image, tokens, strength, seeds)
        return self._redrawn(begun, tokens, prompt, strength, seeds)

    def _beginnings(
        self, image: Image.Image, tokens: np.ndarray, strength: float, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Return the picture that each repair begins from."""
        if tokens.all():
            return [image] * len(seeds)
        if self.source == "surroundings":
            return covered(image, tokens, seeds)
        if strength < 1:
            return [image] * len(seeds)
        # Nothing of the region is kept, so what is around it must not know it either.
        known = np.kron(~tokens, np.ones((self.cell, self.cell), dtype=bool))
        pixels = smooth_fill(np.asarray(image), known).round().clip(0, 255).astype(np.uint8)
        return [Image.fromarray(pixels)] * len(seeds)

    def identity(self) -> dict[str, Any]:
        """Return what its repairs depend on besides the model, JSON-serialisable."""
        names = ("source", "num_inference_steps", "solver", "guidance_scale", "compute")
        return {"inpainter": "denoising", **{name: getattr(self, name) for name in names}}

    def _redrawn(
        self, begun: list[Image.Image], tokens: np.ndarray, prompt: str, strength: float, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Draw the region from fresh noise, once for each seed."""
        pipe, grid = self.pipeline, (tokens.shape[0], tokens.shape[1])
        family, device, count = pipe.family, pipe._execution_device, len(seeds)
        pipe._align_weights()
        conditioning = family.encode_prompt(prompt, device, None)
        negative = None
        if family.needs_negative(torch.tensor(self.guidance_scale)):
            negative = family.encode_negative("", device, None)
        # All repairs share one inversion, that of the first beginning: they differ in the region alone.
        different = list(dict.fromkeys(map(id, begun)))
        pictures = [next(picture for picture in begun if id(picture) == one) for one in different]
        encoded = family.encode_images(preprocess_images(pictures, self.cell).to(device), None).float()
        clean = encoded[:1]
        drawn = np.flatnonzero(eroded(tokens)).tolist()
        mappings = [PatchMapping(tuple(drawn), tuple(drawn), grid)] * count
        rows, state = self._arranged(mappings, grid, device)
        path = FlowPath(
            family, pipe.scheduler, self.solver, self.num_inference_steps, grid, negative, lambda: False, state
        )
        level, inside = path.level(strength), dilated_targets(mappings, device)
        of_clean = torch.zeros(count, dtype=torch.long, device=device)

        def hold(timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            return family.unpack(confine_tokens(family.pack(latents), of_clean, inside), grid)

        with family.injecting(state):
            inverted = path.invert(clean, conditioning, [level], lambda timestep, latents: latents)[level]
            starts = family.pack(inverted).repeat(count, 1, 1)
            for start, picture, seed in zip(starts, begun, seeds, strict=True):
                own = encoded[different.index(id(picture))][None]
                noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(seed)).to(device)
                start[drawn] = family.pack(level.signal * own + level.noise * noise)[0, drawn]
            latents = path.resample(
                torch.cat([inverted, family.unpack(starts, grid)]),
                level,
                Conditioning.stack([conditioning] * (1 + count)),
                torch.tensor([1.0, *[float(self.guidance_scale)] * count]),
                [0] * (1 + count),
                hold,
                rows,
            )
        self.evaluations += path.loop.token_evaluations
        _, images = decode_targets(family, latents, [0] * count, inside)
        pipe.maybe_free_model_hooks()
        repaired: list[Image.Image] = pipe.image_processor.postprocess(images, output_type="pil")
        return repaired

    def _arranged(
        self, mappings: list[PatchMapping], grid: tuple[int, int], device: torch.device
    ) -> tuple[TargetRows | None, InjectionState]:
        """Return the arrangement of the batch, and a state that injects nothing."""
        settings: dict[str, Any] = {
            "mappings": [PatchMapping.empty(grid), *mappings],
            "sources": [0] * (1 + len(mappings)),
            "num_inference_steps": self.num_inference_steps,
            "position_blocks": (),
            "value_blocks": (),
            "position_steps": 0,
            "value_steps": 0,
            "hold_background": True,
            "value_source": "reconstruction",
            "cache_device": "model",
            "device": device,
            "rule": "paper",
        }
        if self.compute == "full":
            return None, InjectionState(**settings)
        multiple = self.pipeline.family.target_row_multiple(grid)
        rows = TargetRows(mappings, [0] * len(mappings), 1, multiple, device)
        return rows, TargetInjectionState(rows, **settings)


def eroded(tokens: np.ndarray) -> np.ndarray:
    """
    Return the tokens of a region whose neighbours belong to it too, or all if there are none: the others only adapt.

    Args:
        tokens (`np.ndarray` of shape `(rows, columns)`, `bool`): The region. Beyond the picture's border it goes on.
    """
    padded = np.pad(tokens, 1, constant_values=True)
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    inner: np.ndarray = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    return inner if inner.any() else tokens
