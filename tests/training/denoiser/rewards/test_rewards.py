"""Rewards: entries are read, models are loaded by name, and each score is what it says."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.detection.reward.model import RewardModel
from datasets_script.utils.errors import UserError
from datasets_script.vlm.local import LocalVLM
from tests.helpers.tiny_detectors import red_detector
from tests.helpers.tiny_rewards import tiny_reward
from tests.helpers.tiny_vlms import talking_vlm, tiny_qwen2_5_vl
from training.denoiser.rewards.answers import requests_about
from training.denoiser.rewards.bertscore import BertScore, BertScoreReward, answers_reward, synartifact_reward
from training.denoiser.rewards.classes import classes_reward
from training.denoiser.rewards.no import NoReward
from training.denoiser.rewards.registry import load_rewards, parse_rewards


IMAGES = [Image.new("RGB", (64, 64), color) for color in ("navy", "red", "gray")]
PROMPTS = ["a", "b", "c"]
ANSWERS = (
    "1. No artifacts.",
    "I cannot tell.",
    "1. Distorted and deformed components.",
    "1. Distorted and deformed components.\n2. Duplicated components.",
)


def brightness(images, prompts):
    return [float(np.asarray(image).mean()) / 255 for image in images]


def one_nan(images, prompts):
    return [math.nan] * len(images)


HERE = f"{__name__}:brightness"


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    answers = {"classification": ANSWERS[2], "detection": "No."}
    return str(talking_vlm(tmp_path_factory.mktemp("vlm") / "talking", answers))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a random BERT of three layers and a tokenizer of words."""
    words = sorted({word for answer in ANSWERS for word in answer.lower().replace(".", " . ").split()})
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained(folder)
    return str(folder)


# Entries


def test_an_entry_of_a_recipe_is_that_of_the_command_line():
    texts = ["classes=runs/vlm,per_class=0.1,weight=2", "detector=embedded"]
    recipe: list[dict[str, Any]] = [
        {"kind": "classes", "model": "runs/vlm", "per_class": 0.1, "weight": 2},
        {"kind": "detector", "model": "embedded"},
    ]
    assert parse_rewards(texts) == parse_rewards(recipe)
    assert [spec.to_dict() for spec in parse_rewards(texts)] == [
        {"kind": "classes", "model": "runs/vlm", "weight": 2.0, "per_class": "0.1"},
        {"kind": "detector", "model": "embedded"},
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("beauty=x", "must have a kind among reward, detector, no, classes, bertscore, function, got 'beauty'"),
        ("embedded", "must be KIND=MODEL, such as detector=embedded"),
        ("detector=", "must name a model after 'detector='"),
        ("detector=embedded,weight=much", "must have a number as weight, got 'much'"),
        ({"kind": "detector"}, "entries with kind and model, got one without model"),
    ],
)
def test_an_entry_of_another_form_is_told(entry, message):
    with pytest.raises(UserError, match=message):
        parse_rewards([entry])
    with pytest.raises(UserError, match="must name at least one"):
        parse_rewards([])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("detector=embedded,alpha=1", "of kind 'detector' must have options among weight, device, got 'alpha'"),
        ("classes=x,per_class=low", "must have a number as per_class of 'classes', got 'low'"),
        ("classes=x,endpoint=localhost:1", "endpoint that begins with http:// or https://, got 'localhost:1'"),
        ("classes=x,endpoint=http://h,per_class=-1", "per_class of at least 0, got -1"),
        ("classes=x,endpoint=http://h,questions=0", "questions of at least 1, got 0"),
        ("no=x,endpoint=http://h", "a server gives no logits, got the endpoint 'http://h'; use classes"),
        ("bertscore=x,encoder=y", "must have a layer for the encoder 'y', got none"),
        ("bertscore=x,encoder=/nowhere,layer=2", "must have an encoder that can be loaded, got '/nowhere'"),
        ("function=brightness", "must name a function as PACKAGE.MODULE:NAME, got 'brightness'"),
        ("function=nowhere:brightness", "function that can be imported, got 'nowhere:brightness'"),
        (f"function={__name__}:IMAGES", "must name a function as PACKAGE.MODULE:NAME"),
        ("detector=/nowhere", "/nowhere"),
        ("reward=/nowhere", "/nowhere"),
    ],
)
def test_what_can_not_be_loaded_is_told(entry, message):
    with pytest.raises(UserError, match=message):
        load_rewards(parse_rewards([entry]), "cpu")


# Scores


def test_models_score_as_where_images_are_searched(tmp_path):
    tiny_reward().save_pretrained(tmp_path / "reward")
    red_detector().save_pretrained(tmp_path / "red")
    entries = [
        f"reward={tmp_path / 'reward'}",
        f"detector={tmp_path / 'red'},weight=0.5",
        f"function={HERE},weight=-1",
    ]
    rewards = load_rewards(parse_rewards(entries), "cpu")
    scores = rewards(IMAGES, PROMPTS)
    model = RewardModel.from_pretrained(tmp_path / "reward", device="cpu")
    detector = PixelDetector.from_pretrained(tmp_path / "red", device="cpu")
    expected = [-detector.raw_score(found) for found in detector.maps(IMAGES)]
    assert scores.parts["reward"] == pytest.approx(model(IMAGES)) and scores.parts["detector"] == expected
    assert scores.parts["detector"][1] == min(scores.parts["detector"]), "red is what it looks for"
    assert scores.total == pytest.approx(
        [
            reward + 0.5 * score - light
            for reward, score, light in zip(model(IMAGES), expected, brightness(IMAGES, PROMPTS), strict=True)
        ]
    )
    identity = rewards.identity()
    assert list(identity) == ["reward", "detector", "function"] and str(tmp_path) not in str(identity)
    assert identity["detector"]["weight"] == 0.5


def test_two_rewards_of_a_kind_have_names_of_their_own():
    assert list(load_rewards(parse_rewards([f"function={HERE}"] * 3), "cpu").rewards) == [
        *("function", "function_2", "function_3"),
    ]


def test_a_reward_without_a_finite_number_is_told():
    rewards = load_rewards(parse_rewards([f"function={__name__}:one_nan"]), "cpu")
    with pytest.raises(ValueError, match="reward 'function' must give a finite number for each of 3 images"):
        rewards(IMAGES, PROMPTS)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1. No artifacts.", 1.0),
        ("1. Distorted and deformed components.", -0.1),
        (ANSWERS[3], -0.2),
        ("I cannot tell.", -1.3),
        ("1. Duplicated components.\n2. Something odd.", -1.3),
        ("1. No artifacts.\n2. Duplicated components.", -1.3),
        ("", -1.3),
        ("<think>Duplicated components.</think>No artifacts", 1.0),
    ],
)
def test_classes_are_rewarded_by_what_is_said(answer, expected):
    assert classes_reward(answer, 0.1) == pytest.approx(expected)
    assert classes_reward(answer) == (1 if expected == 1 else 0)


def test_a_model_is_asked_about_each_image(vlm):
    rewards = load_rewards(parse_rewards([f"classes={vlm},per_class=0.1"]), "cpu")
    scores = rewards(IMAGES, PROMPTS)
    assert scores.parts["classes"] == pytest.approx([-0.1] * 3)
    identity = rewards.identity()
    assert identity["classes"]["question"] == {"task": "classification", "version": "1"}


def test_no_is_read_from_the_logits_of_the_answer(tmp_path):
    model, processor = tiny_qwen2_5_vl()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    vlm = LocalVLM(str(tmp_path), device="cpu", batch_size=2)
    reward = NoReward(vlm)
    scores = reward(IMAGES, PROMPTS)
    assert all(0 < score < 1 for score in scores) and len(set(scores)) == 3
    # A byte a token, so that words begin with their first letter; a space is shared, and left out.
    yes, no = (sorted(vlm.processor.tokenizer.convert_tokens_to_ids(list(letters))) for letters in ("Yy", "Nn"))
    assert (reward.yes, reward.no) == (yes, no)
    alone = vlm.first_logits(requests_about(IMAGES[:1], "detection", vlm))[0].softmax(0)
    assert scores[0] == pytest.approx(float(alone[no].sum() / (alone[no].sum() + alone[yes].sum())), rel=1e-4)


def test_a_tokenizer_that_does_not_tell_yes_from_no_is_told(vlm):
    """The tokenizer of this model knows its answers alone, and makes nothing of "Yes"."""
    with pytest.raises(UserError, match="whose tokenizer tells yes from no"):
        load_rewards(parse_rewards([f"no={vlm}"]), "cpu")


# BERTScore


def by_hand(bertscore: BertScore, candidate: str, reference: str) -> float:
    """F1 of BERTScore from its definition, token by token."""
    states = []
    for text in (candidate, reference):
        inputs = bertscore.tokenizer(text, return_tensors="pt")
        hidden = bertscore.network(**inputs, output_hidden_states=True).hidden_states[bertscore.layer][0]
        states.append([vector / vector.norm() for vector in hidden])
    first, second = states
    precisions = [max(float(one @ other) for other in second) for one in first[1:-1]]
    recalls = [max(float(one @ other) for other in first) for one in second[1:-1]]
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_bertscore_is_its_definition(layer, encoder):
    bertscore = BertScore(encoder, layer)
    found = bertscore([*ANSWERS, ""], ["No artifacts", ANSWERS[2]])
    expected = [[by_hand(bertscore, one, other) for other in ("No artifacts", ANSWERS[2])] for one in ANSWERS]
    torch.testing.assert_close(found[:-1], torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert found[2, 1] == pytest.approx(1) and found[-1].tolist() == [0, 0]


def test_the_reward_is_equation_4(encoder, vlm):
    similarities = torch.tensor([[0.9] + [0.2] * 13, [0.3] + [0.2] * 12 + [0.8]])
    found = synartifact_reward(similarities, alpha=0.1, beta=0.5)
    torch.testing.assert_close(found, torch.tensor([0.9 - 0.26 + 0.5, 0.3 - 0.32 + 0.5]))
    rewards = load_rewards(parse_rewards([f"bertscore={vlm},encoder={encoder},layer=2,beta=0"]), "cpu")
    (_, reward), *_ = rewards.rewards.values()
    assert isinstance(reward, BertScoreReward)
    assert reward(IMAGES, PROMPTS) == pytest.approx(answers_reward(reward.bertscore, [ANSWERS[2]] * 3, 1 / 13, 0.0))
    assert reward.identity()["alpha"] == pytest.approx(1 / 13) and reward.identity()["bertscore"]["layer"] == 2


def test_a_layer_that_the_encoder_lacks_is_told(encoder):
    with pytest.raises(UserError, match="a layer between 1 and 3 of .*, got 4"):
        BertScore(encoder, 4)


ENCODER = os.environ.get("ARTIAGENT_TEST_ENCODER", "")


@pytest.mark.skipif(
    not Path(ENCODER or "/nowhere").is_dir(),
    reason="ARTIAGENT_TEST_ENCODER must be a folder with sentence-transformers/all-MiniLM-L6-v2",
)
def test_rewards_of_four_answers_with_a_real_encoder():
    """The table at the head of `bertscore.py`; and equal to the package bert_score, where that is installed."""
    bertscore = BertScore(ENCODER, 5)
    found = answers_reward(bertscore, ANSWERS, 1 / 13, 0.0)
    assert found == pytest.approx([0.372, 0.048, -0.080, -0.085], abs=6e-4)
    (opposite,) = answers_reward(bertscore, ["The hand has artifacts."], 1 / 13, 0.0)
    assert opposite == pytest.approx(0.156, abs=6e-4)
    package = pytest.importorskip("bert_score")
    expected = package.score(list(ANSWERS), ["No artifacts"] * 4, model_type=ENCODER, num_layers=5)[2]
    torch.testing.assert_close(bertscore(ANSWERS, ["No artifacts"])[:, 0], expected, atol=1e-4, rtol=0)
