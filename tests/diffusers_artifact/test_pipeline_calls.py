"""A call of the pipeline: callbacks, interruption, confinement, guidance and refused arguments."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.callbacks import PipelineCallback
from PIL import Image

import diffusers_artifact.pipeline
from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.family_flux import FluxFamily
from diffusers_artifact.visible_change import THRESHOLD, change_map, label_masks

from ..helpers.tiny_pipelines import tiny_flux, tiny_sd3


GRID = (4, 6)
ARTIFACT = PatchMapping(targets=(0, 1), references=(14, 15), grid=GRID)


def pipeline(stock) -> ArtifactInjectionPipeline:
    pipe = ArtifactInjectionPipeline(**{name: part for name, part in stock.components.items() if part is not None})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> ArtifactInjectionPipeline:
    return pipeline(tiny_flux())


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (GRID[0] * 16, GRID[1] * 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def run(pipe, photo, mapping=ARTIFACT, **arguments):
    arguments = {"num_inference_steps": 3, "max_sequence_length": 8, "output_type": "latent"} | arguments
    return pipe(photo, mapping, **arguments)


def test_example_of_the_docstring_runs():
    assert doctest.testmod(diffusers_artifact.pipeline).attempted > 0
    assert doctest.testmod(diffusers_artifact.pipeline).failed == 0


def test_callback_sees_every_evaluation_of_both_loops(pipe, photo):
    seen = []

    def callback(pipeline, index, timestep, given):
        assert pipeline is pipe
        seen.append((index, float(timestep), tuple(given["latents"].shape)))
        return given

    output = run(pipe, photo, callback_on_step_end=callback)
    assert [index for index, *_ in seen] == list(range(pipe.num_timesteps)) == list(range(8))
    times = [time for _, time, _ in seen]
    assert times[:4] == sorted(times[:4]) and times[4:] == sorted(times[4:], reverse=True)
    assert [shape[0] for *_, shape in seen] == [1] * 4 + [2] * 4
    assert torch.equal(output.images, run(pipe, photo).images)


def test_callback_can_replace_the_latents(pipe, photo):
    def last_row_to_zero(pipeline, index, timestep, given):
        return {"latents": given["latents"] * torch.tensor([1.0, 0.0])[: len(given["latents"]), None, None]}

    output = run(pipe, photo, callback_on_step_end=last_row_to_zero, compute="full")
    assert not output.images.any()
    assert torch.equal(output.reconstructions, run(pipe, photo, compute="full").reconstructions)


def test_official_callbacks_say_what_they_get(pipe, photo):
    class Recorder(PipelineCallback):
        tensor_inputs = ["latents"]
        calls = 0

        def callback_fn(self, pipeline, step_index, timesteps, callback_kwargs):
            self.calls += set(callback_kwargs) == {"latents"}
            return callback_kwargs

    recorder = Recorder()
    run(pipe, photo, callback_on_step_end=recorder)
    assert recorder.calls == 8


def test_interrupt_skips_the_rest(pipe, photo):
    def interrupt(pipeline, index, timestep, given):
        pipeline._interrupt = index == 5
        return given

    output = run(pipe, photo, callback_on_step_end=interrupt, output_type="pil")
    assert output.num_function_evaluations == 4 + 2 * 2
    assert output.images[0].size == photo.size
    assert run(pipe, photo).num_function_evaluations == 4 + 2 * 4


@pytest.mark.parametrize("build", [tiny_flux, tiny_sd3])
def test_confined_latents_equal_the_reconstruction_outside(build, photo):
    pipe = pipeline(build())
    settings = {"value_steps": 0, "compute": "full"}
    free, confined = run(pipe, photo, **settings), run(pipe, photo, **settings, confine="latent")
    inside = torch.zeros(GRID, dtype=torch.bool)
    inside[:2, :3] = True  # targets are the first two patches of the first row
    outside = ~inside.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert not torch.equal(free.images[..., outside], free.reconstructions[..., outside])
    assert torch.equal(confined.images[..., outside], confined.reconstructions[..., outside])
    assert torch.equal(confined.reconstructions, free.reconstructions)
    assert (confined.images - confined.reconstructions)[..., :2, :4].abs().max() > 0


def test_confined_latents_equal_the_reconstruction_outside_at_every_evaluation(pipe, photo):
    outside = torch.ones(GRID, dtype=torch.bool)
    outside[:2, :3] = False
    equal: list[bool] = []

    def compare(module, positional, given):
        first, *flawed = given["hidden_states"][:, outside.flatten()]
        equal.extend(torch.equal(first, row) for row in flawed)

    hook = pipe.transformer.register_forward_pre_hook(compare, with_kwargs=True)
    run(pipe, photo, confine="latent", compute="full")
    hook.remove()
    assert equal == [True] * 4


def test_each_image_is_confined_to_its_own_reconstruction(pipe, photo):
    other = Image.fromarray(255 - np.asarray(photo))
    output = run(pipe, [photo, other], [[ARTIFACT], [ARTIFACT]], output_type="np", confine="pixel")
    for image, reconstruction in zip(output.images, output.reconstructions, strict=True):
        assert np.array_equal(image[32:], reconstruction[32:])


def test_the_generator_samples_the_autoencoders_posterior(pipe, photo):
    first, again, other = (
        run(pipe, photo, generator=torch.Generator().manual_seed(seed)).inverted_latents for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("build", [tiny_flux, tiny_sd3])
def test_nothing_is_injected_outside_the_blocks_given(build, photo):
    pipe = pipeline(build())
    settings: dict = {"value_blocks": (), "guidance_scale": 1.0, "compute": "full"}
    settings |= {"position_steps": 0} if pipe.family.position_blocks_reason else {"position_blocks": ()}
    output = run(pipe, photo, **settings)
    assert torch.equal(output.images, output.reconstructions)


def test_confined_pixels_equal_the_reconstruction_outside(pipe, photo):
    free, confined = (run(pipe, photo, output_type="np", confine=confine) for confine in ("none", "pixel"))
    inside = np.zeros((GRID[0] * 16, GRID[1] * 16), dtype=bool)
    inside[:32, :48] = True
    assert (free.images[0] != free.reconstructions[0])[~inside].any()
    assert np.array_equal(confined.images[0][~inside], confined.reconstructions[0][~inside])
    np.testing.assert_allclose(confined.images[0][:16, :32], free.images[0][:16, :32], atol=1e-6)


def test_only_the_visible_change_at_the_target_is_kept(pipe, photo):
    free, kept = (run(pipe, photo, output_type="pil", confine=confine) for confine in ("none", "visible"))
    clean, before, after = (np.asarray(image) for image in (kept.reconstructions[0], free.images[0], kept.images[0]))
    assert np.array_equal(clean, np.asarray(free.reconstructions[0]))
    [label] = label_masks(clean, after, [ARTIFACT])
    assert label.any() and (before != after).any()
    assert np.array_equal(label, change_map(clean, after) > THRESHOLD)
    outlined = run(pipe, photo, output_type="pil", confine="visible", outlines=[np.zeros((64, 96))])
    assert np.array_equal(np.asarray(outlined.images[0]), clean)


def test_distilled_guidance_is_five_for_artifacts_and_one_for_the_reconstruction(pipe, photo):
    given = run(pipe, photo, guidance_scale=5.0)
    assert torch.equal(given.images, run(pipe, photo).images)
    unguided = run(pipe, photo, guidance_scale=1.0)
    torch.testing.assert_close(unguided.reconstructions, given.reconstructions)
    assert not torch.allclose(unguided.images, given.images, atol=1e-4)
    inverted = run(pipe, photo, inversion_guidance_scale=3.0)
    assert not torch.allclose(inverted.reconstructions, given.reconstructions, atol=1e-5)


def test_configuration_of_schnell_is_refused(photo):
    stock = tiny_flux(guidance=False)
    stock.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe = pipeline(stock)
    with pytest.raises(
        ValueError, match="must not be distilled .* FLUX.1-schnell's configuration.*pass `allow_distilled=True`"
    ):
        run(pipe, photo)
    assert run(pipe, photo, allow_distilled=True).images.isfinite().all()


def test_what_a_checkpoint_says_of_itself_comes_first(photo, tmp_path):
    folder = tmp_path / "sd3.5-large-turbo"
    tiny_sd3().save_pretrained(folder)
    with pytest.raises(ValueError, match="its name contains 'turbo'"):
        run(ArtifactInjectionPipeline.from_pretrained(folder), photo)
    pipe = ArtifactInjectionPipeline.from_pretrained(folder, is_distilled=False)
    assert run(pipe, photo).images.isfinite().all()
    pipe = ArtifactInjectionPipeline.from_pretrained(folder, is_distilled=True)
    with pytest.raises(ValueError, match="its configuration says `is_distilled`"):
        run(pipe, photo)


@pytest.mark.parametrize(
    "name, few_steps",
    [
        ("black-forest-labs/FLUX.1-schnell", True),
        ("cache/models--stabilityai--stable-diffusion-3.5-large-turbo/snapshots/0a1b", True),
        ("black-forest-labs/FLUX.2-klein-4B", True),
        ("black-forest-labs/FLUX.2-klein-base-4B", False),
        ("black-forest-labs/FLUX.1-Krea-dev", False),
        ("turbo/models/sd3", False),
        ("", False),
    ],
)
def test_few_step_models_are_known_by_the_repositorys_name(pipe, name, few_steps):
    assert bool(FluxFamily(pipe.transformer, pipe.components).distillation(name)) is few_steps


def test_a_transformer_for_inpainting_is_refused(pipe, photo):
    config = dict(pipe.transformer.config) | {"in_channels": 384, "out_channels": 64}
    fill = ArtifactInjectionPipeline(**{**pipe.components, "transformer": FluxTransformer2DModel(**config)})
    with pytest.raises(ValueError, match="`transformer` must take only noisy latents, which have 64 .* got 384"):
        run(fill, photo)


def test_components_that_encode_prompts_must_be_loaded(photo):
    for build, name in ((tiny_sd3, "text_encoder_2"), (tiny_flux, "tokenizer_2")):
        pipe = pipeline(build())
        pipe.register_modules(**{name: None})
        with pytest.raises(ValueError, match=f"`{name}` must be loaded for .*, got None"):
            run(pipe, photo)


def test_an_unsupported_transformer_is_refused_with_the_supported_ones(pipe, photo):
    other = ArtifactInjectionPipeline(**{**pipe.components, "transformer": pipe.vae})
    with pytest.raises(ValueError, match="must be one of FluxTransformer2DModel, .*, got AutoencoderKL"):
        run(other, photo)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"negative_prompt": "a blur"}, "`negative_prompt` must be empty for FluxTransformer2DModel.*got 'a blur'"),
        ({"prompt": None}, "`prompt` and `negative_prompt` must be strings"),
        ({"num_inference_steps": 2.5}, "`num_inference_steps` must be an integer of at least 1, got 2.5"),
        ({"image": [np.zeros((64, 96, 3))]}, "`image` must be PIL images, or one array .*got a list of ndarray"),
        ({"image": torch.full((1, 3, 64, 96), float("nan"))}, r"`image` must lie in \[0, 1\], got \[nan, nan\]"),
        ({"mapping": None}, "`mapping` must hold a list of mappings for each of 1 images, got NoneType"),
        ({"compute": "mask"}, "`compute` must be one of target, full, got 'mask'"),
        ({"compute": "target", "hold_background": False}, "`compute` must be 'full' where the background is not held"),
        ({"compute": "target", "value_source": "inversion"}, "`compute` must be 'full' where the background is not"),
        ({"confine": "mask"}, "`confine` must be one of none, latent, pixel, visible, got 'mask'"),
        ({"confine": "pixel"}, "`confine` must be 'none' or 'latent' with `output_type='latent'`"),
        ({"confine": "visible"}, "`confine` must be 'none' or 'latent' with `output_type='latent'`"),
        (
            {"outlines": [np.ones((64, 96))]},
            "`outlines` must be None unless `confine='visible'`, got them with 'none'",
        ),
        (
            {"outlines": [np.ones((8, 8))], "confine": "visible", "output_type": "np"},
            r"`outlines` must hold 1 arrays of shape \(64, 96\), one for each mapping, got shape \(1, 8, 8\)",
        ),
        (
            {"hold_background": True, "value_source": "inversion"},
            "`hold_background` must be False with `value_source='inversion'`.*got True",
        ),
        ({"rule": "code"}, "`rule` must be one of paper, released, got 'code'"),
        ({"rule": "released"}, "`value_source` must be 'inversion' with `rule='released'`.*got 'reconstruction'"),
        ({"cache_device": "disk"}, "`cache_device` must be one of model, cpu, got 'disk'"),
        ({"output_type": "jpg"}, "`output_type` must be one of pil, np, pt, latent, got 'jpg'"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"must be among \['latents'\], got \['noise'\]"),
        (
            {"image": torch.zeros(1, 3, 64, 96, dtype=torch.uint8)},
            r"`image` must have a floating-point dtype and lie in \[0, 1\], got torch.uint8",
        ),
    ],
)
def test_bad_arguments_are_named(pipe, photo, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(pipe, **({"photo": arguments.pop("image", photo)} | arguments))
