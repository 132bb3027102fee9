"""
Injection into changed transformers: fused, with LoRA or another backend, offloaded, cast, quantised, compiled.

Model offloading to a GPU and bitsandbytes have no CPU path; their tests are skipped without an accelerator.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from diffusers import BitsAndBytesConfig, FluxTransformer2DModel
from diffusers.models.attention_dispatch import attention_backend
from peft import LoraConfig
from PIL import Image
from torch._dynamo.testing import CompileCounter

from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.choices import COMPUTE_MODES
from diffusers_artifact.injection import InjectionState

from ..helpers.tiny_pipelines import tiny_flux, tiny_sd3


FAMILIES = {"flux": tiny_flux, "sd3": tiny_sd3}
GRID = (4, 6)
STEPS = 3
MAPPING = PatchMapping(targets=(8, 9), references=(14, 15), grid=GRID, types=("duplication",) * 2)
CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="moves or quantises weights on a GPU")


def fuse(pipe: ArtifactInjectionPipeline) -> None:
    pipe.transformer.fuse_qkv_projections()


def fuse_and_unfuse(pipe: ArtifactInjectionPipeline) -> None:
    pipe.transformer.fuse_qkv_projections()
    pipe.transformer.unfuse_qkv_projections()


def set_backend(pipe: ArtifactInjectionPipeline) -> None:
    pipe.transformer.set_attention_backend("_native_math")


def offload_models(pipe: ArtifactInjectionPipeline, device: str = "cpu") -> None:
    pipe.enable_model_cpu_offload(device=device)


def offload_leaves(pipe: ArtifactInjectionPipeline) -> None:
    pipe.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


def offload_blocks(pipe: ArtifactInjectionPipeline) -> None:
    pipe.transformer.enable_group_offload(CPU, offload_type="block_level", num_blocks_per_group=1)


def add_lora(pipe: ArtifactInjectionPipeline) -> None:
    torch.manual_seed(1)
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))


def unfuse_and_add_lora(pipe: ArtifactInjectionPipeline) -> None:
    fuse_and_unfuse(pipe)
    add_lora(pipe)


def store_in_float8(pipe: ArtifactInjectionPipeline) -> None:
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def cast_to_bfloat16(pipe: ArtifactInjectionPipeline) -> None:
    pipe.transformer.to(torch.bfloat16)


def quantise_to_int8(pipe: ArtifactInjectionPipeline) -> None:
    torchao = pytest.importorskip(
        "torchao.quantization", reason="optional: 26 MB, and it warns wherever it is installed"
    )
    torchao.quantize_(pipe.transformer, torchao.Int8WeightOnlyConfig())


EXACT = [fuse, fuse_and_unfuse, set_backend, offload_models, offload_leaves, offload_blocks]
LOSSY = [add_lora, unfuse_and_add_lora, store_in_float8, cast_to_bfloat16, quantise_to_int8]

Treatment = Callable[[ArtifactInjectionPipeline], None]


@pytest.fixture(scope="module", params=FAMILIES)
def untreated(request: pytest.FixtureRequest) -> ArtifactInjectionPipeline:
    components = FAMILIES[request.param]().components
    return ArtifactInjectionPipeline(**{name: part for name, part in components.items() if part is not None})


@pytest.fixture(scope="module")
def expected(untreated: ArtifactInjectionPipeline) -> dict[str, torch.Tensor]:
    """Return the latents of the untreated pipeline's clean image and artifact image, for each way to compute."""
    return {compute: latents(untreated, compute=compute) for compute in COMPUTE_MODES}


@pytest.fixture
def pipe(untreated: ArtifactInjectionPipeline) -> ArtifactInjectionPipeline:
    """Return a copy to treat."""
    return copied(untreated)


@pytest.fixture(autouse=True)
def default_backend():
    """Restore the backend of the whole process, which `set_attention_backend` also sets."""
    with attention_backend("native"):
        yield


def copied(pipe):
    """Return the same pipeline with copies of its models."""
    parts = dict(pipe.components)
    models = {name: copy.deepcopy(part) for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    return ArtifactInjectionPipeline(**parts | models)


def run(pipe, mapping=MAPPING, **arguments):
    pixels = np.random.default_rng(0).integers(0, 256, (GRID[0] * 16, GRID[1] * 16, 3), dtype=np.uint8)
    pipe.set_progress_bar_config(disable=True)
    defaults = {"num_inference_steps": STEPS, "max_sequence_length": 8, "output_type": "latent", "guidance_scale": 1.0}
    return pipe(Image.fromarray(pixels), mapping, **defaults | arguments)


def latents(pipe, **arguments) -> torch.Tensor:
    output = run(pipe, **arguments)
    return torch.cat([output.reconstructions, output.images]).cpu()


def assert_injects(pipe, times: float = 5) -> None:
    """Assert that mostly targets change, an empty mapping changes nothing, and the processors are restored."""
    before = dict(pipe.transformer.attn_processors)
    output = run(pipe, [MAPPING, PatchMapping.empty(GRID)])
    change = pipe.family.pack((output.images[:1] - output.reconstructions).abs()).amax((0, 2)).cpu().numpy()
    assert change[list(MAPPING.targets)].mean() > times * np.delete(change, MAPPING.targets).mean()
    assert torch.equal(output.images[1], output.reconstructions[0])
    assert dict(pipe.transformer.attn_processors) == before


@pytest.mark.parametrize("treat", EXACT + LOSSY)
def test_injection(pipe: ArtifactInjectionPipeline, treat: Treatment):
    treat(pipe)
    # Rounding to bfloat16 differs between different rows, also outside the targets.
    assert_injects(pipe, times=2 if treat is cast_to_bfloat16 else 5)


@pytest.mark.parametrize("compute", COMPUTE_MODES)
@pytest.mark.parametrize("treat", EXACT)
def test_treatments_that_change_nothing(
    pipe: ArtifactInjectionPipeline, expected: dict[str, torch.Tensor], treat: Treatment, compute: str
):
    treat(pipe)
    torch.testing.assert_close(latents(pipe, compute=compute), expected[compute], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("treat", LOSSY)
def test_treatments_that_change_the_model(
    pipe: ArtifactInjectionPipeline, expected: dict[str, torch.Tensor], treat: Treatment
):
    treat(pipe)
    assert not torch.allclose(latents(pipe), expected["target"], rtol=1e-4, atol=1e-5)


# Without `fuse`, where SD3's stock processor omits SD3.5's normalisation of queries and keys.
@pytest.mark.parametrize("treat", [treat for treat in EXACT + LOSSY if treat is not fuse])
@torch.no_grad()
def test_ours_is_the_stock_attention_where_nothing_is_injected(pipe: ArtifactInjectionPipeline, treat: Treatment):
    treat(pipe)
    torch.manual_seed(0)
    tokens = torch.randn(1, GRID[0] * GRID[1], pipe.family.pack(torch.zeros(1, 16, 8, 12)).shape[-1])
    inputs = (tokens, torch.tensor(500.0), pipe.family.encode_prompt("a cat", CPU, 8), torch.ones(1), GRID)
    stock = pipe.family.velocity(*inputs)
    with pipe.family.injecting(InjectionState([PatchMapping.empty(GRID)], [0], STEPS, range(2), range(2))):
        assert torch.equal(pipe.family.velocity(*inputs), stock)


def test_lora_from_a_file_equals_the_one_saved(pipe: ArtifactInjectionPipeline, tmp_path):
    add_lora(pipe)
    expected = latents(pipe)
    pipe.transformer.save_lora_adapter(tmp_path, weight_name="lora.safetensors")
    pipe.transformer.delete_adapters("default")
    assert not torch.equal(latents(pipe), expected)
    pipe.transformer.load_lora_adapter(tmp_path, weight_name="lora.safetensors", prefix=None)
    assert torch.equal(latents(pipe), expected)


@pytest.mark.parametrize("of_the_model", [True, False])
def test_attention_backend_reaches_our_processors(pipe: ArtifactInjectionPipeline, of_the_model: bool):
    """
    cuDNN's attention has no CPU path, so requesting it must fail. SD3's attention is not dispatched in diffusers: a
    backend has no effect on the stock pipeline, nor on ours.
    """
    dispatches = any(
        hasattr(processor, "_attention_backend") for processor in pipe.transformer.attn_processors.values()
    )
    if of_the_model:
        with attention_backend("native"):
            pipe.transformer.set_attention_backend("_native_cudnn")
    refused = pytest.raises(RuntimeError, match="No viable backend") if dispatches else nullcontext()
    with attention_backend("native" if of_the_model else "_native_cudnn"), refused:
        run(pipe)


def test_batch_equals_loop_in_bfloat16(pipe: ArtifactInjectionPipeline):
    cast_to_bfloat16(pipe)
    mappings = [MAPPING, PatchMapping((0, 1), (18, 19), GRID, ("omission",) * 2)]
    together = run(pipe, mappings).images
    assert together.dtype == torch.float32
    alone = torch.cat([run(pipe, mapping).images for mapping in mappings])
    torch.testing.assert_close(together, alone, rtol=2e-2, atol=2e-2)


# Inversion and denoising have batches of their own, and so have clean rows, which record, and targets.
@pytest.mark.parametrize("compute, num_graphs", [("full", 2), ("target", 3)])
def test_compiled_transformer_equals_and_is_not_compiled_again_at_every_step(
    pipe: ArtifactInjectionPipeline, untreated: ArtifactInjectionPipeline, compute: str, num_graphs: int
):
    def call(pipe: ArtifactInjectionPipeline, steps: int) -> torch.Tensor:
        settings = {"num_inference_steps": steps, "position_steps": steps, "value_steps": steps}
        return latents(pipe, **settings, compute=compute)

    torch.compiler.reset()
    graphs = CompileCounter()
    in_place, wrapped = pipe, copied(untreated)
    in_place.transformer.compile(backend=graphs, dynamic=False)
    wrapped.transformer = torch.compile(wrapped.transformer, backend=graphs, dynamic=False)
    for compiled in (in_place, wrapped):
        for steps in (2, 4):
            torch.testing.assert_close(call(compiled, steps), call(untreated, steps), rtol=1e-4, atol=1e-5)
            assert graphs.frame_count == num_graphs


@pytest.mark.parametrize("compute", COMPUTE_MODES)
def test_blocks_compiled_one_by_one_share_their_graphs(compute: str):
    """diffusers recommends compiling by block; a graph for each would exceed dynamo's limit in a deep model."""
    stock = tiny_flux()
    config = dict(stock.transformer.config) | {"num_layers": 6, "num_single_layers": 12}
    components = {**stock.components, "transformer": FluxTransformer2DModel(**config)}
    plain = ArtifactInjectionPipeline(**components)
    pipe = copied(plain)
    torch.compiler.reset()
    graphs = CompileCounter()
    pipe.transformer.compile_repeated_blocks(backend=graphs, fullgraph=True)
    for steps in (2, 4):
        settings = {"num_inference_steps": steps, "position_steps": 1, "value_steps": steps, "compute": compute}
        torch.testing.assert_close(latents(pipe, **settings), latents(plain, **settings), rtol=1e-4, atol=1e-5)
    assert graphs.frame_count <= 16


@needs_cuda
def test_model_offload_to_a_gpu(pipe: ArtifactInjectionPipeline, expected: dict[str, torch.Tensor]):
    offload_models(pipe, "cuda")
    torch.testing.assert_close(latents(pipe), expected["target"], rtol=1e-2, atol=1e-2)
    assert pipe.transformer.device.type == "cpu"


@needs_cuda
@pytest.mark.parametrize("bits", [8, 4])
def test_bitsandbytes(pipe: ArtifactInjectionPipeline, tmp_path, bits: int):
    pytest.importorskip("bitsandbytes")
    pipe.transformer.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    pipe.transformer = type(pipe.transformer).from_pretrained(tmp_path, quantization_config=config)
    assert_injects(pipe.to("cuda"))
