"""What tests of runs share: three photos of the demo with annotations, and the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_script.engine.injector import Injector

from ...helpers.engine_runs import SETTINGS, make_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def injector() -> Injector:
    return Injector(SETTINGS.model, SETTINGS.injection, device="cpu")
