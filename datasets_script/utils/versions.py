"""Versions of the packages that pairs depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


RECORDED_PACKAGES = ("artiagent", "torch", "diffusers", "transformers", "datasets", "numpy", "pillow")


def recorded_versions() -> dict[str, str]:
    """Return the versions that a run and an export keep, `"not installed"` for what is not."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
