"""
The loop that the scripts share: optimizer, EMA, guards, checkpoints and log. What is learned is an [`Objective`].

Nothing random is carried from step to step: each step derives its generators from the run's seed and its number. So a
run that was killed continues from its last checkpoint with the weights that it would have had.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from datasets_script.utils.errors import UserError, check_at_least
from datasets_script.utils.files import replacing_folder, write_json, write_text
from datasets_script.utils.seeds import derive_seed
from training.denoiser.guards import Guards, Reading
from training.denoiser.pictures import Pictures, PictureSet
from training.denoiser.rollout import Denoiser
from training.run_folder import checkpoints


KEPT = ("best", "last")
LOG_FILE, STATE_FILE, WEIGHTS_FILE = "log.jsonl", "trainer_state.json", "state.safetensors"


@dataclass
class LoopArguments:
    """
    Arguments of the loop.

    Args:
        output_dir (`str`): Folder of the run.
        max_steps (`int`, *optional*, defaults to 200): Number of steps.
        learning_rate (`float`, *optional*, defaults to 1e-4): Learning rate of AdamW (DiffDoctor §4.1).
        warmup_steps (`int`, *optional*, defaults to 0): Updates over which it rises to this value.
        weight_decay (`float`, *optional*, defaults to 0.01): Weight decay.
        adam_beta1, adam_beta2 (`float`, *optional*, defaults to 0.9 and 0.999): Betas of AdamW.
        max_grad_norm (`float`, *optional*, defaults to 1): Norm that gradients are clipped to.
        ema_decay (`float`, *optional*, defaults to 0.9): Decay of the moving average of the weights, which pictures
            are drawn with and which is saved; 0 for the weights themselves.
        keep (`str`, *optional*, defaults to `"best"`): Which weights are saved: those of the best reading within all
            bands, or those of the `"last"` reading, whatever the guards say of it.
        guard_steps (`int`, *optional*, defaults to 20): Steps between two readings of the guards.
        save_steps (`int`, *optional*, defaults to 20): Steps between two checkpoints.
        save_total_limit (`int`, *optional*, defaults to 2): Checkpoints to keep.
        seed (`int`, *optional*, defaults to 0): Seed of the run.
        use_cpu (`bool`, *optional*, defaults to `False`): Train on the CPU.
        disable_tqdm (`bool`, *optional*, defaults to `False`): Show no progress bar.
    """

    output_dir: str = field(default="", metadata={"help": "Folder of the run."})
    max_steps: int = field(default=200, metadata={"help": "Number of steps."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of AdamW."})
    warmup_steps: int = field(default=0, metadata={"help": "Updates over which the learning rate rises."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    adam_beta1: float = field(default=0.9, metadata={"help": "First beta of AdamW."})
    adam_beta2: float = field(default=0.999, metadata={"help": "Second beta of AdamW."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Norm that gradients are clipped to."})
    ema_decay: float = field(
        default=0.9, metadata={"help": "Decay of the moving average of the weights, which is saved; 0: none."}
    )
    keep: str = field(
        default="best",
        metadata={
            "help": "Which weights to save: of the best reading within all bands, or the last.",
            "choices": [*KEPT],
        },
    )
    guard_steps: int = field(default=20, metadata={"help": "Steps between two readings of the guards."})
    save_steps: int = field(default=20, metadata={"help": "Steps between two checkpoints."})
    save_total_limit: int = field(default=2, metadata={"help": "Number of checkpoints to keep."})
    seed: int = field(default=0, metadata={"help": "Seed of the run."})
    use_cpu: bool = field(default=False, metadata={"help": "Train on the CPU."})
    disable_tqdm: bool = field(default=False, metadata={"help": "Show no progress bar."})

    def check(self) -> None:
        """
        Check the values.

        Raises:
            UserError: One is missing or out of range.
        """
        if not self.output_dir:
            raise UserError("--output_dir must be given, the folder of the run, got none")
        for name in ("max_steps", "guard_steps", "save_steps", "save_total_limit"):
            check_at_least(name, getattr(self, name))
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name} must be at least 0, got {getattr(self, name)}")
        for name in ("adam_beta1", "adam_beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.keep not in KEPT:
            raise UserError(f"--keep must be one of {', '.join(KEPT)}, got '{self.keep}'")


class Update:
    """
    What a step of training does to the weights.

    Args:
        loop (`DenoiserLoop`): The loop.
        step (`int`): The step, from 1.

    Attributes:
        step (`int`): The step, from 1.
        rank, world_size (`int`): This process among those that train together. Each sees data of its own, and
            gradients are averaged.
    """

    def __init__(self, loop: DenoiserLoop, step: int) -> None:
        self._loop, self.step = loop, step
        self.rank, self.world_size = loop.accelerator.process_index, loop.accelerator.num_processes

    def seed(self, name: str, index: int = 0) -> int:
        """Derive a seed from the run's, the step, the process, a name and an index."""
        return derive_seed(self._loop.settings.seed, f"{name}:{self.step}:{self.rank}:{index}")

    def generator(self, name: str, index: int = 0) -> torch.Generator:
        """Return a CPU generator with [`seed`]."""
        return torch.Generator().manual_seed(self.seed(name, index))

    def rows(self, count: int, total: int, name: str = "rows") -> list[int]:
        """
        Choose what this process sees in this step: each of `total` things once before any comes again, in an order of
        its own in each pass.

        Args:
            count (`int`): How many each process sees.
            total (`int`): Number of things.
            name (`str`, *optional*, defaults to `"rows"`): Name of the order.
        """
        first = ((self.step - 1) * self.world_size + self.rank) * count
        return [self._row(place, total, name) for place in range(first, first + count)]

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradient to those since the last [`apply`]."""
        self._loop.accelerator.backward(loss)

    def apply(self) -> float:
        """Update the weights by the gradients, clear them, and return their norm before clipping."""
        return self._loop._apply()

    def _row(self, place: int, total: int, name: str) -> int:
        turn, index = divmod(place, total)
        order = torch.Generator().manual_seed(derive_seed(self._loop.settings.seed, f"{name}:{turn}"))
        return int(torch.randperm(total, generator=order)[index])


class Objective(ABC):
    """What a script trains on."""

    @abstractmethod
    def step(self, update: Update) -> Mapping[str, float]:
        """
        Take one step: call `update.backward` with losses and then `update.apply`, once or several times.

        Returns:
            `Mapping[str, float]`: What is logged, with `loss` among it.
        """

    @abstractmethod
    def score(self, pictures: Pictures) -> float:
        """Score pictures of held-out prompts, higher for better: the best step within all bands is kept."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return what the next steps depend on besides weights and optimizer; by default nothing."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue from the result of [`state`]."""
        if state:
            raise ValueError(
                f"`state` must be empty for {type(self).__name__}, which has none, got {', '.join(state)}"
            )


@dataclass(frozen=True)
class LoopResult:
    """
    Outcome of a run, whose weights are now those of `kept`.

    Attributes:
        steps (`int`): Steps that were taken.
        stopped (`str`, *optional*): Why it ended early: which guard left its band.
        readings (`tuple[Reading, ...]`): All readings, the first of before training.
        kept (`Reading`): The reading of the weights that are kept.
        log (`tuple[Mapping[str, float], ...]`): What was logged of each step.
    """

    steps: int
    stopped: str | None
    readings: tuple[Reading, ...]
    kept: Reading
    log: tuple[Mapping[str, float], ...]

    @property
    def before(self) -> Reading:
        """The reading of before training."""
        return self.readings[0]


class DenoiserLoop:
    r"""
    Train the LoRA of a denoiser.

    Of several processes each holds the whole model, draws with data of its own, and averages the gradients of the
    LoRA with the others.

    Args:
        denoiser (`Denoiser`): With a LoRA of [`~training.denoiser.lora.add_lora`].
        parameters (`Mapping[str, torch.nn.Parameter]`): Its weights.
        objective (`Objective`): What is learned.
        guards (`Guards`): What must not get worse.
        pictures (`PictureSet`): What the guards see, of held-out prompts.
        settings (`LoopArguments`): Settings.
        accelerator (`accelerate.Accelerator`): Device and processes.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        parameters: Mapping[str, torch.nn.Parameter],
        objective: Objective,
        guards: Guards,
        pictures: PictureSet,
        settings: LoopArguments,
        accelerator: Accelerator,
    ) -> None:
        self.denoiser, self.parameters, self.objective = denoiser, dict(parameters), objective
        self.guards, self.pictures, self.settings, self.accelerator = guards, pictures, settings, accelerator
        self.folder = Path(settings.output_dir)
        self._optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            weight_decay=settings.weight_decay,
        )
        self._ema = EMAModel(self.parameters.values(), decay=settings.ema_decay) if settings.ema_decay else None
        self._updates = 0
        self._log: list[dict[str, float]] = []
        self._readings: list[Reading] = []
        self._best: Reading | None = None
        self._best_weights: dict[str, torch.Tensor] = {}

    def run(self, checkpoint: Path | None = None) -> LoopResult:
        """
        Train until the last step, or until a guard leaves its band, and leave the weights that are to be kept.

        Args:
            checkpoint (`Path`, *optional*): Checkpoint to continue from; see
                [`~training.run_folder.begin_run`].

        Raises:
            UserError: A value before training is not a number.
        """
        step = 0 if checkpoint is None else self._load(checkpoint)
        if checkpoint is None:
            self._read(0)
        self._begin_log()
        stopped = None
        hidden = self.settings.disable_tqdm or not self.accelerator.is_main_process
        with tqdm(total=self.settings.max_steps, initial=step, disable=hidden, unit="step") as bar:
            while step < self.settings.max_steps and stopped is None:
                step += 1
                logged = {"step": step, **self.objective.step(Update(self, step))}
                self._append(logged)
                bar.update()
                bar.set_postfix({name: f"{value:.4g}" for name, value in logged.items() if name != "step"})
                if step % self.settings.guard_steps == 0 or step == self.settings.max_steps:
                    stopped = self._read(step).broken
                if stopped is None and step % self.settings.save_steps == 0:
                    self._save(step)
        assert self._best is not None, "the reading before training is the first best one"
        if self.settings.keep == "best":
            kept = self._best
            self._restore(self._best_weights)
        else:
            # The last step has a reading, however the run ended.
            kept = self._readings[-1]
            self._average(step)
        return LoopResult(step, stopped, tuple(self._readings), kept, tuple(self._log))

    # Updates

    def _apply(self) -> float:
        weights = list(self.parameters.values())
        if self.accelerator.num_processes > 1:
            for weight in weights:
                own = torch.zeros_like(weight) if weight.grad is None else weight.grad
                weight.grad = self.accelerator.reduce(own, "mean")
        norm = float(torch.nn.utils.clip_grad_norm_(weights, self.settings.max_grad_norm))
        self._updates += 1
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1.0, self._updates / max(self.settings.warmup_steps, 1))
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._ema is not None:
            self._ema.step(weights)
        return norm

    # Readings

    def _read(self, step: int) -> Reading:
        """Draw pictures with the averaged weights, read the guards, and keep the weights if they are the best."""
        trained = self._copied()
        self._average(step)
        reading = self._shared(self._read_alone(step) if self.accelerator.is_main_process else None)
        if not self._readings and any(value != value for value in (reading.score, *reading.values.values())):
            raise UserError(f"guards must be numbers before training, got {reading.values}, score {reading.score}")
        self._readings.append(reading)
        if reading.broken is None and (self._best is None or reading.score > self._best.score):
            self._best, self._best_weights = reading, self._copied()
        self._restore(trained)
        return reading

    def _read_alone(self, step: int) -> Reading:
        pictures = self.pictures.draw(self.denoiser)
        pictures.write_sheet(self.folder / "pictures" / f"step-{step:06d}.png")
        before = self._readings[0] if self._readings else None
        return self.guards.read(step, self.objective.score(pictures), pictures, before)

    def _shared(self, reading: Reading | None) -> Reading:
        """Give the main process's reading to all."""
        readings: list[Any] = [reading]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(readings)
        shared: Reading = readings[0]
        return shared

    def _average(self, step: int) -> None:
        """Set the weights that pictures are drawn with and that are saved."""
        if self._ema is not None and step:
            self._ema.copy_to(self.parameters.values())

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self.parameters.items()}

    @torch.no_grad()
    def _restore(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self.parameters.items():
            weight.copy_(weights[name])

    # Checkpoints

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors: dict[str, torch.Tensor] = {f"weight/{name}": weight for name, weight in self.parameters.items()}
        tensors |= {f"best/{name}": weight for name, weight in self._best_weights.items()}
        tensors |= {f"objective/{name}": value for name, value in self.objective.state().items()}
        for name, weight in self.parameters.items():
            tensors |= {f"adam/{key}/{name}": value for key, value in self._optimizer.state[weight].items()}
        if self._ema is not None:
            averages = zip(self.parameters, self._ema.shadow_params, strict=True)
            tensors |= {f"ema/{name}": average for name, average in averages}
        state = {
            "global_step": step,
            "updates": self._updates,
            "readings": [reading.to_dict() for reading in self._readings],
            "best": self._best and self._best.step,
        }
        with replacing_folder(self.folder / f"checkpoint-{step}") as folder:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / WEIGHTS_FILE
            )
            write_json(folder / STATE_FILE, state)
        for old in checkpoints(self.folder)[: -self.settings.save_total_limit]:
            # Without this file it is no checkpoint, should the removal be interrupted.
            for name in (STATE_FILE, WEIGHTS_FILE):
                (old / name).unlink(missing_ok=True)
            old.rmdir()

    @torch.no_grad()
    def _load(self, checkpoint: Path) -> int:
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in load_file(checkpoint / WEIGHTS_FILE).items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = value
        self._restore(groups["weight"])
        self._best_weights = groups["best"]
        self.objective.load_state(groups.get("objective", {}))
        for key, value in groups.get("adam", {}).items():
            kind, _, name = key.partition("/")
            weight = self.parameters[name]
            self._optimizer.state[weight][kind] = value if kind == "step" else value.to(weight.device)
        self._updates = state["updates"]
        if self._ema is not None:
            self._ema.optimization_step = self._updates
            for name, average in zip(self.parameters, self._ema.shadow_params, strict=True):
                average.copy_(groups["ema"][name])
        self._readings = [Reading(**reading) for reading in state["readings"]]
        self._best = next(reading for reading in self._readings if reading.step == state["best"])
        step: int = state["global_step"]
        # A line that was cut off by a kill is of a later step.
        lines = (self.folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
        self._log = [json.loads(line) for line in lines[:step]]
        return step

    def _begin_log(self) -> None:
        """Write the steps before the checkpoint; those after it will be taken again."""
        if self.accelerator.is_main_process:
            write_text(self.folder / LOG_FILE, "".join(json.dumps(entry) + "\n" for entry in self._log))

    def _append(self, entry: dict[str, float]) -> None:
        self._log.append(entry)
        if self.accelerator.is_main_process:
            with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
