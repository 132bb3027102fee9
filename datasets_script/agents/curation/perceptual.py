"""Learned perceptual distances between image crops: LPIPS, and a shift-tolerant variant that works offline."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from typing import Protocol
from urllib.error import URLError

import numpy as np
import torch
from torch import nn

from ...schema.pair import PerceptualName
from ...utils.errors import UserError


# AlexNet's strides leave nothing of a much smaller crop, and the metrics were fitted on patches of 64 px.
MIN_SHORT_SIDE = 64


class PerceptualMetricUnavailable(UserError, RuntimeError):
    """A metric's package or weights are missing; the message says how to get them."""


class PerceptualMetric(Protocol):
    """
    A distance between two crops of one size.

    Attributes:
        name (`str`): Name of the metric, and the key of its scores: `"lpips"` or `"stlpips"`.
    """

    name: PerceptualName

    def __call__(self, first: np.ndarray, second: np.ndarray) -> float:
        """
        Compute the distance between two crops.

        Args:
            first, second (`np.ndarray` of shape `(height, width, 3)`, `float32` in [0, 1]): The crops. If their short
                side is under 64 px, both are enlarged to it, bilinearly.

        Returns:
            `float`: 0 for equal crops, about 1 for unrelated ones.
        """
        ...


class _NetworkMetric:
    """Computation shared by the metrics, which differ in their networks only."""

    name: PerceptualName

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> float:
        if first.shape != second.shape:
            raise ValueError(f"`second` must have the shape of `first`, {first.shape}, got {second.shape}")
        return float(self.network(_as_input(first), _as_input(second), normalize=True))


class Lpips(_NetworkMetric):
    """
    LPIPS with AlexNet ("The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", version 0.1), the
    metric of the paper's band. The `lpips` package holds only the linear heads; the backbone is torchvision's AlexNet,
    taken from torch's hub cache or downloaded into it. Both are read as tensors only, never unpickled as code.

    Raises:
        PerceptualMetricUnavailable: The `lpips` package is not installed, or the backbone is neither cached nor can be
            downloaded.
    """

    name: PerceptualName = "lpips"

    def __init__(self) -> None:
        try:
            from lpips import LPIPS
        except ImportError as error:
            raise PerceptualMetricUnavailable(
                "the metric 'lpips' needs the package of that name: pip install 'artiagent[lpips]'"
            ) from error
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The parameter 'pretrained'|Arguments other than a weight enum")
            network = LPIPS(net="alex", pnet_rand=True, verbose=False)
        backbone = _alexnet_state()
        network.net.load_state_dict(
            # "slice2.3.weight" of LPIPS is "features.3.weight" of AlexNet.
            {key: backbone["features." + key.partition(".")[2]] for key in network.net.state_dict()}
        )
        super().__init__(network)


class ShiftTolerantLpips(_NetworkMetric):
    """
    "Shift-tolerant Perceptual Similarity Metric" (ECCV 2022), its AlexNet variant. The package includes all weights,
    so it works offline. Network and weights differ from LPIPS: **its numbers are not LPIPS**, and the paper's band
    does not apply to them. The weights are read as tensors only, never unpickled as code.

    Raises:
        PerceptualMetricUnavailable: The `stlpips_pytorch` package is not installed.
    """

    name: PerceptualName = "stlpips"

    def __init__(self) -> None:
        try:
            from stlpips_pytorch.stlpips import LPIPS
        except ImportError as error:
            raise PerceptualMetricUnavailable(
                f"the metric 'stlpips' needs stlpips-pytorch, IPython and torchsummary ({error}): "
                "pip install 'artiagent[stlpips]'"
            ) from error
        # Loaded here, because the package would ignore missing keys and leave random weights.
        network = LPIPS(net="alex", variant="shift_tolerant", pretrained=False, verbose=False)
        with (files("stlpips_pytorch") / "weights" / "vST0.0" / "alex_shift_tolerant.pth").open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        # The network registers its five heads twice, as `lin0` and as `lins.0`; the file only holds the first names.
        heads = {f"lins.{key.removeprefix('lin')}": value for key, value in state.items() if key.startswith("lin")}
        network.load_state_dict(state | heads)
        super().__init__(network)


_PACKAGES = {"lpips": ("lpips",), "stlpips": ("stlpips_pytorch", "IPython", "torchsummary")}
METRICS: dict[str, Callable[[], PerceptualMetric]] = {Lpips.name: Lpips, ShiftTolerantLpips.name: ShiftTolerantLpips}


def check_perceptual_metric(name: str) -> None:
    """
    Check that the packages of a metric are installed, without loading it.

    Args:
        name (`str`): `"lpips"` or `"stlpips"`.

    Raises:
        PerceptualMetricUnavailable: One is missing.
    """
    missing = [package for package in _PACKAGES[name] if find_spec(package) is None]
    if missing:
        raise PerceptualMetricUnavailable(
            f"the metric '{name}' needs the package {missing[0]}: pip install 'artiagent[{name}]', then run the same "
            "command again. Nothing was made yet"
        )


def load_perceptual_metric(name: str) -> PerceptualMetric:
    """
    Load a perceptual metric by name. A metric that is missing is never replaced by the other.

    Args:
        name (`str`): `"lpips"` or `"stlpips"`.

    Raises:
        ValueError: There is no such metric.
        PerceptualMetricUnavailable: Its package or weights are missing.
    """
    if name not in METRICS:
        raise ValueError(f"`name` must be among {sorted(METRICS)}, got {name!r}")
    return METRICS[name]()


def _alexnet_state() -> dict[str, torch.Tensor]:
    from torchvision.models import AlexNet_Weights

    try:
        return AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        raise PerceptualMetricUnavailable(
            "the metric 'lpips' needs torchvision's AlexNet weights, which are not in torch's cache "
            f"({torch.hub.get_dir()}/checkpoints) and could not be downloaded ({error}). Run once with a network, "
            "copy the cache from another machine, or choose the metric 'stlpips', which works offline but is not LPIPS"
        ) from error


def _as_input(crop: np.ndarray) -> torch.Tensor:
    pixels = torch.as_tensor(crop, dtype=torch.float32).permute(2, 0, 1)[None]  # (1, 3, height, width)
    short_side = min(pixels.shape[-2:])
    if short_side >= MIN_SHORT_SIDE:
        return pixels
    size = [round(side * MIN_SHORT_SIDE / short_side) for side in pixels.shape[-2:]]
    return nn.functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
