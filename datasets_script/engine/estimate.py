"""Estimate of what a run will take: time, memory by phase, disk, and questions to the vision-language model."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers_artifact.presets import EMBEDDED

from ..utils.seeds import derive_seed


if TYPE_CHECKING:
    from .plan import RunPlan
    from .synthesizer import Synthesizer


# Photos differ in what is found in them and in how often artifacts are tried again, so as many are timed as fit into
# this time, and two at least.
MIN_PHOTOS, MIN_SECONDS = 2, 20.0

# Bytes of a pair's three images for each of its pixels, as PNG; measured on the demo's photos.
_BYTES_PER_PIXEL = 4.6
# The same of the noise of two of them: 16 channels at an eighth of the side, as float16.
_NOISE_BYTES_PER_PIXEL = 1.0


@dataclass(frozen=True)
class Estimate:
    """
    What a run will take, for all photos of its folder.

    Attributes:
        photos (`int`): Photos of the run.
        timed (`int`): Photos that were tried; 0 if the model was not loaded, so that times are unknown.
        device (`str`): Device of the models.
        evaluations (`float`): NFE.
        disk_bytes (`float`): Bytes of the pairs.
        seconds (`float`, *optional*): Time of the whole run, with all its workers; `None` if unknown.
        loading_seconds (`float`): Time to load the models, which is part of it.
        seconds_of_phase (`Mapping[str, float]`): Time a photo spends in each phase.
        peak_bytes (`Mapping[str, int]`): Most bytes of the device's memory in use in each phase. Empty without an
            accelerator.
        vlm (`Mapping[str, float]`): Requests and tokens of the vision-language model, by name; empty without one.
    """

    photos: int
    timed: int
    device: str
    evaluations: float
    disk_bytes: float
    seconds: float | None = None
    loading_seconds: float = 0.0
    seconds_of_phase: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    vlm: Mapping[str, float] = field(default_factory=dict)


def estimate(plan: RunPlan) -> Estimate:
    """
    Estimate what a run will take. Its models are loaded, and a sample of its photos is processed one by one and thrown
    away; the output folder is not touched. Models that take turns change places more often than in a run, and an
    endpoint's answers are waited for that a run asks for ahead, so there the time errs on the long side. On a CPU,
    only the embedded model is tried: for the others, only what follows from the settings is known.

    Args:
        plan (`RunPlan`): The run.

    Raises:
        UserError: See [`RunPlan.check`]; or a model cannot be loaded.
    """
    start = time.perf_counter()
    from .loading import usable_device  # imports torch and diffusers, which is part of the time to load

    sources = plan.check()
    device = usable_device(plan.device)
    if device == "cpu" and plan.settings.model != EMBEDDED:
        return _from_settings(plan, len(sources), device)
    synthesizer = replace(plan, look_ahead=False).synthesizer()
    return _tried(plan, synthesizer, sources, time.perf_counter() - start)


def _tried(plan: RunPlan, synthesizer: Synthesizer, sources: list[str], loading: float) -> Estimate:
    from ..pairs.storage import PairWriter
    from .stages import Sample

    chosen = list(sources)
    random.Random(derive_seed(plan.settings.seed, "estimate")).shuffle(chosen)
    card, seconds, timed = synthesizer.card, 0.0, 0
    assert card is not None  # a plan gives one
    list(synthesizer.run([Sample(chosen[0])]))  # the first photo also warms the kernels up
    card.leave()
    before = Counter(synthesizer.counters())
    card.seconds.clear()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.parquet"
        start = time.perf_counter()
        with PairWriter(file) as writer:
            while timed < len(chosen) and (timed < MIN_PHOTOS or seconds < MIN_SECONDS):
                for sample in synthesizer.run([Sample(chosen[timed])]):
                    writer.write(sample.pairs)
                timed += 1
                seconds = time.perf_counter() - start
        card.leave()
        seconds = time.perf_counter() - start
        size = file.stat().st_size
    counted = Counter(synthesizer.counters())
    counted.subtract(before)
    share = len(sources) / timed
    return Estimate(
        photos=len(sources),
        timed=timed,
        device=card.device,
        evaluations=counted.pop("num_function_evaluations", 0) * share,
        disk_bytes=size * share,
        seconds=loading + seconds * share / plan.processes,
        loading_seconds=loading,
        seconds_of_phase={phase: spent / timed for phase, spent in card.seconds.items()},
        peak_bytes=dict(card.peaks),
        vlm={name.removeprefix("vlm_"): count * share for name, count in counted.items() if count},
    )


def _from_settings(plan: RunPlan, photos: int, device: str) -> Estimate:
    """Estimate what follows from the settings: one attempt for each photo, at the largest size."""
    from .chains import CHAINS

    settings = plan.settings
    pixels = settings.max_long_side**2 * settings.pairs_per_image
    return Estimate(
        photos=photos,
        timed=0,
        device=device,
        evaluations=CHAINS[type(settings)].model.evaluations(settings) * photos,
        disk_bytes=(_BYTES_PER_PIXEL + _NOISE_BYTES_PER_PIXEL * settings.stores_noise) * pixels * photos,
        vlm={"requests": _requests(plan) * photos} if plan.vlm else {},
    )


def _requests(plan: RunPlan) -> float:
    """
    Return the questions about a photo: names, caption and description, one a pair and two an artifact, or one where
    gates judge it instead.
    """
    settings = plan.settings
    artifacts = (1 + settings.max_artifacts) / 2
    perceived = 2 if plan.perception.backend.needs_vlm else 0
    asked = 2 if settings.region_gates is None else 1
    return perceived + 1 + settings.pairs_per_image * (1 + asked * artifacts)


def estimate_text(found: Estimate, title: str) -> str:
    """
    Return the estimate as lines of text.

    Args:
        found (`Estimate`): The estimate.
        title (`str`): What it is of.
    """
    many = "photo" if found.photos == 1 else "photos"
    how = f"{found.timed} tried" if found.timed else "none tried: from the settings alone"
    lines = [f"estimate for {found.photos} {many}, {title} on {found.device} ({how})", *_rows(found)]
    return "\n".join(lines)


def _rows(found: Estimate) -> list[str]:
    gib = 2**30
    rows: list[tuple[str, str]] = [("evaluations", f"{found.evaluations:,.0f}")]
    if found.seconds is None:
        rows.append(("time", "unknown without a GPU; run it on the machine that will do the work"))
    else:
        phases = ", ".join(f"{phase} {spent:.2f}" for phase, spent in found.seconds_of_phase.items())
        rows.append(("time", f"{_duration(found.seconds)}, of which {_duration(found.loading_seconds)} for loading"))
        rows.append(("seconds a photo", phases))
    if found.peak_bytes:
        peaks = ", ".join(f"{phase} {peak / gib:.1f}" for phase, peak in found.peak_bytes.items())
        rows.append(("GiB on the card", f"{max(found.peak_bytes.values()) / gib:.1f} at its peak: {peaks}"))
    else:
        rows.append(("GiB on the card", 'no accelerator; see the table of "Your card" in datasets_script/README.md'))
    unit, size = ("GB", 1e9) if found.disk_bytes >= 1e9 else ("MB", 1e6)
    rows.append(("on disk", f"{found.disk_bytes / size:,.1f} {unit}"))
    if found.vlm:
        rows.append(("VLM", ", ".join(f"{name.replace('_', ' ')} {n:,.0f}" for name, n in found.vlm.items())))
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]


def _duration(seconds: float) -> str:
    """Return a time in the unit in which it is a number of one to three digits, such as "75 s" or "1.4 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def title_of(plan: RunPlan) -> str:
    """Return the model and how it is run, in a few words."""
    loading = plan.settings.loading
    words = [plan.settings.model, loading.dtype or ""]
    words += [loading.quantization] if loading.quantization != "none" else []
    words += [f"offload {plan.offload}"] if plan.offload != "none" else []
    return ", ".join(filter(None, words))
