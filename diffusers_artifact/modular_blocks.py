"""Artifact injection as a Modular Diffusers block, to run alone or between other blocks."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_type_hints

from diffusers import ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, ConfigSpec, InputParam, OutputParam

# From a local folder, diffusers copies only the modules that this file imports, so pipeline.py's are repeated here.
from .alignment import align_weights  # noqa: F401
from .autoencoder import AutoencoderPCA  # noqa: F401
from .choices import ValueSource  # noqa: F401
from .confinement import confine_tokens  # noqa: F401
from .decoding import decode_targets  # noqa: F401
from .denoising_loop import DenoisingLoop  # noqa: F401
from .family import TransformerFamily  # noqa: F401
from .family_chroma import ChromaFamily  # noqa: F401
from .family_flux import FluxFamily  # noqa: F401
from .family_flux2 import Flux2Family  # noqa: F401
from .family_qwen import QwenImageFamily  # noqa: F401
from .family_sd3 import SD3Family  # noqa: F401
from .injection import InjectionState  # noqa: F401
from .inputs import preprocess_images  # noqa: F401
from .mapping import PatchMapping
from .pipeline import ArtifactInjectionOutput, ArtifactInjectionPipeline
from .pipeline_common import FlowPipelineMixin  # noqa: F401
from .presets import NUM_INFERENCE_STEPS  # noqa: F401
from .processors import InjectionAttnProcessor  # noqa: F401
from .schedulers import SOLVERS  # noqa: F401
from .target_rows import TargetRows  # noqa: F401
from .value_cache import ValueCache  # noqa: F401
from .visible_change import change_map  # noqa: F401


REQUIRED_COMPONENTS = ("transformer", "scheduler", "vae")
UNUSED_COMPONENTS = ("image_encoder", "feature_extractor")


class ArtifactInjectionBlock(ModularPipelineBlocks):
    r"""
    [`ArtifactInjectionPipeline`] as one block, with the same components and arguments. Its outputs are the fields of
    [`ArtifactInjectionOutput`]. A block before it can make the `mapping`, and one after it receives the images.

    Example:

        >>> from PIL import Image
        >>> from diffusers_artifact import EMBEDDED_MODEL, PatchMapping
        >>> from diffusers_artifact.modular_blocks import ArtifactInjectionBlock
        >>> pipe = ArtifactInjectionBlock().init_pipeline(str(EMBEDDED_MODEL))
        >>> pipe.load_components(["transformer", "scheduler", "vae"])
        >>> photo = Image.radial_gradient("L").convert("RGB")
        >>> patch = PatchMapping(targets=(34, 35), references=(119, 120), grid=(32, 32))
        >>> state = pipe(image=photo, mapping=patch, num_inference_steps=2)
        >>> len(state.reconstructions), len(state.images)
        (1, 1)
    """

    mapping_class = PatchMapping
    """The mapping type, for users who load this file without installing the package."""

    @property
    def description(self) -> str:
        return "Inverts photos and denoises them again, once unchanged and once for every structural artifact."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        parameters = inspect.signature(ArtifactInjectionPipeline).parameters
        return [ComponentSpec(name) for name in parameters if name not in (*UNUSED_COMPONENTS, "is_distilled")]

    @property
    def expected_configs(self) -> list[ConfigSpec]:
        return [ConfigSpec("is_distilled", None, "Whether the model was distilled to few steps.")]

    @property
    def inputs(self) -> list[InputParam]:
        call = ArtifactInjectionPipeline.__call__
        hints, descriptions = get_type_hints(call), described(call)
        return [
            InputParam(
                name=name,
                type_hint=hints[name],
                default=None if parameter.default is parameter.empty else parameter.default,
                required=parameter.default is parameter.empty,
                description=descriptions[name],
            )
            for name, parameter in inspect.signature(call).parameters.items()
            if name not in ("self", "return_dict")
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        hints, descriptions = get_type_hints(ArtifactInjectionOutput), described(ArtifactInjectionOutput)
        return [OutputParam(name, hints[name], descriptions[name]) for name in descriptions]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """
        Run [`ArtifactInjectionPipeline`] on the components and inputs.

        Raises:
            ValueError: A required component is not loaded, or an input is not as
                [`ArtifactInjectionPipeline.__call__`] describes it.
        """
        # `load_components` only logs what it could not load.
        missing = [name for name in REQUIRED_COMPONENTS if getattr(components, name) is None]
        if missing:
            raise ValueError(f"`components` must be loaded, got none for {missing}; call `load_components()`")
        block_state = self.get_block_state(state)
        pipe = ArtifactInjectionPipeline(
            **{name: getattr(components, name) for name in self.component_names},
            is_distilled=components.config.is_distilled,
        )
        # The pipeline recognises few-step checkpoints by their name.
        source = components.get_component_spec("transformer").pretrained_model_name_or_path
        pipe.register_to_config(_name_or_path=str(source or ""))
        output: Any = pipe(**{name: block_state[name] for name in self.input_names})
        for name, value in output.items():
            block_state[name] = value
        self.set_block_state(state, block_state)
        return components, state


def described(documented: Any) -> dict[str, str]:
    """Return the description of each argument in the docstring of `documented`."""
    entries = re.findall(r"^    (\w+) \(.*\):\s(.*(?:\n     .*)*)", inspect.getdoc(documented) or "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
