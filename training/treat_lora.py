# /// script
# dependencies = [
#     "artiagent[train]",
# ]
# ///

"""
Treat a text-to-image model with a pixel detector (DiffDoctor): draw, let the detector map the artifacts, and lower the
map through the last steps of drawing, into a LoRA that loads into the stock pipeline.

# FLUX.1-schnell as in the paper, on one GPU
```bash
python -m training.treat_lora --config treat_flux_schnell --prompts prompts.txt --detector me/pixel-detector \
    --guard_detector me/other-detector --real_images photos/
```

# The model of this package on a CPU, from noised photos
```bash
python -m training.treat_lora --config treat_cpu_small --start_photos photos/ --real_images photos/
```

RECIPE is a name from the list of `artiagent train`, or a YAML file of your own. Every value of it can be overridden on
the command line. A detector is a folder, an id on the Hub, or `embedded`.

**A detector that is trained against is silenced first and obeyed later**: its map falls whether images get better or
fall apart. So the run is guarded: by a detector that is never trained against, sharpness, the grid of tokens,
diversity, and the model's own loss on real images. It stops when one leaves its band, and keeps the best step before.

After Ctrl-C or a crash, the same command continues from the last checkpoint. `pictures/` shows the same prompts and
seeds at each reading, `log.jsonl` every step. `training.json` beside the LoRA records recipe, base model, data,
guards, artifact frequencies before and after, and why the run ended.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from trl import TrlParser

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.utils.errors import UserError, check_at_least
from training.arguments import given_arguments, parse_arguments, recipe_record, with_recipe_paths
from training.denoiser.arguments import DenoiserArguments, GuardArguments
from training.denoiser.data import Items
from training.denoiser.loop import LoopArguments, Objective, Update
from training.denoiser.pictures import Pictures
from training.denoiser.preparation import LOADED, load_opponents, prepare
from training.denoiser.rollout import Denoiser
from training.denoiser.run import outcome, train
from training.run_folder import check_run
from training.script import run_script


PIXELS = ("threshold", "all", "maximum")
RANDOM = "random"
_SHARE, _NUMBER = re.compile(r"(\d+(?:\.\d+)?)%"), re.compile(r"\d+")


@dataclass
class TreatingArguments:
    """
    Arguments of treating.

    Args:
        detector (`list[str]`): Pixel detectors whose maps are lowered: folders, ids on the Hub, or `embedded`. Of
            several, the losses are averaged.
        pixels (`str`, *optional*, defaults to `"threshold"`): Whose confidence is lowered: that of pixels above
            `confidence`; of `all`; or that of each image's `maximum` (DiffDoctor, table 2).
        confidence (`float`, *optional*, defaults to 0.1): Confidence in [0, 1) above which a pixel counts.
        gradient_steps (`str`, *optional*, defaults to `"25%"`): Steps at the end that gradients go through: a share, a
            number, or `random`, which draws a number for each batch.
        gamma (`float`, *optional*, defaults to 0.25): Factor of the model's own loss on real images; 0 leaves it
            out.
        batch_size (`int`, *optional*, defaults to 1): Images drawn together on a device.
        accumulation (`int`, *optional*, defaults to 4): Batches of a step.
        real_batch_size (`int`, *optional*, defaults to 1): Real images beside each batch.
    """

    detector: list[str] = field(
        default_factory=list, metadata={"help": "Pixel detectors to train against: folders, Hub ids or embedded."}
    )
    pixels: str = field(default="threshold", metadata={"help": "Pixels of the loss.", "choices": [*PIXELS]})
    confidence: float = field(default=0.1, metadata={"help": "Confidence above which a pixel counts."})
    gradient_steps: str = field(
        default="25%", metadata={"help": "Last steps that gradients go through: 25%%, a number, or random."}
    )
    gamma: float = field(default=0.25, metadata={"help": "Factor of the model's own loss on real images."})
    batch_size: int = field(default=1, metadata={"help": "Number of images drawn together on a device."})
    accumulation: int = field(default=4, metadata={"help": "Number of batches of a step."})
    real_batch_size: int = field(default=1, metadata={"help": "Number of real images beside each batch."})


class Treating(Objective):
    """
    Lower the maps of detectors through the last steps of drawing.

    Args:
        denoiser (`Denoiser`): The model, with its LoRA.
        train (`Items`): What to draw.
        real (`Items`, *optional*): Real images, for `gamma` above 0.
        detectors (`Sequence[PixelDetector]`): Detectors, frozen and in evaluation mode, as they are loaded.
        settings (`TreatingArguments`): Settings.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        train: Items,
        real: Items | None,
        detectors: Sequence[PixelDetector],
        settings: TreatingArguments,
    ) -> None:
        self.denoiser, self.train, self.real = denoiser, train, real
        self.detectors, self.settings = detectors, settings

    def step(self, update: Update) -> Mapping[str, float]:
        """Draw, lower the maps, and keep to the real images, in one update."""
        settings = self.settings
        rows = update.rows(settings.batch_size * settings.accumulation, len(self.train))
        logged = {"loss": 0.0, "map_loss": 0.0, "mean_map": 0.0, "real_loss": 0.0}
        for number in range(settings.accumulation):
            some = rows[number * settings.batch_size :][: settings.batch_size]
            seeds = [update.seed("noise", number * settings.batch_size + index) for index in range(len(some))]
            steps = gradient_steps(settings.gradient_steps, self.denoiser, update.generator("truncation", number))
            loss, mean = self._map_loss(some, seeds, steps)
            update.backward(loss / settings.accumulation)
            logged["map_loss"] += float(loss.detach()) / settings.accumulation
            logged["mean_map"] += mean / settings.accumulation
            if settings.gamma and self.real is not None:
                own = self._real_loss(update, number)
                update.backward(settings.gamma * own / settings.accumulation)
                logged["real_loss"] += float(own.detach()) / settings.accumulation
        logged["loss"] = logged["map_loss"] + settings.gamma * logged["real_loss"]
        return {**logged, "grad_norm": update.apply()}

    def score(self, pictures: Pictures) -> float:
        """Return minus the mean of the maps."""
        with torch.no_grad():
            means = [
                float(detector.artifact_map(image[None].to(self.denoiser.device)).mean())
                for detector in self.detectors
                for image in pictures.images
            ]
        return -sum(means) / len(means)

    def _map_loss(self, rows: Sequence[int], seeds: Sequence[int], steps: int) -> tuple[torch.Tensor, float]:
        denoiser = self.denoiser
        start = denoiser.start(denoiser.noise(seeds), self.train.latents(rows, denoiser.device))
        latents = denoiser.rollout(start, self.train.conditions.select(rows), steps)
        images = denoiser.decode(latents)
        maps = [detector.artifact_map(images) for detector in self.detectors]
        losses = [pixel_loss(one, self.settings.pixels, self.settings.confidence) for one in maps]
        return torch.stack(losses).mean(), float(torch.stack([one.detach().mean() for one in maps]).mean())

    def _real_loss(self, update: Update, number: int) -> torch.Tensor:
        assert self.real is not None
        count = self.settings.real_batch_size
        rows = update.rows(count * self.settings.accumulation, len(self.real), "real images")[number * count :][:count]
        clean = self.real.latents(rows, self.denoiser.device)
        assert clean is not None, "they are images"
        generator = update.generator("real images", number)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        times = self.denoiser.draw_times(count, generator)
        return self.denoiser.denoising_loss(clean, self.real.conditions.select(rows), noise, times).mean()


def pixel_loss(maps: torch.Tensor, pixels: str, confidence: float) -> torch.Tensor:
    """
    Compute the loss of artifact maps: the mean over images of the mean over their pixels that count.
    Which ones do has no gradient; an image without any has a loss of 0.

    Args:
        maps (`torch.Tensor` of shape `(batch, height, width)`): In [0, 1].
        pixels (`str`): One of `PIXELS`.
        confidence (`float`): Confidence above which a pixel counts, for `"threshold"`.

    Example:

    ```python
    >>> maps = torch.tensor([[[0.05, 0.2], [0.6, 0.0]]])
    >>> [round(float(pixel_loss(maps, pixels, 0.1)), 4) for pixels in PIXELS]
    [0.4, 0.2125, 0.6]

    ```
    """
    flat = maps.flatten(1)
    if pixels == "maximum":
        return flat.amax(1).mean()
    counts = (flat > confidence if pixels == "threshold" else torch.ones_like(flat)).to(flat)
    return ((flat * counts).sum(1) / counts.sum(1).clamp(min=1)).mean()


def gradient_steps(given: str, denoiser: Denoiser, generator: torch.Generator) -> int:
    """
    Return the number of evaluations at the end that gradients go through.

    Args:
        given (`str`): A share of the evaluations such as `"25%"`, of which there is at least one; a number; or
            `"random"`, for a number from 1 to all (AlignProp).
        denoiser (`Denoiser`): The model.
        generator (`torch.Generator`): Draws the random number.

    Raises:
        UserError: It is none of these, or out of range.
    """
    total = denoiser.num_evaluations
    if given == RANDOM:
        return int(torch.randint(1, total + 1, (), generator=generator))
    if share := _SHARE.fullmatch(given):
        steps = max(1, round(float(share[1]) / 100 * total))
    elif _NUMBER.fullmatch(given):
        steps = int(given)
    else:
        raise UserError(f"--gradient_steps must be a share such as 25%, a number or {RANDOM}, got '{given}'")
    if not 1 <= steps <= total:
        raise UserError(f"--gradient_steps must lie between 1 and the {total} evaluations of a rollout, got {given}")
    return steps


def main(arguments: Sequence[str] | None = None) -> None:
    model_args, script_args, guard_args, loop_args, recipe = parse(arguments)
    check_run(Path(loop_args.output_dir), recipe, later=LOADED)
    prepared = prepare(model_args, guard_args, loop_args, trains_on_real=script_args.gamma > 0)
    gradient_steps(script_args.gradient_steps, prepared.denoiser, torch.Generator())
    opponents = load_opponents(script_args.detector, prepared.judges, str(prepared.accelerator.device))
    trained = train(
        prepared,
        Treating(prepared.denoiser, prepared.train, prepared.real, list(opponents.values()), script_args),
        loop_args,
        script="training/treat_lora.py",
        recipe=recipe,
        data={"detectors": {label: one.identity() for label, one in opponents.items()}},
        opponents=opponents,
        images=script_args.batch_size * script_args.accumulation,
        made_of=f"{script_args.batch_size} per device x {script_args.accumulation} accumulated",
    )
    if trained is not None:
        print(outcome(trained.record, Path(loop_args.output_dir)))


def make_parser() -> TrlParser:
    return TrlParser(
        (DenoiserArguments, TreatingArguments, GuardArguments, LoopArguments),
        usage="python -m training.treat_lora --config RECIPE [--NAME VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(
    arguments: Sequence[str] | None = None,
) -> tuple[DenoiserArguments, TreatingArguments, GuardArguments, LoopArguments, dict[str, Any]]:
    """
    Parse and check a command line.

    Args:
        arguments (`Sequence[str]`, *optional*): Arguments of the command line. Defaults to those of the process.

    Returns:
        `tuple`: Arguments of the model, of treating, of the guards and of the loop, and the values given on the
            command line and in the recipe, as `training.json` records them.

    Raises:
        UserError: An argument is unknown, missing or out of range.
    """
    arguments = with_recipe_paths(sys.argv[1:] if arguments is None else arguments)
    given = given_arguments(make_parser(), arguments)
    model_args, script_args, guard_args, loop_args = parse_arguments(make_parser(), arguments)
    for args in (model_args, guard_args, loop_args):
        args.check()
    check(script_args, guard_args)
    return model_args, script_args, guard_args, loop_args, recipe_record(given)


def check(script_args: TreatingArguments, guard_args: GuardArguments) -> None:
    if not script_args.detector:
        raise UserError("--detector must name a pixel detector to train against, got none")
    if not 0 <= script_args.confidence < 1:
        raise UserError(f"--confidence must lie in [0, 1), got {script_args.confidence}")
    if script_args.gamma < 0:
        raise UserError(f"--gamma must be at least 0, got {script_args.gamma}")
    if script_args.gamma and not guard_args.has_real_images:
        raise UserError("--real_images must name a folder for --gamma above 0, got none; or set --gamma to 0")
    for name in ("batch_size", "accumulation", "real_batch_size"):
        check_at_least(name, getattr(script_args, name))


if __name__ == "__main__":
    run_script(main, "the same command continues from the last checkpoint")
