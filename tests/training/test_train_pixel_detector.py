"""The training script of pixel detectors at tiny size: every trunk learns eight images, and runs continue exactly."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModelForSemanticSegmentation

from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.schema.training_record import TrainingRecord
from datasets_script.utils.errors import UserError
from tests.helpers.tiny_detectors import TINY_TRUNKS, tiny_network
from tests.helpers.visible_pairs import visible_pairs, write_visible_run
from training.train_pixel_detector import TEACHER, main, parse

from ..helpers.paths import ROOT


RECIPES = sorted((ROOT / "training" / "recipes" / "train_pixel_detector").glob("*.yaml"))
# Trunks that share all code with another of the table are left out.
LEARNING = [name for name in TINY_TRUNKS if name not in ("mit_b5", "efficientnet_lite1")]
LOSSES = {"mit_b0": "mse", "swin_tiny": "ce"}
PAIRS = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four pairs, which are eight images."""
    return write_visible_run(tmp_path_factory.mktemp("pairs") / "run", PAIRS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for trunk in LEARNING:
        tiny_network(trunk, hidden_size=16).save_pretrained(folder / trunk)
    return folder


def train(base, run, out, *options, sources=()):
    main(
        ["--model_name_or_path", str(base), "--sources", f"pairs={run}", *sources, "--output_dir", str(out)]
        + ["--length", "64", "--use_cpu", "true", "--disable_tqdm", "true", "--report_to", "none", "--seed", "0"]
        + ["--per_device_train_batch_size", "4", "--prior", "0.05", "--augmented_share", "0", *options]
    )
    return json.loads((out / "training.json").read_text())


def iou(detector, pairs):
    """Return the mean intersection over union at .5 of the artifact images."""
    values = []
    for pair in pairs:
        true = np.logical_or.reduce([artifact.mask for artifact in pair.artifacts])
        found = detector.maps([pair.flawed])[0] > 0.5
        values.append((found & true).sum() / (found | true).sum())
    return float(np.mean(values))


@pytest.mark.parametrize("trunk", LEARNING)
def test_every_trunk_learns_eight_images(trunk, bases, run, tmp_path):
    # At half the size of the pairs, where the edges of masks lie on whole pixels.
    options = ["--length", "96", "--max_steps", "100", "--learning_rate", "1e-2", "--lr_scheduler_type", "cosine"]
    options += ["--save_strategy", "no", "--logging_steps", "10"]
    record = train(bases / trunk, run, tmp_path / "out", *options, "--loss", LOSSES.get(trunk, "bce"))
    detector = PixelDetector.from_pretrained(tmp_path / "out")
    pairs = list(visible_pairs(PAIRS))
    assert iou(detector, pairs) >= 0.9
    assert max(detector.maps([pair.clean])[0].max() for pair in pairs) < 0.5
    assert record["loss"][-1][1] < record["loss"][0][1]
    # Loaded again by transformers alone, it computes the same.
    again = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again(pixels).logits, detector.network(pixels).logits, rtol=1e-4, atol=1e-5)


def test_resumed_equals_uninterrupted(bases, run, tmp_path):
    options = ["--max_steps", "4", "--save_steps", "2", "--logging_steps", "1", "--augmented_share", "0.5"]
    options += ["--per_device_train_batch_size", "2", "--teacher_decay", "0.5", "--crop", "0.75"]
    options += [
        "--trunk_learning_rate",
        "1e-4",
        "--test_share",
        "0.5",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "2",
    ]
    base = bases / "efficientnet_lite0"
    whole = train(base, run, tmp_path / "whole", *options)
    (tmp_path / "resumed" / "checkpoint-3").mkdir(parents=True)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    shutil.copy(tmp_path / "whole" / "recipe.json", tmp_path / "resumed")
    resumed = train(base, run, tmp_path / "resumed", *options)
    assert whole["resumed_from_step"] is None and resumed["resumed_from_step"] == 2
    assert resumed["loss"] == whole["loss"] and len(whole["loss"]) == 4
    assert len(whole["eval_loss"]) == 3 and resumed["eval_loss"] == whole["eval_loss"]
    for folder in (".", TEACHER):
        first, second = (PixelDetector.from_pretrained(tmp_path / name / folder) for name in ("whole", "resumed"))
        weights = second.network.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in first.network.state_dict().items())
        assert first.record == second.record
    assert any(
        not torch.equal(value, weights[name])
        for name, value in PixelDetector.from_pretrained(tmp_path / "whole").network.state_dict().items()
    )
    (tmp_path / "resumed" / "checkpoint-4" / "teacher.safetensors").unlink()
    with pytest.raises(UserError, match="--output_dir must hold checkpoints with teacher.safetensors, got "):
        train(base, run, tmp_path / "resumed", *options)
    more = write_visible_run(tmp_path / "more", PAIRS + 1)
    with pytest.raises(UserError, match="must be the folder of a run with data = "):
        train(base, more, tmp_path / "resumed", *options)


def test_record(bases, run, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (96, 64), "gray").save(photos / "wall.png")
    held_out = write_visible_run(tmp_path / "held_out", 2, start=10)
    record = train(
        bases / "mit_b0",
        run,
        tmp_path / "out",
        *("--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "1", "--save_dtype", "bfloat16"),
        sources=[f"photos={photos}", f"pairs={held_out},role=test"],
    )
    assert str(tmp_path) not in json.dumps(record) and str(run.parent) not in json.dumps(record)
    data = record["data"]
    assert data["provenance"] == {"train": {"pairs": 4, "clean": 5}, "test": {"pairs": 2, "clean": 2}}
    assert data["drawn"] == {"pairs": 4, "clean": 8} and data["pairs"] == {"train": 4, "test": 2}
    assert data["source"] == "run, photos, held_out"
    assert {"eval_pixel_iou", "eval_pixel_auc", "eval_image_auc", "eval_clean_area"} <= data["scores"].keys()
    assert {"pixel_iou", "recall", "false_alarms", "is_calibrated"} == data["fitted"].keys()
    assert TrainingRecord.read(tmp_path / "out").is_of_pairs and record["base_model"]["id"] == "mit_b0"
    stored = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert stored.dtype == torch.bfloat16
    # A second stage keeps what the first has learned, and its record.
    second = train(tmp_path / "out", run, tmp_path / "two", "--max_steps", "1")
    assert second["base_model"]["base_model"] == record["base_model"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_understood(recipe):
    # Bfloat16 is refused without a GPU, so the recipe's value is overridden.
    script_args, training_args, specs, given = parse(["--config", str(recipe), "--use_cpu", "true", "--bf16", "false"])
    content = yaml.safe_load(recipe.read_text())
    assert content.keys() - {"output_dir"} <= given.keys()
    told = r"Effective batch (\d+) units.* = (\d+) per device x (\d+) accumulated x (\d+) device"
    (numbers,) = re.findall(told, recipe.read_text())
    batch, per_device, accumulated, devices = map(int, numbers)
    assert batch == per_device * accumulated * devices
    assert per_device == training_args.per_device_train_batch_size and per_device >= 2
    assert any(spec.role == "test" for spec in specs) or script_args.test_share > 0
    assert training_args.metric_for_best_model == "pixel_iou" and training_args.greater_is_better
    assert (
        training_args.eval_steps % training_args.save_steps == 0
        or training_args.save_steps % training_args.eval_steps == 0
    )


def test_what_papers_publish_is_in_their_recipes():
    parsed = {path.stem: parse(["--config", str(path), "--use_cpu", "true", "--bf16", "false"]) for path in RECIPES}
    for name, (script_args, training_args, specs, _) in parsed.items():
        if name.startswith("menn"):
            assert (script_args.loss, training_args.learning_rate, training_args.weight_decay) == ("ce", 6e-5, 0.01)
            assert training_args.max_steps == (10_000 if "corruption" in name else 1_000)
            assert any(spec.labels == "majority" and spec.limit == 100 for spec in specs)
        if name.startswith("diffdoctor"):
            assert (
                script_args.loss == "mse"
                and "non-commercial"
                in (ROOT / "training/recipes").joinpath("train_pixel_detector", f"{name}.yaml").read_text()
            )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze", "eyes"), "--freeze must be among trunk, trunk_statistics, got 'eyes'"),
        (("--test_share", "1"), "--test_share must be at least 0 and below 1, got 1.0"),
        (("--augmented_share", "2"), "--augmented_share must lie between 0 and 1, got 2.0"),
        (("--crop", "0"), "--crop must be above 0 and at most 1, got 0.0"),
        (
            ("--freeze", "trunk", "--trunk_learning_rate", "1e-4"),
            "--trunk_learning_rate must be unset for a frozen trunk, which does not learn, got 0.0001; leave it out",
        ),
        (("--teacher_decay", "1"), "--teacher_decay must lie between 0 and 1, both excluded, got 1.0"),
        (("--per_device_train_batch_size", "1"), "--per_device_train_batch_size must be at least 2 for UperNet"),
        (("--eval_strategy", "steps"), "--sources must hold units out for --eval_strategy, got none"),
        (("--push_to_hub", "true"), "`artiagent push detector "),
        (("--hard_cases", "no/such"), "--hard_cases must be a folder of `artiagent pseudo-label`"),
        (("--model_name_or_path", "no/such/model"), "--model_name_or_path must be"),
    ],
)
def test_mistakes_are_told_in_a_line(options, message, bases, run, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        train(bases / "convnext_tiny", run, tmp_path / "out", *options)
    assert "Traceback" not in str(raised.value)
