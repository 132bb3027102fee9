"""The tab Browse: the index and its filters, edits by commands, what the viewer gets, and the tab as it is served."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image


pytest.importorskip("gradio", reason="the extra `app` is not installed")

from gradio_client import Client, handle_file  # noqa: E402

from datasets_script.app.browsing import AGREEMENTS, Choice, Library, split_of_file  # noqa: E402
from datasets_script.app.desk import Desk, begun_mask  # noqa: E402
from datasets_script.app.main import KEPT, AppSettings, launch  # noqa: E402
from datasets_script.app.painted import painting, shown_size  # noqa: E402
from datasets_script.app.studio import BACKEND, Studio  # noqa: E402
from datasets_script.edits.layer import EDITS_FILE, ConflictError, EditLayer  # noqa: E402
from datasets_script.edits.shapes import filled  # noqa: E402
from datasets_script.pairs.folders import PREPARED_FILE  # noqa: E402
from datasets_script.pairs.prepare import prepare_pairs_folder  # noqa: E402
from datasets_script.schema.image import BenchmarkImage, Region  # noqa: E402
from datasets_script.utils.errors import ArgumentError, UserError  # noqa: E402
from datasets_script.utils.files import write_json  # noqa: E402
from diffusers_artifact.tools import bbox_of_mask  # noqa: E402

from ...helpers.benchmark_sources import picture  # noqa: E402
from ...helpers.made_benchmarks import write_benchmark  # noqa: E402
from ...helpers.made_edits import Editor, mask_of  # noqa: E402
from ...helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run  # noqa: E402


EVERYTHING = Choice()


def a_pair(number: int) -> Any:
    """Make a pair whose judges agree on even numbers."""
    pair = make_pair(number)
    scores: Any = {
        "visible_contrast": number / 10,
        "vlm_has_artifact": 1.0,
        "detector_has_artifact": float(number % 2 == 0),
    }
    return replace(pair, artifacts=tuple(replace(one, scores=scores) for one in pair.artifacts))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    out = write_run(tmp_path / "run", [a_pair(number) for number in range(5)], shards=2)
    (out / "README.md").write_text("---\nlicense: unknown\n---\n\n# Pairs\n")
    return out


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    triangle = Region("polygon", (2.0, 1.0, 12.0, 9.0), ((2, 1, 12, 1, 12, 9),), name="hand", caption="bent")
    heat = np.zeros((10, 20), np.float32)
    heat[2:5, 3:9] = 0.8
    images = [
        BenchmarkImage("a", picture(0), (20, 10), True, (triangle,), "a man", "A hand.", {"artifact_score": 0.5}),
        BenchmarkImage("b", picture(1), (20, 10), False),
        BenchmarkImage("c", picture(2), (20, 10), True, (Region("heat_map", (3.0, 2.0, 9.0, 5.0), mask=heat),)),
    ]
    return write_benchmark(tmp_path / "benchmark", images)


def opened(folder: Path) -> Library:
    library = Library(folder)
    library.refresh()
    return library


def names(library: Library, choice: Choice) -> list[str]:
    return [library.entries[number].key[1] for number in library.chosen(choice)]


def test_samples_are_chosen_by_type_part_score_agreement_decision_and_name(run: Path) -> None:
    library = opened(run)
    assert len(names(library, EVERYTHING)) == 5 and library.has_judges
    kind = library.entries[0].types[0]
    of_kind = names(library, Choice(types=(kind,)))
    assert of_kind == [entry.key[1] for entry in library.entries if kind in entry.types]
    part = library.parts[0]
    assert names(library, Choice(parts=(part,))) == [e.key[1] for e in library.entries if part in e.parts]
    assert names(library, Choice(score="visible_contrast", least=0.15, most=0.35)) == ["photo2.png:0", "photo3.png:0"]
    assert names(library, Choice(agreement=AGREEMENTS[1])) == ["photo1.png:0", "photo3.png:0"]
    assert names(library, Choice(find="PHOTO4")) == ["photo4.png:0"]
    library.judge(library.sample(("", "photo1.png:0")), "reject", "ann")
    assert names(library, Choice(decision="rejected")) == ["photo1.png:0"]
    assert len(names(library, Choice(decision="undecided"))) == 4
    # Types are those after the edits.
    first = library.sample(("", "photo0.png:0"))
    other = next(one for one in library.types if one not in library.entries[0].types)
    library.relabel(first, 0, other, "ann")
    assert "photo0.png:0" in names(library, Choice(types=(other,), decision="changed"))


def test_edits_are_shown_as_prepare_applies_them(run: Path) -> None:
    library = opened(run)
    key = ("", "photo2.png:0")
    sample = library.sample(key)
    others = np.any([mask_of(one) for one in sample.regions[1:]], axis=0)
    painted = filled((0.0, 0.0, WIDTH, HEIGHT), (WIDTH, HEIGHT))
    library.paint(sample, 0, painted, "ann")
    sample = library.sample(key)
    mask = sample.regions[0].mask
    assert mask is not None and np.array_equal(mask, ~others), "masks of a pair stay disjoint"
    assert sample.regions[0].box == bbox_of_mask(mask) and len(sample.edits.standing) == 1
    with pytest.raises(UserError, match="nothing was changed"):
        library.paint(sample, 0, mask, "ann")
    library.remove(sample, 0, "ann")
    library.move(library.sample(key), 1, (8, 4, 40, 30), "ann")
    sample = library.sample(key)
    assert [one.number for one in sample.regions] == [1] and sample.regions[0].box == (8.0, 4.0, 40.0, 30.0)
    prepare_pairs_folder(run, run.parent / "prepared", ["pairs", "images"])
    again = opened(run.parent / "prepared").sample(key)
    assert [one.type for one in again.regions] == [one.type for one in sample.regions]
    masks = [[mask_of(region) for region in shown.regions] for shown in (again, sample)]
    assert all(np.array_equal(one, two) for one, two in zip(*masks, strict=True))
    with pytest.raises(UserError, match="a pair must keep an artifact; reject the pair instead"):
        library.remove(sample, 1, "ann")
    for _ in range(3):
        library.layer.undo("ann")
    assert not library.sample(key).edits.standing and len(library.sample(key).regions) == 2


def test_what_cannot_be_done_is_told(run: Path, tmp_path: Path) -> None:
    library, key = opened(run), ("", "photo0.png:0")
    sample = library.sample(key)
    opened(run).judge(sample, "accept", "ben")
    with pytest.raises(ConflictError, match="was changed by ben meanwhile"):
        library.judge(sample, "reject", "ann")
    sample = library.sample(key)
    for wrong, message in (
        (lambda: library.relabel(sample, 7, "fusion", "ann"), "region 8 of 'photo0.png:0' is not there"),
        (lambda: library.relabel(sample, 0, sample.regions[0].type, "ann"), "has the type .* already"),
        (lambda: library.relabel(sample, 0, "hole", "ann"), "the type must be among"),
        (lambda: library.add(sample, (0, 0, 5, 5), "fusion", "ann"), "none can be added; reject it instead"),
        (lambda: library.paint(sample, 0, np.zeros((HEIGHT, WIDTH), bool), "ann"), "must keep a pixel of its own"),
        (lambda: library.judge(sample, "reject", ""), "`who` must be a name"),
        (lambda: library.sample(("", "nowhere")), "'nowhere' is not in"),
        (lambda: opened(tmp_path / "empty"), "must be a run, or a benchmark .* holds no data yet"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()


def test_a_benchmark_is_corrected(benchmark: Path) -> None:
    library = opened(benchmark)
    assert library.types == ("hand",) and library.scores == ("artifact_score",) and not library.parts
    key = ("test", "a")
    region = library.sample(key).regions[0]
    assert region.mask is not None and not region.is_mask and region.caption == "bent"
    library.move(library.sample(key), 0, (1, 1, 9, 8), "ann")
    moved = library.sample(key)
    assert moved.regions[0].box == (1.0, 1.0, 9.0, 8.0) and moved.regions[0].mask is None
    assert np.array_equal(begun_mask(moved, 0), filled((1.0, 1.0, 9.0, 8.0), (20, 10)))
    library.paint(moved, 0, filled((2, 2, 4, 4), (20, 10)), "ann")
    assert library.sample(key).edited["regions"][0]["shape"] == "mask"
    assert library.add(library.sample(("test", "b")), (3, 3, 8, 8), "hand", "ann") == 0
    assert library.sample(("test", "b")).edited["has_artifact"] is True
    heat = library.sample(("test", "c")).regions[0]
    assert heat.mask is not None and heat.mask.sum() == 18 and heat.facts == {"published as": "heat map"}
    library.layer.undo("ann")
    library.layer.undo("ann")
    library.layer.undo("ann")
    assert library.sample(key).edited["regions"] == library.sample(key).row["regions"]


def test_edits_of_other_data_are_void(run: Path) -> None:
    editor = Editor(run)
    editor.digests["", "photo0.png:0"] = "of a run before"
    editor.judge(("", "photo0.png:0"), "reject")
    library = opened(run)
    sample = library.sample(("", "photo0.png:0"))
    assert sample.void and not sample.edits.verdict
    assert not names(library, Choice(decision="rejected")) and len(names(library, Choice(decision="undecided"))) == 5
    assert Desk(run).act({"do": "open"}, EVERYTHING, "ann")["where"] == "1 of 5"
    library.judge(sample, "accept", "ann")
    assert library.sample(("", "photo0.png:0")).edits.verdict == "accept"
    assert names(library, Choice(decision="accepted")) == ["photo0.png:0"]


def test_data_that_changed_while_it_was_open_is_read_anew(run: Path) -> None:
    """Neither another sample's pictures nor another file's edits are shown under an id."""
    desk, key = Desk(run), ("", "photo0.png:0")
    shown = desk.act({"do": "show"}, EVERYTHING, "ann")
    desk.act({"do": "accept", "key": list(key), "stamp": ""}, EVERYTHING, "ann")
    assert shown["sample"]["key"] == list(key) and desk.library.held()[key].verdict == "accept"
    path = Path(desk.library.entries[0].file)
    pq.write_table(pq.read_table(path).take([1, 0]), path)
    assert desk.sample(key).row["pair_id"] == key[1] and desk.sample(key).edits.verdict == "accept"
    replaced = [replace(a_pair(number), clean=a_pair(9).clean) for number in range(3)]
    shutil.copy(next((write_run(run.parent / "other", replaced) / "data").glob("*.parquet")), path)
    assert desk.sample(key).void and key not in desk.library.held()
    path.write_bytes(b"junk")
    broken = desk.act({"do": "open", "key": list(key)}, EVERYTHING, "ann")
    assert broken["error"] and "is not a complete Parquet file" in broken["message"]


def test_a_damaged_layer_is_told_at_each_command(run: Path) -> None:
    desk = Desk(run)
    desk.act({"do": "accept", "key": ["", "photo0.png:0"], "stamp": ""}, EVERYTHING, "ann")
    with (run / EDITS_FILE).open("a") as file:
        file.write("nonsense\n")
    for do in ("open", "reject", "open"):
        value = desk.act({"do": do, "key": ["", "photo1.png:0"], "stamp": ""}, EVERYTHING, "ann")
        assert value["error"] and "line 2 of" in value["message"] and value["sample"]["key"] == ["", "photo1.png:0"]


def test_commands_go_through_what_is_chosen(run: Path) -> None:
    desk = Desk(run)
    value = desk.act({"do": "show", "turn": 3}, EVERYTHING, "ann")
    assert value["where"] == "1 of 5" and value["turn"] == 3 and not value["error"]

    def say(do: str, choice: Choice = EVERYTHING, who: str = "ann", **more: Any) -> dict[str, Any]:
        nonlocal value
        seen = {name: value["sample"][name] for name in ("key", "stamp")}
        value = desk.act({**seen, "do": do, **more}, choice, who)
        return value

    assert say("next")["sample"]["key"] == ["", "photo1.png:0"]
    assert say("accept")["message"] == "photo1.png:0 accepted." and value["where"] == "3 of 5 · 1 accepted"
    assert say("accept", Choice(decision="undecided"))["where"] == "2 of 3 chosen, 5 in all · 2 accepted"
    assert say("last")["where"].startswith("5 of 5")
    assert say("reject")["message"] == "photo4.png:0 rejected. That was the last one."
    assert say("next")["message"] == "This is the last one."
    assert say("first")["where"].startswith("1 of 5") and say("previous")["message"] == "This is the first one."
    assert say("undo")["sample"]["key"] == ["", "photo4.png:0"] and not value["sample"]["verdict"]
    assert "type your name first" in say("accept", who="")["message"] and value["error"]
    other = "corruption"
    assert say("relabel", region=0, type=other)["sample"]["regions"][0]["type"] == other and value["region"] == 0
    opened(run).judge(opened(run).sample(("", "photo4.png:0")), "reject", "ben")
    assert say("accept")["message"] == "'photo4.png:0' was changed by ben meanwhile; look at it again."
    assert value["sample"]["verdict"] == "reject", "what is shown is what there is now"
    # After an error, and after an edit, the sample stays although it is not chosen any more.
    undecided = Choice(decision="undecided")
    assert say("accept", undecided, who="")["sample"]["key"] == ["", "photo4.png:0"] and value["error"]
    assert say("stay", undecided)["where"].startswith("not among the 2")
    assert say("show", Choice(find="nothing is called so"))["sample"] is None
    assert Desk(run / "nowhere").act({"do": "show"}, EVERYTHING, "ann")["error"]


def test_the_viewer_gets_pictures_as_they_are_and_masks_as_they_look(run: Path) -> None:
    library = opened(run)
    sample = library.sample(("", "photo2.png:0"))
    value = Desk(run).act({"do": "show", "key": ["", "photo2.png:0"]}, EVERYTHING, "ann")["sample"]
    json.dumps(value)
    pictures = {one["name"]: base64.b64decode(one["url"].partition(",")[2]) for one in value["pictures"]}
    assert pictures == {"clean": sample.row["clean"]["bytes"], "artifact": sample.row["flawed"]["bytes"]}
    for region, shown in zip(sample.regions, value["regions"], strict=True):
        with Image.open(io.BytesIO(base64.b64decode(shown["mask"].partition(",")[2]))) as image:
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
        assert np.array_equal(alpha > 0, mask_of(region)) and 0 < np.median(alpha[alpha > 0]) < 255
    assert ["Source photo", "photo2.png"] in value["texts"] and not value["can_add"]


def test_splits_are_read_from_file_names() -> None:
    assert split_of_file("d/richhf-dev-00000-of-00003.parquet") == split_of_file("d/images-dev.parquet") == "dev"
    assert split_of_file("test-00000-of-00001.parquet") == "test"


@pytest.fixture
def client(run: Path) -> Iterator[Client]:
    app, url = launch(AppSettings(run, model="", detector=""), block=False)
    yield Client(url, verbose=False)
    app.close()


def test_the_tab_edits_by_commands_and_keeps_masks_exactly(client: Client, run: Path, tmp_path: Path) -> None:
    filters: list[Any] = ["", "all", [], [], "", None, None, ""]

    def command(**given: Any) -> dict[str, Any]:
        seen = {name: shown["sample"][name] for name in ("key", "stamp")} if shown else {}
        return client.predict(json.dumps({**seen, **given}), "ann", *filters, api_name="/browse")[0]

    shown: dict[str, Any] = {}
    shown = command(do="open", memory={"key": ["", "photo2.png:0"], "filters": {"find": "photo"}}, name="ann")
    assert shown["sample"]["key"] == ["", "photo2.png:0"] and shown["memory"]["filters"]["find"] == "photo"
    shown = command(do="mask", region=0)
    assert shown["mode"] == "mask"
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[100:120, 3:9] = mask[101, 20] = True
    layer = tmp_path / "layer.png"
    Image.fromarray(painting(mask, shown_size((WIDTH, HEIGHT)))).save(layer)
    painted = {"background": None, "layers": [handle_file(str(layer))], "composite": None}
    grown = client.predict(painted, api_name="/grow_mask")
    with Image.open(grown["layers"][0]) as image:
        assert (np.asarray(image)[..., 3] > 0).sum() > mask.sum() * (shown_size((WIDTH, HEIGHT))[0] / WIDTH) ** 2
    shown = client.predict(painted, "ann", *filters, api_name="/save_mask")[0]
    assert shown["message"] == "photo2.png:0 has another mask." and not shown["mode"]
    assert np.array_equal(mask_of(opened(run).sample(("", "photo2.png:0")).regions[0]), mask)
    shown = command(do="mask", region=0)
    empty: dict[str, Any] = {"background": None, "layers": [], "composite": None}
    shown = client.predict(empty, "ann", *filters, api_name="/save_mask")[0]
    assert shown["error"] and shown["mode"] == "mask", "what was painted stays when it cannot be saved"
    sample = opened(run).sample(("", "photo2.png:0"))
    opened(run).paint(sample, 0, filled((3.0, 90.0, 30.0, 130.0), (WIDTH, HEIGHT)), "ben")
    for _ in range(2):
        shown = client.predict(painted, "ann", *filters, api_name="/save_mask")[0]
        assert "was changed by ben meanwhile" in shown["message"], "nothing is saved over what was not seen"
    EditLayer(run).undo("ben")
    shown = client.predict("ann", *filters, api_name="/leave_mask")[0]
    assert not shown["mode"] and len(EditLayer(run).of(("", "photo2.png:0")).standing) == 1


def test_browsing_needs_no_model_and_keeping_goes_elsewhere(run: Path, tmp_path: Path) -> None:
    assert AppSettings(run).kept == KEPT and AppSettings(tmp_path / "new").kept == tmp_path / "new"
    # Kept pairs go on with kept pairs, and neither with those that were prepared nor with those merged with edits.
    stored = json.loads((run / "run.json").read_text()) | {"perception": {"backend": BACKEND}}
    write_json(run / "run.json", stored)
    assert AppSettings(run).kept == run
    write_json(run / "run.json", stored | {"edits": {"edits": 1}})
    assert AppSettings(run).kept == KEPT
    with pytest.raises(
        UserError, match="kept in the app, got a merged run with people's edits; choose another folder"
    ):
        Studio("embedded", run)
    write_json(run / "run.json", stored)
    write_json(run / PREPARED_FILE, {})
    assert AppSettings(run).kept == KEPT
    with pytest.raises(UserError, match="kept in the app, got prepared pairs; choose another folder"):
        Studio("embedded", run)
    with pytest.raises(ArgumentError, match="there would be nothing to show"):
        AppSettings(tmp_path / "new", model="", detector="")
