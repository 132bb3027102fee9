"""Phases of the work on one device, and the models that take turns on it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

from ..utils.memory import free_unused


class Card:
    """
    A device and the models that take turns on it: those of the current phase are on it, the others in host memory.

    Args:
        device (`str`): The device, such as `"cuda:0"`.
        takes_turns (`bool`, *optional*, defaults to `True`): Whether models leave the device while they are not in
            use. Otherwise nothing is ever moved.

    Attributes:
        peaks (`dict[str, int]`): Most bytes of the device's memory in use in each phase so far. Empty on devices whose
            memory torch does not count.
        seconds (`dict[str, float]`): Time spent in each phase so far.
    """

    def __init__(self, device: str, takes_turns: bool = True) -> None:
        self.device, self.takes_turns = device, takes_turns
        self.peaks: dict[str, int] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._models: dict[str, list[nn.Module]] = {}
        self._present: frozenset[str] = frozenset()
        self._phase, self._since = "", time.perf_counter()

    def add(self, name: str, models: Sequence[nn.Module] = ()) -> None:
        """
        Add models, which leave the device until a phase needs them.

        Args:
            name (`str`): What they are, such as `"vlm"`.
            models (`Sequence[torch.nn.Module]`, *optional*): Models that can be moved. Those on another accelerator
                stay there. None for models that come and go by themselves, before which all others make way.
        """
        if self.takes_turns:
            here = (torch.empty(0, device=self.device).device, torch.device("cpu"))
            self._models[name] = [model for model in models if next(model.parameters()).device in here]
            self._move([name], "cpu")

    def enter(self, phase: str, *names: str) -> None:
        """
        Begin a phase: bring its models onto the device, after all others have left it.

        Args:
            phase (`str`): Name of the phase, under which time and memory are counted.
            names (`str`): Models that it needs. Names that nothing was added under are passed over. If none is left,
                or all are there, everything stays where it is.

        Raises:
            torch.OutOfMemoryError: The models do not fit on the device.
        """
        self._count()
        self._phase = phase
        needed = self._models.keys() & names
        if needed <= self._present:
            return
        leaving, self._present = self._present - needed, self._present & needed
        self._move(leaving, "cpu")
        free_unused()
        coming = needed - self._present
        try:
            self._move(coming, self.device)
        except (RuntimeError, MemoryError):
            self._move(coming, "cpu")
            raise
        self._present = frozenset(needed)

    def leave(self) -> None:
        """End the last phase, for its time and memory to be counted."""
        self._count()
        self._phase = ""

    def _move(self, names: Sequence[str] | frozenset[str] | set[str], device: str) -> None:
        for name in names:
            for model in self._models[name]:
                model.to(device)

    def _count(self) -> None:
        now = time.perf_counter()
        if self._phase:
            self.seconds[self._phase] += now - self._since
        self._since = now
        if torch.device(self.device).type == "cuda":
            if self._phase:
                peak = torch.cuda.max_memory_allocated(self.device)
                self.peaks[self._phase] = max(self.peaks.get(self._phase, 0), peak)
            torch.cuda.reset_peak_memory_stats(self.device)
