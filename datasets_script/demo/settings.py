"""The demo: photos from installed packages, annotated by hand, through the whole of the synthesis."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..engine.settings import RunSettings
from .photos import ANNOTATIONS, write_demo_photos


DEMO_OUT = Path("runs/demo")

# One artifact an image is the easiest to look at, small shards lose little on Ctrl-C, and so few photos need the
# tighter balance.
DEMO_SETTINGS = RunSettings(pairs_per_image=3, max_artifacts=1, shard_size=4, balance="shard")


def prepare_demo(photos: Path) -> list[str]:
    """Writes the demo's photos and their annotations; returns the names of the photos, sorted."""
    names = sorted(path.name for path in write_demo_photos(photos))
    shutil.copyfile(ANNOTATIONS, photos / "annotations.json")
    return names
