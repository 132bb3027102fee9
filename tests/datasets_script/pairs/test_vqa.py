"""Conversations about pairs: every turn type, and answers that are true."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_script.pairs.views import vqa
from datasets_script.pairs.views.part_boxes import other_box, part_box
from datasets_script.pairs.views.vqa import vqa_rows
from datasets_script.schema.features import pair_to_row
from datasets_script.vlm.conventions import CONVENTIONS, BoxFormat, decode_box, qwen2_5_size
from diffusers_artifact.mapping import ARTIFACT_TYPES
from tests.helpers.made_pairs import HEIGHT, TOOLS, WIDTH, make_artifacts, make_pair, make_scene


SIZE = (WIDTH, HEIGHT)


def turns_of(row):
    """`(question, answer)` of a conversation."""
    texts = [[part["text"] for part in message["content"] if part["type"] == "text"] for message in row["messages"]]
    assert all(len(text) == 1 for text in texts)
    return list(zip([text[0] for text in texts[::2]], [text[0] for text in texts[1::2]], strict=True))


def pattern(wordings):
    return re.compile(
        "|".join(re.escape(w).replace(r"\{part\}", "(.+?)").replace(r"\{box\}", r"(.+?)") for w in wordings)
    )


def boxes_in(text, convention="pixel", resized=None):
    found = re.findall(r"\[([\d., ]+)\]", text)
    return [decode_box(tuple(map(float, values.split(","))), SIZE, convention, resized) for values in found]


def is_asked(wordings, question):
    return pattern(wordings).fullmatch(question) is not None


@pytest.fixture(scope="module")
def conversations():
    """`(pair, clean turns, flawed turns)` of many pairs."""
    pairs = [make_pair(index) for index in range(72)]
    rows = [list(vqa_rows(pair_to_row(pair), BoxFormat())) for pair in pairs]
    return [(pair, turns_of(clean), turns_of(flawed)) for pair, (clean, flawed) in zip(pairs, rows, strict=True)]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), tool=st.sampled_from(TOOLS))
def test_known_places_are_those_of_the_parts(seed, tool):
    scene = make_scene(seed)
    parts = {part.instance_id: part for entity in scene.perception.entities for part in entity.parts}
    for artifact in make_artifacts(scene, seed, tools=(tool,)):
        box = part_box(artifact)
        if box is not None:
            assert box == parts[artifact.instance_id].bbox
        if artifact.type in ("distortion", "fusion"):
            assert box is None


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_other_places_are_boxes_of_parts_without_the_part(seed):
    scene = make_scene(seed)
    parts = {part.instance_id: part for entity in scene.perception.entities for part in entity.parts}
    artifacts = make_artifacts(scene, seed)
    for artifact in artifacts:
        box = other_box(artifact, artifacts)
        if box is not None:
            assert box in [part_box(other) for other in artifacts]
            x_min, y_min, x_max, y_max = map(int, box)
            part = parts[artifact.instance_id]
            assert not part.mask[y_min:y_max, x_min:x_max].any()


def test_places_are_known_of_omissions_and_most_copies():
    known: dict[str, list] = {kind: [] for kind in ARTIFACT_TYPES}
    for seed in range(40):
        for tool in TOOLS:
            for artifact in make_artifacts(make_scene(seed), seed, 1, (tool,)):
                known[artifact.type].append(part_box(artifact) is not None)
    assert all(known["omission"]) and known["omission"]
    assert sum(known["duplication"]) > len(known["duplication"]) / 4


def test_clean_conversations(conversations):
    kinds = set()
    for pair, clean, _ in conversations:
        assert is_asked(vqa.HAS_ARTIFACT, clean[0][0]) and clean[0][1] == "No"
        assert is_asked(vqa.DESCRIBE_IMAGE, clean[-1][0]) and clean[-1][1] == pair.clean_description
        for question, answer in clean[1:-1]:
            parts = {f"a {a.entity}'s {a.part}": a for a in pair.artifacts if f"{a.entity}'s {a.part}" in question}
            assert parts
            if is_asked(vqa.LOCATE, question):
                kinds.add("locate")
                assert tuple(boxes_in(answer)[0]) in [part_box(a) for a in pair.artifacts]
            else:
                assert is_asked(vqa.IS_IN_BOX, question) and answer in ("Yes", "No")
                kinds.add(answer)
                place = tuple(boxes_in(question)[0])
                asked = next(iter(parts.values()))
                if answer == "Yes":
                    assert place in [part_box(a) for a in pair.artifacts if a.part == asked.part]
                else:
                    assert place in [part_box(a) for a in pair.artifacts if a.part != asked.part]
    assert kinds == {"locate", "Yes", "No"}


def test_a_part_is_asked_about_once(conversations):
    for _, clean, _ in conversations:
        names = [re.findall(r"an? \w+'s \w+", question)[0] for question, _ in clean[1:-1]]
        assert len(names) == len(set(names))


def test_flawed_conversations(conversations):
    for pair, _, flawed in conversations:
        wordings = [vqa.HAS_ARTIFACT, vqa.ARTIFACT_BOXES, *[vqa.EXPLAIN_REGION] * len(pair.artifacts)]
        for (question, _), wording in zip(flawed, [*wordings, vqa.DESCRIBE_ARTIFACTS], strict=True):
            assert is_asked(wording, question)
        assert flawed[0][1] == "Yes"
        assert boxes_in(flawed[1][1]) == [artifact.bbox for artifact in pair.artifacts]
        for (question, answer), artifact in zip(flawed[2:-1], pair.artifacts, strict=True):
            assert boxes_in(question) == [artifact.bbox] and answer == artifact.label
        assert flawed[-1][1] == pair.explanation


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_boxes_are_written_in_the_convention(convention):
    pair = make_pair(5)
    box_format = BoxFormat(convention, min_pixels=56 * 56, max_pixels=100 * 784)
    flawed = list(vqa_rows(pair_to_row(pair), box_format))[1]
    resized = qwen2_5_size(SIZE, max_pixels=100 * 784) if convention == "qwen2.5" else None
    found = boxes_in(turns_of(flawed)[1][1], convention, resized)
    assert len(found) == len(pair.artifacts)
    for box, artifact in zip(found, pair.artifacts, strict=True):
        assert box == pytest.approx(artifact.bbox, abs=max(SIZE) / 100)


def test_conversations_depend_on_the_seed_and_the_pair_alone():
    rows = [pair_to_row(make_pair(index)) for index in range(8)]
    alone = [list(vqa_rows(row, BoxFormat(), seed=3)) for row in rows]
    assert alone[::-1] == [list(vqa_rows(row, BoxFormat(), seed=3)) for row in rows[::-1]]
    assert alone != [list(vqa_rows(row, BoxFormat(), seed=4)) for row in rows]
    assert len({turns_of(clean)[0][0] for clean, _ in alone}) > 1


def test_turns_without_an_answer_are_left_out():
    row = pair_to_row(make_pair(2)) | {"clean_description": "", "explanation": ""}
    row["artifacts"] = [artifact | {"label": ""} for artifact in row["artifacts"]]
    clean, flawed = (turns_of(view) for view in vqa_rows(row, BoxFormat()))
    assert not any(is_asked(vqa.DESCRIBE_IMAGE, question) for question, _ in clean)
    assert len(flawed) == 2
    assert all(answer for _, answer in clean + flawed)


def test_names_of_parts():
    scene = make_scene(0)
    artifact = make_artifacts(scene, 0, 1, ("remove",))[0]
    for entity, expected in [
        ("cat", "a cat's"),
        ("owl", "an owl's"),
        ("horses", "the horses'"),
        ("people", "the people's"),
    ]:
        assert vqa.part_name(type(artifact)(**{**vars(artifact), "entity": entity})).startswith(expected)


def test_trl_takes_the_messages():
    from trl.data_utils import prepare_multimodal_messages

    clean = next(vqa_rows(pair_to_row(make_pair(1)), BoxFormat()))
    prepared = prepare_multimodal_messages(clean["messages"], images=["image"])
    placed = [part for message in prepared for part in message["content"] if part["type"] == "image"]
    assert [part["image"] for part in placed] == ["image"]
    assert prepared[0]["content"][0]["type"] == "image"
