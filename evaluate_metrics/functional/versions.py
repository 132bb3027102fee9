"""Versions of the packages that a score depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """Versions of installed distributions that a score depends on; without ours where it runs from a checkout."""
    found = {}
    for name in ("artiagent", "numpy", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
