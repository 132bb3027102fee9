"""The tiny model that has learned to answer our questions, and a real server with it, for test modules to import."""

from __future__ import annotations

import huggingface_hub.constants
import pytest

from .fault_proxy import fault_proxy
from .tiny_vlms import serving, talking_vlm


ANSWERS = {
    "verify_duplication": '{"has_artifact": true}',
    "verify_omission": '{"has_artifact": true}',
    "verify_fusion": '{"has_artifact": false}',
    "explain_local": '{"explanation": "There is one part too many.", "label": "one too many"}',
    "explain_global": '{"explanation": "The picture has a flaw. It cannot be real."}',
    "describe_clean": '{"description": "A whole thing, as it should be."}',
    "caption": '{"caption": "a thing"}',
    "vocabulary": '{"peripheral": [{"entity": "person", "subentities": ["eye"]}], "intermediate": []}',
}


@pytest.fixture(scope="module")
def online():
    """Localhost may be called, although the tests are offline in all else."""
    patch = pytest.MonkeyPatch()
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    return talking_vlm(tmp_path_factory.mktemp("vlm") / "talking", ANSWERS)


@pytest.fixture(scope="module")
def server(talking, online):
    with serving(talking) as url:
        yield url


@pytest.fixture(scope="module")
def proxy(server):
    with fault_proxy(server) as proxy:
        yield proxy
