"""
Reinforcement learning of a denoiser from rewards of its images: DDPO, and Flow-GRPO of rectified flows.

A step of training draws images of some prompts, several of each, scores them, and raises the probability of the noisy
steps that led to images better than others of their prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch
from accelerate.utils import gather

from datasets_script.utils.errors import ArgumentError, UserError, check_at_least
from training.denoiser.advantages import PromptStatistics, group_advantages
from training.denoiser.data import Items
from training.denoiser.loop import Objective, Update
from training.denoiser.lora import without_lora
from training.denoiser.pictures import Pictures
from training.denoiser.policy import DDIMPolicy, FlowPolicy, NoisyStep, NoisySteps, Policy, Predict, Trajectory, walk
from training.denoiser.policy_loss import clipped_loss, divergence
from training.denoiser.rewards.registry import Scores, WeightedSum
from training.denoiser.rollout import Conditions, Denoiser


BASELINES = ("group", "group_mean", "prompt")


@dataclass(frozen=True)
class PolicyArguments:
    """
    How a policy is trained.

    Args:
        prompts_per_step (`int`, *optional*, defaults to 8): Prompts drawn in a step of training, by each process.
        group_size (`int`, *optional*, defaults to 16): Images of each.
        batch_size (`int`, *optional*, defaults to 8): Images drawn, and trained on, at a time. Divides their number.
        updates (`int`, *optional*, defaults to 1): Updates of the weights that the images of a step are divided among.
            Divides the number of batches. From the second on, images are of a policy that is no longer the newest.
        passes (`int`, *optional*, defaults to 1): How often the images of a step are gone through.
        noisy_steps (`list[int]`, *optional*): Denoising steps that draw noise and are trained, from 0. Defaults to all
            that can.
        noisy_count (`int`, *optional*): How many of them are drawn for each step of training. Defaults to all.
        noise_level (`float`, *optional*, defaults to 0.7): Noise of a rectified flow, see
            [`~training.denoiser.policy.FlowPolicy`].
        eta (`float`, *optional*, defaults to 1.0): Noise of a diffusion model, see
            [`~training.denoiser.policy.DDIMPolicy`].
        same_noise (`bool`, *optional*, defaults to `False`): Begin all images of a group with the same noise
            (DanceGRPO), so that they differ by the noise of their steps alone.
        baseline (`str`, *optional*, defaults to `"group"`): What a reward is compared with: `"group"`, mean and
            standard deviation of the images of its prompt (GRPO); `"group_mean"`, their mean, and the standard
            deviation of all images; `"prompt"`, the last `buffer_size` rewards of its prompt (DDPO).
        buffer_size, buffer_least (`int`, *optional*, default to 16): See
            [`~training.denoiser.advantages.PromptStatistics`].
        advantage_clip (`float`, *optional*, defaults to 5.0): Largest magnitude of an advantage.
        clip_range (`float`, *optional*, defaults to 1e-4): See [`~training.denoiser.policy_loss.clipped_loss`].
        kl_weight (`float`, *optional*, defaults to 0.0): Weight of the divergence from the model before training. It
            costs another evaluation of the model for each noisy step.

    Raises:
        ArgumentError: A value is out of range, or numbers do not divide.
    """

    prompts_per_step: int = field(default=8, metadata={"help": "Number of prompts of a step, for each process."})
    group_size: int = field(default=16, metadata={"help": "Number of images of each prompt."})
    batch_size: int = field(default=8, metadata={"help": "Number of images drawn, and trained on, at a time."})
    updates: int = field(default=1, metadata={"help": "Number of updates that a step divides its images among."})
    passes: int = field(default=1, metadata={"help": "How often the images of a step are gone through."})
    noisy_steps: list[int] | None = field(
        default=None,
        metadata={"help": "Denoising steps, from 0, that draw noise and are trained. Default: all."},
    )
    noisy_count: int | None = field(
        default=None, metadata={"help": "Number of them that are drawn for each step of training. Default: all."}
    )
    noise_level: float = field(default=0.7, metadata={"help": "Noise of the steps of a rectified flow."})
    eta: float = field(default=1.0, metadata={"help": "Noise of the steps of a diffusion model, up to 1, DDPM's."})
    same_noise: bool = field(default=False, metadata={"help": "Begin all images of a prompt with the same noise."})
    baseline: str = field(
        default="group",
        metadata={
            "help": "What a reward is compared with: images of its prompt (group), the same with the spread of all "
            "images (group_mean), or earlier rewards of its prompt (prompt).",
            "choices": [*BASELINES],
        },
    )
    buffer_size: int = field(default=16, metadata={"help": "Number of rewards kept of a prompt, for that."})
    buffer_least: int = field(default=16, metadata={"help": "Number of them that a prompt needs."})
    advantage_clip: float = field(default=5.0, metadata={"help": "Largest magnitude of an advantage."})
    clip_range: float = field(default=1e-4, metadata={"help": "Range around 1 that ratios are held in."})
    kl_weight: float = field(default=0.0, metadata={"help": "Weight of the divergence from the untrained model."})

    def __post_init__(self) -> None:
        for name in ("prompts_per_step", "group_size", "batch_size", "updates", "passes", "noisy_count"):
            check_at_least(name, getattr(self, name))
        for name in ("noise_level", "advantage_clip", "clip_range"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"`{name}` must be above 0, got {getattr(self, name)}")
        if not 0 < self.eta <= 1:
            raise ArgumentError(f"`eta` must lie in (0, 1], a share of the noise of DDPM's steps, got {self.eta}")
        if not self.kl_weight >= 0:
            raise ArgumentError(f"`kl_weight` must be at least 0, got {self.kl_weight}")
        if self.baseline != "prompt" and self.group_size < 2:
            raise ArgumentError(
                f"`group_size` must be at least 2 for the baseline '{self.baseline}', got 1; or set it to prompt"
            )
        if not 2 <= self.buffer_least <= self.buffer_size:
            raise ArgumentError(
                f"`buffer_least` must lie between 2 and `buffer_size` ({self.buffer_size}), got {self.buffer_least}"
            )
        if self.images % self.batch_size:
            raise ArgumentError(
                f"`batch_size` must divide the {self.images} images of a step ({self.prompts_per_step} prompts x "
                f"{self.group_size}), got {self.batch_size}"
            )
        if self.batches % self.updates:
            raise ArgumentError(f"`updates` must divide the {self.batches} batches of a step, got {self.updates}")

    @property
    def images(self) -> int:
        """Return the number of images that a process draws in a step."""
        return self.prompts_per_step * self.group_size

    @property
    def batches(self) -> int:
        """Return the number of batches that they make."""
        return self.images // self.batch_size


@dataclass(frozen=True, eq=False)
class Batch:
    """
    Images that were drawn together, and are trained on together, so that ratios begin at exactly 1.

    Attributes:
        conditions (`Conditions`): Their prompts, on the model's device.
        trajectory (`Trajectory`): How they were drawn.
        pictures (`Pictures`): The images.
    """

    conditions: Conditions
    trajectory: Trajectory
    pictures: Pictures


def policy_of(denoiser: Denoiser, settings: PolicyArguments) -> Policy:
    """
    Return the policy that a denoiser draws by.

    Args:
        denoiser (`Denoiser`): Of a rectified flow; or of a diffusion model, with the scheduler of
            [`~training.denoiser.policy.scheduler_of_policy`].
        settings (`PolicyArguments`): Amount of noise.
    """
    if denoiser.is_flow:
        return FlowPolicy(denoiser.sigmas.tolist(), settings.noise_level)
    return DDIMPolicy(denoiser.scheduler, settings.eta)


class PolicyObjective(Objective):
    """
    Raise the rewards of images.

    Args:
        denoiser (`Denoiser`): See [`policy_of`]; with a LoRA of [`~training.denoiser.lora.add_lora`].
        train (`Items`): What to draw.
        rewards (`WeightedSum`): What is raised.
        settings (`PolicyArguments`): How.

    Raises:
        ArgumentError: A step of `noisy_steps` does not exist or cannot be noisy.
    """

    def __init__(self, denoiser: Denoiser, train: Items, rewards: WeightedSum, settings: PolicyArguments) -> None:
        self.denoiser, self.train = denoiser, train
        self.prompts = tuple(item.prompt for item in train.items)
        self.rewards, self.settings = rewards, settings
        self.policy = policy_of(denoiser, settings)
        try:
            self.noisy_steps = NoisySteps.of(self.policy, settings.noisy_steps, settings.noisy_count)
        except ValueError as error:
            raise ArgumentError(
                str(error).replace("`steps`", "`noisy_steps`").replace("`count`", "`noisy_count`")
            ) from error
        self.statistics = (
            PromptStatistics(len(train), settings.buffer_size, settings.buffer_least)
            if settings.baseline == "prompt"
            else None
        )

    def step(self, update: Update) -> dict[str, float]:
        settings = self.settings
        rows = [
            row
            for row in update.rows(settings.prompts_per_step, len(self.prompts))
            for _ in range(settings.group_size)
        ]
        batches = list(self._draw(update, rows))
        images = [image for batch in batches for image in batch.pictures.as_pil()]
        scores = self.rewards(images, [self.prompts[row] for row in rows])
        advantages, everywhere = self._advantages(update, rows, scores.total)
        parts = list(zip(batches, advantages.split(settings.batch_size), strict=True))
        share = len(parts) // settings.updates
        logged: list[dict[str, float]] = []
        for _ in range(settings.passes):
            for first in range(0, len(parts), share):
                logged.append(self._update(update, parts[first : first + share]))
        means = {name: fmean(entry[name] for entry in logged) for name in logged[0]}
        # What was drawn before the first update has the newest policy's probability.
        return {**means, "first_ratio": logged[0]["ratio"], **_facts(scores, everywhere, settings.group_size)}

    def score(self, pictures: Pictures) -> float:
        return fmean(self.rewards(pictures.as_pil(), pictures.prompts).total)

    def state(self) -> dict[str, torch.Tensor]:
        return {} if self.statistics is None else {"rewards": self.statistics.kept}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        if self.statistics is not None:
            self.statistics.kept = state["rewards"].clone()

    def _draw(self, update: Update, rows: Sequence[int]) -> Iterator[Batch]:
        """Draw images of the prompts at some rows, batch by batch."""
        settings = self.settings
        noisy = self.noisy_steps.choose(update.seed("noisy steps"))
        for first in range(0, len(rows), settings.batch_size):
            places = range(first, first + settings.batch_size)
            some = [rows[place] for place in places]
            conditions = self.train.conditions.select(some).on(self.denoiser.device)
            seeds = [
                update.seed("noise", place // settings.group_size if settings.same_noise else place)
                for place in places
            ]
            generators = [update.generator("steps", place) for place in places]
            start = self.denoiser.start(self.denoiser.noise(seeds), self.train.latents(some, self.denoiser.device))
            trajectory = walk(self.policy, self._predict(conditions), start, noisy, generators)
            with torch.no_grad():
                images = self.denoiser.decode(trajectory.latents).cpu()
            prompts = tuple(self.prompts[row] for row in some)
            if not torch.isfinite(images).all():
                raise UserError(
                    "--dtype must hold the model's numbers, which overflowed in an image; set it to bfloat16 or "
                    "float32, or lower --learning_rate"
                )
            yield Batch(conditions, trajectory, Pictures(images, prompts, tuple(seeds)))

    def _predict(self, conditions: Conditions) -> Predict:
        def predict(latents: torch.Tensor, step: int) -> torch.Tensor:
            return self.denoiser.predict(latents, step, conditions)

        return predict

    def _advantages(
        self, update: Update, rows: Sequence[int], rewards: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the advantages of this process's images, and the rewards of all processes'."""
        settings, device = self.settings, self.denoiser.device
        every = gather(torch.tensor(rewards, dtype=torch.float32, device=device)).cpu()
        clip = settings.advantage_clip
        if self.statistics is not None:
            every_row = gather(torch.tensor(rows, device=device)).tolist()
            found = self.statistics.advantages(every_row, every, clip)
        else:
            across = settings.baseline == "group_mean"
            found = group_advantages(every, settings.group_size, across_groups=across, clip=clip)
        return found.view(update.world_size, -1)[update.rank].to(device), every

    def _update(self, update: Update, parts: Sequence[tuple[Batch, torch.Tensor]]) -> dict[str, float]:
        """Update the weights once, by some batches and the advantages of their images."""
        terms = [
            self._backward(update, batch, taken, advantages, len(parts) * len(batch.trajectory.noisy))
            for batch, advantages in parts
            for taken in batch.trajectory.noisy
        ]
        means = {name: fmean(term[name] for term in terms) for name in terms[0]}
        return {**means, "grad_norm": update.apply()}

    def _backward(
        self, update: Update, batch: Batch, taken: NoisyStep, advantages: torch.Tensor, terms: int
    ) -> dict[str, float]:
        """Add the gradient of one noisy step of a batch, one of several terms of an update."""
        predict, settings = self._predict(batch.conditions), self.settings
        kl = torch.zeros((), device=advantages.device)
        base = None
        if settings.kl_weight:
            with without_lora(self.denoiser), torch.no_grad():
                base = self.policy.transition(predict(taken.before, taken.step), taken.before, taken.step, noisy=True)
        now = self.policy.transition(predict(taken.before, taken.step), taken.before, taken.step, noisy=True)
        found = clipped_loss(now.log_prob(taken.after), taken.log_prob, advantages, settings.clip_range)
        if base is not None:
            kl = divergence(now, base)
        loss = found.loss + settings.kl_weight * kl
        update.backward(loss / terms)
        return {
            "loss": float(loss.detach()),
            "ratio": float(found.ratio.mean()),
            "clipped": float(found.clipped),
            "kl": float(kl.detach()),
        }


def _facts(scores: Scores, everywhere: torch.Tensor, group_size: int) -> dict[str, float]:
    """Return what is logged of rewards: mean and spread of all, means of this process's parts, and equal groups."""
    facts = {"reward": float(everywhere.mean()), "reward_std": float(everywhere.std(correction=0))}
    if group_size > 1:
        groups = everywhere.view(-1, group_size)
        # Of them nothing is learned.
        facts["equal_groups"] = float((groups == groups[:, :1]).all(1).float().mean())
    if len(scores.parts) > 1:
        facts |= {f"reward_{name}": fmean(values) for name, values in scores.parts.items()}
    return facts
