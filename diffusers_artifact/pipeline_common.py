"""Shared code of the package's pipelines: families, checks of the model, solvers, saving with the source."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.utils.torch_utils import unwrap_module

from .alignment import align_weights
from .family_chroma import ChromaFamily
from .family_flux import FluxFamily
from .family_flux2 import Flux2Family
from .family_qwen import QwenImageFamily
from .family_sd3 import SD3Family
from .schedulers import SOLVERS, FlowMatchSolverScheduler


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import choices, family

    InjectionRule = choices.InjectionRule
    Conditioning = family.Conditioning
    ModelFamily = family.ModelFamily
    TransformerFamily = family.TransformerFamily


SINGLE_STREAM = "single_transformer_blocks"
"""Name of a transformer's list of blocks that take text and image in one sequence."""

FAMILIES: tuple[type[TransformerFamily], ...] = (FluxFamily, Flux2Family, ChromaFamily, SD3Family, QwenImageFamily)


def find_family(transformer: Any, components: dict[str, Any]) -> TransformerFamily:
    """
    Find the adapter of a transformer's family.

    Args:
        transformer (`~diffusers.ModelMixin`): The diffusion transformer, compiled or not.
        components (`dict[str, Any]`): All components of its pipeline by name.

    Raises:
        ValueError: The transformer's class belongs to no supported family.
    """
    name = type(unwrap_module(transformer)).__name__
    for family in FAMILIES:
        if family.transformer_class == name:
            return family(transformer, components)
    supported = ", ".join(family.transformer_class for family in FAMILIES)
    raise ValueError(f"`transformer` must be one of {supported}, got {name}")


class FlowPipelineMixin(LoraBaseMixin):
    """
    Mixin, beside [`~diffusers.DiffusionPipeline`], for pipelines that invert images along a model's flow. LoRAs are
    loaded, fused and set as in the stock pipeline of the model's family, by diffusers' own mixin of that family.

    It is not a pipeline itself, because a module that is loaded as a custom pipeline may hold only one pipeline class.
    The pipeline must register `transformer`, `scheduler` and `vae`, and `is_distilled` in its configuration.
    """

    transformer: Any
    scheduler: Any
    config: Any
    components: dict[str, Any]
    _callback_tensor_inputs: list[str]
    name_or_path: str
    config_name: str
    _num_timesteps: int
    _interrupt: bool

    @property
    def family(self) -> TransformerFamily:
        """
        Adapter of the loaded transformer's family.

        Raises:
            ValueError: The transformer's class belongs to no supported family.
        """
        return find_family(self.transformer, self.components)

    @property
    def patch_size(self) -> int:
        """Side of a token in pixels."""
        return self.family.patch_size

    @property
    def num_timesteps(self) -> int:
        """Number of evaluations of the last call, of inversion and denoising together, whatever the batch."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether the call is interrupted: `pipe._interrupt = True` in a callback skips the remaining evaluations."""
        return self._interrupt

    @property
    def _execution_device(self) -> torch.device:
        """Device of the evaluated model, or that of its offloading hooks: text encoders may be parked elsewhere."""
        device: torch.device = super()._execution_device
        return self.family.model.device if device.type in ("cpu", "meta") else device

    def check_model(
        self, allow_distilled: bool = False, encodes_prompts: bool = True, rule: InjectionRule = "paper"
    ) -> None:
        """
        Check that the loaded model can be inverted, as `__call__` does too.

        Args:
            allow_distilled (`bool`, *optional*, defaults to `False`): Accept models distilled to few steps.
            encodes_prompts (`bool`, *optional*, defaults to `True`): Whether its text encoders are needed.
            rule (`str`, *optional*, defaults to `"paper"`): `rule` of the calls; see `__call__`.

        Raises:
            ValueError: The model's class or its inputs are not supported, a component is missing, the model was
                distilled to few steps and `allow_distilled` is `False`, or `rule` cannot be followed on it.
        """
        family = self.family
        family.check(encodes_prompts)
        if rule == "released" and SINGLE_STREAM not in family.block_lists:
            raise ValueError(
                f"`rule` must be 'paper' for {family.transformer_class}, because 'released' gives values to the text "
                "of single-stream blocks, which it lacks, got 'released'"
            )
        if not allow_distilled and self.config.is_distilled is not False:
            reason = "its configuration says `is_distilled`" if self.config.is_distilled else None
            reason = reason or family.distillation(self.name_or_path or "")
            if reason:
                raise ValueError(
                    f"`{family.component}` must not be distilled to few steps, because such models invert poorly, got "
                    f"one that counts as distilled because {reason}; pass `allow_distilled=True` to run it anyway"
                )

    @property
    def _lora_loadable_modules(self) -> list[str]:
        return self.family.lora_loader._lora_loadable_modules

    def load_lora_weights(self, *args: Any, **kwargs: Any) -> None:
        """Load a LoRA of the model's family, with the arguments of the stock pipeline's method."""
        self._lora_loader().load_lora_weights(*args, **kwargs)

    def unload_lora_weights(self, *args: Any, **kwargs: Any) -> None:
        """Remove all LoRAs, with the arguments of the stock pipeline's method."""
        self._lora_loader().unload_lora_weights(*args, **kwargs)

    def fuse_lora(self, *args: Any, **kwargs: Any) -> None:
        """Add the active LoRAs to the weights, with the arguments of the stock pipeline's method."""
        self._lora_loader().fuse_lora(*args, **kwargs)

    def unfuse_lora(self, *args: Any, **kwargs: Any) -> None:
        """Undo [`fuse_lora`], with the arguments of the stock pipeline's method."""
        self._lora_loader().unfuse_lora(*args, **kwargs)

    def lora_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Read a LoRA of the model's family, with the arguments of the stock pipeline's method."""
        return self.family.lora_loader.lora_state_dict(*args, **kwargs)

    def save_lora_weights(self, *args: Any, **kwargs: Any) -> None:
        """Save LoRA layers, with the arguments of the stock pipeline's method."""
        self.family.lora_loader.save_lora_weights(*args, **kwargs)

    def _lora_loader(self) -> Any:
        """
        Return an object of diffusers' LoRA mixin of the model's family whose components are those of this pipeline. It
        is made for each call, because the family depends on the loaded transformer.
        """
        of_pipeline = {
            "__getattr__": lambda loader, name: getattr(self, name),
            "__setattr__": lambda loader, name, value: setattr(self, name, value),
            "_merged_adapters": property(lambda loader: self._merged_adapters),
        }
        mixin = self.family.lora_loader
        return type(mixin.__name__, (mixin,), of_pipeline)()

    @torch.no_grad()
    def encode_prompt(
        self, prompt: str, device: torch.device | str | None = None, max_sequence_length: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """
        Encode a prompt as the stock pipeline of the model's family does, for `__call__` to take in place of it.

        Args:
            prompt (`str`): The prompt.
            device (`torch.device`, *optional*): Device of the text encoders and of the result; by default the
                pipeline's.
            max_sequence_length (`int`, *optional*): Maximum number of text tokens. Defaults to the stock pipeline's.

        Returns:
            `tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]`: `prompt_embeds` of shape
            `(1, sequence, channels)`, `pooled_prompt_embeds` of shape `(1, channels)` and `prompt_embeds_mask` of
            shape `(1, sequence)`; `None` where the family has none.
        """
        self._align_weights()
        place = self._execution_device if device is None else torch.device(device)
        encoded = self.family.encode_prompt(prompt, place, max_sequence_length)
        return encoded.prompt_embeds, encoded.pooled, encoded.mask

    def _encode_prompts(self, prompts: Sequence[str], max_sequence_length: int | None) -> list[Conditioning]:
        """Encode the prompts, equal ones only once."""
        family, device = self.family, self._execution_device
        encoded = {text: family.encode_prompt(text, device, max_sequence_length) for text in dict.fromkeys(prompts)}
        return [encoded[text] for text in prompts]

    def _check_prompts(
        self,
        family: ModelFamily,
        num_images: int,
        prompts: Sequence[str],
        negative_prompt: str,
        encoded: Conditioning | None,
    ) -> None:
        if len(prompts) != num_images:
            raise ValueError(
                f"`prompt` must be a string or one for each image, got {len(prompts)} for {num_images} images"
            )
        if not all(isinstance(text, str) for text in (*prompts, negative_prompt)):
            kinds = sorted({type(text).__name__ for text in (*prompts, negative_prompt)} - {"str"})
            raise ValueError(f"`prompt` and `negative_prompt` must be strings, got {', '.join(kinds)}")
        if encoded is not None:
            self._check_encoded(family, encoded, prompts)
        if negative_prompt and family.guidance_kind != "true":
            raise ValueError(
                f"`negative_prompt` must be empty for {family.model_class}, which does not use it, got "
                f"{negative_prompt!r}"
            )

    @staticmethod
    def _check_encoded(family: ModelFamily, encoded: Conditioning, prompts: Sequence[str]) -> None:
        if any(prompts):
            raise ValueError("`prompt` must be left out with `prompt_embeds`, got both")
        parts = {
            "prompt_embeds": encoded.prompt_embeds,
            "pooled_prompt_embeds": encoded.pooled,
            "prompt_embeds_mask": encoded.mask,
        }
        for name, part in parts.items():
            if part is None and name in family.embedding_arguments:
                raise ValueError(
                    f"`{name}` must be given with `prompt_embeds` for {family.model_class}, got None; "
                    "`encode_prompt` returns it"
                )
            if part is not None and len(part) != len(prompts):
                raise ValueError(f"`{name}` must have a row for each of {len(prompts)} images, got {len(part)}")

    def _check_callback_inputs(self, names: Sequence[str]) -> None:
        unknown = sorted(set(names) - set(self._callback_tensor_inputs))
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` must be among {self._callback_tensor_inputs}, got {unknown}"
            )

    def _make_solvers(
        self, solver: str, num_inference_steps: int, num_tokens: int
    ) -> tuple[FlowMatchSolverScheduler, FlowMatchSolverScheduler]:
        """Create the solvers of the inversion and the denoising loop on one sigma grid, and set `num_timesteps`."""
        arguments = self.family.timestep_arguments(num_inference_steps, num_tokens, self.scheduler)
        inversion, denoising = (SOLVERS[solver].from_config(self.scheduler.config) for _ in range(2))
        inversion.set_timesteps(**arguments, device=self._execution_device, inverse=True)
        denoising.set_timesteps(**arguments, device=self._execution_device)
        self._interrupt = False
        self._num_timesteps = len(inversion.timesteps) + len(denoising.timesteps)
        return inversion, denoising

    def _align_weights(self) -> None:
        """Align weights in host memory, so that every load of them gives the same result; see [`align_weights`]."""
        if self._execution_device.type != "cpu":
            return
        for component in self.components.values():
            if isinstance(component, torch.nn.Module):
                align_weights(component)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """
        Save the pipeline as [`~diffusers.DiffusionPipeline.save_pretrained`] does.

        A pipeline that was loaded without installing the package is saved with its source files, so that
        `DiffusionPipeline.from_pretrained(save_directory, trust_remote_code=True)` loads it again.

        Args:
            save_directory (`str` or `Path`): Folder to save to.
            args, kwargs: Further arguments of [`~diffusers.DiffusionPipeline.save_pretrained`].
        """
        super().save_pretrained(save_directory, *args, **kwargs)
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
