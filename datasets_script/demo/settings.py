"""Settings and source folder of `artiagent demo`."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..engine.settings import RunSettings
from .photos import ANNOTATIONS, write_demo_photos


DEMO_OUT = Path("runs/demo")

# One artifact per image is easiest to inspect, small shards lose little on Ctrl-C, and so few photos need the tighter
# balance.
DEMO_SETTINGS = RunSettings(pairs_per_image=3, max_artifacts=1, shard_size=4, balance="shard")


def prepare_demo(photos: Path) -> list[str]:
    """Write the demo's photos and annotations into the folder `photos`; return the photos' names, sorted."""
    names = sorted(path.name for path in write_demo_photos(photos))
    shutil.copyfile(ANNOTATIONS, photos / "annotations.json")
    return names
