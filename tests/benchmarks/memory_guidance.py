"""
Count the memory that guidance by a detector needs on a card, for published models, without downloading or computing
anything.

    python tests/benchmarks/memory_guidance.py --json memory_guidance.json

As in `memory.py`, models are on torch's `meta` device, and activations are the most bytes that are alive at once:
`guide` while the code of `diffusers_artifact/guidance_gradients.py` runs on one predicted image, through the decoder
and a SegFormer-b5 that sees the image at 512 px in float32, forward and backward; `denoise` while the denoising model
is evaluated, on two rows where the family uses classifier-free guidance.

A plan's `peak` adds the weights that are on the card then. With the offload `none` these are denoising model,
autoencoder and detector, and the text encoders have left; with `model` the denoising model leaves while the gradient
is taken. The autoencoder has the precision of `vae`, and a pipeline's other parts are in bfloat16. `card` is the
smallest of 24, 48 and 80 GiB that has 2 GiB more than the peak, for what is not counted. **These are counts, not
measurements.**
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
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel, UNet2DConditionModel


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.detection.pixel.models import build_model
from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.detection.pixel.record import PixelRecord
from diffusers_artifact.family import ModelFamily
from diffusers_artifact.family_unet import UNetFamily
from diffusers_artifact.guidance_gradients import guiding_direction
from diffusers_artifact.pipeline_common import find_family
from tests.benchmarks.memory import (
    ARCHITECTURES,
    GIB,
    Architecture,
    build,
    counting,
    kl_autoencoder,
    largest_layer,
    transformer_activations,
    weight_bytes,
)


CARDS, MARGIN = (24, 48, 80), 2
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
OFFLOADS = ("none", "model")
QUANTIZATIONS = ("none", "float8")


@dataclass(frozen=True)
class Guided:
    """Builders of the parts of a published model, and the bytes that one evaluation of it keeps alive."""

    model: Callable[[], Any]
    vae: Callable[[], Any]
    denoise: Callable[[Any, Any, int], int]


def of_transformer(architecture: Architecture, rows: int) -> Guided:
    return Guided(
        architecture.transformer,
        architecture.vae,
        lambda model, vae, side: transformer_activations(model, vae, architecture, side, rows),
    )


def sdxl_unet() -> Any:
    return UNet2DConditionModel(
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def sdxl_autoencoder() -> Any:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.13025,
        sample_size=1024,
    )


def sdxl_activations(unet: Any, vae: Any, side: int) -> int:
    with counting(unet) as count:
        unet(
            torch.empty(2, 4, side // 8, side // 8, dtype=torch.bfloat16),
            torch.tensor(500),
            encoder_hidden_states=torch.empty(2, 77, 2048, dtype=torch.bfloat16),
            added_cond_kwargs={
                "text_embeds": torch.empty(2, 1280, dtype=torch.bfloat16),
                "time_ids": torch.empty(2, 6, dtype=torch.bfloat16),
            },
        )
    return count.peak


FLUX = ARCHITECTURES["FLUX.1-dev"]
MODELS = {
    "FLUX.1-dev": of_transformer(FLUX, 1),
    "FLUX.1-schnell": Guided(
        lambda: FluxTransformer2DModel(guidance_embeds=False), kl_autoencoder, of_transformer(FLUX, 1).denoise
    ),
    "SD3.5-large": of_transformer(ARCHITECTURES["SD3.5-large"], 2),
    "SDXL": Guided(sdxl_unet, sdxl_autoencoder, sdxl_activations),
}


def segformer_b5() -> PixelDetector:
    with torch.device("meta"):
        return PixelDetector(build_model("mit_b5"), PixelRecord(Preprocessing(length=512), trunk="mit_b5"))


def guide_activations(family: ModelFamily, detector: PixelDetector, side: int, checkpoint: bool) -> int:
    """Count the activations of one guided step, on one image."""
    channels = family.vae.config.latent_channels
    with counting(family.vae, detector.network) as count:
        clean = torch.empty(1, channels, side // 8, side // 8)
        loss = lambda images: detector.artifact_map(images).pow(2).mean((1, 2))  # noqa: E731
        guiding_direction(family, clean, [loss], checkpoint)
    return count.peak


def family_of(model: Any, vae: Any) -> ModelFamily:
    components = {"vae": vae, "scheduler": FlowMatchEulerDiscreteScheduler(), "text_encoder": None}
    return UNetFamily(model, components) if isinstance(model, UNet2DConditionModel) else find_family(model, components)


def plans_of(name: str, side: int) -> list[dict[str, Any]]:
    """Count all plans of a model for images of `side` pixels; figures in GiB."""
    guided = MODELS[name]
    model, detector = build(guided.model), segformer_b5()
    denoise = guided.denoise(model, build(guided.vae), side)
    judge = sum(parameter.numel() * 4 for parameter in detector.network.parameters())
    plans = []
    for dtype in DTYPES:
        vae = build(guided.vae).to(DTYPES[dtype])
        of_vae = sum(parameter.numel() * parameter.element_size() for parameter in vae.parameters())
        for checkpoint in (False, True):
            guide = guide_activations(family_of(model, vae), detector, side, checkpoint)
            for offload in OFFLOADS:
                for quantization in QUANTIZATIONS:
                    weights = weight_bytes(model, quantization)
                    widened = 0 if quantization == "none" else largest_layer(model)
                    resident = 0 if offload == "model" else weights
                    peak = of_vae + judge + max(weights + widened + denoise, resident + guide)
                    plan = {"model": name, "side": side, "vae": dtype, "checkpointing": checkpoint}
                    figures = {"denoise": denoise, "guide": guide, "peak": peak}
                    plans.append(
                        {
                            **plan,
                            "offload": offload,
                            "quantization": quantization,
                            **{part: round(count / GIB, 2) for part, count in figures.items()},
                            "card": smallest_card(peak),
                        }
                    )
    return plans


def smallest_card(peak: int) -> int | None:
    return next((card for card in CARDS if peak / GIB + MARGIN <= card), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024, help="side of the images in pixels (default: 1024)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    plans = []
    for name in args.models:
        for plan in plans_of(name, args.side):
            plans.append(plan)
            print(json.dumps(plan), flush=True)
    if args.json:
        content = {"torch": torch.__version__, "counted": True, "margin": MARGIN, "plans": plans}
        args.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
