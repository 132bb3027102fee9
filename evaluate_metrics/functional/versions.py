"""Versions of the packages that a score, or what is scored, depends on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


RECORDED_PACKAGES = ("artiagent", "torch", "diffusers", "transformers", "datasets", "numpy", "pillow")
"""What pairs depend on, in the order of their record."""


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of `artiagent`, `numpy` and further distributions that a score depends on, if installed."""
    found = {name: _version(name) for name in ("artiagent", "numpy", *packages)}
    return {name: number for name, number in found.items() if number is not None}


def recorded_versions(packages: Sequence[str] = RECORDED_PACKAGES) -> dict[str, str]:
    """Return the version of each of `packages`, `"not installed"` for those that are not there."""
    return {name: _version(name) or "not installed" for name in packages}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
