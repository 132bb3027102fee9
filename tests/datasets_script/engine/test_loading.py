"""How the diffusion model is loaded and run: dtype, quantization, kernels, offloading, and what is recorded of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from datasets_script.cli.main import build_parser, main
from datasets_script.engine.injector import InjectionJob, Injector
from datasets_script.engine.loading import (
    ModelLoadError,
    check_loading,
    load_checkpoint,
    load_pipeline,
    offload_weights,
    resolved,
    usable_device,
)
from datasets_script.engine.plan import RunPlan
from datasets_script.engine.settings import InjectionSettings, LoadSettings, RunSettings
from datasets_script.engine.shards import RunMismatchError
from datasets_script.utils.errors import ArgumentError
from diffusers_artifact import ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.choices import ValueSource
from tests.benchmarks.creatures.generator import MIDDLE

from ...helpers.engine_runs import SETTINGS, SOURCES, make_photos, make_run
from ...helpers.paths import ROOT
from ...helpers.tiny_pipelines import tiny_flux, tiny_sd3


GRID = (4, 4)
MAPPING = PatchMapping(targets=(0, 1), references=(10, 11), grid=GRID)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"), SOURCES[:1])


@pytest.fixture(scope="module")
def flux(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("flux")
    tiny_flux().save_pretrained(folder)
    return str(folder)


def injector_of(model: str, settings: InjectionSettings | None = None, **loading) -> Injector:
    settings = settings or InjectionSettings(num_inference_steps=1)
    return Injector(model, settings, device="cpu", loading=LoadSettings(**loading))


def images_of(injector: Injector) -> list[bytes]:
    (caption,) = injector.encode(["a cat"])
    photo = Image.radial_gradient("L").convert("RGB").resize((64, 64))
    (made,) = injector.inject([InjectionJob(photo, [MAPPING], caption)])
    return [image.tobytes() for image in (made.clean, *made.flawed)]


def test_the_dtype_in_effect_depends_on_model_and_device():
    assert resolved(LoadSettings(), "embedded", "cuda").dtype == "float32"
    assert resolved(LoadSettings(), "a/model", "cpu").dtype == "float32"
    assert resolved(LoadSettings(), "a/model", "cuda:1").dtype == "bfloat16"
    assert resolved(LoadSettings(dtype="float16"), "a/model", "cpu").dtype == "float16"


def test_the_model_is_loaded_in_the_dtype_that_was_asked_for(flux):
    injector = injector_of(flux, dtype="bfloat16")
    assert {injector.pipeline.transformer.dtype, injector.pipeline.vae.dtype} == {torch.bfloat16}
    assert injector.loading.dtype == "bfloat16" and len(images_of(injector)) == 2


@pytest.mark.parametrize("make", [tiny_flux, tiny_sd3])
def test_weights_that_wait_elsewhere_give_the_same_images(make, tmp_path):
    make().save_pretrained(tmp_path)
    expected = images_of(injector_of(str(tmp_path)))
    injector = injector_of(str(tmp_path))
    offload_weights(injector.pipeline, "group", "cpu")
    assert images_of(injector) == expected


def test_tiling_is_asked_of_the_autoencoder(flux):
    assert injector_of(flux, vae_tiling=True).pipeline.vae.use_tiling
    assert not injector_of(flux).pipeline.vae.use_tiling
    with pytest.raises(ModelLoadError, match="`vae_tiling` must be off for AutoencoderPCA"):
        injector_of("embedded", vae_tiling=True)


def test_an_attention_kernel_that_is_not_there_is_named(flux):
    injector = injector_of(flux, attention_backend="native")
    assert str(injector.pipeline.transformer.transformer_blocks[0].attn.processor._attention_backend).endswith(
        "NATIVE"
    )
    with pytest.raises(
        ModelLoadError, match="`attention_backend` must be one that diffusers can use here, got 'nope'"
    ):
        injector_of(flux, attention_backend="nope")


def test_a_background_is_held_as_the_settings_say():
    seen = {}
    for held in (None, True, False):
        injector = injector_of("embedded", InjectionSettings(num_inference_steps=2, hold_background=held))
        grid = (32, 32)
        mapping = PatchMapping(tuple(range(34, 40)), tuple(range(119, 125)), grid)
        photo = Image.radial_gradient("L").convert("RGB")
        seen[held] = injector.run([photo], [[mapping]]).images[0].tobytes()
    assert seen[None] == seen[True] != seen[False]
    with pytest.raises(ArgumentError, match="`hold_background` must be False with `value_source` inversion"):
        InjectionSettings(value_source="inversion", hold_background=True)


def test_a_preset_says_where_values_come_from_and_by_which_rule():
    """The embedded model has one token of text, whose values the released rule caches too."""
    cached = {}
    cases: tuple[tuple[str, ValueSource | None], ...] = (
        ("paper", None),
        ("paper", "inversion"),
        ("as-released", None),
    )
    for preset, source in cases:
        settings = InjectionSettings(num_inference_steps=2, preset=preset, value_source=source, confine="none")
        injector = injector_of("embedded", settings)
        mapping = PatchMapping((34, 35), (119, 120), (32, 32))
        photo = Image.radial_gradient("L").convert("RGB")
        cached[preset, source] = injector.run([photo], [[mapping]]).cache_bytes
    assert cached["as-released", None] > cached["paper", "inversion"] > cached["paper", None] == 0


def test_a_model_without_single_stream_blocks_is_refused_with_the_released_rule(tmp_path):
    tiny_sd3().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="`rule` must be 'paper' for SD3Transformer2DModel"):
        injector_of(str(tmp_path), InjectionSettings(preset="as-released"))


@pytest.mark.parametrize(
    "loading, offload, device, message",
    [
        ({}, "group", "cpu", "`offload` must be none on a CPU, where the weights are already, got 'group'"),
        ({"quantization": "8bit"}, "none", "cpu", "`quantization` must be none or float8 on a CPU"),
        ({"quantization": "4bit"}, "group", "cuda", "`offload` must be none or model with `quantization` 4bit"),
        ({"quantization": "float8"}, "sequential", "cuda", "none, model or group with `quantization` float8"),
    ],
)
def test_what_does_not_go_together_is_refused(loading, offload, device, message):
    with pytest.raises(ArgumentError, match=message):
        check_loading(LoadSettings(**loading), offload, device)


@pytest.mark.parametrize("quantization, package", [("float8", "torchao"), ("8bit", "bitsandbytes")])
def test_a_missing_package_is_named_with_its_extra(quantization, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.quantization", None)
    with pytest.raises(ImportError, match=rf"needs the package {package} .*artiagent\[quantization\]"):
        check_loading(LoadSettings(quantization=quantization), "none", "cuda")


def test_float8_weights_take_half_the_memory(flux):
    pytest.importorskip("torchao")
    narrow = injector_of(flux, dtype="bfloat16", quantization="float8")
    weight = narrow.pipeline.transformer.transformer_blocks[0].attn.to_q.weight
    assert "Float8" in type(weight).__name__
    assert len(images_of(narrow)) == 2


def test_a_device_that_torch_does_not_know_is_told():
    with pytest.raises(ModelLoadError, match="`device` must be available to torch, got 'bogus'"):
        usable_device("bogus")
    assert usable_device("cpu") == "cpu"


def test_a_run_records_what_changes_pixels_and_refuses_another(photos, tmp_path):
    injector = injector_of("embedded", SETTINGS.injection)
    make_run(photos, tmp_path, injector, sources=SOURCES[:1]).execute(show_progress=False)
    recorded = json.loads((tmp_path / "run.json").read_text())["settings"]["loading"]
    assert recorded == asdict(LoadSettings(dtype="float32"))
    other = injector_of("embedded", SETTINGS.injection, dtype="bfloat16")
    with pytest.raises(RunMismatchError, match="another settings.loading.dtype"):
        make_run(photos, tmp_path, other, sources=SOURCES[:1])


def test_settings_with_unknown_names_are_refused():
    with pytest.raises(ArgumentError, match="`dtype` must be among float32, bfloat16, float16, got 'int8'"):
        LoadSettings(dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`quantization` must be among none, float8, 8bit, 4bit, got '2bit'"):
        LoadSettings(quantization="2bit")  # type: ignore[arg-type]


def test_options_reach_the_plan_and_the_file_of_options(photos, tmp_path):
    from datasets_script.cli.config import shown_options, write_config
    from datasets_script.cli.synthesize import run_plan

    words = ["--dtype", "float16", "--offload", "group", "--quantization", "float8", "--attention-backend", "native"]
    words += ["--compile", "--vae-tiling", "--keep-loaded", "--no-hold-background"]
    parser = build_parser()
    args = parser.parse_args(["synthesize", str(photos), str(tmp_path / "out"), *words])
    plan = run_plan(args)
    assert plan.settings.loading == LoadSettings("float16", "float8", "native", True, True)
    assert (plan.offload, plan.keep_loaded) == ("group", True)
    assert injection_of(plan).hold_background is False
    options = shown_options(parser.commands["synthesize"], args)
    assert options["hold-background"] is False and options["offload"] == "group"
    write_config(tmp_path, options, "synthesize")
    again = build_parser().parse_args(
        ["synthesize", str(photos), str(tmp_path / "out"), "--config", str(tmp_path / "config.yaml")]
    )
    assert run_plan(again) == plan
    assert injection_of(run_plan(replace_option(again, hold_background=None))).hold_background is None


def injection_of(plan: RunPlan) -> InjectionSettings:
    assert isinstance(plan.settings, RunSettings)
    return plan.settings.injection


def replace_option(args, **changes):
    return type(args)(**{**vars(args), **changes})


def test_a_command_that_cannot_offload_says_so_before_it_loads(photos, tmp_path, capsys):
    arguments = ["synthesize", str(photos), str(tmp_path / "out"), "--device", "cpu", "--offload", "model"]
    assert main(arguments) == 2
    assert "--offload must be none on a CPU" in capsys.readouterr().err


def test_the_small_models_are_loaded_by_stock_pipelines_in_a_fresh_process():
    """diffusers knows their autoencoder only once it is imported, and here other tests import it."""
    code = (
        "from diffusers import DiffusionPipeline\n"
        "from datasets_script.engine.loading import load_checkpoint\n"
        "from datasets_script.engine.settings import LoadSettings\n"
        f"pipe, _ = load_checkpoint(DiffusionPipeline, {str(MIDDLE)!r}, None, LoadSettings(), 'cpu')\n"
        "print(type(pipe).__name__, type(pipe.vae).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["FluxPipeline", "AutoencoderPCA"]


def test_a_model_with_a_part_of_an_unknown_library_is_refused(flux, tmp_path):
    shutil.copytree(flux, tmp_path / "flux")
    index = tmp_path / "flux" / "model_index.json"
    parts = json.loads(index.read_text())
    index.write_text(json.dumps({**parts, "vae": ["of_nobody", "Autoencoder"]}))
    with pytest.raises(ModelLoadError, match="must be one that diffusers can load, got .*flux': .*of_nobody"):
        load_pipeline(ArtifactInjectionPipeline, str(tmp_path / "flux"), None, LoadSettings(), "cpu")
    index.write_text(json.dumps({**parts, "_class_name": "PipelineOfTomorrow"}))
    with pytest.raises(ModelLoadError, match="PipelineOfTomorrow; a newer one than .* may know it"):
        load_checkpoint(DiffusionPipeline, str(tmp_path / "flux"), None, LoadSettings(), "cpu")


def test_weights_that_are_pickled_are_not_loaded(flux, tmp_path):
    shutil.copytree(flux, tmp_path / "flux")
    weights = tmp_path / "flux" / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelLoadError, match="no file named diffusion_pytorch_model.safetensors"):
        load_pipeline(ArtifactInjectionPipeline, str(tmp_path / "flux"), None, LoadSettings(), "cpu")


def test_a_checkpoint_is_loaded_with_its_revision(flux):
    pipeline, revision = load_pipeline(ArtifactInjectionPipeline, flux, None, LoadSettings(dtype="float32"), "cpu")
    assert revision.startswith("sha256:") and pipeline.text_encoder is not None
