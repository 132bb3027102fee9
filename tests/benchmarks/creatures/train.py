"""
Train the generator: a rectified flow on the autoencoder's latents, conditioned on words.

    python tests/benchmarks/creatures/train.py --work runs/creatures
    python tests/benchmarks/creatures/train.py --work runs/strong --start-from tests/benchmarks/creatures/middle

After an interruption the same command continues, with the same result as without one. Written to `--work` are

- `images.npy`, `conditions.json`: renders; those of held-out conditions are not trained on;
- `vae/`: the autoencoder; its decoder is trained by `train_decoder.py`, before, meanwhile or afterwards. With
  `--start-from`, `vae_trained/` is that generator's;
- `state.safetensors`: where training continues;
- `snapshots/STEP.safetensors`: averaged weights along the run, from which `export.py` makes pipelines;
- `training.json`: settings and the curve of the loss.

The learning rate is constant after a warm-up and falls to zero in the last part of `--steps`, so a run can be stopped
early by a smaller `--steps`. One step of 32 pictures takes half a second of a core.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from safetensors import safe_open
from safetensors.torch import save_file


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from datasets_script.utils.files import fingerprint, replacing, replacing_folder, write_json
from diffusers_artifact.autoencoder import AutoencoderPCA
from evaluate_metrics.functional.versions import versions
from tests.benchmarks.creatures.autoencoder import fit_encoder
from tests.benchmarks.creatures.generator import (
    TokenIds,
    encode_tokens,
    load_generator,
    new_generator,
    token_ids,
    trained_parameters,
    velocity,
)
from tests.benchmarks.creatures.renderer import render_many
from tests.benchmarks.creatures.words import is_held_out, parse
from training.embedded.autoencoder import to_tensor
from training.embedded.export import load_part
from training.run_folder import begin_run
from training.script import run_script


WARMUP, DECAY_SHARE = 200, 0.2
EMA, CLIP = 0.999, 1.0
# Logits of times are normal with this mean and standard deviation: where parts go is decided in much noise.
TIME_MEAN, TIME_STD = 0.5, 1.0
WITHOUT_WORDS = 0.1  # share of pictures whose prompt is empty
STATE, SNAPSHOTS, RECORD, TRAINED_VAE = "state.safetensors", "snapshots", "training.json", "vae_trained"


def training_renders(work: Path, number: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Return the images to train on, of shape `(number, 64, 64, 3)`, and their prompts; render them the first time."""
    images, conditions = work / "images.npy", work / "conditions.json"
    if not conditions.exists():
        print(f"rendering {number} creatures", flush=True)
        renders = render_many(number, seed, "train")
        with replacing(images) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack([render.image for render in renders]))
        write_json(conditions, [render.words.prompt for render in renders])
    prompts: list[str] = json.loads(conditions.read_text(encoding="utf-8"))
    return np.load(images, mmap_mode="r"), prompts


def autoencoder(work: Path, images: np.ndarray, seed: int, start_from: Path | None = None) -> AutoencoderPCA:
    """Load the autoencoder; if there is none, take the trained one of a generator, or fit an encoder."""
    folder = work / (TRAINED_VAE if start_from else "vae")
    if not folder.exists():
        if start_from:
            model = load_part(AutoencoderPCA, start_from / "vae", "--start-from").float()
        else:
            model = fit_encoder(np.asarray(images), seed)
        with replacing_folder(folder) as temporary:
            model.save_pretrained(temporary)
    return AutoencoderPCA.from_pretrained(folder)


class Training:
    """
    A training that can be saved and continued at any step.

    Args:
        pipe (`FluxPipeline`): The generator.
        tokens (`torch.Tensor` of shape `(images, tokens, channels)`): Latents of the images, packed.
        ids (`TokenIds`): Token ids of all prompts, the empty one first.
        prompt_of (`torch.Tensor` of shape `(images,)`): Row of `ids` of each image.
        rate (`float`): Learning rate after the warm-up.
        batch (`int`): Images in a step.
        seed (`int`): Seed of batches, times and noise.
    """

    def __init__(
        self,
        pipe: FluxPipeline,
        tokens: torch.Tensor,
        ids: TokenIds,
        prompt_of: torch.Tensor,
        rate: float,
        batch: int,
        seed: int,
    ):
        self.pipe, self.tokens, self.ids, self.prompt_of = pipe, tokens, ids, prompt_of
        self.rate, self.batch, self.step = rate, batch, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.parameters = trained_parameters(pipe)
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizers = self._optimizers()
        self.curve: list[dict[str, float]] = []
        self.running, self.seconds = 0.0, 0.0

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Muon (Jordan et al., 2024) for the matrices of blocks, AdamW for all else."""
        matrices = [p for name, p in self.parameters.items() if "transformer_blocks." in name and p.ndim == 2]
        chosen = {id(parameter) for parameter in matrices}
        others = [p for p in self.parameters.values() if id(p) not in chosen]
        return {
            "muon": torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            "adamw": torch.optim.AdamW(others, weight_decay=0.01, betas=(0.9, 0.98)),
        }

    def learning_rate(self, steps: int) -> float:
        """Return the rate of the next step in a training of so many steps."""
        left = (steps - self.step) / max(1.0, DECAY_SHARE * steps)
        return self.rate * min(1.0, (self.step + 1) / WARMUP, left)

    def advance(self, steps: int) -> float:
        """Take one step of a training of `steps` steps, and return its loss."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(steps)
        loss = self._loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        # Average over few steps while weights change fast, over more later.
        weight = max(1 - EMA, 1 / (1 + self.step / 5))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.parameters.values()], weight)
        return loss.item()

    def _loss(self) -> torch.Tensor:
        rows = torch.randint(len(self.tokens), (self.batch,), generator=self.generator)
        clean = self.tokens[rows]
        noise = torch.randn(clean.shape, generator=self.generator)
        time_ = torch.sigmoid(TIME_MEAN + TIME_STD * torch.randn(self.batch, generator=self.generator))
        worded = torch.rand(self.batch, generator=self.generator) >= WITHOUT_WORDS
        noisy = torch.lerp(clean, noise, time_[:, None, None])
        predicted = velocity(self.pipe, noisy, time_, self.ids[self.prompt_of[rows] * worded])
        return (predicted - (noise - clean)).pow(2).mean()

    def save(self, path: Path) -> None:
        """Write everything that continues the training, atomically."""
        tensors = {f"weights.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for kind, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{kind}.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors["generator"] = self.generator.get_state()
        facts = {"step": self.step, "running": self.running, "seconds": self.seconds, "curve": self.curve}
        _write(path, tensors, {"facts": json.dumps(facts)})

    def load(self, path: Path) -> None:
        """Continue from what [`save`] wrote."""
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"weights.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
        for kind, optimizer in self.optimizers.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name in (name for name in tensors if name.startswith(f"{kind}.")):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensors[name]
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        self.step, self.running, self.seconds = facts["step"], facts["running"], facts["seconds"]
        self.curve = facts["curve"]


def _write(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str]) -> None:
    with replacing(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, facts)


def start(args: argparse.Namespace) -> Training:
    """Prepare a training, and continue it if there is a state."""
    images, prompts = training_renders(args.work, args.images, args.seed)
    vae = autoencoder(args.work, images, args.seed, args.start_from)
    pipe = load_generator(args.start_from) if args.start_from else new_generator(vae, args.seed)
    seen = [index for index, prompt in enumerate(prompts) if not is_held_out(parse(prompt))]
    images, prompts = images[seen], [prompts[index] for index in seen]
    rows = {prompt: row for row, prompt in enumerate(["", *dict.fromkeys(prompts)])}
    tokens = torch.cat([encode_tokens(vae, to_tensor(images[i : i + 256])) for i in range(0, len(images), 256)])
    training = Training(
        pipe,
        tokens,
        token_ids(pipe, list(rows)),
        torch.tensor([rows[prompt] for prompt in prompts]),
        args.learning_rate,
        args.batch_size,
        args.seed,
    )
    if (args.work / STATE).exists():
        training.load(args.work / STATE)
        print(f"continuing at step {training.step}", flush=True)
    return training


def run(training: Training, args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Train to `args.steps`, and write states, snapshots and the record on the way."""
    saved = begun = time.monotonic()
    before = training.seconds
    while training.step < args.steps:
        loss = training.advance(args.steps)
        training.seconds = before + time.monotonic() - begun
        training.running = loss if training.step == 1 else 0.99 * training.running + 0.01 * loss
        if training.step % 100 == 0:
            point = {"step": training.step, "seconds": round(training.seconds), "loss": round(training.running, 4)}
            training.curve.append(point)
            print(point, flush=True)
        if training.step % args.snapshot_steps == 0 or training.step == args.steps:
            snapshot = args.work / SNAPSHOTS / f"{training.step:06d}.safetensors"
            _write(snapshot, training.average, {"step": str(training.step), "settings": json.dumps(settings)})
        if time.monotonic() - saved > 60 * args.save_minutes or training.step == args.steps:
            training.save(args.work / STATE)
            write_json(
                args.work / RECORD,
                {"settings": settings, "versions": versions("torch", "diffusers"), "curve": training.curve},
            )
            saved = time.monotonic()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the run")
    parser.add_argument("--start-from", type=Path, help="folder of a generator to train on (default: random weights)")
    parser.add_argument("--steps", type=int, default=16000, help="number of steps (default: %(default)s)")
    parser.add_argument("--images", type=int, default=12000, help="number of renders (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="renders in a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of renders, weights and noise (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    parser.add_argument(
        "--snapshot-steps", type=int, default=500, help="steps between snapshots (default: %(default)s)"
    )
    parser.add_argument(
        "--save-minutes", type=float, default=3.0, help="minutes between saved states (default: %(default)s)"
    )
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    names = ("images", "batch_size", "learning_rate", "seed")
    settings: dict[str, Any] = {name: getattr(args, name) for name in names}
    if args.start_from:
        settings["start_from"] = fingerprint(args.start_from)
    begin_run(args.work, settings, option="--work")
    run(start(args), args, {**settings, "steps": args.steps})


if __name__ == "__main__":
    run_script(main)
