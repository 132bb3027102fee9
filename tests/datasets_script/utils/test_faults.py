"""Paths that cannot be read or written, and models that are not there: one line, whatever the command was doing."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from datasets_script.utils import faults
from datasets_script.utils.files import check_model_name, resolve_revision, write_json


def run(work, capsys) -> tuple[int, str]:
    status = faults.guarded(work)
    return status, capsys.readouterr().err


def fail(number: int, path: object):
    raise OSError(number, os.strerror(number), str(path))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_one_line(number, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.replace", lambda source, target: fail(number, target))
    status, told = run(lambda: write_json(tmp_path / "run.json", {}), capsys)
    assert status == faults.MISTAKE and told.count("\n") == 1
    assert told.startswith(f"artiagent: '{tmp_path / 'run.json'}' cannot be written: {os.strerror(number)}. Nothing")
    assert "run the same command again" in told and not list(tmp_path.iterdir())


def test_a_file_that_may_not_be_read_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "run.json").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    status, told = run(lambda: fail(errno.EACCES, tmp_path / "run.json"), capsys)
    assert status == faults.MISTAKE and f"'{tmp_path / 'run.json'}' cannot be read: Permission denied." in told


def test_paths_that_lead_nowhere_are_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    for work, reason in (
        (lambda: (tmp_path / "none").read_text(), "check the path"),
        (lambda: (tmp_path / "file" / "out").mkdir(parents=True), "does not lead through a file"),
        (lambda: tmp_path.read_text(), "choose the path of a file"),
        (lambda: (tmp_path / ("x" * 300)).touch(), "choose a shorter path"),
    ):
        status, told = run(work, capsys)
        assert status == faults.MISTAKE and reason in told and told.count("\n") == 1


@pytest.mark.parametrize("path", [os.path.join(sys.prefix, "lib", "gone.py"), faults.__file__ + ".json"])
def test_a_file_that_the_software_lacks_is_a_bug(path):
    with pytest.raises(FileNotFoundError):
        faults.guarded(lambda: fail(errno.ENOENT, path))


def test_an_error_without_a_path_is_a_bug():
    for error in (
        FileNotFoundError("gone"),
        ConnectionError("gone"),
        OSError(errno.EINVAL, "gone", "/data"),
        RuntimeError("gone"),
    ):

        def work(error=error):
            raise error

        with pytest.raises(type(error)):
            faults.guarded(work)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("https://huggingface.co/org/model/tree/main", "it is a URL; give the id 'org/model'"),
        ("https://example.com/org/model", "it is a URL; give a folder or the id"),
        ("/none/model", "there is no folder '"),
        ("../none", "there is no folder '"),
        ("runs/mine/final", "there is no folder '"),
        (__file__, "it is a file; give the folder"),
    ],
)
def test_what_cannot_be_a_model_is_told_before_the_hub_is_asked(model, message):
    for refuse in (check_model_name, lambda name: resolve_revision(name, None)):
        with pytest.raises(OSError, match=message):
            refuse(model)
    check_model_name("org/model")
    check_model_name("gpt2")
