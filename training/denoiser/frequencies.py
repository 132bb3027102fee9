"""How often detectors see artifacts before and after a training, at the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets_script.comparison.measures import THRESHOLD
from datasets_script.detection.pixel.detector import PixelDetector
from evaluate_metrics.functional.paired import paired_means
from training.denoiser.pictures import Pictures


def frequencies(
    before: Pictures, after: Pictures, detectors: Mapping[str, PixelDetector], trained_against: bool
) -> list[dict[str, Any]]:
    """
    Compare artifact frequencies: the share of pictures whose map exceeds 0.5 anywhere (DiffDoctor §4.1), and mean
    maps, with paired bootstrap intervals of prompts.

    Args:
        before, after (`Pictures`): Pictures of the same prompts and seeds.
        detectors (`Mapping[str, PixelDetector]`): Detectors by label.
        trained_against (`bool`): Whether the training lowered their maps, so that they judge nothing.

    Returns:
        `list[dict]`: For each detector `detector`, `trained_against`, `frequency` and `mean_map`, both as of
        [`~evaluate_metrics.functional.paired.paired_means`].
    """
    found = []
    for label, detector in detectors.items():
        maps, maps_after = (detector.maps(pictures.as_pil()) for pictures in (before, after))
        over, over_after = ([float(one.max() > THRESHOLD) for one in some] for some in (maps, maps_after))
        means, means_after = ([float(one.mean()) for one in some] for some in (maps, maps_after))
        found.append(
            {
                "detector": label,
                "trained_against": trained_against,
                "frequency": _rounded(paired_means(over, over_after, groups=before.prompts, is_share=True)),
                "mean_map": _rounded(paired_means(means, means_after, groups=before.prompts)),
            }
        )
    return found


def _rounded(result: Mapping[str, Any]) -> dict[str, Any]:
    """Round to four digits; JSON has no NaN, which becomes `None`."""

    def of(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [of(one) for one in value]
        if isinstance(value, int):
            return value
        return None if value != value else round(float(value), 4)

    return {name: of(value) for name, value in result.items()}
