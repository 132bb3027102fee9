"""What holds for every test: offline, caches of its own, one thread, no progress bars, the same examples each time."""

import os
import tempfile

import hypothesis


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

pytest_plugins = ["tests.helpers.vlm_fixtures"]


def pytest_addoption(parser):
    parser.addoption("--full-faults", action="store_true", help="kill runs at 20 random moments in place of 3")
