"""Conversations to train on: answers that our parser reads back, no shortcuts, and all kinds of sources."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, List
from datasets import Image as ImageFeature
from PIL import Image

from datasets_script.benchmarks.prepare import prepare, prepare_folder
from datasets_script.detection.answers import read_answers
from datasets_script.detection.questions import TASKS, request
from datasets_script.pairs.builder import ArtiAgentPairs
from datasets_script.pairs.prepare import prepare_pairs_folder
from datasets_script.pairs.views.comparisons import WHICH, comparison_row
from datasets_script.pairs.views.instructions import instruction_rows
from datasets_script.pairs.views.synartifact import classification_row, detection_row
from datasets_script.pairs.views.vqa import vqa_rows
from datasets_script.schema.features import pair_to_row
from datasets_script.schema.image import BenchmarkImage, Region
from datasets_script.utils.errors import UserError
from datasets_script.vlm.conventions import CONVENTIONS, BoxFormat, qwen2_5_size
from training.vlm.data import SYNARTIFACT_CONVERSATIONS, Conversations

from ..helpers.benchmark_sources import picture
from ..helpers.local_hub import LocalHub
from ..helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run
from ..helpers.paths import ROOT


SIZE = (WIDTH, HEIGHT)
BOUNDS = (56 * 56, 100 * 784)


def turns_of(row):
    """Return the turns `(question, answer)` of a conversation."""
    texts = [[part["text"] for part in message["content"] if part["type"] == "text"] for message in row["messages"]]
    return list(zip([text[0] for text in texts[::2]], [text[0] for text in texts[1::2]], strict=True))


def answers_of(rows):
    """Return the answers by side and task."""
    answers: dict[str, dict[str, str]] = {"clean": {}, "flawed": {}}
    for row in rows:
        side, task = row["id"].rpartition("#")[2].split(".")
        answers[side][task] = turns_of(row)[0][1]
    return answers


@pytest.fixture(scope="module")
def stored():
    return [pair_to_row(make_pair(index, source_id=f"photo{index // 2}.png")) for index in range(12)]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_instructions_are_asked_as_predict_asks_and_answered_as_it_reads(convention, stored):
    resized = qwen2_5_size(SIZE, *BOUNDS) if convention == "qwen2.5" else None
    # Half the resolution of the convention.
    exact = {"pixel": 0.5, "normalized": WIDTH / 2000, "qwen2.5": 0.5, "qwen3": WIDTH / 2000, "internvl": WIDTH / 2000}
    for row in stored:
        rows = list(instruction_rows(row, BoxFormat(convention, *BOUNDS)))
        assert [item["id"].partition("#")[2] for item in rows] == [
            f"{side}.{task}" for side in ("clean", "flawed") for task in TASKS[:3]
        ]
        for item in rows:
            task = item["id"].rpartition(".")[2]
            image = Image.open(io.BytesIO(item["images"][0]["bytes"]))
            assert turns_of(item)[0][0] == request(task, convention, image).prompt
        answers = answers_of(rows)
        clean = read_answers("a", answers["clean"], SIZE, convention, resized)
        assert (clean.has_artifact, clean.boxes, clean.explanation, clean.failures) == (False, (), "No artifacts.", ())
        flawed = read_answers("a", answers["flawed"], SIZE, convention, resized)
        assert (flawed.has_artifact, flawed.explanation, flawed.failures) == (True, row["explanation"], ())
        artifacts = sorted(row["artifacts"], key=lambda artifact: (artifact["bbox"][1], artifact["bbox"][0]))
        for box, artifact in zip(flawed.boxes or (), artifacts, strict=True):
            assert box == pytest.approx(artifact["bbox"], abs=exact.get(convention, WIDTH / 200) + 1e-6)
        places = [answers["flawed"]["localization"].index(artifact["label"]) for artifact in artifacts]
        assert places[0] == min(places)
        if convention not in ("internvl", "llava"):
            labels = [entry["label"] for entry in json.loads(answers["flawed"]["localization"])]
            assert labels == [artifact["label"] for artifact in artifacts]


def test_answers_have_the_form_of_the_family():
    row = pair_to_row(make_pair(0))
    row["artifacts"] = [row["artifacts"][0] | {"bbox": [16.0, 0.0, 96.0, 64.0], "label": 'a "third" ear'}]
    forms: dict[str, str] = {
        "qwen2.5": '[{"bbox_2d": [16, 0, 98, 70], "label": "a \\"third\\" ear"}]',
        "normalized": '[{"bbox_2d": [0.083, 0.000, 0.500, 0.500], "label": "a \\"third\\" ear"}]',
        "internvl": '<ref>a "third" ear</ref><box>[[83, 0, 500, 500]]</box>',
        "llava": '[0.08, 0.17, 0.50, 0.50], a "third" ear',
    }
    for convention, form in forms.items():
        answers = answers_of(instruction_rows(row, BoxFormat(convention)))
        assert answers["flawed"]["localization"] == form
        assert answers["clean"]["localization"] == "[]"


def test_a_task_without_a_text_is_left_out_for_both_halves(stored):
    row = stored[0] | {"explanation": ""}
    row["artifacts"] = [artifact | {"label": ""} for artifact in row["artifacts"]]
    assert answers_of(instruction_rows(row, BoxFormat())) == {
        "clean": {"detection": "No"},
        "flawed": {"detection": "Yes"},
    }
    assert len(turns_of(comparison_row(row))) == 1


def test_questions_tell_nothing_of_the_answer(stored):
    """Clean and artifact images get the same first questions and, in forms of one turn, as many further ones."""
    for make in (lambda row: vqa_rows(row, BoxFormat()), lambda row: instruction_rows(row, BoxFormat("qwen3"))):
        asked: dict[str, Counter] = {"clean": Counter(), "flawed": Counter()}
        for index in range(60):
            row = stored[index % 12] | {"pair_id": f"{index}"}
            for view in make(row):
                side = view["id"].rpartition("#")[2].partition(".")[0]
                asked[side][turns_of(view)[0][0]] += 1
        assert asked["clean"].keys() == asked["flawed"].keys()
        for question, count in asked["clean"].items():
            assert abs(count - asked["flawed"][question]) <= 0.3 * count


def test_comparisons_toss_a_coin_that_the_seed_and_the_pair_decide(stored):
    row = stored[0]
    places = []
    for index in range(200):
        view = comparison_row(row | {"pair_id": str(index)}, seed=1)
        (question, answer), (_, explanation) = turns_of(view)
        assert question == WHICH and explanation == row["explanation"]
        place = {"The first image.": 0, "The second image.": 1}[answer]
        assert [item["bytes"] for item in view["images"]][place] == row["flawed"]["bytes"]
        assert [item["bytes"] for item in view["images"]][1 - place] == row["clean"]["bytes"]
        assert [part["type"] for part in view["messages"][0]["content"]] == ["image", "image", "text"]
        assert view == comparison_row(row | {"pair_id": str(index)}, seed=1)
        places.append(place)
    assert 75 < sum(places) < 125


def synartifact_image(name="sub_data_0/1", regions: Sequence[Region] = (), other="", has_artifact=None):
    size = (40, 20)
    labelled = bool(regions) if has_artifact is None else has_artifact
    return BenchmarkImage(name, picture(len(regions), size), size, labelled, tuple(regions), explanation=other)


def region(kind, box=(4.0, 2.0, 20.0, 10.0), caption="odd"):
    return Region("box", box, name=kind, caption=caption)


FLAWED = (
    region("Other artifacts", (0.0, 10.0, 40.0, 20.0), "The gown is out of frame; it ends. 2. So"),
    region("Duplicated components"),
    region("Illegible letters", (20.0, 0.0, 40.0, 6.0)),
    region("Duplicated components", (0.0, 0.0, 8.0, 6.0)),
)


def test_synartifact_classes_are_a_numbered_list_that_is_read_back():
    ((_, answer),) = turns_of(classification_row(synartifact_image(regions=FLAWED), BoxFormat()))
    assert answer == (
        "1. Illegible letters.\n2. Duplicated components.\n3. Other artifacts: The gown is out of frame."
    )
    read = read_answers("a", {"classification": answer}, (40, 20), "pixel")
    assert read.classes == ("Illegible letters", "Duplicated components", "Other artifacts") and not read.failures
    ((_, clean),) = turns_of(classification_row(synartifact_image(), BoxFormat()))
    assert clean == "1. No artifacts."
    assert read_answers("a", {"classification": clean}, (40, 20), "pixel").classes == ()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_synartifact_detection_has_four_turns_that_agree(convention):
    image = synartifact_image(regions=FLAWED, other="The horizon is broken.")
    turns = turns_of(detection_row(image, BoxFormat(convention)))
    given = dict(zip(("detection", "classification", "localization"), [answer for _, answer in turns], strict=False))
    read = read_answers("a", given, image.size, convention)
    assert read.has_artifact and not read.failures
    assert read.classes == ("Illegible letters", "Duplicated components", "Other artifacts")
    boxes = sorted((item.bbox for item in FLAWED), key=lambda box: (box[1], box[0]))
    for found, expected in zip(read.boxes or (), boxes, strict=True):
        assert found == pytest.approx(expected, abs=0.5)
    assert turns[3][1] == "The horizon is broken."
    clean = turns_of(detection_row(synartifact_image(), BoxFormat(convention)))
    assert [answer for _, answer in clean] == ["No", "1. No artifacts.", "[]", "No other artifacts."]
    assert [question for question, _ in clean] == [question for question, _ in turns]


def test_synartifact_boxes_for_llava_are_those_of_its_padded_square():
    turns = turns_of(detection_row(synartifact_image(regions=[region("Localized blur")]), BoxFormat("llava")))
    # 10 px of padding above and below: (2 + 10) / 40 and (10 + 10) / 40.
    assert turns[2][1] == "[0.10, 0.30, 0.50, 0.50], Localized blur"


def test_synartifact_images_of_unknown_kinds_are_left_out():
    unsaid = synartifact_image(other="The whole image is too blurred.", has_artifact=True)
    assert classification_row(unsaid, BoxFormat()) is None and detection_row(unsaid, BoxFormat()) is None
    with pytest.raises(UserError, match="regions must have a class of SynArtifact, got 'crack'"):
        classification_row(synartifact_image(regions=[region("crack")]), BoxFormat())


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    pairs = [make_pair(index, source_id=f"photo{index // 2}.png") for index in range(6)]
    folder = tmp_path_factory.mktemp("run") / "out"
    write_run(folder, pairs, settings={"model": "/somewhere/flux", "seed": 3})
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n\n# Pairs\n")
    return folder


@pytest.fixture(scope="module")
def prepared(out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "set"
    prepare_pairs_folder(out, folder, ("pairs", "vqa"), coordinates="qwen3", test_share=0.5, seed=1)
    return folder


@pytest.fixture(scope="module")
def synartifact_source(tmp_path_factory):
    """Write a source as published: three training images, two of them with artifacts, and two test images."""
    data = tmp_path_factory.mktemp("synartifact") / "source" / "data"
    for split, count in {"train": 3, "eval": 2}.items():
        paths = [f"sub_data_0/images/{split}{index}.png" for index in range(count)]
        for index, path in enumerate(paths):
            marks = [{"rect_start": [4, 2], "rect_end": [20, 10], "artifacts_caption": "odd", "artifacts_class": 11}]
            annotation = {"Image path": path, "Prompt": "a dog", "Artifacts annotation": marks * min(index, 1)}
            write(data / path, picture(index, (40, 20)))
            write(
                data / "sub_data_0" / "annotation_json_artifacts_class" / f"{split}{index}.json",
                json.dumps(annotation | {"Other artifacts caption": "None"}).encode(),
            )
        write(data / f"{split}.txt", "\n".join(paths).encode())
    return data.parent


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def synartifact(synartifact_source):
    folder = synartifact_source.with_name("synartifact-parquet")
    prepare_folder("synartifact", str(synartifact_source), folder, allow_partial=True)
    return folder


def texts(rows):
    """Return questions and answers without decoding images."""
    return [turns_of({"messages": messages}) for messages in rows["messages"]]


def test_kinds_are_mixed_by_the_seed(out):
    data = Conversations(out, ["vqa", "instructions", "comparisons"], BoxFormat("internvl")).load()
    assert list(data) == ["train"] and data["train"].column_names == ["images", "messages"]
    assert len(data["train"]) == 6 * (2 + 6 + 1)
    assert data["train"][0]["images"][0].size == SIZE
    again = Conversations(out, ["vqa", "instructions", "comparisons"], BoxFormat("internvl")).load()
    assert texts(again["train"]) == texts(data["train"])
    other = Conversations(out, ["vqa", "instructions", "comparisons"], BoxFormat("internvl"), seed=1).load()
    assert texts(other["train"]) != texts(data["train"])
    counts = [len(turns) for turns in texts(data["train"])]
    assert len(set(counts[:12])) > 1
    assert any("<box>[[" in answer for turns in texts(data["train"]) for _, answer in turns)


def test_trl_trains_on_the_rows(out):
    from trl.data_utils import prepare_multimodal_messages

    for row in Conversations(out, ["comparisons"], BoxFormat()).load()["train"]:
        messages = prepare_multimodal_messages(row["messages"], images=row["images"])
        assert [part["image"] for part in messages[0]["content"][:2]] == row["images"]


def test_the_first_pairs_are_those_of_the_source(out):
    kinds = ["comparisons", "instructions"]
    whole = Conversations(out, kinds, BoxFormat(), test_share=0.5, seed=1).load()
    first = Conversations(out, kinds, BoxFormat(), test_share=0.5, seed=1, num_pairs=1).load()
    assert texts(first["test"]) == texts(whole["test"])
    assert len(first["train"]) == 7 < len(whole["train"])
    run = Conversations(out, ["instructions"], BoxFormat(), num_pairs=2).load()
    shown = {pixels(row["images"][0]) for row in run["train"]}
    assert shown == {pixels(image) for index in (0, 1) for image in (make_pair(index).clean, make_pair(index).flawed)}
    with pytest.raises(UserError, match="at most the 6 pairs of the train split, got 7"):
        Conversations(out, ["vqa"], BoxFormat(), num_pairs=7).load()


def pixels(image):
    return np.asarray(image.convert("RGB")).tobytes()


def test_a_prepared_folder_gives_its_splits_in_whatever_convention(out, prepared):
    from_run = Conversations(out, ["vqa"], BoxFormat("llava"), test_share=0.5, seed=1).load()
    from_folder = Conversations(prepared, ["vqa"], BoxFormat("llava"), seed=1).load()
    for split in ("train", "test"):
        assert texts(from_folder[split]) == texts(from_run[split])
    with pytest.raises(UserError, match="`test_share` must be 0 unless pairs have no split 'test'"):
        Conversations(prepared, ["vqa"], BoxFormat(), test_share=0.1).load()


def test_a_folder_of_before_is_still_a_source(out, tmp_path):
    """Earlier versions wrote a folder of Parquet files for each configuration; those of pairs hold their images."""
    builder = ArtiAgentPairs(source=str(out), cache_dir=str(tmp_path / "cache"), test_share=0.5, seed=1)
    builder.download_and_prepare(str(tmp_path / "set" / "pairs"), file_format="parquet")
    (tmp_path / "set" / "prepared.json").write_text("{}")
    before = Conversations(tmp_path / "set", ["vqa"], BoxFormat(), seed=1).load()
    now = Conversations(out, ["vqa"], BoxFormat(), test_share=0.5, seed=1).load()
    assert shown(before) == shown(now)


def shown(splits):
    return {split: [(pixels(row["images"][0]), row["messages"]) for row in rows] for split, rows in splits.items()}


def test_kinds_share_the_files_of_their_images(out):
    data = Conversations(out, ["vqa", "instructions", "comparisons"], BoxFormat()).load()["train"]
    undecoded = data.cast_column("images", List(ImageFeature(decode=False)))
    assert all(image["bytes"] is None for row in undecoded for image in row["images"])
    assert len({image["path"] for row in undecoded for image in row["images"]}) == 2 * 6


def test_files_and_patterns_are_sources(out):
    files = sorted(str(path) for path in (out / "data").glob("*.parquet"))
    one = Conversations(files[0], ["comparisons"], BoxFormat()).load()
    two = Conversations(files[:2], ["comparisons"], BoxFormat()).load()
    every = Conversations(str(out / "data" / "*.parquet"), ["comparisons"], BoxFormat()).load()
    assert [len(data["train"]) for data in (one, two, every)] == [2, 4, 6]


def test_a_changed_source_is_read_anew(out, synartifact, tmp_path):
    copy = shutil.copytree(out, tmp_path / "copy")
    assert len(Conversations(copy, ["comparisons"], BoxFormat()).load()["train"]) == 6
    os.remove(copy / "data" / "pairs-00002.parquet")
    assert len(Conversations(copy, ["comparisons"], BoxFormat()).load()["train"]) == 4
    other = shutil.copytree(synartifact, tmp_path / "other")
    kinds = ["synartifact_classification"]
    assert len(Conversations(other, kinds, BoxFormat()).load()["train"]) == 3
    (train,) = (other / "data").glob("*-train*")
    Dataset.from_parquet(str(train)).select([0]).to_parquet(train)
    assert len(Conversations(other, kinds, BoxFormat()).load()["train"]) == 1


def test_synartifact_is_a_source_with_its_own_splits(synartifact):
    data = Conversations(synartifact, SYNARTIFACT_CONVERSATIONS, BoxFormat("llava")).load()
    assert {split: len(rows) for split, rows in data.items()} == {"train": 6, "test": 4}
    assert sorted({len(turns) for turns in texts(data["train"])}) == [1, 4]
    record = Conversations(synartifact, SYNARTIFACT_CONVERSATIONS, BoxFormat("llava")).record()
    assert record["rows"]["test"] == {"synartifact_classification": 2, "synartifact_detection": 2}
    assert record["licenses"] == ["unknown"] and "pairs" not in record
    assert ("No", "1. No artifacts.") in {(turns[0][1], turns[1][1]) for turns in texts(data["train"]) if turns[1:]}


def test_synartifact_is_a_source_by_its_name_once_it_is_prepared(synartifact, synartifact_source):
    with pytest.raises(UserError, match="artiagent prepare synartifact --source"):
        Conversations("synartifact", ["synartifact_detection"], BoxFormat("qwen3")).load()
    prepare("synartifact", str(synartifact_source), allow_partial=True)
    by_name = Conversations("synartifact", ["synartifact_detection"], BoxFormat("qwen3")).load()
    by_folder = Conversations(synartifact, ["synartifact_detection"], BoxFormat("qwen3")).load()
    assert {split: texts(rows) for split, rows in by_name.items()} == {
        split: texts(rows) for split, rows in by_folder.items()
    }
    record = Conversations("synartifact", ["synartifact_detection"], BoxFormat("qwen3")).record()
    assert (record["source"], record["licenses"]) == ("synartifact", ["unknown"])


@pytest.mark.parametrize(
    ("kinds", "options", "message"),
    [
        ([], {}, "one or more of vqa, instructions"),
        (["vqa", "vqa"], {}, "each once"),
        (["chat"], {}, "among vqa.*got 'chat'"),
        (["vqa", "synartifact_detection"], {}, "of one source"),
        (["vqa"], {"num_pairs": 0}, "at least 1"),
        (["vqa"], {"test_share": 1.0}, "test_share"),
        (["synartifact_detection"], {}, "`source` must be 'synartifact' or a folder"),
        (["synartifact_detection"], {"num_pairs": 4}, "for conversations about pairs"),
        (["vqa"], {"test_share": 1e-9}, "no conversation for the split 'test'"),
        (["vqa"], {"test_share": 0.999999, "num_pairs": 1}, "no conversation for the split 'train'"),
    ],
)
def test_mistakes_are_named(out, kinds, options, message):
    with pytest.raises(UserError, match=message):
        Conversations(out, kinds, BoxFormat(), **options).load()


def test_sources_that_are_none_are_named(out, synartifact, tmp_path):
    with pytest.raises(UserError, match="'no/where'"):
        Conversations("no/where", ["vqa"], BoxFormat()).load()
    with pytest.raises(UserError, match="no configuration 'pairs'"):
        Conversations(synartifact, ["vqa"], BoxFormat()).load()
    with pytest.raises(UserError, match=r"no run\.json"):
        Conversations(tmp_path, ["vqa"], BoxFormat()).load()
    running = shutil.copytree(out, tmp_path / "running")
    (running / "run.json").write_text('{"status": "running"}')
    with pytest.raises(UserError, match="not complete"):
        Conversations(running, ["vqa"], BoxFormat()).load()
    chat = tmp_path / "chat"
    prepare_pairs_folder(out, chat, ("vqa",))
    with pytest.raises(UserError, match="no configuration 'pairs'"):
        Conversations(chat, ["vqa"], BoxFormat()).load()


def test_the_record_tells_what_and_no_paths(out, prepared, tmp_path):
    given: dict[str, Any] = {"test_share": 0.5, "seed": 1, "num_pairs": 1}
    record = Conversations(out, ["vqa", "instructions"], BoxFormat("qwen2.5", *BOUNDS), **given).record()
    data = Conversations(out, ["vqa", "instructions"], BoxFormat("qwen2.5", *BOUNDS), **given).load()
    assert {split: sum(kinds.values()) for split, kinds in record["rows"].items()} == {
        split: len(rows) for split, rows in data.items()
    }
    assert record["pairs"] == {"train": 1, "test": 4 if len(data["test"]) == 32 else 2}
    assert (record["source"], record["revision"], record["licenses"]) == ("out", None, ["cc0-1.0"])
    assert (record["min_pixels"], record["max_pixels"]) == BOUNDS
    assert record["runs"][0]["settings"] == {"model": "flux", "seed": 3}
    text = json.dumps(record)
    assert str(out) not in text and "/somewhere" not in text
    copy = shutil.copytree(out, tmp_path / "copy")
    assert Conversations(copy, ["vqa"], BoxFormat()).record()["fingerprint"] == record["fingerprint"]
    assert Conversations(prepared, ["vqa"], BoxFormat()).record()["runs"] == record["runs"]


def test_a_run_without_pairs_is_named(tmp_path):
    with pytest.raises(UserError, match="no conversation for the split 'train'"):
        Conversations(write_run(tmp_path / "empty", [], shards=1), ["vqa"], BoxFormat()).load()


def test_a_run_that_lost_its_card_is_not_prepared(tmp_path):
    run = write_run(tmp_path / "run", [make_pair(0)], shards=1)
    with pytest.raises(UserError, match=r"`source` must hold README\.md, the card"):
        prepare_pairs_folder(run, tmp_path / "out", ["pairs"])
    assert not (tmp_path / "out").exists()


LOAD_FROM_HUB = """
import json
from datasets_script.utils.errors import UserError
from datasets_script.vlm.conventions import BoxFormat
from training.vlm.data import Conversations
for name in ("tester/run", "tester/prepared"):
    data = Conversations(name, ["vqa"], BoxFormat("qwen3"), seed=1).load()
    record = Conversations(name, ["vqa"], BoxFormat("qwen3"), seed=1).record()
    print(json.dumps([{split: len(rows) for split, rows in data.items()}, record["source"], record["revision"]]))
try:
    Conversations("tester/none", ["vqa"], BoxFormat()).load()
except UserError as error:
    print(json.dumps(str(error)))
"""


def test_datasets_on_the_hub_are_sources(out, prepared, tmp_path):
    with LocalHub() as hub:
        commits = []
        for name, folder in {"tester/run": out, "tester/prepared": prepared}.items():
            hub.create_repository("dataset", name)
            files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            commits.append(hub.commit("dataset", name, files, ()).sha)
        environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            [sys.executable, "-c", LOAD_FROM_HUB], env=environment, capture_output=True, text=True, timeout=300
        )
    assert run.returncode == 0, run.stderr
    from_run, from_prepared, error = map(json.loads, run.stdout.splitlines())
    assert from_run == [{"train": 12}, "tester/run", commits[0]]
    counts = {split: len(rows) for split, rows in Conversations(prepared, ["vqa"], BoxFormat()).load().items()}
    assert from_prepared == [counts, "tester/prepared", commits[1]]
    assert "'tester/none'" in error
