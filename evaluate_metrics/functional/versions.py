"""Versions of the packages that scores and pairs depend on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


RECORDED_PACKAGES = ("artiagent", "torch", "diffusers", "transformers", "datasets", "numpy", "pillow")
"""Packages that pairs depend on, in the order in which they are recorded."""


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of `artiagent`, `numpy` and the given packages, leaving out those not installed."""
    found = {name: _version(name) for name in ("artiagent", "numpy", *packages)}
    return {name: number for name, number in found.items() if number is not None}


def recorded_versions(packages: Sequence[str] = RECORDED_PACKAGES) -> dict[str, str]:
    """Return the version of each package, or `"not installed"`."""
    return {name: _version(name) or "not installed" for name in packages}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
