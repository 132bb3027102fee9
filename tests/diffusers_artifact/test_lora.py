"""LoRAs that were saved from stock pipelines, loaded into ours of every family by the methods of diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline, PatchMapping

from ..helpers.tiny_pipelines import tiny_chroma, tiny_flux, tiny_flux2_klein, tiny_qwen_image, tiny_sd3


FAMILIES = {
    "flux": tiny_flux,
    "flux2": tiny_flux2_klein,
    "chroma": tiny_chroma,
    "sd3": tiny_sd3,
    "qwen": tiny_qwen_image,
}
GRID = (4, 6)
MAPPING = PatchMapping(targets=(8, 9), references=(14, 15), grid=GRID, types=("duplication",) * 2)
CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}


def save_lora(transformer, save, folder, seed: int = 1) -> str:
    """Save a random LoRA of a transformer by a stock pipeline's method, and leave the transformer as it was."""
    torch.manual_seed(seed)
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False), "made")
    layers = get_peft_model_state_dict(transformer, adapter_name="made")
    save(save_directory=str(folder), transformer_lora_layers=layers)
    transformer.delete_adapters("made")
    return str(folder)


def latents(pipe) -> torch.Tensor:
    height, width = (side * pipe.patch_size for side in GRID)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "max_sequence_length": 8, "output_type": "latent", "guidance_scale": 1.0}
    return pipe(Image.fromarray(pixels), MAPPING, **options).images


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_lora_is_loaded_set_fused_and_unloaded(family, tmp_path):
    stock = FAMILIES[family]()
    folder = save_lora(stock.transformer, type(stock).save_lora_weights, tmp_path / "one")
    other = save_lora(stock.transformer, type(stock).save_lora_weights, tmp_path / "two", seed=2)
    names = ArtifactInjectionPipeline._optional_components + ["transformer", "scheduler", "vae"]
    parts = {name: part for name, part in stock.components.items() if part is not None and name in names}
    pipe = ArtifactInjectionPipeline(**parts)
    plain = latents(pipe)

    pipe.load_lora_weights(folder, adapter_name="one")
    tuned = latents(pipe)
    assert not torch.allclose(tuned, plain, **CLOSE)
    assert pipe.get_active_adapters() == ["one"] and pipe.get_list_adapters() == {"transformer": ["one"]}
    pipe.load_lora_weights(other, adapter_name="two")
    pipe.set_adapters(["one", "two"], [1.0, 0.0])
    torch.testing.assert_close(latents(pipe), tuned, **CLOSE)
    pipe.set_adapters("two")
    assert not torch.allclose(latents(pipe), tuned, **CLOSE)
    pipe.disable_lora()
    torch.testing.assert_close(latents(pipe), plain, **CLOSE)
    pipe.enable_lora()

    pipe.set_adapters("one")
    pipe.fuse_lora()
    assert pipe.num_fused_loras == 1 and pipe.fused_loras == {"one"}
    torch.testing.assert_close(latents(pipe), tuned, **CLOSE)
    pipe.unfuse_lora()
    assert pipe.num_fused_loras == 0
    pipe.unload_lora_weights()
    torch.testing.assert_close(latents(pipe), plain, **CLOSE)
    assert pipe.get_list_adapters() == {}


def test_fused_loras_belong_to_one_pipeline(tmp_path):
    pipes = [ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL) for _ in range(2)]
    folder = save_lora(pipes[0].transformer, pipes[0].save_lora_weights, tmp_path)
    pipes[0].load_lora_weights(folder)
    pipes[0].fuse_lora()
    assert pipes[0].num_fused_loras == 1 and pipes[1].num_fused_loras == 0


def test_the_pipeline_that_loads_alone_has_them_too(tmp_path):
    pipe = DiffusionPipeline.from_pretrained(
        EMBEDDED_MODEL, custom_pipeline=str(EMBEDDED_MODEL.parent), trust_remote_code=True
    )
    folder = save_lora(pipe.transformer, pipe.save_lora_weights, tmp_path)
    pipe.load_lora_weights(folder, adapter_name="mine")
    assert pipe.get_active_adapters() == ["mine"]
    pipe.unload_lora_weights()
    assert not hasattr(pipe.transformer, "peft_config")
