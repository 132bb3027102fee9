"""The Modular Diffusers block: equal to the pipeline, loaded from its folder alone, and between other blocks."""

import doctest
import shutil

import numpy as np
import pytest
from diffusers import ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam
from PIL import Image

from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping, modular_blocks
from diffusers_artifact.modular_blocks import ArtifactInjectionBlock

from ..helpers.tiny_pipelines import save_pipelines, tiny_flux, tiny_sd3
from .test_loading import NOT_INSTALLED, ROOT, run


MODELS = {"flux": tiny_flux, "sd3": tiny_sd3}
MAPPING = PatchMapping(targets=(5, 6), references=(9, 10), grid=(4, 4))
ARGUMENTS = {"prompt": "a cat", "num_inference_steps": 2, "max_sequence_length": 16}

CALL = """
import json

import numpy as np
from diffusers import ModularPipelineBlocks
from PIL import Image

photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
block = ModularPipelineBlocks.from_pretrained(FOLDER, trust_remote_code=True)
mapping = block.mapping_class(targets=(5, 6), references=(9, 10), grid=(4, 4))
report = {"module": type(block).__module__, "differences": {}}
for family, model in json.loads(sys.argv[1]).items():
    pipe = block.init_pipeline(model)
    pipe.load_components()
    images = pipe(image=photo, mapping=mapping, output="images", **ARGUMENTS)
    expected = load(model)(photo, mapping, **ARGUMENTS).images
    report["differences"][family] = int(np.abs(np.int16(images[0]) - np.int16(expected[0])).max())
print("REPORT" + json.dumps(report))
"""


class CopiesARow(ModularPipelineBlocks):
    """Block that makes a mapping from the photo, like a tool."""

    @property
    def inputs(self):
        return [InputParam("image", required=True)]

    @property
    def intermediate_outputs(self):
        return [OutputParam("mapping")]

    def __call__(self, components, state):
        block_state = self.get_block_state(state)
        rows, columns = (side // 16 for side in reversed(block_state.image.size))
        block_state.mapping = PatchMapping.from_pairs(
            [(column, columns + column) for column in range(columns)], (rows, columns), "duplication"
        )
        self.set_block_state(state, block_state)
        return components, state


class Compares(ModularPipelineBlocks):
    """Block that reads both images, like a filter."""

    @property
    def inputs(self):
        return [InputParam("images", required=True), InputParam("reconstructions", required=True)]

    @property
    def intermediate_outputs(self):
        return [OutputParam("change")]

    def __call__(self, components, state):
        block_state = self.get_block_state(state)
        flawed, clean = (np.asarray(half[0], float) for half in (block_state.images, block_state.reconstructions))
        block_state.change = np.abs(flawed - clean).max()
        self.set_block_state(state, block_state)
        return components, state


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Save a tiny checkpoint of each family with its stock pipeline, and return the folders."""
    return save_pipelines(MODELS, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def expected(models, photo):
    """Run the standard pipeline on each checkpoint."""
    return {
        family: ArtifactInjectionPipeline.from_pretrained(folder)(photo, MAPPING, **ARGUMENTS)
        for family, folder in models.items()
    }


def modular(block, folder):
    pipe = block.init_pipeline(folder)
    pipe.load_components()
    return pipe


@pytest.mark.parametrize("family", MODELS)
def test_block_equals_the_standard_pipeline(models, photo, expected, family):
    state = modular(ArtifactInjectionBlock(), models[family])(image=photo, mapping=MAPPING, **ARGUMENTS)
    assert np.array_equal(state.images[0], expected[family].images[0])
    assert np.array_equal(state.reconstructions[0], expected[family].reconstructions[0])
    assert state.inverted_latents.equal(expected[family].inverted_latents)
    assert state.image_indices == [0]


def test_block_loads_from_a_folder_without_the_package(models, tmp_path):
    """It equals the custom pipeline from the same folder, which `test_loading.py` compares with the installed one."""
    folder = str(ROOT / "diffusers_artifact")
    program = f"FOLDER, ARGUMENTS, CUSTOM_PIPELINE = {folder!r}, {ARGUMENTS!r}, {folder!r}\n" + NOT_INSTALLED + CALL
    report = run(program, models, tmp_path, {})
    assert report == {"module": "diffusers_modules.local.modular_blocks", "differences": dict.fromkeys(MODELS, 0)}


def test_block_runs_between_others(models, photo):
    blocks = SequentialPipelineBlocks.from_blocks_dict(
        {"tool": CopiesARow(), "inject": ArtifactInjectionBlock(), "compare": Compares()}
    )
    assert "mapping" not in [given.name for given in blocks.inputs]
    assert modular(blocks, models["flux"])(image=photo, output="change", **ARGUMENTS) > 0


def test_every_input_and_output_is_described():
    block = ArtifactInjectionBlock()
    assert block.required_inputs == ["image", "mapping"]
    assert all(given.description and given.type_hint for given in block.inputs)
    assert all(made.description and made.type_hint for made in block.intermediate_outputs)


def test_few_step_checkpoints_are_refused_by_name(models, photo, tmp_path):
    folder = shutil.copytree(models["sd3"], tmp_path / "sd3-turbo")
    with pytest.raises(ValueError, match="its name contains 'turbo'"):
        modular(ArtifactInjectionBlock(), str(folder))(image=photo, mapping=MAPPING, **ARGUMENTS)


def test_bad_inputs_are_named(models, photo):
    pipe = modular(ArtifactInjectionBlock(), models["flux"])
    with pytest.raises(ValueError, match="`solver` must be one of .*got 'heun'"):
        pipe(image=photo, mapping=MAPPING, solver="heun", **ARGUMENTS)
    with pytest.raises(ValueError, match="Required input 'mapping' is missing"):
        pipe(image=photo, **ARGUMENTS)


def test_components_must_be_loaded(models, photo):
    pipe = ArtifactInjectionBlock().init_pipeline(models["flux"])
    with pytest.raises(
        ValueError, match=r"got none for \['transformer', 'scheduler', 'vae'\]; call `load_components\(\)`"
    ):
        pipe(image=photo, mapping=MAPPING)


def test_example_of_the_docstring_runs():
    result = doctest.testmod(modular_blocks)
    assert result.attempted and not result.failed
