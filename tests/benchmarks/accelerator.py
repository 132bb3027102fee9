"""Measure injection in a transformer of FLUX.1-dev's size: time of a forward pass, overhead, memory, pairs an hour.

    python tests/benchmarks/accelerator.py --json accelerator.json
    python tests/benchmarks/accelerator.py --compile --backends native flash
    python tests/benchmarks/accelerator.py --tiny --device cpu --sides 64 --rows 1 2     # checks that the script runs

A batch of N rows is one reconstruction and N - 1 artifact variants, with 512 tokens of text. `forward_ms` is the time
of a forward pass of the batch with stock processors; `overhead` is the time of an evaluation with injection (all
blocks, values, queries and positions) divided by it. `pairs_per_hour` is computed from it for 8 FireFlow steps, with
inversion and clean image, without the autoencoder. Weights are random, which does not affect the time; no images are
made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from diffusers_artifact import SOLVERS, PatchMapping
from diffusers_artifact.denoising_loop import DenoisingLoop
from diffusers_artifact.family import Conditioning
from diffusers_artifact.family_flux import FluxFamily
from diffusers_artifact.injection import InjectionState


STEPS = 8
TEXT_TOKENS = 512
TINY = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2}


def build(tiny: bool, device: str) -> FluxFamily:
    torch.manual_seed(0)
    with torch.device(device):
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        transformer = FluxTransformer2DModel(guidance_embeds=True, **(TINY if tiny else {}))
        torch.set_default_dtype(default)
    return FluxFamily(transformer.eval(), {"scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)})


def seconds(call, device: str, repeats: int) -> float:
    """Return the median seconds of `call`, after two calls that warm up and compile."""
    times = []
    for _ in range(2 + repeats):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


@torch.no_grad()
def measure(family: FluxFamily, side: int, rows: int, device: str, repeats: int) -> dict[str, float]:
    """Measure one image size and batch size."""
    grid = (side // 16, side // 16)
    tokens = torch.randn(rows, grid[0] * grid[1], 64, device=device)
    config = family.transformer.config
    condition = Conditioning(
        torch.randn(rows, TEXT_TOKENS, config.joint_attention_dim, device=device),
        torch.randn(rows, config.pooled_projection_dim, device=device),
    )
    guidance = torch.full((rows,), 3.5, device=device)
    timestep = torch.tensor(500.0, device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    forward = seconds(lambda: family.velocity(tokens, timestep, condition, guidance, grid), device, repeats)
    one = Conditioning(condition.prompt_embeds[:1], None if condition.pooled is None else condition.pooled[:1])
    single = seconds(lambda: family.velocity(tokens[:1], timestep, one, guidance[:1], grid), device, repeats)

    part = tuple(range(grid[1] + 1, grid[1] + 3))
    mapping = PatchMapping(part, tuple(index + grid[1] for index in part), grid)
    state = InjectionState(
        [PatchMapping.empty(grid), *[mapping] * (rows - 1)],
        [0] * rows,
        2,
        range(family.num_blocks),
        range(family.num_blocks),
        2,
        2,
        hold_background=True,
        device=device,
    )
    scheduler = SOLVERS["fireflow"].from_config(family.components["scheduler"].config)
    loop = DenoisingLoop(family, grid, one, observer=state)

    def denoise() -> None:
        scheduler.set_timesteps(**family.timestep_arguments(2, tokens.shape[1], scheduler), device=device)
        loop.denoise(scheduler, tokens, condition, guidance, lambda _, point: point)

    with family.injecting(state):
        injected = seconds(denoise, device, repeats) / 3  # evaluations of two FireFlow steps
    figures = {"forward_ms": 1000 * forward, "overhead": injected / forward}
    if device == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if rows > 1:
        figures["pairs_per_hour"] = 3600 * (rows - 1) / ((STEPS + 1) * (single + injected))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="device to measure (default: %(default)s)")
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        default=[512, 1024],
        help="sides of the images in pixels (default: %(default)s)",
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8], help="batch sizes (default: %(default)s)")
    parser.add_argument("--backends", nargs="+", default=["native"], help="attention backends (default: %(default)s)")
    parser.add_argument(
        "--compile", action="store_true", help="measure also with torch.compile of the repeated blocks"
    )
    parser.add_argument("--repeats", type=int, default=5, help="calls to take the median of (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="two blocks instead of 57")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU, found none; check the script with --tiny --device cpu")
    family = build(args.tiny, args.device)
    results = []
    for compiled in (False, True)[: 1 + args.compile]:
        if compiled:
            family.transformer.compile_repeated_blocks()
        for backend, side, rows in itertools.product(args.backends, args.sides, args.rows):
            family.transformer.set_attention_backend(backend)
            figures = measure(family, side, rows, args.device, args.repeats)
            results.append({"compiled": compiled, "backend": backend, "side": side, "rows": rows, **figures})
            print(json.dumps(results[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
