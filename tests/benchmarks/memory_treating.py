"""
Count the memory that treating published models needs on a card, without downloading or computing anything.

    python tests/benchmarks/memory_treating.py --json memory_treating.json

As in `memory.py`, models are on torch's `meta` device, and `activations` are the most bytes that are alive at once
while the code of `training/denoiser/` draws an image, decodes it, lets a SegFormer-b5 map it at 512 px in float32, and
takes the gradient for the LoRA. It draws in the steps of the recipe that gradients go through and one before them,
since the others keep nothing and need what that one needs. `peak` adds the weights: the model in bfloat16, the
autoencoder in float32, the detector and a second one, and of the LoRA its weights, the optimizer's state, the average
and the best weights. `card` is the smallest of 24, 48 and 80 GiB that has 2 GiB more than the peak, for what is not
counted. **These are counts, not measurements.**
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusers_artifact.family import Conditioning
from tests.benchmarks.memory import GIB, build, counting, kl_autoencoder, weight_bytes
from tests.benchmarks.memory_guidance import MARGIN, sdxl_autoencoder, sdxl_unet, segformer_b5, smallest_card
from training.denoiser.lora import LoraSettings, add_lora
from training.denoiser.rollout import Conditions, Denoiser, SamplingSettings
from training.treat_lora import pixel_loss


RANK = 16
# Weights, two moments of AdamW, moving average and best weights, in float32. The gradient is among the activations.
_OF_LORA = 5 * 4


@dataclass(frozen=True)
class Treated:
    """
    A recipe's model on the meta device, and how it draws.

    Args:
        pipeline (`Callable`): Makes the pipeline, without text encoders.
        steps, guidance_scale: Of the recipe's rollout.
        gradient_steps (`int`): A quarter of the steps.
        text (`tuple[int, int]`): Tokens and channels of a prompt.
        pooled (`int`): Channels of the pooled prompt.
    """

    pipeline: Callable[[], Any]
    steps: int
    guidance_scale: float
    gradient_steps: int
    text: tuple[int, int]
    pooled: int


def flux(guidance: bool) -> Callable[[], Any]:
    def make() -> Any:
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance),
            vae=build(kl_autoencoder),
            transformer=build(lambda: FluxTransformer2DModel(guidance_embeds=guidance)),
            **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
        )

    return make


def sdxl(make_unet: Callable[[], Any]) -> Callable[[], Any]:
    def make() -> Any:
        return StableDiffusionXLPipeline(
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
            ),
            vae=build(sdxl_autoencoder),
            unet=build(make_unet),
            **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
            add_watermarker=False,
        )

    return make


def kolors_unet() -> Any:
    """Make the U-Net of Kolors: that of SDXL, with a projection of ChatGLM's tokens."""
    values = {name: value for name, value in sdxl_unet().config.items() if not name.startswith("_")}
    of_kolors = {
        "encoder_hid_dim": 4096,
        "encoder_hid_dim_type": "text_proj",
        "projection_class_embeddings_input_dim": 5632,
    }
    return UNet2DConditionModel(**{**values, **of_kolors})


RECIPES = {
    "treat_flux_schnell": Treated(flux(False), 4, 0.0, 1, (256, 4096), 768),
    "treat_flux_dev": Treated(flux(True), 10, 3.5, 2, (512, 4096), 768),
    "treat_sdxl": Treated(sdxl(sdxl_unet), 20, 5.0, 5, (77, 2048), 1280),
    # In the pipeline of SDXL, since diffusers has that of Kolors only with sentencepiece.
    "treat_kolors": Treated(sdxl(kolors_unet), 20, 5.0, 5, (256, 4096), 4096),
}


def conditions_of(treated: Treated) -> Conditions:
    row = Conditioning(
        torch.empty(1, *treated.text, dtype=torch.bfloat16, device="meta"),
        torch.empty(1, treated.pooled, dtype=torch.bfloat16, device="meta"),
    )
    return Conditions(row, row)


def plan_of(name: str, side: int, checkpoint: bool) -> dict[str, Any]:
    """Count one plan; figures in GiB."""
    treated, detector = RECIPES[name], segformer_b5()
    steps = min(treated.steps, treated.gradient_steps + 1)
    settings = SamplingSettings(steps, treated.guidance_scale, side, side)
    denoiser = Denoiser(treated.pipeline(), settings)
    with torch.device("meta"):
        parameters = add_lora(denoiser, LoraSettings(RANK), seed=0)
    trained = sum(parameter.numel() for parameter in parameters.values())
    if checkpoint:
        denoiser.enable_checkpointing()
    conditions = conditions_of(treated)
    with counting(denoiser.model, denoiser.vae, detector.network) as count, torch.enable_grad():
        start = torch.empty(1, *denoiser.latent_shape)
        latents = denoiser.rollout(start, conditions, treated.gradient_steps)
        loss = pixel_loss(detector.artifact_map(denoiser.decode(latents)), "threshold", 0.1)
        torch.autograd.grad(loss, list(parameters.values()))
    weights = weight_bytes(denoiser.model) - 2 * trained  # counted with the LoRA
    others = sum(parameter.numel() * 4 for part in (denoiser.vae, detector.network) for parameter in part.parameters())
    judge = sum(parameter.numel() * 4 for parameter in detector.network.parameters())
    peak = weights + others + judge + _OF_LORA * trained + count.peak
    return {
        "recipe": name,
        "side": side,
        "checkpointing": checkpoint,
        "lora_parameters": trained,
        "weights": round((peak - count.peak) / GIB, 2),
        "activations": round(count.peak / GIB, 2),
        "peak": round(peak / GIB, 2),
        "card": smallest_card(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[512, 1024], help="sides of the images in pixels")
    parser.add_argument("--checkpointing", nargs="+", default=["on", "off"], choices=["on", "off"])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    plans = []
    for name in args.recipes:
        for side in args.sides:
            for checkpointing in args.checkpointing:
                plans.append(plan_of(name, side, checkpointing == "on"))
                print(json.dumps(plans[-1]), flush=True)
    if args.json:
        content = {"torch": torch.__version__, "counted": True, "margin": MARGIN, "plans": plans}
        args.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
