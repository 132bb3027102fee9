"""What the pipelines of this package share: families, checks of the model, inversion, saving with their source."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import unwrap_module

from .alignment import align_weights
from .family import Conditioning, TransformerFamily
from .family_chroma import ChromaFamily
from .family_flux import FluxFamily
from .family_flux2 import Flux2Family
from .family_qwen import QwenImageFamily
from .family_sd3 import SD3Family
from .schedulers import SOLVERS, FlowMatchSolverScheduler


FAMILIES: tuple[type[TransformerFamily], ...] = (FluxFamily, Flux2Family, ChromaFamily, SD3Family, QwenImageFamily)


class FlowPipelineMixin:
    """
    Base, beside [`~diffusers.DiffusionPipeline`], of the pipelines that invert images along a model's flow.

    It is no pipeline itself, since a module that is loaded as a custom pipeline may hold one pipeline class alone. The
    pipeline registers `transformer`, `scheduler` and `vae`, and `is_distilled` in its configuration.
    """

    transformer: Any
    scheduler: Any
    config: Any
    components: dict[str, Any]
    name_or_path: str
    config_name: str
    _execution_device: torch.device
    _num_timesteps: int
    _interrupt: bool

    @property
    def family(self) -> TransformerFamily:
        """
        Adapter of the loaded transformer's family.

        Raises:
            ValueError: no family knows the transformer's class.
        """
        name = type(unwrap_module(self.transformer)).__name__
        for family in FAMILIES:
            if family.transformer_class == name:
                return family(self.transformer, self.components)
        supported = ", ".join(family.transformer_class for family in FAMILIES)
        raise ValueError(f"`transformer` must be one of {supported}, got {name}")

    @property
    def patch_size(self) -> int:
        """Side of a token in pixels."""
        return self.family.patch_size

    @property
    def num_timesteps(self) -> int:
        """Evaluations of the last call, of inversion and denoising together."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set `pipe._interrupt = True` in a callback to skip the rest of the evaluations, as in stock pipelines."""
        return self._interrupt

    def check_model(self, allow_distilled: bool = False) -> None:
        """
        Checks that the loaded model is one that can be inverted; `__call__` does so too.

        Raises:
            ValueError: its class or its inputs are not supported, a component is missing, or it was distilled to few
                steps and `allow_distilled` is `False`.
        """
        family = self.family
        family.check()
        if not allow_distilled and self.config.is_distilled is not False:
            reason = "its configuration says `is_distilled`" if self.config.is_distilled else None
            reason = reason or family.distillation(self.name_or_path or "")
            if reason:
                raise ValueError(
                    "`transformer` must not be distilled to few steps, because such models do not invert well; this "
                    f"one is taken for one because {reason}. `allow_distilled=True` runs it all the same."
                )

    def _encode_prompts(self, prompts: Sequence[str], max_sequence_length: int | None) -> list[Conditioning]:
        """Encode each prompt, equal ones once."""
        family, device = self.family, self._execution_device
        encoded = {text: family.encode_prompt(text, device, max_sequence_length) for text in dict.fromkeys(prompts)}
        return [encoded[text] for text in prompts]

    def _make_solvers(
        self, solver: str, num_inference_steps: int, num_tokens: int
    ) -> tuple[FlowMatchSolverScheduler, FlowMatchSolverScheduler]:
        """Lay out an inversion and a denoising loop on one sigma grid, and count their evaluations from now on."""
        arguments = self.family.timestep_arguments(num_inference_steps, num_tokens, self.scheduler)
        inversion, denoising = (SOLVERS[solver].from_config(self.scheduler.config) for _ in range(2))
        inversion.set_timesteps(**arguments, device=self._execution_device, inverse=True)
        denoising.set_timesteps(**arguments, device=self._execution_device)
        self._interrupt = False
        self._num_timesteps = len(inversion.timesteps) + len(denoising.timesteps)
        return inversion, denoising

    def _align_weights(self) -> None:
        """Make this call's result that of every other load of the same weights; see [`align_weights`]."""
        if self._execution_device.type != "cpu":
            return
        for component in self.components.values():
            if isinstance(component, torch.nn.Module):
                align_weights(component)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """
        Saves as all pipelines do. Where this file was loaded without installing the package, it and its siblings are
        saved as well, and `DiffusionPipeline.from_pretrained(save_directory, trust_remote_code=True)` loads it again.
        """
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]  # mixed into a pipeline
        if not type(self).__module__.startswith("diffusers_modules."):
            return
        source = Path(inspect.getfile(type(self)))
        siblings = re.findall(r"^from \.(\w+) import", source.read_text(encoding="utf-8"), re.MULTILINE)
        for name in (source.stem, *siblings):
            shutil.copyfile(source.with_name(f"{name}.py"), Path(save_directory) / f"{name}.py")
        index = Path(save_directory) / self.config_name
        config = json.loads(index.read_text(encoding="utf-8"))
        config["_class_name"] = [source.stem, type(self).__name__]
        index.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @contextmanager
    def _timed(self, timings: dict[str, float], phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._execution_device.type == "cuda":
            torch.cuda.synchronize(self._execution_device)
        timings[phase] = time.perf_counter() - start
