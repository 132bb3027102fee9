"""The table of machine errors is true: each is provoked, and its message is that of the row."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import socket
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import numpy as np
import pytest
import torch
from filelock import FileLock
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from PIL import Image

from datasets_script.agents.curation.perceptual import check_perceptual_metric
from datasets_script.agents.perception import PerceptionSpec
from datasets_script.agents.perception.blaze import Model, ModelFile
from datasets_script.agents.perception.grounding import GroundingDino
from datasets_script.benchmarks.tfrecord import masked_crc32c
from datasets_script.cli.faults import guarded
from datasets_script.cli.main import main
from datasets_script.correction.edit_endpoint import EndpointInpainter
from datasets_script.edits.layer import EDITS_FILE, EditLayer, now
from datasets_script.edits.planned import EditSurvey
from datasets_script.edits.records import Edit, Values
from datasets_script.engine import run as engine_run
from datasets_script.engine.identity import check_continues
from datasets_script.engine.loading import check_loading, load_pipeline, usable_device
from datasets_script.engine.locks import holding_rank
from datasets_script.engine.plan import RunPlan
from datasets_script.engine.preflight import check_before_loading
from datasets_script.engine.run import Run
from datasets_script.engine.settings import LoadSettings, RunSettings
from datasets_script.engine.shards import Shards
from datasets_script.engine.stages import Sample
from datasets_script.engine.workers import WorkerPool
from datasets_script.evaluation.predict import only_writer
from datasets_script.figures import lettering
from datasets_script.figures.style import TEXT_FONT
from datasets_script.pairs.storage import check_shards
from datasets_script.schema.run_record import RunRecord
from datasets_script.utils.faults import STOPPED
from datasets_script.utils.files import write_json
from datasets_script.utils.hub_access import HubModel, check_room, look_up
from datasets_script.utils.photos import open_source
from datasets_script.vlm import EndpointVLM, VLMRequest
from datasets_script.vlm.local import LocalVLM
from diffusers_artifact import ArtifactInjectionPipeline
from evaluate_metrics.functional.css import load_sentence_model
from evaluate_metrics.functional.rouge import rouge
from hub_cards.push import HubUnavailable, _in_one_line

from ...helpers.made_pairs import make_pair, write_run
from ...helpers.paths import ROOT


TABLE = ROOT / "datasets_script" / "machine_errors.md"
_ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \| (–|\d+) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Machine:
    """Where a fault is provoked: an empty folder, and the means to bend the rest."""

    folder: Path
    patch: pytest.MonkeyPatch


Provoke = Callable[[Machine], Any]
"""Function that raises, or returns the text of a warning or a rejection."""

FAULTS: dict[str, Provoke] = {}


def fault(what: str) -> Callable[[Provoke], Provoke]:
    def add(provoke: Provoke) -> Provoke:
        assert what not in FAULTS
        FAULTS[what] = provoke
        return provoke

    return add


def failing_write(number: int) -> Provoke:
    """Return a fault of the disk, raised where a finished file is moved into its place."""

    def provoke(machine: Machine) -> None:
        def fail(source: object, target: object) -> None:
            raise OSError(number, os.strerror(number), str(target))

        machine.patch.setattr(os, "replace", fail)
        write_json(machine.folder / "run.json", {})

    return provoke


for number, what in (
    (errno.ENOSPC, "the disk is full"),
    (errno.EDQUOT, "the quota is used up"),
    (errno.EFBIG, "a file is larger than the file system takes"),
    (errno.EROFS, "the disk was mounted read-only"),
    (errno.EACCES, "a folder may not be written to"),
    (errno.EPERM, "a file is immutable"),
    (errno.EIO, "the disk fails"),
    (errno.EMFILE, "too many files are open"),
    (errno.ESTALE, "the network drive was mounted anew"),
    (errno.ETIMEDOUT, "the network drive does not answer"),
    (errno.ENOLCK, "the file system has no locks"),
    (errno.ENOMEM, "the system has no memory for a file"),
):
    FAULTS[what] = failing_write(number)


@fault("a path leads to a disk that is not connected")
def _(machine: Machine) -> None:
    (machine.folder / "gone" / "run.json").read_text()


@fault("a file may not be read")
def _(machine: Machine) -> None:
    (machine.folder / "annotations.json").touch()
    machine.patch.setattr(os, "access", lambda path, mode: False)
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(machine.folder / "annotations.json"))


@fault("links lead in a circle")
def _(machine: Machine) -> None:
    (machine.folder / "link").symlink_to(machine.folder / "link")
    (machine.folder / "link").read_text()


@fault("a name is too long for the file system")
def _(machine: Machine) -> None:
    (machine.folder / ("x" * 300)).touch()


def plan_of(machine: Machine, out: Path) -> RunPlan:
    return RunPlan(machine.folder, out, RunSettings(), PerceptionSpec("annotations"), device="cpu")


@fault("the output folder lies below a file")
def _(machine: Machine) -> None:
    (machine.folder / "file").touch()
    check_before_loading(plan_of(machine, machine.folder / "file" / "out"))


@fault("the output folder may not be written to")
def _(machine: Machine) -> None:
    machine.patch.setattr(os, "access", lambda path, mode: False)
    check_before_loading(plan_of(machine, machine.folder / "out"))


def made(machine: Machine, name: str = "run") -> Path:
    """Write a complete run of one pair."""
    write_run(machine.folder / name, [make_pair(0)])
    return machine.folder / name


@fault("the folder of an export is full")
def _(machine: Machine) -> int:
    (machine.folder / "coco").mkdir()
    (machine.folder / "coco" / "mine.txt").touch()
    return main(["export", str(made(machine)), str(machine.folder / "coco"), "--format", "coco"])


@fault("the folder of a merge is full")
def _(machine: Machine) -> int:
    runs = [str(made(machine)), str(made(machine, "other"))]
    return main(["merge", *runs, runs[0]])


@fault("weights do not fit on the disk")
def _(machine: Machine) -> None:
    machine.patch.setattr("datasets_script.utils.hub_access.free_bytes", lambda folder: 10**9)
    check_room([HubModel("lab/large", "mit", 24 * 10**9)])


@fault("the GPU has no memory left, where no photo is to blame")
def _(machine: Machine) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")


@fault("the machine has no memory left")
def _(machine: Machine) -> None:
    raise MemoryError


@fault("memory runs out on the CPU")
def _(machine: Machine) -> None:
    torch.empty(2**60)


def run_with(**facts: Any) -> Any:
    """Return the facts of a run that its messages need."""
    settings = SimpleNamespace(max_long_side=1024)
    return SimpleNamespace(synthesizer=SimpleNamespace(settings=settings), **facts)


@fault("memory runs out at some photos")
def _(machine: Machine) -> None:
    Run._report_memory(run_with(out_of_memory=["cat.jpg", "dog.jpg"]))


@fault("the process that started a worker is gone")
def _(machine: Machine) -> None:
    machine.patch.setattr("multiprocessing.parent_process", lambda: SimpleNamespace(is_alive=lambda: False))
    engine_run._check_parent()


class Killed:
    """Process that was killed as soon as it began."""

    exitcode = -9

    def terminate(self) -> None: ...

    def join(self, timeout: float | None = None) -> None: ...

    kill = terminate


@fault("workers are killed again and again")
def _(machine: Machine) -> None:
    machine.patch.setattr("datasets_script.engine.workers._SECONDS_BETWEEN_LOOKS", 0)
    shards = Shards.of_sources(["cat.jpg"], 1)
    WorkerPool(machine.folder, shards, cast(Any, lambda rank, one_by_one: Killed()), 1, False).execute()


@fault("another process works on the same rank")
def _(machine: Machine) -> None:
    (machine.folder / ".locks").mkdir()
    machine.patch.setattr("datasets_script.engine.locks._SECONDS_TO_PROBE", 0)
    with FileLock(machine.folder / ".locks" / "rank-00000-of-00001.lock"), holding_rank(machine.folder, 0, 1):
        pass


@fault("another process works with another number of ranks")
def _(machine: Machine) -> None:
    (machine.folder / ".locks").mkdir()
    with FileLock(machine.folder / ".locks" / "rank-00001-of-00004.lock"), holding_rank(machine.folder, 0, 2):
        pass


@fault("another process writes the same predictions")
def _(machine: Machine) -> None:
    with FileLock(machine.folder / ".p.jsonl.lock"), only_writer(machine.folder / "p.jsonl"):
        pass


@fault("packages were updated since the run began")
def _(machine: Machine) -> None:
    record = RunRecord.read(made(machine))
    now = json.loads(json.dumps(record.identity)) | {"versions": {**record.versions, "torch": "9.9"}}
    check_continues(machine.folder, record, now)


@fault("photos of a run were left out")
def _(machine: Machine) -> None:
    (machine.folder / "a.png").touch()
    Shards.of_sources(["a.png", "b.png"], 1).grown(machine.folder, machine.folder, ["b.png"], RunSettings())


@fault("none of a run's photos is there")
def _(machine: Machine) -> None:
    Shards.of_sources(["a.png"], 1).grown(machine.folder, machine.folder, ["new.png"], RunSettings())


@fault("the list of a run's photos is lost")
def _(machine: Machine) -> None:
    Shards.read(machine.folder, {})


@fault("the record of a run is lost")
def _(machine: Machine) -> int:
    return main(["status", str(machine.folder)])


@fault("the record of a run is damaged")
def _(machine: Machine) -> int:
    (machine.folder / "run.json").write_text('{"settings": ')
    return main(["status", str(machine.folder)])


@fault("a shard is damaged")
def _(machine: Machine) -> None:
    shard = min((made(machine) / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    check_shards([str(shard)])


@fault("a photo vanished while the run was at work")
def _(machine: Machine) -> str:
    return rejection(machine.folder / "cat.jpg")


@fault("a photo was copied in part")
def _(machine: Machine) -> str:
    path = machine.folder / "cat.png"
    Image.effect_noise((256, 256), 90).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    return rejection(path)


def rejection(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        open_source(path)
    return str(caught.value)


@fault("no font has the letters of a name")
def _(machine: Machine) -> str:
    machine.patch.setattr(lettering, "_FALLBACKS", ())
    lettering._warn.cache_clear()
    with recorded("datasets_script.figures.lettering") as messages:
        lettering.lettered("手", TEXT_FONT)
    return messages[0]


@contextmanager
def recorded(logger: str) -> Iterator[list[str]]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(logger).addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger(logger).removeHandler(handler)


@fault("the device is not there")
def _(machine: Machine) -> None:
    machine.patch.setattr(torch, "empty", partial(_no_device))
    usable_device("cuda:7")


def _no_device(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("CUDA error: invalid device ordinal")


@fault("a download of weights was cut off")
def _(machine: Machine) -> None:
    from diffusers_artifact import EMBEDDED_MODEL

    copy = machine.folder / "model"
    shutil.copytree(EMBEDDED_MODEL, copy)
    weights = max(copy.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:1000])
    load_pipeline(ArtifactInjectionPipeline, str(copy), None, LoadSettings(), "cpu")


@fault("a model is not in the cache and the Hub cannot be reached")
def _(machine: Machine) -> None:
    load_pipeline(ArtifactInjectionPipeline, "lab/not-cached", None, LoadSettings(), "cpu")


@fault("a VLM is not in the cache and the Hub cannot be reached")
def _(machine: Machine) -> None:
    LocalVLM("lab/not-cached", device="cpu")


@fault("a detector is not in the cache and the Hub cannot be reached")
def _(machine: Machine) -> None:
    GroundingDino("lab/not-cached", device="cpu")


def push_with(status: int | None, words: str = "as you wished") -> Provoke:
    def provoke(machine: Machine) -> None:
        payload: Any = SimpleNamespace(repo_id="me/pairs")
        with _in_one_line(payload):
            if status is None:
                raise httpx2.ConnectError("[Errno 111] Connection refused")
            request = httpx2.Request("POST", "https://huggingface.co/api")
            raise HfHubHTTPError(words, response=httpx2.Response(status, request=request))

    return provoke


FAULTS["the token is refused in a push"] = push_with(401)
FAULTS["the token may not write"] = push_with(403)
FAULTS["someone else pushed meanwhile"] = push_with(412)
FAULTS["the Hub fails in a push"] = push_with(503)


@fault("there is no token for a push")
def _(machine: Machine) -> int:
    machine.patch.setattr("huggingface_hub.get_token", lambda: None)
    machine.patch.setattr("datasets_script.cli.push._payload", lambda args: None)
    machine.patch.setattr("datasets_script.cli.push._listing", lambda payload, private: "")
    return main(["push", "dataset", str(machine.folder), "me/pairs"])


def asked(machine: Machine, respond: Callable[[httpx2.Request], httpx2.Response]) -> None:
    """Ask a VLM at an endpoint whose server answers by `respond`."""
    machine.patch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    client = httpx2.AsyncClient
    machine.patch.setattr(
        httpx2, "AsyncClient", lambda **options: client(transport=httpx2.MockTransport(respond), **options)
    )
    vlm = EndpointVLM("qwen", "http://vlm-host:8000/v1", max_retries=1, base_delay=0.0, timeout=5.0)
    vlm.ask([VLMRequest("caption", "1", "What is this?", (), None, max_new_tokens=8)])


def refused(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("All connection attempts failed")


def silent(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("")


FAULTS["the endpoint cannot be reached"] = lambda machine: asked(machine, refused)
FAULTS["the endpoint does not answer in time"] = lambda machine: asked(machine, silent)
for status, what in (
    (500, "the endpoint fails"),
    (429, "the endpoint has too much to do"),
    (401, "the endpoint refuses the key"),
    (404, "the endpoint does not have the model"),
):
    FAULTS[what] = partial(lambda machine, code: asked(machine, lambda request: httpx2.Response(code)), code=status)


@fault("the endpoint is asked offline")
def _(machine: Machine) -> None:
    EndpointVLM("qwen", "http://vlm-host:8000/v1").ask(
        [VLMRequest("caption", "1", "What is this?", (), None, max_new_tokens=8)]
    )


@fault("the extra people is missing")
def _(machine: Machine) -> None:
    machine.patch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    Model(ModelFile("", ""))


@fault("the extra quantization is missing")
def _(machine: Machine) -> None:
    machine.patch.setitem(sys.modules, "torchao.quantization", None)
    check_loading(LoadSettings(quantization="float8"), "none", "cpu")


@fault("the extra css is missing")
def _(machine: Machine) -> None:
    machine.patch.setitem(sys.modules, "sentence_transformers", None)
    load_sentence_model()


@fault("the extra evaluate is missing")
def _(machine: Machine) -> None:
    # The module itself too: once imported by another test, it is found without its package.
    for name in ("rouge_score", "rouge_score.rouge_scorer"):
        machine.patch.setitem(sys.modules, name, None)
    rouge(["a hand"], ["a hand"])


@fault("the extra richhf is missing")
def _(machine: Machine) -> None:
    machine.patch.setitem(sys.modules, "google_crc32c", None)
    masked_crc32c(b"")


@fault("the extra stlpips is missing")
def _(machine: Machine) -> None:
    machine.patch.setattr("datasets_script.agents.curation.perceptual.find_spec", lambda name: None)
    check_perceptual_metric("stlpips")


@fault("the extra heic is missing")
def _(machine: Machine) -> str:
    from datasets_script.utils.photos import _readable_formats

    machine.patch.setitem(sys.modules, "pillow_heif", None)
    machine.patch.delitem(Image.OPEN, "HEIF", raising=False)
    _readable_formats.cache_clear()
    (machine.folder / "a.heic").write_bytes(bytes.fromhex("00000018") + b"ftypheic" + bytes(400))
    try:
        return rejection(machine.folder / "a.heic")
    finally:
        _readable_formats.cache_clear()


@fault("the user stops the command")
def _(machine: Machine) -> None:
    raise KeyboardInterrupt


@fault("the port is taken")
def _(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        socket.create_server(first.getsockname())


@fault("photos fail one after the other")
def _(machine: Machine) -> None:
    sample = Sample("cat.jpg").rejected("perceive", "unexpected RuntimeError: CUDA error", traceback="…")
    facts = run_with(failures_in_a_row=19, failed_in_shard=False, shards_in_doubt=[], out_of_memory=[])
    log: Any = SimpleNamespace(write=lambda *_, **__: None, path=machine.folder / "logs" / "rank-00000.jsonl")
    Run._watch_failures(facts, sample, log)


@fault("a model is gated")
def _(machine: Machine) -> None:
    def gated(*_: Any, **__: Any) -> None:
        request = httpx2.Request("GET", "https://huggingface.co/api")
        raise GatedRepoError("403", response=httpx2.Response(403, request=request))

    machine.patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    machine.patch.setattr("huggingface_hub.HfApi.model_info", gated)
    look_up("model", "black-forest-labs/FLUX.1-dev")


def an_edit(folder: Path, more: str) -> EditLayer:
    """Make a layer of one edit and something else."""
    found, left = Values(verdict=""), Values(verdict="accept")
    EditLayer(folder).record(Edit("a", "", "accept", "ann", now(), "d", found, left))
    with (folder / EDITS_FILE).open("a") as file:
        file.write(more)
    return EditLayer(folder)


@fault("a line of a layer of edits is damaged")
def _(machine: Machine) -> None:
    an_edit(machine.folder, "damaged\n")


@fault("a process was killed while it wrote an edit")
def _(machine: Machine) -> str:
    survey = EditSurvey([an_edit(machine.folder, '{"sample": "b", "spl')])
    survey.see(("", "a"), lambda: "d")
    return survey.planned().report.as_text().splitlines()[-1]


def edited(machine: Machine, respond: Callable[[httpx2.Request], httpx2.Response]) -> None:
    """Ask an image-editing model at an endpoint whose server answers by `respond`."""
    machine.patch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    client = httpx2.Client
    machine.patch.setattr(
        httpx2, "Client", lambda **options: client(transport=httpx2.MockTransport(respond), **options)
    )
    draw = EndpointInpainter("editor", "http://edit-host:8000/v1", max_retries=1, base_delay=0.0)
    draw(Image.new("RGB", (8, 8)), np.ones((8, 8), dtype=bool), "a cat", 1.0, [0])


FAULTS["the editing endpoint cannot be reached"] = lambda machine: edited(machine, refused)
for code, what in (
    (500, "the editing endpoint fails"),
    (401, "the editing endpoint refuses the key"),
    (404, "the editing endpoint does not edit"),
):
    FAULTS[what] = partial(
        lambda machine, code: edited(machine, lambda request: httpx2.Response(code, text="no")), code=code
    )
FAULTS["the editing endpoint answers without a picture"] = lambda machine: edited(
    machine, lambda request: httpx2.Response(200, text='{"data": []}')
)


@fault("the editing endpoint is asked offline")
def _(machine: Machine) -> None:
    draw = EndpointInpainter("editor", "http://edit-host:8000/v1")
    draw(Image.new("RGB", (8, 8)), np.ones((8, 8), dtype=bool), "a cat", 1.0, [0])


def provoked(what: str, machine: Machine, capsys: pytest.CaptureFixture[str]) -> tuple[str, int | None]:
    """Return what the user reads, and the exit status; none for warnings and rejections."""
    told: list[str] = []

    def work() -> int:
        try:
            outcome = FAULTS[what](machine)
        except HubUnavailable as error:  # which `artiagent push` prints itself
            print(f"artiagent: {error}", file=sys.stderr)
            return STOPPED
        if isinstance(outcome, str):
            told.append(outcome)
        return outcome if isinstance(outcome, int) else 0

    capsys.readouterr()
    kept = "finished shards are kept; run the same command again to continue."
    status = guarded(Namespace(run=lambda args: work(), interrupted=kept))
    # The restarts of workers are told before.
    text = told[0] if told else capsys.readouterr().err.rpartition("artiagent: ")[2]
    return " ".join(text.replace(str(machine.folder), "…").split()), None if told else status


@cache
def table() -> dict[str, tuple[str, int | None]]:
    """Read message and exit status of each row, by what happens."""
    rows = _ROW.findall(TABLE.read_text(encoding="utf-8"))
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    return {what: (message, None if status == "–" else int(status)) for _, what, message, status in rows}


def test_the_table_has_at_least_fifty_rows_and_each_is_provoked():
    assert len(table()) >= 50 and list(table()) == list(FAULTS)


@pytest.mark.parametrize("what", FAULTS)
def test_the_message_is_that_of_the_table(what, tmp_path, monkeypatch, capsys):
    message, status = table()[what]
    told, ended = provoked(what, Machine(tmp_path, monkeypatch), capsys)
    pattern = ".*".join(map(re.escape, message.replace("\\|", "|").split("…")))
    assert re.fullmatch(pattern, told), told
    assert ended == status


# What is kept, and what to do. Warnings and rejections of single photos say by themselves that the rest goes on.
_KEPT = re.compile(
    r"kept|keeps|Nothing (that was finished before is lost|was \w+)|nothing was changed|as (it was|they were)|"
    r"which skips large files"
)
_NEXT = re.compile(
    r"again|rerun|choose|free |set |give |wait|unset|restore|check|stop |log in|create|repeat|remove|install|continues"
)


@pytest.mark.parametrize("what", FAULTS)
def test_the_table_says_what_is_kept_and_what_to_do(what):
    message, status = table()[what]
    assert _NEXT.search(message), message
    assert status is None or _KEPT.search(message), message
