"""The tab Annotate, through the app that is served: classify, mark, decide, export; and who is let in."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("gradio", reason="the extra `app` is not installed")
pytest.importorskip("gradio_image_annotation", reason="the extra `app` is not installed")

from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from datasets_script.annotation.exports import read_drafts  # noqa: E402
from datasets_script.annotation.queue import AnnotationQueue  # noqa: E402
from datasets_script.annotation.records import Mark, Marking  # noqa: E402
from datasets_script.app.colors import type_colors  # noqa: E402
from datasets_script.app.main import AppSettings, launch  # noqa: E402
from datasets_script.app.painted import painting, shown_size  # noqa: E402
from datasets_script.cli.app import add_arguments, prepare_queue  # noqa: E402
from datasets_script.cli.main import main  # noqa: E402
from datasets_script.cli.parser import Parser  # noqa: E402
from datasets_script.utils.errors import ArgumentError, UserError  # noqa: E402
from diffusers_artifact.mapping import ARTIFACT_TYPES  # noqa: E402

from ...helpers.annotators import SIZE, a_marking, make_queue  # noqa: E402


HEADERS = ["region", "type", "caption"]


@pytest.fixture
def queue(tmp_path: Path) -> AnnotationQueue:
    return make_queue(tmp_path, 3)


@pytest.fixture
def client(queue: AnnotationQueue, tmp_path: Path) -> Iterator[Client]:
    app, url = launch(AppSettings(tmp_path / "kept", model="", detector="", queue=queue.folder), block=False)
    yield Client(url, verbose=False)
    app.close()


def start(client: Client, phase: str, name: str = "ann", page: str = "page") -> Any:
    return client.predict(name, phase, page, api_name="/start")


def test_a_benchmark_is_annotated(client: Client, queue: AnnotationQueue, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="Type your name first"):
        start(client, "classify", name=" ")
    assert start(client, "classify")[0].startswith("**0000.png**")
    assert client.predict(api_name="/answer_yes")[0].startswith("**0001.png**")
    other = Client(client.src, verbose=False)
    assert start(other, "classify", "ben", "other page")[0].startswith("**0002.png**")
    assert "Nothing is left" in client.predict(api_name="/answer_no")[0]
    assert "Nothing is left" in other.predict(api_name="/answer_unsure")[0]

    mask = np.zeros(SIZE[::-1], bool)
    mask[4:9, 6:20] = mask[15:20, 2:8] = True
    layer = tmp_path / "layer.png"
    color = type_colors(ARTIFACT_TYPES)[ARTIFACT_TYPES.index("omission")]
    Image.fromarray(painting(mask, shown_size(SIZE), color)).save(layer)
    painted = {"background": None, "layers": [handle_file(str(layer))], "composite": None}
    box = {"xmin": 1, "ymin": 2, "xmax": 9, "ymax": 12, "label": "fusion", "color": "rgb(1, 2, 3)"}
    drawn = {"image": handle_file(str(queue.folder / queue.items()[0].file)), "boxes": [box], "orientation": 0}
    nothing = {"headers": HEADERS, "data": [], "metadata": None}

    assert start(client, "mark")[0].startswith("**0000.png**")
    empty = {**drawn, "boxes": []}
    with pytest.raises(AppError, match="must have a marked region"):
        client.predict(empty, {**painted, "layers": []}, nothing, "", api_name="/submit")
    table = client.predict(drawn, painted, nothing, api_name="/list_regions")
    assert [row[:2] for row in table["data"]] == [
        ["box 1, 2, 9, 12", "fusion"],
        ["painted 6, 4, 20, 9", "omission"],
        ["painted 2, 15, 8, 20", "omission"],
    ]
    table["data"][1][2] = "it is gone"
    client.predict(drawn, painted, table, " Two flaws. ", api_name="/submit")
    (answer,) = queue.answers("mark")
    assert isinstance(answer.content, Marking) and answer.content.explanation == "Two flaws."
    first, second, third = answer.content.marks
    assert first == Mark("fusion", (1, 2, 9, 12)) and second.caption == "it is gone"
    masks = [np.asarray(mark.mask(SIZE)) for mark in (second, third)]
    assert np.array_equal(masks[0] | masks[1], mask)

    assert "Answers so far: ben: unsure" in start(client, "decide", "ada")[0]
    client.predict(api_name="/answer_no")
    assert "1 with artifacts, 2 without, 0 for an admin, 0 to classify" in client.predict(api_name="/progress")
    assert client.predict("coco", "ada", api_name="/export").startswith("3 images are in")
    (export,) = (queue.folder / "exports").iterdir()
    assert read_drafts(export)["0000.png"] == answer.content


def test_a_page_goes_on_with_its_item_on_another_server(queue: AnnotationQueue, tmp_path: Path) -> None:
    settings = AppSettings(tmp_path / "kept", model="", detector="", queue=queue.folder)
    app, url = launch(settings, block=False)
    assert start(Client(url, verbose=False), "classify")[0].startswith("**0000.png**")
    app.close()
    app, url = launch(settings, block=False)
    try:
        client = Client(url, verbose=False)
        with pytest.raises(AppError, match="Press Start first"):
            client.predict(api_name="/answer_yes")
        assert start(client, "classify")[0].startswith("**0000.png**")
        assert client.predict(api_name="/answer_yes")[0].startswith("**0001.png**")
    finally:
        app.close()


def test_drafts_are_what_marking_begins_with(client: Client, queue: AnnotationQueue) -> None:
    mask = np.zeros(SIZE[::-1], bool)
    mask[3:9, 3:9] = True
    draft = Marking((*a_marking().marks, Mark.of_mask("fusion", mask, "both")), "A model's.")
    queue.add([], drafts={"0000.png": draft})
    start(client, "classify")
    client.predict(api_name="/answer_yes")
    shown = start(client, "mark")
    boxes, editor, table, explanation = shown[2:6]
    assert [box["label"] for box in boxes["boxes"]] == ["duplication"] and explanation == "A model's."
    assert [row[2] for row in table["data"]] == ["an extra one", "both"]
    drawn = {**boxes, "image": handle_file(boxes["image"])}
    painted = {"background": None, "layers": [handle_file(path) for path in editor["layers"]], "composite": None}
    client.predict(drawn, painted, table, explanation, api_name="/submit")
    assert queue.answers("mark")[0].content == draft


def test_captions_stay_with_their_regions(client: Client, queue: AnnotationQueue) -> None:
    areas = np.zeros(SIZE[::-1], bool)
    areas[17:20, 3:9] = areas[17:20, 12:20] = True
    box = (10.25, 5.5, 20.75, 15.5)
    marks = (Mark("fusion", box, "grown"), Mark("omission", box, "gone"), Mark.of_mask("fusion", areas, "two areas"))
    queue.add([], drafts={"0000.png": Marking(marks), "0001.png": Marking(marks[:1])})
    start(client, "classify")
    for _ in range(2):
        client.predict(api_name="/answer_yes")

    def begin() -> tuple[Any, Any, Any]:
        boxes, editor, table = start(client, "mark")[2:5]
        layers = [handle_file(path) for path in editor["layers"]]
        drawn = {**boxes, "image": handle_file(boxes["image"])}
        return drawn, {"background": None, "layers": layers, "composite": None}, table

    client.predict(*begin(), "", api_name="/submit")  # untouched
    content = queue.answers("mark")[0].content
    assert isinstance(content, Marking)
    assert [(mark.type, mark.box, mark.caption) for mark in content.marks] == [
        ("fusion", (10, 6, 21, 16), "grown"),
        ("omission", (10, 6, 21, 16), "gone"),
        ("fusion", (3, 17, 9, 20), "two areas"),
        ("fusion", (12, 17, 20, 20), "two areas"),
    ]

    drawn, painted, table = begin()
    drawn["boxes"][0]["xmin"] -= 2  # moved after it was captioned
    with pytest.raises(AppError, match="captions without a region: “grown”. Press “List the regions” again"):
        client.predict(drawn, painted, table, "", api_name="/submit")
    table = client.predict(drawn, painted, table, api_name="/list_regions")
    assert table["data"] == [["box 8, 6, 21, 16", "fusion", "grown"]]
    drawn["boxes"] = [{"xmin": 0, "ymin": 0, "xmax": 5, "ymax": 5, "label": "", "color": "rgb(1, 2, 3)"}]
    with pytest.raises(AppError, match="captions without a region: “grown”"):
        client.predict(drawn, painted, table, "", api_name="/submit")
    table = client.predict(drawn, painted, table, api_name="/list_regions")
    assert table["data"] == [["box 0, 0, 5, 5", "", ""]], "another place, and no type is guessed"
    with pytest.raises(AppError, match="region 1 must be of type duplication.*got ''; choose one"):
        client.predict(drawn, painted, table, "", api_name="/submit")
    drawn["boxes"][0]["label"], table["data"][0][2] = "omission", "a hole"
    client.predict(drawn, painted, table, "", api_name="/submit")
    assert queue.answers("mark")[1].content == Marking((Mark("omission", (0, 0, 5, 5), "a hole"),))


def test_names_and_tokens_protect_the_app(queue: AnnotationQueue, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with pytest.raises(UserError, match="must have annotators for others to reach the app"):
        launch(AppSettings(kept, model="", detector="", queue=queue.folder, host="0.0.0.0"), block=False)
    token = queue.add_person("ann")
    app, url = launch(AppSettings(kept, model="", detector="", queue=queue.folder), block=False)
    try:
        with pytest.raises(Exception, match="[Uu]nauthorized|[Ll]ogin|auth|401|credentials"):
            Client(url, verbose=False, auth=("ann", "wrong"))
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}config")
        client = Client(url, verbose=False, auth=("ann", token))
        assert start(client, "classify", name="somebody else")[0].startswith("**0000.png**")
        client.predict(api_name="/answer_yes")
        assert queue.answers()[0].annotator == "ann", "the name is that of the login"
        for phase in (lambda: start(client, "decide"), lambda: client.predict("coco", "", api_name="/export")):
            with pytest.raises(AppError, match="Only an admin may do this"):
                phase()
    finally:
        app.close()


def test_roles_stay_and_a_name_has_one(
    queue: AnnotationQueue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(*arguments: str) -> str:
        parser = Parser()
        add_arguments(parser)
        prepare_queue(parser.parse_args(["--queue", str(queue.folder), *arguments]))
        return capsys.readouterr().out

    with pytest.raises(ArgumentError, match="`annotators` and `admins` must not share names, got ada in both"):
        prepare("--annotators", "ann,ada", "--admins", "ada", "--images", "nowhere")
    assert not queue.people()
    shown = prepare("--annotators", "ann,ann", "--admins", "ada")
    tokens = dict(line.removeprefix("token of ").split(": ") for line in shown.splitlines())
    assert list(tokens) == ["annotator ann", "admin ada"]
    assert not prepare("--annotators", "ada, ann"), "nobody gets another token"
    assert queue.people() == {"ada": "admin", "ann": "annotator"}
    assert queue.admits("ada", tokens["admin ada"]) and queue.admits("ann", tokens["annotator ann"])

    drafts = tmp_path / "drafts.json"
    category, image = {"id": 1, "name": "fusion"}, {"id": 1, "file_name": "elsewhere.png"}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}
    drafts.write_text(json.dumps({"categories": [category], "images": [image], "annotations": [annotation]}))
    assert "elsewhere.png: its draft is left out" in prepare("--drafts", str(drafts))


def test_colours_of_types_differ() -> None:
    colors = type_colors(("duplication", "hole", "smear", "fusion", "a", "b", "c", "d", "e"))
    assert len(set(colors)) == 9 and colors[0] == type_colors(("duplication",))[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "photos"], "--images must come with --queue"),
        (["--queue", "nowhere"], "must hold an annotation queue, found none"),
        (["--host", "0.0.0.0"], "--queue must be given for others to reach the app"),
    ],
)
def test_options_that_do_not_fit_are_told(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["app", "--no-browser", *arguments]) == 2
    assert message in capsys.readouterr().err
