"""
Train the embedded model's transformer: a rectified flow on the autoencoder's latents, with a small FLUX.

    python -m training.embedded.transformer --crops work/crops.npy --vae work/vae --out work/transformer \\
        --minutes 80

There is no text: one zero token takes the place of FLUX's prompt. The saved weights are an exponential moving average.
Most of the time goes to windows of 128×128 px, a quarter of the tokens, at their places in the image; then the model
sees whole images of 256×256 px. The learning rate depends on the elapsed share of `--minutes`, so that the run ends on
time on any machine; `training.json` beside the weights records the number of steps.
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

from datasets_script.utils.files import fingerprint
from diffusers_artifact.autoencoder import AutoencoderPCA
from training.embedded.autoencoder import load_crops, save_record, settings_of, to_tensor
from training.embedded.export import load_part
from training.run_folder import begin_run
from training.script import run_script


GRID, WINDOW = 32, 16  # tokens per side of an image, and of a window of it
CONFIG: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
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


def position_ids(top: int = 0, left: int = 0, side: int = GRID) -> torch.Tensor:
    """
    Return the position ids of a square window's tokens, of shape `(side * side, 3)`, as `FluxPipeline` makes them.

    Args:
        top, left (`int`, *optional*, defaults to 0): Row and column of the window's first token.
        side (`int`, *optional*, defaults to `GRID`): Tokens per side of the window.
    """
    rows, columns = torch.meshgrid(
        torch.arange(float(top), top + side), torch.arange(float(left), left + side), indexing="ij"
    )
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


def draw_window(tokens: torch.Tensor, batch_size: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Draw random images, and from all of them the same random window.

    Args:
        tokens (`torch.Tensor` of shape `(crops, GRID * GRID, channels)`, `float16`): Result of [`encode_tokens`].
        batch_size (`int`): Number of images.
        side (`int`): Tokens per side of the window.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Tokens `(batch_size, side * side, channels)`, float32, and their position
        ids.
    """
    top, left = torch.randint(GRID - side + 1, (2,)).tolist()
    images = tokens[torch.randint(len(tokens), (batch_size,))].unflatten(1, (GRID, GRID))
    window = images[:, top : top + side, left : left + side].flatten(1, 2).float()
    return window, position_ids(top, left, side)


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


def start_from(model: FluxTransformer2DModel, trained: FluxTransformer2DModel) -> None:
    """Copy the weights of another transformer that have the same name and shape, in place."""
    state = model.state_dict()
    state.update((name, value) for name, value in trained.state_dict().items() if value.shape == state[name].shape)
    model.load_state_dict(state)


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
    parser.add_argument(
        "--init", type=Path, help="folder of a transformer to start from; weights of another shape start at random"
    )
    parser.add_argument("--minutes", type=float, default=80.0, help="wall time of the training (default: %(default)s)")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        help="number of windows in a step; of whole images a quarter of it (default: %(default)s)",
    )
    parser.add_argument(
        "--window-share",
        type=float,
        default=0.8,
        help="share of the time that is spent on windows (default: %(default)s)",
    )
    parser.add_argument("--learning-rate", type=float, default=8e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument(
        "--ema-decay", type=float, default=0.995, help="decay of the average of the weights (default: %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the transformer")
    parser.add_argument(
        "--bf16", action="store_true", help="multiply in bfloat16, several times faster on CPUs with AMX"
    )
    parser.add_argument("--threads", type=int, default=2, help="number of threads of torch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, crops and noise (default: %(default)s)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    crops, vae = load_crops(args.crops), load_part(AutoencoderPCA, args.vae, "--vae")
    begin_run(args.out, settings_of(args), option="--out")
    tokens = encode_tokens(vae, crops)
    model = FluxTransformer2DModel(**CONFIG)
    if args.init:
        start_from(model, load_part(FluxTransformer2DModel, args.init, "--init"))
    forward = torch.compile(model) if args.compile else model
    print(f"{len(tokens)} crops, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01, betas=(0.9, 0.95))
    average = [p.detach().clone() for p in model.parameters()]
    step, start, running, curve = 0, time.time(), 0.0, []
    while (progress := (time.time() - start) / (60 * args.minutes)) < 1:
        rate = args.learning_rate * min(1, (step + 1) / 200) * (0.5 * (1 + math.cos(math.pi * progress)) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        side = WINDOW if progress < args.window_share else GRID
        clean, ids = draw_window(tokens, max(1, args.batch_size * WINDOW**2 // side**2), side)
        noise, time_ = torch.randn_like(clean), torch.sigmoid(torch.randn(len(clean)))
        noisy = torch.lerp(clean, noise, time_[:, None, None])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            predicted = velocity(forward, noisy, time_, ids)
        loss = (predicted.float() - (noise - clean)).pow(2).mean()
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
    save_record(args, step, curve, **({"init": fingerprint(args.init)} if args.init else {}))


if __name__ == "__main__":
    run_script(main)
