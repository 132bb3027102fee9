"""The injection pipeline on a tiny random model of every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.family_flux import FluxInjectionAttnProcessor

from ..helpers.odd_addresses import move_weights, offsets
from ..helpers.tiny_pipelines import tiny_chroma, tiny_flux, tiny_flux2, tiny_flux2_klein, tiny_qwen_image, tiny_sd3


GRID = (4, 6)
STEPS = 3
MAPPING = PatchMapping(targets=(8, 9), references=(14, 15), grid=GRID, types=("duplication",) * 2)


@pytest.fixture(
    scope="module", params=[tiny_flux, tiny_sd3, tiny_flux2, tiny_flux2_klein, tiny_chroma, tiny_qwen_image]
)
def pipe(request) -> ArtifactInjectionPipeline:
    stock = request.param()
    pipeline = ArtifactInjectionPipeline(**{k: v for k, v in stock.components.items() if v is not None})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (GRID[0] * 16, GRID[1] * 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def run(pipe, photo, mapping=MAPPING, **arguments):
    arguments = {"num_inference_steps": STEPS, "max_sequence_length": 8, "output_type": "latent"} | arguments
    return pipe(photo, mapping, **arguments)


def difference_by_token(output, pipe) -> torch.Tensor:
    change = pipe.family.pack((output.images - output.reconstructions[output.image_indices]).abs())
    return change.amax((0, 2))  # (tokens,)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni_inv"])
def test_empty_mapping_is_the_reconstruction_bit_for_bit(pipe, photo, solver):
    output = run(pipe, photo, PatchMapping.empty(GRID), solver=solver, guidance_scale=1.0)
    assert torch.equal(output.images, output.reconstructions)


def test_reconstruction_does_not_depend_on_what_is_injected(pipe, photo):
    injected, without = run(pipe, photo), run(pipe, photo, PatchMapping.empty(GRID))
    assert torch.equal(injected.reconstructions, without.reconstructions)


@pytest.mark.parametrize("value_source", ["reconstruction", "inversion"])
def test_injection_changes_the_targets_most(pipe, photo, value_source):
    output = run(pipe, photo, value_source=value_source, guidance_scale=1.0, transfer_noise=True)
    change = difference_by_token(output, pipe)
    inside = change[list(MAPPING.targets)]
    outside = np.delete(change.numpy(), MAPPING.targets)
    assert inside.min() > 0
    if value_source == "reconstruction":
        assert inside.mean() > 5 * outside.mean()
    assert output.cache_bytes > 0
    assert run(pipe, photo, guidance_scale=1.0, compute="full").cache_bytes == 0


@pytest.mark.parametrize("argument", ["position_steps", "value_steps"])
def test_each_injection_alone_has_an_effect_and_none_has_none(pipe, photo, argument):
    off = {"position_steps": 0, "value_steps": 0, "guidance_scale": 1.0, "compute": "full"}
    assert torch.equal(run(pipe, photo, **off).images, run(pipe, photo, **off).reconstructions)
    output = run(pipe, photo, **{**off, argument: STEPS})
    assert difference_by_token(output, pipe)[list(MAPPING.targets)].min() > 0


def test_identity_mapping_with_position_injection_changes_nothing(pipe, photo):
    identity = PatchMapping((8, 9), (8, 9), GRID)
    output = run(pipe, photo, identity, guidance_scale=1.0)
    torch.testing.assert_close(output.images, output.reconstructions, rtol=1e-4, atol=1e-5)


def test_variants_in_one_batch_equal_single_runs(pipe, photo):
    other = PatchMapping((0, 1, 2), (18, 19, 20), GRID, ("omission",) * 3)
    together = run(pipe, photo, [MAPPING, other])
    for index, mapping in enumerate((MAPPING, other)):
        alone = run(pipe, photo, mapping)
        torch.testing.assert_close(together.images[index], alone.images[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("value_source", ["reconstruction", "inversion"])
def test_several_images_in_one_batch_equal_single_runs(pipe, photo, value_source):
    second, other = Image.fromarray(255 - np.asarray(photo)), PatchMapping((0, 1, 2), (18, 19, 20), GRID)
    settings: dict = {"value_source": value_source, "transfer_noise": True}
    if pipe.family.guidance_kind == "true":
        settings |= {"guidance_scale": 3.0, "inversion_guidance_scale": 1.5, "negative_prompt": "a blur"}
    together = run(pipe, [photo, second], [[MAPPING], [MAPPING, other]], prompt=["a", "b"], **settings)
    assert together.image_indices == [0, 1, 1]
    for index, mapping in ((1, MAPPING), (2, other)):
        alone = run(pipe, second, mapping, prompt="b", **settings)
        torch.testing.assert_close(together.images[index], alone.images[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(together.reconstructions[1], alone.reconstructions[0], rtol=1e-3, atol=1e-4)


def test_results_do_not_depend_on_earlier_calls(pipe, photo):
    first = run(pipe, photo)
    run(pipe, photo, PatchMapping((0,), (23,), GRID), solver="midpoint", value_source="inversion")
    assert torch.equal(first.images, run(pipe, photo).images)


@pytest.mark.parametrize(
    "solver, invert, denoise", [("euler", 3, 3), ("midpoint", 6, 6), ("fireflow", 4, 4), ("uni_inv", 4, 3)]
)
def test_function_evaluations_are_counted_by_row(pipe, photo, solver, invert, denoise):
    output = run(pipe, photo, [MAPPING, MAPPING], solver=solver, guidance_scale=1.0)
    assert output.num_function_evaluations == invert + 3 * denoise


def test_true_guidance_evaluates_twice_and_leaves_the_reconstruction_alone(photo):
    stock = tiny_sd3()
    pipe = ArtifactInjectionPipeline(**{k: v for k, v in stock.components.items() if v is not None})
    pipe.set_progress_bar_config(disable=True)
    plain = run(pipe, photo, prompt="a cat")
    guided = run(pipe, photo, prompt="a cat", guidance_scale=4.0)
    assert guided.num_function_evaluations == 4 + 2 * 2 * 4
    torch.testing.assert_close(plain.reconstructions, guided.reconstructions, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain.images, guided.images, atol=1e-4)


def test_processors_are_restored_after_a_call_and_after_an_exception(pipe, photo):
    before = dict(pipe.transformer.attn_processors)
    run(pipe, photo)
    assert dict(pipe.transformer.attn_processors) == before
    hook = pipe.transformer.proj_out.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(pipe, photo)
    hook.remove()
    assert dict(pipe.transformer.attn_processors) == before
    assert not any(isinstance(p, FluxInjectionAttnProcessor) for p in pipe.transformer.attn_processors.values())


def test_stock_processors_and_ours_agree_without_injection(pipe, photo):
    """Ours must be the family's own attention when nothing is injected."""
    tokens = torch.randn(2, GRID[0] * GRID[1], pipe.family.pack(torch.zeros(1, 16, 8, 12)).shape[-1])
    condition = pipe.family.encode_prompt("a cat", torch.device("cpu"), 8)
    guidance = torch.ones(2)
    stock = pipe.family.velocity(tokens, torch.tensor(500.0), condition, guidance, GRID)
    from diffusers_artifact.injection import InjectionState

    state = InjectionState([PatchMapping.empty(GRID), MAPPING], [0, 0], STEPS, range(4), range(4))
    with pipe.family.injecting(state):
        ours = pipe.family.velocity(tokens, torch.tensor(500.0), condition, guidance, GRID)
    assert torch.equal(stock, ours)


@pytest.mark.parametrize("output_type, kind", [("pil", Image.Image), ("np", np.ndarray), ("pt", torch.Tensor)])
def test_output_types(pipe, photo, output_type, kind):
    output = run(pipe, photo, output_type=output_type)
    assert isinstance(output.images[0], kind) and len(output.images) == len(output.reconstructions) == 1
    images, reconstructions = run(pipe, photo, output_type=output_type, return_dict=False)
    assert np.array_equal(np.asarray(images[0]), np.asarray(output.images[0]))
    assert set(output.timings) == {"encode", "invert", "denoise", "decode"}


def test_image_as_tensor_and_array_equals_pil(pipe, photo):
    array = np.asarray(photo, dtype=np.float32)[None] / 255
    expected = run(pipe, photo).images
    assert torch.equal(expected, run(pipe, array).images)
    assert torch.equal(expected, run(pipe, torch.from_numpy(array).permute(0, 3, 1, 2)).images)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"solver": "heun"}, "`solver` must be one of .*got 'heun'"),
        ({"value_source": "cache"}, "`value_source` must be one of"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be an integer of at least 1, got 0"),
        ({"position_steps": STEPS + 1}, "`position_steps` must be from 0 to 3, got 4"),
        ({"value_steps": -1}, "`value_steps` must be from 0 to 3, got -1"),
        ({"value_blocks": [99]}, "`value_blocks` must be block indices from 0 to .*got 99"),
        ({"prompt": ["a", "b"]}, "`prompt` must be a string or one for each image, got 2 for 1 images"),
        (
            {"mapping": PatchMapping((0,), (1,), (4, 4))},
            "`mapping` must be on the image's grid of 4x6 patches, got a grid of 4x4",
        ),
        ({"mapping": []}, "`mapping` must hold"),
        ({"mapping": [[MAPPING], [MAPPING]]}, "`mapping` must hold a list of mappings for each of 1 images, got 2"),
    ],
)
def test_bad_arguments_are_named(pipe, photo, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(pipe, photo, **arguments)


def test_sizes_off_the_grid_are_refused_with_the_nearest_legal_ones(pipe):
    with pytest.raises(ValueError, match="got height 70; the nearest legal heights are 64 and 80"):
        run(pipe, Image.new("RGB", (96, 70)))


def test_images_out_of_range_are_refused(pipe):
    with pytest.raises(ValueError, match=r"`image` must lie in \[0, 1\]"):
        run(pipe, torch.full((1, 3, 64, 96), 2.0))


def test_position_blocks_are_refused_where_positions_enter_everywhere(photo):
    stock = tiny_sd3()
    pipe = ArtifactInjectionPipeline(**{k: v for k, v in stock.components.items() if v is not None})
    with pytest.raises(ValueError, match=r"`position_blocks` must be None for SD3Transformer2DModel, .*got \[0\]"):
        run(pipe, photo, position_blocks=[0])


def test_cached_values_need_the_negative_prompt_in_the_inversion(photo):
    stock = tiny_sd3()
    pipe = ArtifactInjectionPipeline(**{k: v for k, v in stock.components.items() if v is not None})
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="`inversion_guidance_scale` must not be 1 with .*of 4.0, got 1"):
        run(pipe, photo, value_source="inversion", guidance_scale=4.0)
    output = run(pipe, photo, value_source="inversion", guidance_scale=4.0, inversion_guidance_scale=2.0)
    assert difference_by_token(output, pipe)[list(MAPPING.targets)].min() > 0


def test_guidance_is_refused_without_guidance_embedding(photo):
    stock = tiny_flux(guidance=False)
    pipe = ArtifactInjectionPipeline(**{k: v for k, v in stock.components.items() if v is not None})
    with pytest.raises(ValueError, match="`guidance_scale` must be 1 for a checkpoint without guidance"):
        run(pipe, photo, guidance_scale=5.0)


# Loaded weights keep their offset in the file, and some processors sum in another order at unaligned addresses. The
# test moves them to such addresses, so that it does not depend on the processor.
@pytest.mark.parametrize("offset", [None, 24, 56])
def test_a_saved_pipeline_loads_again(pipe, photo, tmp_path, offset):
    from diffusers import DiffusionPipeline

    pipe.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again, ArtifactInjectionPipeline)
    models = [part for part in again.components.values() if isinstance(part, torch.nn.Module)]
    for model in models if offset else ():
        move_weights(model, offset)
        assert offsets(model) == {offset}
    assert torch.equal(run(pipe, photo).images, run(again, photo).images)
    assert set().union(*(offsets(model) for model in models)) == {0}
