"""What holds for every test: offline, caches of its own, one thread, no progress bars, the same examples each time."""

import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest
from packaging.version import Version


# The libraries read these when imported, so they are set before any test module is.
_home = tempfile.TemporaryDirectory(prefix="artiagent-tests-")
os.environ.update(
    {
        "HF_HOME": _home.name,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        # One thread also makes sums independent of the number of cores.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
)

hypothesis.settings.register_profile("artiagent", derandomize=True, deadline=None)
hypothesis.settings.load_profile("artiagent")

# Long files begin first, because the last file to begin keeps the other process waiting.
LONGEST = (
    "training/test_train_pixel_detector.py",
    "datasets_script/engine/test_run_vlm.py",
    "datasets_script/engine/test_faults.py",
    "datasets_script/engine/test_synthesize.py",
    "datasets_script/engine/test_grow.py",
    "datasets_script/engine/test_run.py",
    "training/test_sft_vlm.py",
    "training/test_preview_vlm.py",
    "training/test_conversations.py",
    "diffusers_artifact/test_loading.py",
    "hub_cards/test_round_trip.py",
    "test_notebooks.py",
    "test_wheel.py",
)

pytest_plugins = ["tests.helpers.vlm_fixtures"]


def pytest_addoption(parser):
    parser.addoption("--full-faults", action="store_true", help="kill runs at 20 random moments in place of 3")


def pytest_collection_modifyitems(items):
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in places), "LONGEST names a file that is gone"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True, scope="session")
def loras_of_folders():
    """Let diffusers before 0.40 find a LoRA in a folder, for which it asks for the file's name in offline mode."""
    if Version(version("diffusers")) < Version("0.40.0.dev0"):
        import diffusers.loaders.lora_base as loading

        loading.HF_HUB_OFFLINE = False
    yield


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Hold the tests of a file to one thread: with more, the last bits of all later images are others."""
    yield
    torch = sys.modules.get("torch")
    assert torch is None or torch.get_num_threads() == 1, "a test of this file changed the process's number of threads"
