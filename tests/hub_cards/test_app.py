"""The app as a Space: what is sent, what is refused, and that the files serve the app by themselves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import SpaceCard

from datasets_script.utils.errors import UserError
from hub_cards.kinds.app import SDK_VERSION, app_payload, installed_app
from hub_cards.payload import missing_mark

from ..helpers.local_hub import LocalHub
from ..helpers.paths import ROOT
from ..test_packaging import constraints, core_requirements, extras
from .test_push import reachable_hub, run_command


# No package of this distribution that was not sent can be imported, installed or not.
ALONE = """
import runpy, sys

class NotSent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("hub_cards", "training"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotSent())
sys.path.insert(0, ".")
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    with reachable_hub() as hub:
        assert run_command("app", "tester/artifacts") == 0
        yield hub


def test_a_space_is_the_code_its_models_and_a_program(hub: LocalHub) -> None:
    files = hub.files("space", "tester/artifacts")
    assert {path.partition("/")[0] for path in files} - {"artiagent-0.1.0.dist-info"} == {
        *("README.md", "app.py", "requirements.txt", "datasets_script", "diffusers_artifact", "evaluate_metrics")
    }
    for path in (
        "datasets_script/app/make_tab.py",
        "datasets_script/app/viewer.js",
        "datasets_script/app/examples/cat.jpg",
        "datasets_script/detection/pixel/embedded/model.safetensors",
        "diffusers_artifact/embedded/transformer/diffusion_pytorch_model.safetensors",
    ):
        assert files[path] == (ROOT / path).read_bytes()
    assert not [path for path in files if "__pycache__" in path or "notebooks" in path]
    program = files["app.py"].decode()
    compile(program, "app.py", "exec")
    assert "data=None,\n" in program and "queue=None,\n" in program and 'host="0.0.0.0"' in program


def test_it_installs_what_the_package_needs_for_the_app(hub: LocalHub) -> None:
    listed = hub.files("space", "tester/artifacts")["requirements.txt"].decode().splitlines()
    needed = [*core_requirements(), *extras()["app"], *extras()["demo"]]
    assert listed == [str(one) for one in needed if one.name != "artiagent"]


def test_its_card_is_one_of_a_space(hub: LocalHub) -> None:
    card = SpaceCard(hub.files("space", "tester/artifacts")["README.md"].decode())
    metadata: dict[str, Any] = card.data.to_dict()
    assert metadata["sdk"] == "gradio" and metadata["app_file"] == "app.py" and metadata["license"] == "apache-2.0"
    (pinned,) = constraints()["gradio"]
    assert metadata["sdk_version"] == SDK_VERSION == pinned.version
    assert metadata["python_version"] == "3.11" and metadata["title"] and metadata["emoji"]
    assert len(metadata["short_description"]) <= 60  # as the Hub demands
    assert "it keeps nothing" in card.text and "**Annotate**" not in card.text


def test_the_card_tells_who_gets_in_and_whose_models_are_used() -> None:
    given = {"data": "/data/kept", "queue": "/data/queue", "model": "none", "detector": "me/detector"}
    payload = app_payload(installed_app(None), "me/annotate", **given)
    assert missing_mark(payload.kind, payload.repo_id, [file.path for file in payload.files]) is None
    card = SpaceCard(payload.card)
    assert card.data.to_dict()["models"] == ["me/detector"]
    assert "**Annotate**" in card.text and "**Make**" not in card.text and "it keeps nothing" not in card.text
    assert "`/data/queue`" in card.text and "Those of me/detector apply" in card.text
    program = next(file.read().decode() for file in payload.files if file.path == "app.py")
    assert 'data=Path("/data/kept")' in program and "model=''" in program and "detector='me/detector'" in program


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "/data/kept"}, "--data must come with --queue, got '/data/kept' alone"),
        ({"queue": "bench"}, "--queue must be an absolute path in the Space, such as /data/queue, got 'bench'"),
        ({"detector": "runs/pixel/best"}, "--detector must be 'embedded', 'none' or the id of a model on the Hub"),
        ({"repairer": "none"}, "--repairer must be 'embedded' or the id of a model on the Hub"),
        ({"model": "none", "detector": "none"}, "must not both be 'none' without --queue"),
    ],
)
def test_what_a_space_cannot_do_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        app_payload(installed_app(None), "me/artifacts", **given)


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="PATH must hold the folders diffusers_artifact, .* without diffusers_artifact"
    ):
        app_payload(tmp_path, "me/artifacts")


def write(files: dict[str, bytes], folder: Path) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(folder: Path, log: Path, port: int) -> subprocess.Popen[bytes]:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "GRADIO_SERVER_PORT": str(port),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-c", ALONE],
        cwd=folder,
        env=environment,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )


def test_its_files_serve_the_app_and_keep_nothing(hub: LocalHub, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    folder, log, port = tmp_path / "space", tmp_path / "log", free_port()
    files = hub.files("space", "tester/artifacts")
    write(files, folder)
    process = start(folder, log, port)
    try:
        end = time.monotonic() + 300
        while "The app is at" not in log.read_text():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        tabs = [one["props"]["label"] for one in client.config["components"] if one["type"] == "tabitem"]
        assert tabs == ["Make", "Detect"]
        (keep,) = (one for one in client.config["components"] if one["props"].get("elem_id") == "make-keep")
        assert keep["props"]["visible"] is False
        client.predict("cat.png", api_name="/take_demo")
        status, *_ = client.predict(
            painting=None, typed="96, 64, 144, 112", tool="remove", entity="cat", part="ear", api_name="/make"
        )
        assert "pixels changed visibly" in status
        with pytest.raises(AppError, match="this app keeps no pairs"):
            client.predict(api_name="/keep")
    finally:
        process.terminate()
        process.wait(30)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == set(files)


def test_without_its_queue_it_ends_with_one_line() -> None:
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    payload = app_payload(installed_app(None), "me/annotate", queue="/data/none", model="none", detector="none")
    program = next(file.read() for file in payload.files if file.path == "app.py")
    with pytest.raises(SystemExit, match="^artiagent: '/data/none' must hold an annotation queue"):
        exec(compile(program, "app.py", "exec"), {"__name__": "__main__"})
