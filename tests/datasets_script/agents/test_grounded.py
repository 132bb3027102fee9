"""Perception by a VLM's vocabulary and open-vocabulary models, on tiny random ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets_script.agents.perception import Perception, PerceptionError, PerceptionModelError
from datasets_script.agents.perception.association import Segment, associate
from datasets_script.agents.perception.grounded import GroundedSamPerception
from datasets_script.agents.perception.grounding import (
    BoxSegmenter,
    GroundedBox,
    GroundingDino,
    NameTokens,
    name_boxes,
    suppress_duplicates,
)
from datasets_script.agents.perception.reduction import reduced
from datasets_script.agents.perception.sam3 import Sam3Perception
from datasets_script.agents.perception.vocabulary import VocabularyPerception
from datasets_script.agents.prompts.vocabulary import EntityNames, Vocabulary
from datasets_script.vlm.base import GeneratingVLM, VLMReply, VLMRequest
from diffusers_artifact.tools import bbox_of_mask

from ...helpers.tiny_grounding import tiny_grounding_dino, tiny_sam, tiny_sam2, tiny_sam3


SIZES = [(90, 60), (64, 64), (90, 60), (50, 80), (90, 60)]
IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))
    for seed, (width, height) in enumerate(SIZES)
]
SOURCES = [f"{index}.png" for index in range(len(IMAGES))]
NAMES = [["cat", "wing mirror"], ["dog"], ["ear", "t-shirt", "chair"], [], ["x"]]


class ScriptedVLM(GeneratingVLM):
    """Says what it is told for a task and an image's size; anything else is no JSON."""

    def __init__(self, texts: dict[tuple[str, tuple[int, int]], str]) -> None:
        super().__init__("scripted", "1")
        self.texts, self.batches = texts, 0

    def _generate(self, requests: Sequence[VLMRequest]) -> list[VLMReply]:
        self.batches += 1
        return [VLMReply(self.texts.get((one.task, one.images[0].size), "no idea")) for one in requests]


def scripted(without: tuple[int, int] | None = None) -> ScriptedVLM:
    names = {"peripheral": [{"entity": "cat", "subentities": ["ear"]}], "intermediate": []}
    other = {"peripheral": [], "intermediate": [{"entity": "car", "subentities": ["door handle", "seat"]}]}
    texts = {}
    for number, size in enumerate(size for size in sorted(set(SIZES)) if size != without):
        texts["vocabulary", size] = json.dumps(other if number else names)
        texts["caption", size] = json.dumps({"caption": f"a scene {size[0]} wide"})
    return ScriptedVLM(texts)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    makers = {"dino": tiny_grounding_dino, "sam": tiny_sam, "sam2": tiny_sam2, "sam3": tiny_sam3}
    return {name: str(make(folder / name)) for name, make in makers.items()}


@pytest.fixture(scope="module")
def dino(models: dict[str, str]) -> GroundingDino:
    return GroundingDino(models["dino"], device="cpu", box_threshold=0.0, text_threshold=0.0, batch_size=2)


@pytest.fixture(scope="module")
def agents(models: dict[str, str]) -> dict[str, VocabularyPerception]:
    every: dict[str, VocabularyPerception] = {
        kind: GroundedSamPerception(
            scripted(),
            models["dino"],
            models[kind],
            device="cpu",
            box_threshold=0.0,
            text_threshold=0.0,
            batch_size=3,
        )
        for kind in ("sam", "sam2")
    }
    return every | {
        "sam3": Sam3Perception(scripted(), models["sam3"], device="cpu", score_threshold=0.0, batch_size=3)
    }


@pytest.fixture(params=["sam", "sam2", "sam3"])
def perceiving(request: pytest.FixtureRequest, agents: dict[str, VocabularyPerception]) -> VocabularyPerception:
    """One of the agents, with a VLM of its own."""
    agent = agents[request.param]
    agent.vlm = scripted()
    return agent


class TestNamesOfBoxes:
    """Of the prompt `"door. door handle. cat."`: one token begins it, one full stop follows each name."""

    TOKENS = [NameTokens("door", 1, 1, 2), NameTokens("door handle", 3, 4, 5), NameTokens("cat", 6, 6, 7)]

    @staticmethod
    def named(*scores: float) -> tuple[list[GroundedBox], list[str]]:
        return name_boxes(np.array([scores]), [(0.0, 0.0, 9.0, 9.0)], TestNamesOfBoxes.TOKENS, 0.3, 0.25)

    @pytest.mark.parametrize(
        ("scores", "name"),
        [
            ((0, 0.6, 0, 0.5, 0.1, 0, 0, 0), "door"),
            ((0, 0.4, 0, 0.3, 0.5, 0, 0, 0), "door handle"),
            ((0, 0.2, 0, 0.5, 0.26, 0, 0, 0), "door handle"),
            ((0, 0, 0, 0.26, 0.27, 0, 0.31, 0), "cat"),
            ((0.9, 0, 0.9, 0, 0, 0.9, 0.31, 0.9), "cat"),
        ],
    )
    def test_the_strongest_token_of_a_name_decides(self, scores, name):
        assert self.named(*scores) == (
            [GroundedBox(name, (0.0, 0.0, 9.0, 9.0), max(np.delete(scores, [0, 2, 5, 7])))],
            [],
        )

    @pytest.mark.parametrize("scores", [(0, 0.3, 0, 0, 0, 0, 0.2, 0), (0.9, 0, 0.9, 0, 0, 0.9, 0, 0.9)])
    def test_no_name_over_the_threshold(self, scores):
        assert self.named(*scores) == ([], [])

    def test_without_its_last_word_a_name_is_not_meant(self):
        detections, (note,) = self.named(0, 0.2, 0, 0.5, 0.25, 0, 0, 0)
        assert detections == [] and note == "door handle: a box scores 0.50, but not for 'handle'"


def test_of_boxes_around_one_thing_the_best_is_kept_for_each_name():
    boxes = [
        GroundedBox("cat", (0, 0, 10, 10), 0.5),
        GroundedBox("cat", (0, 0, 10, 9), 0.7),
        GroundedBox("ear", (0, 0, 10, 10), 0.4),
        GroundedBox("cat", (0, 6, 10, 16), 0.6),
    ]
    assert suppress_duplicates(boxes) == [boxes[1], boxes[3], boxes[2]]
    assert suppress_duplicates([]) == []


class TestGroundingDino:
    def test_boxes_are_those_of_the_library(self, dino):
        names = NAMES[2]
        processor, network = dino.checkpoint.processor, dino.checkpoint.network
        inputs = processor(images=IMAGES[2], text=[names], return_tensors="pt")
        with torch.inference_mode():
            outputs = network(**inputs)
        (expected,) = processor.post_process_grounded_object_detection(
            outputs, threshold=0.0, text_threshold=0.0, target_sizes=[IMAGES[2].size[::-1]]
        )
        ((detections, notes),) = dino.detect([IMAGES[2]], [names])
        assert notes == [] and detections
        for one in detections:
            distances = np.abs(expected["boxes"].numpy() - np.array(one.box)).max(axis=1)
            assert distances.min() < 1e-3 and one.score <= expected["scores"][distances.argmin()] + 1e-6
            assert one.name in names

    def test_a_batch_gives_what_each_image_gives(self, dino):
        together = dino.detect(IMAGES, NAMES)
        assert together[3] == ([], [])
        for image, names, (detections, notes) in zip(IMAGES, NAMES, together, strict=True):
            ((alone, alone_notes),) = dino.detect([image], [names])
            assert len(detections) == len(alone) and notes == alone_notes
            for first, second in zip(detections, alone, strict=True):
                assert first.name == second.name
                assert np.allclose((*first.box, first.score), (*second.box, second.score), atol=1e-3)

    def test_tokens_are_those_of_the_names(self, dino):
        """Words have as many tokens as letters here, hence the positions."""
        names = ["cat", "wing mirror", "t-shirt"]
        ids = dino.checkpoint.processor(images=IMAGES[0], text=[names], return_tensors="pt")["input_ids"][0]
        assert dino._tokens(names, ids) == [
            NameTokens("cat", 1, 1, 4),
            NameTokens("wing mirror", 5, 9, 15),
            NameTokens("t-shirt", 16, 16, 23),
        ]

    def test_more_names_than_fit_in_one_text(self, dino):
        names = [f"{chr(97 + index)}lephant trunk" for index in range(26)]
        prompts = list(dino._prompts(names))
        assert [name for prompt in prompts for name in prompt] == names and len(prompts) == 2
        ((detections, _),) = dino.detect([IMAGES[0]], [names])
        assert all({one.name for one in detections} & set(prompt) for prompt in prompts)

    def test_thresholds(self, models, dino):
        strict = GroundingDino(models["dino"], device="cpu", box_threshold=0.99, text_threshold=0.99)
        ((some, _),) = strict.detect([IMAGES[0]], [NAMES[0]])
        ((every, _),) = dino.detect([IMAGES[0]], [NAMES[0]])
        assert 0 < len(some) < len(every) and all(one.score > 0.99 for one in some)

    def test_half_precision(self, models):
        half = GroundingDino(models["dino"], device="cpu", dtype=torch.bfloat16, box_threshold=0.0, text_threshold=0.0)
        ((detections, _),) = half.detect([IMAGES[0]], [NAMES[0]])
        assert detections and half.identity()["dtype"] == "torch.bfloat16"


class TestBoxSegmenter:
    BOXES = [
        [(5.0, 5.0, 40.0, 30.0), (0.0, 0.0, 90.0, 60.0)],
        [(1.0, 2.0, 60.0, 50.0)],
        [],
        [(9.0, 9.0, 20.0, 40.0)],
        [],
    ]

    @pytest.mark.parametrize("kind", ["sam", "sam2"])
    def test_masks_are_the_best_of_the_library_s(self, models, kind):
        segmenter = BoxSegmenter(models[kind], device="cpu", batch_size=2)
        found = segmenter.segment(IMAGES, self.BOXES)
        assert [len(masks) for masks in found] == [2, 1, 0, 1, 0]
        network, processor = segmenter.checkpoint.network, segmenter.checkpoint.processor
        for image, boxes, masks in zip(IMAGES, self.BOXES, found, strict=True):
            if not boxes:
                continue
            inputs = processor(images=[image], input_boxes=[[list(box) for box in boxes]], return_tensors="pt")
            sizes = [inputs.pop(key) for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
            with torch.inference_mode():
                outputs = network(**inputs)
            (every,) = processor.post_process_masks(outputs.pred_masks, *sizes[: 2 if kind == "sam" else 1])
            assert every.shape[:2] == (len(boxes), 3)
            for mask, choices, scores in zip(masks, every, outputs.iou_scores[0], strict=True):
                assert mask.dtype == bool and mask.shape == image.size[::-1]
                assert np.mean(mask != choices[scores.argmax()].numpy()) < 1e-3

    @pytest.mark.parametrize("kind", ["sam", "sam2"])
    def test_half_precision(self, models, kind):
        segmenter = BoxSegmenter(models[kind], device="cpu", dtype=torch.bfloat16)
        assert [len(masks) for masks in segmenter.segment(IMAGES, self.BOXES)] == [2, 1, 0, 1, 0]


class TestSam3:
    def test_segments_are_those_of_the_library(self, agents):
        sam3 = agents["sam3"]
        ((segments, notes),) = sam3.ground([IMAGES[0]], [["cat"]])
        processor, network = sam3.checkpoint.processor, sam3.checkpoint.network
        inputs = processor(images=IMAGES[0], text="cat", return_tensors="pt")
        size = tuple(inputs.pop("original_sizes")[0].tolist())
        with torch.inference_mode():
            outputs = network(**inputs)
        (expected,) = processor.post_process_instance_segmentation(outputs, threshold=0.0, target_sizes=[size])
        order = expected["scores"].argsort(descending=True).tolist()
        assert segments and notes == []
        assert segments[0].score == pytest.approx(float(expected["scores"][order[0]]), abs=1e-5)
        for segment in segments:
            closest = int((expected["scores"] - segment.score).abs().argmin())
            assert np.mean(segment.mask != expected["masks"][closest].bool().numpy()) < 1e-3

    def test_threshold(self, models):
        sam3 = Sam3Perception(scripted(), models["sam3"], device="cpu", score_threshold=0.99)
        assert sam3.ground(IMAGES, NAMES) == [([], [])] * len(IMAGES)

    def test_names_longer_than_a_prompt_are_cut(self, agents):
        ((segments, _),) = agents["sam3"].ground([IMAGES[0]], [["a" * 60]])
        assert {segment.name for segment in segments} == {"a" * 60}


class TestAgents:
    def test_a_batch_gives_what_each_image_gives(self, perceiving):
        together = perceiving.perceive_batch(IMAGES, SOURCES)
        assert perceiving.vlm.batches == 1 and perceiving.vlm.usage.requests == 2 * len(IMAGES)
        for image, source, first in zip(IMAGES, SOURCES, together, strict=True):
            second = perceiving.perceive(image, source)
            assert isinstance(first, Perception) and first.caption == second.caption == f"a scene {image.width} wide"
            assert first.entities and first.notes == second.notes
            for one, other in zip(first.entities, second.entities, strict=True):
                assert (one.name, one.instance_id) == (other.name, other.instance_id)
                assert np.mean(one.mask != other.mask) < 1e-3 and one.mask.shape == (image.height, image.width)
                assert [part.name for part in one.parts] == [part.name for part in other.parts]

    def test_models_see_large_photos_reduced_and_masks_are_mapped_back(self, perceiving, monkeypatch):
        monkeypatch.setattr(perceiving, "max_long_side", 64)
        large = IMAGES[1].resize((192, 192))
        expected = perceiving.perceive(reduced(large, 64), "a.png")
        found = perceiving.perceive(large, "a.png")
        assert found.entities and found.caption == "a scene 64 wide", "which is what the VLM says of that size"
        for one, small in zip(found.entities, expected.entities, strict=True):
            assert one.mask.shape == (192, 192) and (one.mask[1::3, 1::3] == small.mask).all()
            assert one.bbox == tuple(3 * side for side in small.bbox)
            assert [part.mask.shape for part in one.parts] == [(192, 192)] * len(small.parts)
        assert reduced(IMAGES[1], 1024) is IMAGES[1]

    def test_an_image_without_a_vocabulary_fails_alone(self, perceiving):
        perceiving.vlm = scripted(without=(64, 64))
        results = perceiving.perceive_batch(IMAGES, SOURCES)
        assert [isinstance(result, PerceptionError) for result in results] == [size == (64, 64) for size in SIZES]
        with pytest.raises(PerceptionError, match="no vocabulary: the answer holds no JSON") as caught:
            perceiving.perceive(IMAGES[1], SOURCES[1])
        assert caught.value.raw == "no idea"

    def test_no_caption_or_a_blank_one(self, perceiving):
        perceiving.vlm.texts["caption", (64, 64)] = '{"caption": " "}'
        del perceiving.vlm.texts["caption", (50, 80)]
        results = perceiving.perceive_batch(IMAGES, SOURCES)
        assert str(results[1]) == "the VLM gave no caption: `caption` must not be blank, got ' '"
        assert results[1].raw == '{"caption": " "}'
        assert "no caption: the answer holds no JSON" in str(results[3])
        assert all(isinstance(results[index], Perception) for index in (0, 2, 4))

    def test_an_image_with_nothing_to_name_has_no_entities(self, perceiving):
        perceiving.vlm.texts["vocabulary", (64, 64)] = '{"peripheral": [], "intermediate": []}'
        result = perceiving.perceive(IMAGES[1], SOURCES[1])
        assert result.entities == () and result.notes == ()

    @pytest.mark.parametrize("kind", ["sam", "sam2", "sam3"])
    def test_identity(self, models, agents, kind):
        identity = agents[kind].identity()
        assert json.loads(json.dumps(identity)) == identity
        assert identity["backend"] == ("sam3" if kind == "sam3" else "grounded-sam")
        assert identity["vlm"]["model"] == "scripted" and identity["prompts"] == {"vocabulary": "1", "caption": "1"}
        checkpoint = identity["model" if kind == "sam3" else "segmenter"]
        assert checkpoint["model"] == models[kind] and checkpoint["revision"].startswith("sha256:")


class TestCheckpoints:
    def test_no_such_folder(self, models):
        with pytest.raises(PerceptionModelError, match="`detector` must be .*grounding-dino.* got 'no/such'"):
            GroundedSamPerception(scripted(), "no/such", models["sam"])
        with pytest.raises(PerceptionModelError, match="`segmenter` must be .*sam2.* got 'no/such'"):
            GroundedSamPerception(scripted(), models["dino"], "no/such", device="cpu")
        with pytest.raises(PerceptionModelError, match="`model` must be .*sam3.* got 'no/such'"):
            Sam3Perception(scripted(), "no/such")

    def test_a_model_of_another_kind(self, models):
        with pytest.raises(PerceptionModelError, match="it is of type 'sam'"):
            GroundingDino(models["sam"])
        with pytest.raises(PerceptionModelError, match="it is of type 'grounding-dino'"):
            BoxSegmenter(models["dino"])

    def test_pickled_weights_are_refused(self, models, tmp_path):
        shutil.copytree(models["sam"], tmp_path / "sam")
        (tmp_path / "sam" / "model.safetensors").unlink()
        torch.save({}, tmp_path / "sam" / "pytorch_model.bin")
        with pytest.raises(PerceptionModelError, match="safetensors"):
            BoxSegmenter(str(tmp_path / "sam"))

    def test_a_file_that_is_cut_off(self, models, tmp_path):
        shutil.copytree(models["sam"], tmp_path / "sam")
        weights = tmp_path / "sam" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(PerceptionModelError, match="`segmenter` must be"):
            BoxSegmenter(str(tmp_path / "sam"))

    def test_the_revision_of_a_hub_model_is_its_commit(self, models):
        commit = "0123456789abcdef0123456789abcdef01234567"
        cache = Path(os.environ["HF_HOME"]) / "hub" / "models--tiny--sam3"
        shutil.copytree(models["sam3"], cache / "snapshots" / commit)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(commit)
        assert Sam3Perception(scripted(), "tiny/sam3", device="cpu").identity()["model"]["revision"] == commit


SHAPE = (20, 30)
CAT = Vocabulary((EntityNames("cat", ("ear",), ("face",)), EntityNames("hand", ("finger",))))


def box(name: str, x_min: int, y_min: int, x_max: int, y_max: int, score: float = 0.5) -> Segment:
    mask = np.zeros(SHAPE, bool)
    mask[y_min:y_max, x_min:x_max] = True
    return Segment(name, mask, score)


class TestAssociation:
    def test_a_part_belongs_to_the_instance_that_holds_it(self):
        perception = associate(
            [
                box("cat", 0, 0, 10, 20),
                box("ear", 22, 2, 25, 5, 0.75),
                box("cat", 20, 0, 30, 20),
                box("face", 1, 1, 5, 5),
            ],
            CAT,
            "two cats",
        )
        first, second = perception.entities
        assert perception.caption == "two cats" and perception.notes == ()
        assert [part.name for part in first.parts] == ["face"] and first.parts[0].level == "intermediate"
        (ear,) = second.parts
        assert (ear.level, ear.parent, ear.score, ear.bbox) == ("peripheral", second.instance_id, 0.75, (22, 2, 25, 5))

    def test_the_share_is_of_the_part(self):
        """Nine tenths of it are enough, less is not, however little of the entity that is."""
        kept = associate([box("cat", 0, 0, 9, 20), box("ear", 0, 0, 10, 2)], CAT)
        assert len(kept.entities[0].parts) == 1
        dropped = associate([box("cat", 0, 0, 8, 20), box("ear", 0, 0, 10, 2)], CAT)
        assert dropped.entities[0].parts == () and dropped.notes == ("ear: 80.0% of it in cat #1, under 90%",)

    def test_of_two_instances_that_hold_it_the_smaller_has_it(self):
        perception = associate([box("cat", 0, 0, 30, 20), box("cat", 0, 0, 10, 10), box("ear", 2, 2, 5, 5)], CAT)
        assert [len(entity.parts) for entity in perception.entities] == [0, 1]

    def test_another_s_part_is_nobody_s(self):
        perception = associate([box("cat", 0, 0, 30, 20), box("finger", 2, 2, 5, 5)], CAT)
        assert perception.entities[0].parts == ()
        assert perception.notes == ("finger: nothing was found that it could be a part of",)

    def test_what_is_an_entity_may_be_a_part_as_well(self):
        words = Vocabulary((EntityNames("person", ("hand",)), EntityNames("hand", ("finger",))))
        perception = associate(
            [box("person", 0, 0, 10, 20), box("hand", 0, 0, 5, 5), box("hand", 20, 0, 25, 5)], words
        )
        person, held, free = perception.entities
        assert [part.name for part in person.parts] == ["hand"] and perception.notes == ()
        assert len({held.instance_id, free.instance_id, person.instance_id, person.parts[0].instance_id}) == 4

    def test_empty_masks_are_noted(self):
        perception = associate([box("cat", 0, 0, 0, 0), box("ear", 5, 5, 5, 9)], CAT)
        assert perception.entities == () and perception.notes == ("cat: its mask is empty", "ear: its mask is empty")


_coordinates = st.tuples(st.integers(0, 29), st.integers(0, 19), st.integers(0, 30), st.integers(0, 20))
_segments = st.lists(
    st.builds(
        lambda name, corners: box(name, *corners),
        st.sampled_from(["cat", "hand", "ear", "face", "finger"]),
        _coordinates,
    ),
    max_size=8,
)


@given(_segments)
def test_every_segment_is_an_entity_or_a_part_of_the_best_holder_or_noted(segments):
    perception = associate(segments, CAT)
    parts = [(entity, part) for entity in perception.entities for part in entity.parts]
    assert len(perception.entities) + len(parts) + len(perception.notes) == len(segments)
    ids = [entity.instance_id for entity in perception.entities] + [part.instance_id for _, part in parts]
    assert len(set(ids)) == len(ids)
    names = {entity.name: entity for entity in CAT.entities}
    for entity, part in parts:
        share = (part.mask & entity.mask).sum() / part.mask.sum()
        others = [one for one in perception.entities if part.name in names[one.name].parts]
        assert share == max((part.mask & one.mask).sum() / part.mask.sum() for one in others) >= 0.9
        assert part.parent == entity.instance_id and part.bbox == bbox_of_mask(part.mask)
        assert (part.level == "peripheral") == (part.name in names[entity.name].peripheral)
