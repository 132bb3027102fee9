"""What tests of runs share: three photos of the demo with annotations, and a small model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datasets_script.engine.chains import CHAINS

from ...helpers.engine_runs import SETTINGS, SMALL, SmallInjector, make_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def injector() -> SmallInjector:
    return SmallInjector(SETTINGS.model, SETTINGS.injection, device="cpu")


@pytest.fixture(scope="module")
def small_models() -> Iterator[None]:
    """Let plans, commands and functions load small models too, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for settings, model in SMALL.items():
            patch.setitem(CHAINS, settings, replace(CHAINS[settings], model=model))
        yield
