"""
Train the embedded model's transformer: a rectified flow on the autoencoder's latents, with a small FLUX.

    python -m training.embedded.transformer --crops work/crops.npy --vae work/vae --out work/transformer \\
        --minutes 80

There is no text: one zero token takes the place of FLUX's prompt. The saved weights are an exponential moving average.
The learning rate depends on the elapsed share of `--minutes`, so that the run ends on time on any machine;
`training.json` beside the weights records the number of steps.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel

from diffusers_artifact.autoencoder import AutoencoderPCA
from training.embedded.autoencoder import load_crops, save_record, settings_of, to_tensor
from training.embedded.export import load_part
from training.run_folder import begin_run
from training.script import run_script


GRID = 16  # tokens per side
CONFIG: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 2,
    "num_single_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 6,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 64,
    "guidance_embeds": False,
    "axes_dims_rope": (8, 12, 12),
}


@torch.no_grad()
def encode_tokens(vae: AutoencoderPCA, crops: np.ndarray) -> torch.Tensor:
    """
    Encode crops, and pack the latents as `FluxPipeline` does.

    Args:
        vae (`AutoencoderPCA`): Autoencoder.
        crops (`np.ndarray` of shape `(crops, 256, 256, 3)`, `uint8`): Images.

    Returns:
        `torch.Tensor` of shape `(crops, GRID * GRID, 4 * latent_channels)`, `float16`.
    """
    tokens = torch.empty(len(crops), GRID * GRID, 4 * vae.config.latent_channels, dtype=torch.float16)
    for start in range(0, len(crops), 64):
        latents = vae.encode(to_tensor(crops[start : start + 64]), return_dict=False)[0].mode()
        batch, channels = latents.shape[:2]
        packed = latents.view(batch, channels, GRID, 2, GRID, 2).permute(0, 2, 4, 1, 3, 5)
        tokens[start : start + batch] = packed.reshape(batch, GRID * GRID, 4 * channels)
    return tokens


def position_ids() -> torch.Tensor:
    """Return the position ids of the image tokens, of shape `(GRID * GRID, 3)`, as `FluxPipeline` makes them."""
    rows, columns = torch.meshgrid(torch.arange(float(GRID)), torch.arange(float(GRID)), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


def velocity(model: Callable[..., Any], tokens: torch.Tensor, time_: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """
    Evaluate the transformer without text.

    Args:
        model (`Callable`): Transformer, compiled or not.
        tokens (`torch.Tensor` of shape `(batch, tokens, channels)`): Noisy latents.
        time_ (`torch.Tensor` of shape `(batch,)`): Times in [0, 1], 1 for pure noise.
        ids (`torch.Tensor` of shape `(tokens, 3)`): Position ids from [`position_ids`].
    """
    batch = len(tokens)
    return model(
        hidden_states=tokens,
        timestep=time_,
        img_ids=ids,
        txt_ids=torch.zeros(1, 3),
        encoder_hidden_states=torch.zeros(batch, 1, CONFIG["joint_attention_dim"]),
        pooled_projections=torch.zeros(batch, CONFIG["pooled_projection_dim"]),
        return_dict=False,
    )[0]


def save(model: FluxTransformer2DModel, average: list[torch.Tensor], out: Path) -> None:
    """Save a model with averaged weights, and give it back its own."""
    trained = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for parameter, mean in zip(model.parameters(), average, strict=True):
            parameter.copy_(mean)
        model.save_pretrained(out)
        for parameter, value in zip(model.parameters(), trained, strict=True):
            parameter.copy_(value)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.embedded.transformer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--crops", type=Path, required=True, help=".npy file made by training.embedded.data")
    parser.add_argument("--vae", type=Path, required=True, help="folder of the autoencoder; only its encoder is used")
    parser.add_argument("--out", type=Path, required=True, help="folder to save the transformer to")
    parser.add_argument("--minutes", type=float, default=80.0, help="wall time of the training (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="number of crops in a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=8e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument(
        "--ema-decay", type=float, default=0.995, help="decay of the average of the weights (default: %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the transformer")
    parser.add_argument("--threads", type=int, default=2, help="number of threads of torch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, crops and noise (default: %(default)s)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    crops, vae = load_crops(args.crops), load_part(AutoencoderPCA, args.vae, "--vae")
    begin_run(args.out, settings_of(args), option="--out")
    tokens = encode_tokens(vae, crops)
    model = FluxTransformer2DModel(**CONFIG)
    forward = torch.compile(model) if args.compile else model
    print(f"{len(tokens)} crops, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01, betas=(0.9, 0.95))
    average, ids = [p.detach().clone() for p in model.parameters()], position_ids()
    step, start, running, curve = 0, time.time(), 0.0, []
    while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
        rate = args.learning_rate * min(1, (step + 1) / 200) * (0.5 * (1 + math.cos(math.pi * progress)) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        clean = tokens[torch.randint(len(tokens), (args.batch_size,))].float()
        noise, time_ = torch.randn_like(clean), torch.sigmoid(torch.randn(args.batch_size))
        noisy = torch.lerp(clean, noise, time_[:, None, None])
        loss = (velocity(forward, noisy, time_, ids) - (noise - clean)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        # Average over few steps while weights change fast, over more later.
        torch._foreach_lerp_(
            average, [p.detach() for p in model.parameters()], max(1 - args.ema_decay, 1 / (1 + step / 5))
        )
        running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
        if step % 100 == 0:
            curve.append({"step": step, "seconds": round(time.time() - start), "loss": round(running, 4)})
            print(curve[-1], flush=True)
        if step % 500 == 0:
            save(model, average, args.out)
    save(model, average, args.out)
    save_record(args, step, curve)


if __name__ == "__main__":
    run_script(main)
