"""Metrics of artifact detection: pure functions in `functional`, and modules for `evaluate.load`."""

from __future__ import annotations

from pathlib import Path


_FOLDER = Path(__file__).parent
METRICS = tuple(sorted(path.parent.name for path in _FOLDER.glob("*/app.py")))


def metric_path(name: str) -> str:
    """
    Return the folder of an installed metric, as in `evaluate.load(metric_path("miou"))`.

    Args:
        name (`str`): One of `METRICS`.

    Raises:
        ValueError: `name` is not a metric.
    """
    if name not in METRICS:
        raise ValueError(f"`name` must be one of {', '.join(METRICS)}, got {name!r}")
    return str(_FOLDER / name)
