"""The networks: each trunk builds offline, gives logits of one meaning, and is saved and loaded."""

from __future__ import annotations

import pytest
import torch

from datasets_script.detection.pixel.models import (
    ARTIFACT,
    artifact_index,
    artifact_logits,
    build_model,
    load_model,
)
from datasets_script.detection.pixel.trunks import TRUNKS
from datasets_script.utils.errors import ArgumentError

from ....helpers.tiny_detectors import TINY_TRUNKS, tiny_network


IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=TRUNKS)
def network(request):
    return tiny_network(request.param)


def test_logits_have_the_size_of_the_input_and_come_back_from_disk(network, tmp_path):
    with torch.no_grad():
        logits = artifact_logits(network, IMAGES)
        assert logits.shape == (2, 64, 96) and not network.training
        classes = network(pixel_values=IMAGES).logits
        # The probability of one class of two is the sigmoid of the difference.
        if classes.shape[1] == 2:
            torch.testing.assert_close(logits.sigmoid(), classes.softmax(dim=1)[:, 1])
        network.save_pretrained(tmp_path)
        loaded = load_model(str(tmp_path))
        # Not bit for bit: the layout of a loaded weight in memory may differ.
        torch.testing.assert_close(artifact_logits(loaded, IMAGES), logits)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_the_network_to_ship_is_small():
    network = build_model("efficientnet_lite0")
    stored = sum(value.numel() * (2 if value.is_floating_point() else 8) for value in network.state_dict().values())
    assert stored < 8_000_000
    trunk = sum(weight.numel() for weight in network.backbone.parameters())
    assert trunk == 2_958_848 and network.config.id2label == {0: "clean", 1: ARTIFACT}


def test_training_may_start_from_a_network_for_other_classes(tmp_path):
    scenes = tiny_network("convnext_tiny")
    scenes.config.id2label = {index: f"scene {index}" for index in range(150)}
    scenes.config.label2id = {name: index for index, name in scenes.config.id2label.items()}
    type(scenes)(scenes.config).save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="or two classes .* got the classes scene 0, .*, ..."):
        load_model(str(tmp_path))
    network = load_model(str(tmp_path), new_classes=True)
    assert artifact_index(network) == 1 and artifact_logits(network, IMAGES).shape == (2, 64, 96)


def test_what_is_no_detector_is_told(tmp_path):
    network = tiny_network("mit_b0")
    weights = network.state_dict()
    del weights["decode_head.classifier.weight"]
    network.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ArgumentError, match="must hold all weights, got .* without decode_head.classifier.weight"):
        load_model(str(tmp_path))
    with pytest.raises(ArgumentError, match="`trunk` must be among efficientnet_lite0, .* got 'vgg'"):
        build_model("vgg")
    with pytest.raises(ArgumentError, match="`hidden_size` must be at least 1, got 0"):
        build_model("mit_b0", hidden_size=0)


def test_of_two_classes_the_one_named_artifact_counts():
    network = tiny_network()
    first = artifact_logits(network, IMAGES)
    network.config.id2label = {0: ARTIFACT, 1: "clean"}
    assert artifact_index(network) == 0 and torch.equal(artifact_logits(network, IMAGES), -first)
    network.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    assert artifact_index(network) == 1
    network.config.id2label = {0: "sky", 1: "sea"}
    with pytest.raises(ArgumentError, match="got the classes sky, sea; train it for artifacts first"):
        artifact_index(network)


def test_every_trunk_is_tried_here():
    assert TINY_TRUNKS.keys() == TRUNKS.keys()
    assert all(trunk.weights and trunk.license and trunk.hidden_size for trunk in TRUNKS.values())
