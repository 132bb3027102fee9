"""Commands that open a folder of images of which some cannot be used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from PIL import Image

from datasets_script.agents.perception import PerceptionAgent
from datasets_script.cli.detect import find_inputs
from datasets_script.cli.show import perceived
from datasets_script.utils.errors import UserError
from datasets_script.utils.photos import list_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a good photo, and a GIF with half a second frame, at which Pillow raises an IndexError."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (96, 80)).save(folder / "good.png")
    Image.new("RGB", (96, 80)).save(folder / "bad.gif")
    data = (folder / "bad.gif").read_bytes()
    (folder / "bad.gif").write_bytes(data[:-1] + bytes.fromhex("2C 0000 0000 6400 6400 00"))
    return folder


def test_show_names_a_broken_photo_and_passes_it_over(folder, capsys):
    agent = SimpleNamespace(perceive_batch=lambda images, names: list(names))
    assert [name for name, *_ in perceived(cast(PerceptionAgent, agent), folder, list_sources(folder))] == ["good.png"]
    assert capsys.readouterr().err.startswith("bad.gif: broken or truncated image")


def test_detect_names_a_broken_photo_of_a_folder_and_passes_it_over(folder, capsys):
    inputs = find_inputs([folder], folder / "out")
    assert [item.path.name for item in inputs] == ["good.png"]
    assert capsys.readouterr().err.startswith(f"passed over: {folder / 'bad.gif'}: broken or truncated image")


def test_detect_refuses_a_broken_photo_that_was_asked_for_and_a_folder_of_nothing_else(folder):
    with pytest.raises(UserError, match="got 1 of 3 that cannot:\n.*bad.gif: broken"):
        find_inputs([folder / "bad.gif", folder], folder / "out")
    (folder / "good.png").unlink()
    with pytest.raises(UserError, match="got 1 of 1 that cannot:\n.*bad.gif: broken"):
        find_inputs([folder], folder / "out")


def test_detect_names_heic_and_linked_folders_that_it_does_not_follow(folder, capsys):
    (folder / "phone.heic").write_bytes(bytes.fromhex("00000018") + b"ftypheic" + bytes(400))
    (folder / "loop").symlink_to(folder)
    (folder / "notes.txt").touch()
    assert [item.path.name for item in find_inputs([folder], folder / "out")] == ["good.png"]
    named = capsys.readouterr().err
    assert "phone.heic" in named and "loop: a link to a folder" in named and "notes.txt" not in named
