"""
Count the memory that published models need on a card, by phase, without downloading or computing anything.

    python tests/benchmarks/memory.py --json memory.json

The models are built from their published configurations on torch's `meta` device, whose tensors have shapes and no
content. Weights are the bytes of their parameters. Activations are the most bytes that are alive at once while the
real forward passes run on such tensors: the text encoders on 512 tokens, the transformer with the injecting attention
processors on one row (inversion) and on one row for the clean image and one for each artifact image (denoising), and
the autoencoder decoding all rows. Attention is counted as fused kernels do it, without the matrix of scores.

`denoise_target` adds what `compute="target"` keeps: keys and values of the clean image's row in all blocks, for one
evaluation. `decode_tiled` is with `--vae-tiling`. Each `peak` is the highest of the phases, in GiB.

Not counted: the CUDA context (about 0.5 GiB), the allocator's fragmentation, and workspaces of kernels. Leave 1 to
2 GiB for them. **These are counts, not measurements.**
"""

from __future__ import annotations

import argparse
import gc
import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from diffusers_artifact import PatchMapping
from diffusers_artifact.family import Conditioning
from diffusers_artifact.injection import InjectionState
from diffusers_artifact.pipeline_common import FAMILIES


GIB = 2**30
OFFLOADS = ("keep_loaded", "none", "model", "group", "sequential")
QUANTIZATIONS = ("none", "float8", "8bit", "4bit")
# Refused by `artiagent synthesize`: bitsandbytes' weights move only as a whole.
IMPOSSIBLE = {
    ("8bit", "group"),
    ("8bit", "sequential"),
    ("4bit", "group"),
    ("4bit", "sequential"),
    ("float8", "sequential"),
}

# Phases whose highest peak is that of a plan.
PEAKS = {
    "peak": ("encode", "invert", "denoise", "decode"),
    "peak_target": ("encode", "invert", "denoise_target", "decode"),
    "peak_vae_tiling": ("encode", "invert", "denoise", "decode_tiled"),
    "peak_vae_tiling_target": ("encode", "invert", "denoise_target", "decode_tiled"),
}

# Bytes of a weight of a linear layer, with scales: NF4 has one of 4 bytes for 64 weights, the others one for a row.
LINEAR_BYTES = {"none": 2.0, "float8": 1.0, "8bit": 1.0, "4bit": 0.5 + 4 / 64}


@dataclass(frozen=True)
class Architecture:
    """Builders of a published model's parts, from the values of its configuration files, and its longest prompt."""

    transformer: Callable[[], Any]
    vae: Callable[[], Any]
    text_encoders: dict[str, Callable[[], Any]]
    text_tokens: int
    text_channels: int
    pooled_channels: int = 0


def t5_xxl() -> Any:
    return T5EncoderModel(
        T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )


def clip(kind: Any, width: int, layers: int, heads: int) -> Any:
    return kind(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=width,
        )
    )


def kl_autoencoder() -> Any:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=1024,
    )


def qwen2_5_vl_7b() -> Any:
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": 152064,
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
            vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
        )
    )


def qwen3_4b() -> Any:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=151936,
            hidden_size=2560,
            intermediate_size=9728,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            tie_word_embeddings=True,
        )
    )


ARCHITECTURES = {
    "FLUX.1-dev": Architecture(
        lambda: FluxTransformer2DModel(guidance_embeds=True),
        kl_autoencoder,
        {"CLIP-L": lambda: clip(CLIPTextModel, 768, 12, 12), "T5-XXL": t5_xxl},
        512,
        4096,
        768,
    ),
    "FLUX.2-klein-base-4B": Architecture(
        lambda: Flux2Transformer2DModel(
            num_layers=5,
            num_single_layers=20,
            attention_head_dim=128,
            num_attention_heads=24,
            joint_attention_dim=7680,
            guidance_embeds=False,
        ),
        AutoencoderKLFlux2,
        {"Qwen3-4B": qwen3_4b},
        512,
        7680,
    ),
    "SD3.5-large": Architecture(
        lambda: SD3Transformer2DModel(
            sample_size=128,
            num_layers=38,
            attention_head_dim=64,
            num_attention_heads=38,
            joint_attention_dim=4096,
            caption_projection_dim=2432,
            pooled_projection_dim=2048,
            pos_embed_max_size=192,
            qk_norm="rms_norm",
        ),
        kl_autoencoder,
        {
            "CLIP-L": lambda: clip(CLIPTextModelWithProjection, 768, 12, 12),
            "CLIP-bigG": lambda: clip(CLIPTextModelWithProjection, 1280, 32, 20),
            "T5-XXL": t5_xxl,
        },
        333,
        4096,
        2048,
    ),
    "Qwen-Image": Architecture(
        QwenImageTransformer2DModel, AutoencoderKLQwenImage, {"Qwen2.5-VL-7B": qwen2_5_vl_7b}, 512, 3584
    ),
}


class LiveBytes(TorchDispatchMode):
    """Mode that counts the bytes of all tensors that are alive, without those of a model's weights."""

    def __init__(self, *models: Any) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for model in models:
            for tensor in (*model.parameters(), *model.buffers()):
                self._known[tensor.untyped_storage()] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._take(tensor)
        return output

    def _take(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if tensor.device.type != "meta" or storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size


class FusedKernel(torch.autograd.Function):
    """Attention that makes its output and nothing else, and keeps that and its inputs for gradients."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, *of_output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Give attention the memory that it needs in fused kernels, in a `with` block; recomputed activations too."""
    stock = nn.functional.scaled_dot_product_attention
    nn.functional.scaled_dot_product_attention = lambda query, key, value, **options: FusedKernel.apply(
        query, key, value
    )
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = stock


@contextmanager
def counting(*models: Any) -> Iterator[LiveBytes]:
    gc.collect()
    with torch.no_grad(), torch.device("meta"), fused_attention(), LiveBytes(*models) as count:
        yield count


def build(make: Callable[[], Any]) -> Any:
    """Build a model in bfloat16 on the meta device."""
    with torch.device("meta"):
        return make().to(torch.bfloat16).eval()


def weight_bytes(model: Any, quantization: str = "none") -> int:
    """Count the bytes of a model's weights, of which a quantization narrows those of linear layers."""
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    tensors = {id(tensor): tensor.numel() for tensor in (*model.parameters(), *model.buffers())}
    return round(2 * (sum(tensors.values()) - linear) + LINEAR_BYTES[quantization] * linear)


def largest_layer(model: Any, quantization: str = "none") -> int:
    """Count the bytes of the layer with the most weights, which is what moves at once if layers move one by one."""
    layers = [module for module in model.modules() if not list(module.children())]
    return max(weight_bytes(layer, quantization) for layer in layers)


def text_activations(encoder: Any, tokens: int) -> int:
    length = 77 if isinstance(encoder, (CLIPTextModel, CLIPTextModelWithProjection)) else tokens
    with counting(encoder) as count:
        encoder(input_ids=torch.zeros(1, length, dtype=torch.long), output_hidden_states=True)
    return count.peak


def transformer_activations(transformer: Any, vae: Any, architecture: Architecture, side: int, rows: int) -> int:
    """Count the activations of one evaluation, with artifacts injected if there are several rows."""
    components = {"vae": vae, "scheduler": FlowMatchEulerDiscreteScheduler(), "text_encoder": None}
    name = type(transformer).__name__
    family = next(kind for kind in FAMILIES if kind.transformer_class == name)(transformer, components)
    grid = (side // family.patch_size,) * 2
    part = tuple(range(grid[1] + 1, grid[1] + 9))
    artifact = PatchMapping(part, tuple(index + 4 * grid[1] for index in part), grid)
    state = InjectionState(
        [PatchMapping.empty(grid), *[artifact] * (rows - 1)],
        [0] * rows,
        25,
        range(family.num_blocks),
        range(family.num_blocks),
        hold_background=True,
        device="meta",
    )
    state.prepare(architecture.text_tokens)
    channels = vae.config.get("z_dim") or vae.config.latent_channels
    with counting(transformer) as count:
        condition = Conditioning(
            torch.empty(rows, architecture.text_tokens, architecture.text_channels, dtype=torch.bfloat16),
            torch.empty(rows, architecture.pooled_channels, dtype=torch.bfloat16)
            if architecture.pooled_channels
            else None,
        )
        tokens = torch.empty(rows, grid[0] * grid[1], channels * family.token_side**2)
        with family.injecting(state):
            state.begin_denoising(0, "cond")
            family.velocity(tokens, torch.tensor(500.0), condition, torch.ones(rows), grid)
            state.end()
    return count.peak


def decoder_activations(vae: Any, side: int, rows: int, tiling: bool) -> int:
    channels = vae.config.get("z_dim") or vae.config.latent_channels
    if tiling:  # as `--vae-tiling` sets it
        vae.enable_tiling()
        vae.enable_slicing()
    frames = [1] if isinstance(vae, AutoencoderKLQwenImage) else []  # it decodes videos
    with counting(vae) as count:
        vae.decode(
            torch.empty(rows, channels, *frames, side // 8, side // 8, dtype=torch.bfloat16), return_dict=False
        )[0].float()
    return count.peak


def kv_cache_bytes(transformer: Any, architecture: Architecture, side: int) -> int:
    """Count keys and values of one row, image and text tokens, in all blocks, in bfloat16."""
    config = transformer.config
    tokens = (side // 16) ** 2 + architecture.text_tokens
    blocks = config.num_layers + config.get("num_single_layers", 0)
    return 2 * 2 * blocks * tokens * config.num_attention_heads * config.attention_head_dim


@dataclass(frozen=True)
class Parts:
    """A model on the meta device, with the activations of its phases in bytes."""

    transformer: Any
    vae: Any
    text_encoders: dict[str, Any]
    encode: int
    invert: int
    denoise: int
    decode: int
    decode_tiled: int
    kv_cache: int


def parts_of(architecture: Architecture, side: int, artifact_images: int) -> Parts:
    transformer, vae = build(architecture.transformer), build(architecture.vae)
    texts = {name: build(make) for name, make in architecture.text_encoders.items()}
    rows = 1 + artifact_images
    return Parts(
        transformer,
        vae,
        texts,
        encode=max(text_activations(encoder, architecture.text_tokens) for encoder in texts.values()),
        invert=transformer_activations(transformer, vae, architecture, side, 1),
        denoise=transformer_activations(transformer, vae, architecture, side, rows),
        decode=decoder_activations(vae, side, rows, False),  # before tiling is switched on
        decode_tiled=decoder_activations(vae, side, rows, True),
        kv_cache=kv_cache_bytes(transformer, architecture, side),
    )


def peaks(parts: Parts, offload: str, quantization: str) -> dict[str, float]:
    """Return the peak of each phase in GiB."""
    texts = [weight_bytes(encoder) for encoder in parts.text_encoders.values()]
    transformer, vae = weight_bytes(parts.transformer, quantization), weight_bytes(parts.vae)
    layer = largest_layer(parts.transformer, quantization)
    # Two layers are there at once in a group, while the next one is copied.
    at_once = {"group": 2, "sequential": 1}.get(offload, 0)
    text = {
        "model": max(texts),
        **dict.fromkeys(
            ("group", "sequential"), at_once * max(largest_layer(encoder) for encoder in parts.text_encoders.values())
        ),
    }.get(offload, sum(texts))
    resident = {"keep_loaded": sum(texts) + transformer + vae, "none": transformer + vae, "model": transformer}.get(
        offload, at_once * layer + (vae if offload == "group" else 0)
    )
    # Narrow weights are widened layer by layer.
    widened = 0 if quantization == "none" else largest_layer(parts.transformer)
    decoding = {"model": vae, "sequential": largest_layer(parts.vae)}.get(offload, resident)
    phases = {
        "encode": (resident if offload == "keep_loaded" else text) + parts.encode,
        "invert": resident + widened + parts.invert,
        "denoise": resident + widened + parts.denoise,
        "denoise_target": resident + widened + parts.denoise + parts.kv_cache,
        "decode": decoding + parts.decode,
        "decode_tiled": decoding + parts.decode_tiled,
    }
    return {name: round(count / GIB, 2) for name, count in phases.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024], help="sides of the images in pixels")
    parser.add_argument("--artifact-images", type=int, default=3, help="artifact images of a photo (default: 3)")
    parser.add_argument("--models", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    results = []
    for name in args.models:
        for side in args.sides:
            parts = parts_of(ARCHITECTURES[name], side, args.artifact_images)
            for offload in OFFLOADS:
                for quantization in QUANTIZATIONS:
                    if (quantization, offload) in IMPOSSIBLE:
                        continue
                    figures = peaks(parts, offload, quantization)
                    plan = {"model": name, "side": side, "offload": offload, "quantization": quantization}
                    highest = {peak: max(figures[phase] for phase in phases) for peak, phases in PEAKS.items()}
                    results.append({**plan, **figures, **highest})
                    print(json.dumps(results[-1]), flush=True)
    if args.json:
        content = {"artifact_images": args.artifact_images, "torch": torch.__version__, "counted": True}
        args.json.write_text(json.dumps({**content, "plans": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
