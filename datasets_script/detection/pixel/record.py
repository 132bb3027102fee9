"""What a pixel detector needs to know beside its network: `pixel_detector.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evaluate_metrics.functional.versions import versions

from ...utils.errors import ArgumentError, UserError
from ...utils.files import write_json
from ..model_files import read_model_record
from .locating import PIXEL_FILE
from .preprocessing import Preprocessing


_FORMAT = 1
_KEYS = ("preprocessing", "thresholds", "calibration", "trunk", "license", "versions")


@dataclass(frozen=True)
class RegionThresholds:
    """
    Which pixels of a map make a region: connected pixels above `low`, of which one is above `high`.

    Args:
        high (`float`, *optional*, defaults to 0.5): Value in [0, 1) that a region must exceed somewhere.
        low (`float`, *optional*, defaults to 0.3): Value in [0, `high`] that it must exceed everywhere.
        minimum_area (`float`, *optional*, defaults to 0.0005): Smallest region, as a share of the image in [0, 1).

    Raises:
        ArgumentError: A value is out of range.
    """

    high: float = 0.5
    low: float = 0.3
    minimum_area: float = 0.0005

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < 1:
            raise ArgumentError(f"`low` and `high` must be 0 <= low <= high < 1, got {self.low} and {self.high}")
        _check_share("minimum_area", self.minimum_area)


@dataclass(frozen=True)
class ScoreCalibration:
    """
    From a map to the probability that the image has artifacts: Platt scaling, the logistic function of
    `slope` × logit(m) + `offset`, of the map's smoothed maximum m. Fit `slope` and `offset` on held-out images.

    Args:
        slope, offset (`float`, *optional*, defaults to 1.0 and 0.0): By default, the score is the smoothed maximum.
        window (`float`, *optional*, defaults to 1/32): Side of the square whose mean is taken, as a share in [0, 1) of
            the image's long side. It is rounded to an odd number of pixels, at least 1.
        threshold (`float`, *optional*, defaults to 0.5): Score in [0, 1) above which an image has artifacts.

    Raises:
        ArgumentError: A value is out of range.
    """

    slope: float = 1.0
    offset: float = 0.0
    window: float = 1 / 32
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not (self.slope > 0 and math.isfinite(self.slope) and math.isfinite(self.offset)):
            raise ArgumentError(
                f"`slope` must be above 0 and `offset` finite, got {self.slope} and {self.offset}; a falling score "
                "says that the network does not tell artifacts from clean images"
            )
        _check_share("window", self.window)
        _check_share("threshold", self.threshold)


@dataclass(frozen=True)
class PixelRecord:
    """
    Content of `pixel_detector.json`.

    Attributes:
        preprocessing (`Preprocessing`): What the network sees of an image, as in its training.
        thresholds (`RegionThresholds`): Which pixels make regions.
        calibration (`ScoreCalibration`): How images are scored.
        trunk (`str`, *optional*): Trunk of the network, one of [`~datasets_script.detection.pixel.trunks.TRUNKS`].
        license (`str`, *optional*): Licence of the pretrained weights that training started from; `None` if it started
            from random weights.
        versions (`Mapping[str, str]`): Versions of packages that it was made with.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    thresholds: RegionThresholds = field(default_factory=RegionThresholds)
    calibration: ScoreCalibration = field(default_factory=ScoreCalibration)
    trunk: str | None = None
    license: str | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: versions("torch", "transformers", "timm"))

    @classmethod
    def read(cls, path: Path) -> PixelRecord:
        """
        Read a record.

        Args:
            path (`Path`): The file.

        Raises:
            UserError: It cannot be read, is incomplete, or holds values that are out of range.
        """
        content = read_model_record(path, _FORMAT, _KEYS, "detector")
        try:
            return cls(
                preprocessing=Preprocessing.from_dict(content["preprocessing"]),
                thresholds=RegionThresholds(**content["thresholds"]),
                calibration=ScoreCalibration(**content["calibration"]),
                trunk=content["trunk"],
                license=content["license"],
                versions=content["versions"],
            )
        except (TypeError, AttributeError, ArgumentError) as error:
            raise UserError(f"'{path}' holds a value that cannot be used: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file, JSON-serialisable."""
        return {
            "format": _FORMAT,
            "preprocessing": self.preprocessing.to_dict(),
            "thresholds": asdict(self.thresholds),
            "calibration": asdict(self.calibration),
            "trunk": self.trunk,
            "license": self.license,
            "versions": dict(self.versions),
        }

    def write(self, folder: Path) -> None:
        """Write the record into a folder, atomically."""
        write_json(folder / PIXEL_FILE, self.to_dict())


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ArgumentError(f"`{name}` must lie in [0, 1), got {value}")
