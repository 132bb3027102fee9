"""Preferences as an objective of the loop, and how well a model ranks pairs that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch

from datasets_script.utils.seeds import derive_seed
from training.denoiser.loop import Objective, Update
from training.denoiser.lora import without_lora
from training.denoiser.pictures import Pictures
from training.denoiser.preference import LatentPair, PreferenceSettings, compare
from training.denoiser.preference_data import LatentPairs
from training.denoiser.rollout import Conditions, Denoiser


class PairPreference(Objective):
    """
    Objective that a denoiser prefers the clean image of a pair.

    Args:
        denoiser (`Denoiser`): With a LoRA of [`~training.denoiser.lora.add_lora`].
        pairs (`LatentPairs`): Pairs to train on.
        held_out (`HeldOut`): Pairs to choose the best step by.
        settings (`PreferenceSettings`): Form of the loss.
        batch_size (`int`): Pairs of a step on each process. They go through the model one by one, so that their sizes
            may differ; gradients are those of the mean.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        pairs: LatentPairs,
        held_out: HeldOut,
        settings: PreferenceSettings,
        batch_size: int,
    ) -> None:
        self.denoiser, self.pairs, self.held_out = denoiser, pairs, held_out
        self.settings, self.batch_size = settings, batch_size

    def step(self, update: Update) -> Mapping[str, float]:
        logged: list[tuple[float, float, float]] = []
        for index, row in enumerate(update.rows(self.batch_size, len(self.pairs))):
            pair, conditions = self.pairs[row]
            found = compare(self.denoiser, pair, conditions, self.settings, update.generator("preference", index))
            update.backward(found.loss / self.batch_size)
            logged.append((float(found.loss.detach()), float(found.gap.detach()), float(found.clean_rise.detach())))
        norm = update.apply()
        losses, gaps, rises = zip(*logged, strict=True)
        return {
            "loss": fmean(losses),
            "gap": fmean(gaps),
            "preferred": fmean(gap > 0 for gap in gaps),
            "clean_rise": fmean(rises),
            "grad_norm": norm,
        }

    def score(self, pictures: Pictures) -> float:
        return fmean(self.held_out.gaps())


class HeldOut:
    """
    Pairs that a denoiser is not trained on, seen at the same times and with the same noise in each reading.

    Args:
        denoiser (`Denoiser`): With a LoRA of [`~training.denoiser.lora.add_lora`].
        pairs (`LatentPairs`): The pairs.
        settings (`PreferenceSettings`): Form of the loss, of which the weight of the mask and the noise count here.
        seed (`int`): Seed of times and random noise.
        repeats (`int`, *optional*, defaults to 2): Times at which each pair is seen.
    """

    def __init__(
        self, denoiser: Denoiser, pairs: LatentPairs, settings: PreferenceSettings, seed: int, repeats: int = 2
    ) -> None:
        self.denoiser, self.pairs, self.settings, self.seed, self.repeats = denoiser, pairs, settings, seed, repeats

    @torch.no_grad()
    def gaps(self) -> list[float]:
        """Return the mean gap of each pair."""
        return [
            fmean(
                float(
                    compare(self.denoiser, *self.pairs[index], self.settings, self._generator("gap", index, time)).gap
                )
                for time in range(self.repeats)
            )
            for index in range(len(self.pairs))
        ]

    @torch.no_grad()
    def clean_losses(self) -> list[float]:
        """
        Return the loss that the model was made with, for the clean image of each pair: not weighted, with random
        noise.
        """
        return [
            fmean(self._clean_loss(*self.pairs[index], index, time) for time in range(self.repeats))
            for index in range(len(self.pairs))
        ]

    def clean_measure(self, pictures: Pictures) -> float:
        """Return the mean of [`clean_losses`], as a guard."""
        return fmean(self.clean_losses())

    def report(self) -> dict[str, Any]:
        """
        Compare the denoiser with the one that it was made from.

        Returns:
            `dict[str, Any]`: `pairs`, their number; `gap`, its mean; `preferred`, the share of the pairs with a gap
            above 0; `clean_loss` and `clean_loss_before`; and `clean_loss_rise`, the relative change.
        """
        gaps, now = self.gaps(), fmean(self.clean_losses())
        with without_lora(self.denoiser):
            before = fmean(self.clean_losses())
        return {
            "pairs": len(gaps),
            "gap": round(fmean(gaps), 8),
            "preferred": round(fmean(gap > 0 for gap in gaps), 4),
            "clean_loss_before": round(before, 6),
            "clean_loss": round(now, 6),
            "clean_loss_rise": round(now / before - 1, 6),
        }

    def _clean_loss(self, pair: LatentPair, conditions: Conditions, index: int, time: int) -> float:
        generator = self._generator("clean", index, time)
        clean = pair.latents[:1].to(self.denoiser.device)
        noise = torch.randn(clean.shape, generator=generator).to(self.denoiser.device)
        times = self.denoiser.draw_times(1, generator)
        return float(self.denoiser.denoising_loss(clean, conditions, noise, times))

    def _generator(self, name: str, index: int, time: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, f"held-out {name}:{index}:{time}"))
