"""pytest plugin with fixtures: the tiny model trained to answer our questions, and a real server with it."""

from __future__ import annotations

import pytest


ANSWERS = {
    "verify_duplication": '{"has_artifact": true}',
    "verify_omission": '{"has_artifact": true}',
    "verify_fusion": '{"has_artifact": false}',
    "explain_local": '{"explanation": "There is one part too many.", "label": "one too many"}',
    "explain_global": '{"explanation": "The image has an artifact. It cannot be real."}',
    "describe_clean": '{"description": "A whole thing, as it should be."}',
    "caption": '{"caption": "a thing"}',
    "vocabulary": '{"peripheral": [{"entity": "person", "subentities": ["eye"]}], "intermediate": []}',
}


@pytest.fixture(scope="module")
def online():
    """Allow calls to localhost, although tests are offline otherwise."""
    import huggingface_hub.constants

    patch = pytest.MonkeyPatch()
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    from .tiny_vlms import talking_vlm

    return talking_vlm(tmp_path_factory.mktemp("vlm") / "talking", ANSWERS)


@pytest.fixture(scope="module")
def server(talking, online):
    from .tiny_vlms import serving

    with serving(talking) as url:
        yield url


@pytest.fixture(scope="module")
def proxy(server):
    from .fault_proxy import fault_proxy

    with fault_proxy(server) as proxy:
        yield proxy
