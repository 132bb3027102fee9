"""Tests of what `artiagent push` sends and rejects, and of its response to failures of the Hub and the token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard, constants, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from datasets_script.cli.main import build_parser
from datasets_script.pairs.card import write_pair_card
from datasets_script.pairs.prepare import prepare_pairs_folder
from datasets_script.schema.run_record import RunRecord
from datasets_script.utils.errors import UserError
from evaluate_metrics import METRICS
from hub_cards.kinds import find_kind
from hub_cards.kinds.dataset import dataset_payload
from hub_cards.kinds.metric import metric_payload
from hub_cards.kinds.pipeline import installed_pipeline, pipeline_payload
from hub_cards.kinds.vlm import model_payload
from hub_cards.payload import Payload, SentFile, missing_mark
from hub_cards.push import prepare_target, push

from ..helpers.local_hub import READ_TOKEN, TOKEN, Fault, LocalHub
from ..helpers.made_pairs import make_pair, write_run
from ..helpers.paths import ROOT
from ..helpers.tiny_vlms import tiny_llava


BASE = "someone/base-vlm"


def training_record(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "script": "training/sft_vlm.py",
        "recipe": {"learning_rate": 1e-05, "conversations": ["instructions"], "num_train_epochs": 1},
        "base_model": {"id": BASE, "revision": "b" * 40},
        "method": {"peft": False, "frozen": ["vision"], "trainable_parameters": 1234, "parameters": 56789},
        "data": {
            "source": "someone/pairs",
            "fingerprint": "sha256:0123",
            "pairs": {"train": 8},
            "rows": {"train": {"instructions": 48}},
            "coordinates": "normalized",
            "num_pairs": None,
            "licenses": ["cc-by-sa-4.0"],
            "runs": [{"settings": {"model": "embedded"}, "sources": {"count": 5}, "fingerprint": "abc"}],
        },
        "seed": 7,
        "versions": {"torch": "2.15.0", "trl": "1.16.0"},
        "device": "cpu",
        "devices": 1,
        "seconds": 61.2,
        "resumed_from_step": None,
        "steps": 40,
        "loss": [[step, 4.0 / step] for step in range(1, 41)],
        "eval_loss": [],
        **changes,
    }


def evaluation_report(benchmark: str = "artibench") -> dict[str, Any]:
    detection = {
        "accuracy": 0.75,
        "accuracy_interval": [0.5, 0.9],
        "macro_f1": 0.7,
        "macro_f1_interval": [0.4, 0.8],
        "precision": float("nan"),
        "protocol": "artiagent",
        "n": 20,
    }
    localization = {"miou": 0.25, "miou_interval": [0.1, 0.4], "protocol": "legion", "n": 20, "n_scored": 10}
    return {
        "benchmark": benchmark,
        "split": "test",
        "limit": 20,
        "predictions": {"model": {"model": "/home/alice/models/mine"}},
        "settings": {"bootstrap": {"n_resamples": 1000, "confidence": 0.95, "seed": 0}},
        "versions": {"numpy": "2.3"},
        "n": 20,
        "scores": {"detection": detection, "localization": localization},
        "failures": [["0001", "no yes or no"]],
    }


def write_model(folder: Path, **record: Any) -> Path:
    """Write a tiny VLM as training leaves it, with the trainer's files, its generated card, and a report."""
    model, processor = tiny_llava()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(training_record(**record)))
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "report.json").write_text(json.dumps(evaluation_report("/home/alice/artibench")))
    (folder / "README.md").write_text("---\ntags:\n- generated_from_trainer\nlicence: license\n---\n# Model\n")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "checkpoint-40").mkdir()
    (folder / "checkpoint-40" / "optimizer.pt").write_bytes(b"a pickle")
    (folder / "checkpoint-40" / "model.safetensors").write_bytes(b"weights")
    return folder


def write_dataset(folder: Path, count: int = 6, status: str = "complete", model: str = "embedded") -> Path:
    """Write a folder as `artiagent synthesize` leaves it, with pairs of random pixels."""
    run = {
        "settings": {"model": model, "seed": 0, "shard_size": 2},
        "sources": {"count": count, "sha256": "ab"},
        "model_revision": "sha256:cd",
        "perception": {},
        "curation": {},
        "versions": {"torch": "2.15.0"},
        "pairs": count,
        "rejected": 1,
        "made": {"omission": 2},
        "accepted": {"omission": 2},
    }
    write_run(folder, [make_pair(index) for index in range(count)], count // 2)
    (folder / "run.json").write_text(json.dumps({**run, "status": status, "fingerprint": "abc"}))
    (folder / "shards").mkdir()
    for shard in range(count // 2):
        (folder / "shards" / f"{shard:05d}.json").write_text('{"fingerprint": "abc", "rejected": []}')
    rejected = {"source_id": "a.png", "reason": "unexpected", "traceback": "/home/alice/venv/x.py"}
    (folder / "rejected.jsonl").write_text(json.dumps(rejected) + "\n")
    (folder / "contact_sheet.png").write_bytes(b"an image")
    (folder / "logs").mkdir()
    (folder / "logs" / "rank-0.jsonl").write_text("/home/alice")
    write_pair_card(folder, RunRecord.read(folder))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("synthesized") / "out")


@pytest.fixture
def model_copy(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def run_copy(run_folder, tmp_path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "out"))


def content(payload: Payload) -> dict[str, bytes]:
    return {file.path: file.read() for file in payload.files}


# Models


def test_a_model_is_its_weights_configurations_processor_and_records(model):
    payload = model_payload(model, "tester/detector", "apache-2.0")
    assert {file.path for file in payload.files} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "evaluation/report.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    }
    assert payload.left_out == ("checkpoint-40/", "training_args.bin")
    report = json.loads(content(payload)["evaluation/report.json"])
    assert report["benchmark"] == "artibench" and report["predictions"]["model"]["model"] == "mine"


def test_the_card_of_a_model_says_what_is_on_record(model):
    card = ModelCard(model_payload(model, "tester/detector", "apache-2.0").card)
    metadata = card.data.to_dict()
    (index,) = metadata.pop("model-index")
    assert metadata == {
        "license": "apache-2.0",
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "base_model": BASE,
        "base_model_relation": "finetune",
        "datasets": ["someone/pairs"],
        "metrics": ["accuracy", "f1", "miou"],
        "tags": ["artifact-detection", "artiagent", "image-artifacts", "sft", "artiagent-card"],
    }
    name, results = model_index_to_eval_results([index])
    assert name == "detector"
    found = {result.metric_name: (result.metric_value, result.metric_args) for result in results}
    assert found == {
        "detection accuracy": (0.75, {"protocol": "artiagent", "n": 20, "interval": [0.5, 0.9]}),
        "detection macro F1": (0.7, {"protocol": "artiagent", "n": 20, "interval": [0.4, 0.8]}),
        "mIoU": (0.25, {"protocol": "legion", "n": 10, "interval": [0.1, 0.4]}),
    }
    assert {(result.dataset_name, result.dataset_split) for result in results} == {("artibench", "test")}
    for fact in (
        "| detection accuracy | 0.750 | 0.500 to 0.900 | `artiagent` | 20 |",
        "20 images of `artibench`, split `test` (the first 20). Unusable answers: 1.",
        f"| base model | [{BASE}](https://huggingface.co/{BASE}), revision `{'b' * 40}` |",
        "| frozen | vision |",
        "| parameters trained | 1,234 of 56,789 |",
        "learning_rate: 1e-05",
        "| rows, train, instructions | 48 |",
        "| run 1: photos | 5 |",
        "| device | cpu |",
        "| time | 61 s |",
        "Boxes in its answers are in fractions of width and height.",
        "| fingerprint | sha256:0123 |",
        "12 of the 40 recorded values",
        "torch 2.15.0, trl 1.16.0",
        "licence: cc-by-sa-4.0",
        'AutoProcessor.from_pretrained("tester/detector")',
        "artiagent detect image.png --model tester/detector",
        "not evaluated on these published benchmarks: richhf, ",
    ):
        assert fact in card.text
    assert not [word for word in ("nan", "{{", "none", "None") if word in card.text]


def test_the_card_of_a_continued_training_on_many_devices_tells_so(model_copy):
    (model_copy / "training.json").write_text(json.dumps(training_record(devices=8, resumed_from_step=20)))
    card = model_payload(model_copy, "tester/detector", "mit").card
    assert "| device | 8 x cpu |" in card and "| time | 61 s, from step 20 on |" in card


def test_the_card_of_a_classifier_of_synartifact_speaks_of_no_pairs(model_copy):
    data = {"source": "synartifact", "coordinates": "llava", "rows": {"train": {"synartifact_classification": 900}}}
    (model_copy / "training.json").write_text(json.dumps(training_record(data=data)))
    card = model_payload(model_copy, "tester/classifier", "mit").card
    assert "SynArtifact-1K" in card and "Which of these kinds of artifacts" in card
    assert "pairs" not in card and "artiagent detect" not in card and "on purpose" not in card


def test_python_in_cards_compiles(model, run_folder):
    cards = [
        model_payload(model, "tester/detector", "mit").card,
        dataset_payload(run_folder, "tester/pairs", "cc-by-4.0").card,
        pipeline_payload(installed_pipeline(), "tester/injection").card,
    ]
    for card in cards:
        blocks = card.split("```python\n")[1:]
        assert blocks and all(compile(block.partition("```")[0], "card", "exec") for block in blocks)


def test_a_base_that_is_a_folder_is_told_by_its_name_alone(model_copy):
    base = {"id": "/home/alice/secret-base", "revision": "sha256:ab"}
    (model_copy / "training.json").write_text(json.dumps(training_record(base_model=base)))
    with pytest.raises(
        UserError, match=r"training.json must not hold .* got a local path \('/home/alice/secret-base'\) in line 1"
    ):
        model_payload(model_copy, "tester/detector", "mit")
    (model_copy / "training.json").write_text(json.dumps(training_record(base_model={**base, "id": "local"})))
    card = model_payload(model_copy, "tester/detector", "mit").card
    assert "base_model" not in metadata_load_text(card) and "`local` (a folder, not on the Hub)" in card
    before = {"id": "local", "revision": "sha256:ab", "base_model": {"id": BASE, "revision": "c" * 40}}
    (model_copy / "training.json").write_text(json.dumps(training_record(base_model=before)))
    card = model_payload(model_copy, "tester/detector", "mit").card
    assert metadata_load_text(card)["base_model"] == BASE and f"not on the Hub, trained from [{BASE}]" in card


def metadata_load_text(card: str) -> dict[str, Any]:
    return ModelCard(card).data.to_dict()


def test_a_card_by_hand_stays_and_is_checked(model_copy):
    (model_copy / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    assert model_payload(model_copy, "tester/detector", None).card == "---\nlicense: mit\n---\n# Mine\n"
    with pytest.raises(UserError, match="--license must not be given with a card written by hand, got 'mit'"):
        model_payload(model_copy, "tester/detector", "mit")
    for text, message in (
        (
            "---\nlicense: my-own\n---\n",
            "`license` in README.md must be a licence identifier of the Hub, got 'my-own'",
        ),
        ("# Mine\n", "`license` in README.md must be a licence identifier of the Hub, got 'none'"),
        ("---\nlicense: [\n---\n", "must begin with valid YAML metadata"),
        (
            "---\nlicense: mit\nbase_model: /data/x\n---\n",
            "`base_model` in README.md must hold ids on the Hub, got '/data/x'",
        ),
        (
            "---\nlicense: mit\n---\nTrained in /home/alice/runs\n",
            r"README.md must not .* got a local path \('/home/alice/runs'\) in line 4",
        ),
    ):
        (model_copy / "README.md").write_text(text)
        with pytest.raises(UserError, match=message):
            model_payload(model_copy, "tester/detector", None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("chat_template.jinja", f"a\nhf_{'a' * 34}\n", "chat_template.jinja must not .* got a Hub token in line 2"),
        (
            "generation_config.json",
            f'{{"key": "sk-{"b" * 40}"}}',
            "generation_config.json must not .* got an API key in line 1",
        ),
        ("LICENSE", "\n\n-----BEGIN RSA PRIVATE KEY-----", "LICENSE must not .* got a private key in line 3"),
        ("tokenizer.json", f'{{"a": "hf_{"a" * 34}"}}', "tokenizer.json must not .* got a Hub token in line 1"),
        ("chat_template.jinja", "see /Users/alice/x", r"got a local path \('/Users/alice/x'\)"),
        ("chat_template.jinja", r"see C:\Users\alice", "got a local path"),
        ("chat_template.jinja", f"see {ROOT}/training", "got a local path"),
        ("pytorch_model.bin", "", "must not hold pickles, .* got pytorch_model.bin"),
        ("extra.pt", "", "must not hold pickles, .* got extra.pt"),
    ],
)
def test_secrets_paths_and_pickles_are_refused(model_copy, name, text, message):
    (model_copy / name).write_text(text)
    with pytest.raises(UserError, match=message):
        model_payload(model_copy, "tester/detector", "mit")


def test_the_value_of_a_token_in_use_is_refused(model_copy, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-no-known-form")
    (model_copy / "chat_template.jinja").write_text("a-token-of-no-known-form")
    with pytest.raises(UserError, match="got the value of HF_TOKEN in line 1"):
        model_payload(model_copy, "tester/detector", "mit")


def test_words_of_a_vocabulary_and_addresses_are_no_paths(model_copy):
    (model_copy / "vocab.json").write_text('{"/root": 0, "/home/alice": 1}')
    (model_copy / "chat_template.jinja").write_text("https://example.org/home/alice and share/home/bob")
    assert model_payload(model_copy, "tester/detector", "mit")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "got no model.safetensors"),
        ("config.json", "config.json or adapter_config.json"),
        ("processor_config.json", "got no processor_config.json"),
        ("training.json", "a model with its training.json"),
    ],
)
def test_a_model_that_lacks_something_is_refused(model_copy, name, message):
    (model_copy / name).unlink()
    with pytest.raises(UserError, match=message):
        model_payload(model_copy, "tester/detector", "mit")


def test_weights_in_parts_must_all_be_there(model_copy):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model_copy / "model.safetensors").rename(model_copy / "model-00001-of-00002.safetensors")
    (model_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="got no model-00002-of-00002.safetensors"):
        model_payload(model_copy, "tester/detector", "mit")


def test_links_out_of_the_folder_are_refused(model_copy, tmp_path):
    (tmp_path / "private.txt").write_text("private")
    (model_copy / "LICENSE").symlink_to(tmp_path / "private.txt")
    with pytest.raises(UserError, match="LICENSE must be inside the folder, got a link to"):
        model_payload(model_copy, "tester/detector", "mit")


# Datasets


def test_a_dataset_is_its_shards_and_records(run_folder):
    payload = dataset_payload(run_folder, "tester/pairs", "cc-by-4.0")
    shards = [f"data/pairs-0000{shard}.parquet" for shard in range(3)]
    assert [file.path for file in payload.files] == [
        "README.md",
        "contact_sheet.png",
        *shards,
        "rejected.jsonl",
        "run.json",
    ]
    assert payload.left_out == ("logs/", "shards/")
    assert json.loads(content(payload)["rejected.jsonl"]) == {"source_id": "a.png", "reason": "unexpected"}
    metadata = metadata_load_text(payload.card)
    assert metadata["license"] == "cc-by-4.0" and metadata["size_categories"] == "n<1K"
    assert metadata["configs"] == (metadata_load(run_folder / "README.md") or {})["configs"]
    for fact in ('load_dataset("tester/pairs", split="train")', "Published under `cc-by-4.0`.", "| rows, pairs | 6 |"):
        assert fact in payload.card
    assert "hf download tester/pairs --repo-type dataset --local-dir pairs`, then\n`artiagent prepare" in payload.card
    assert "path/to/this/folder" not in payload.card and "before publishing" not in payload.card


def test_the_card_of_a_downloaded_dataset_is_made_anew(run_copy):
    first = dataset_payload(run_copy, "tester/pairs", "cc-by-4.0").card
    (run_copy / "README.md").write_text(first)
    again = dataset_payload(run_copy, "tester/pairs", "mit").card
    assert first != again == first.replace("cc-by-4.0", "mit") and again.count("## This copy") == 1


def test_a_dataset_needs_a_licence(run_folder):
    with pytest.raises(UserError, match="--license must be given, since the images are derived from photos"):
        dataset_payload(run_folder, "tester/pairs", None)
    with pytest.raises(UserError, match="--license must be a licence identifier of the Hub, such as .*, got 'free'"):
        dataset_payload(run_folder, "tester/pairs", "free")


def test_a_prepared_folder_is_sent_as_its_configurations(run_folder, tmp_path):
    folder = tmp_path / "prepared"
    prepare_pairs_folder(run_folder, folder, ["pairs", "vqa"])
    payload = dataset_payload(folder, "tester/pairs", "cc-by-4.0")
    assert "prepared.json" in content(payload) and "| rows, vqa | 12 |" in payload.card
    image = next((folder / "images").rglob("*.png"))
    assert image.relative_to(folder).as_posix() in content(payload)
    (image.parent / "other.png").write_bytes(b"")
    payload = dataset_payload(folder, "tester/pairs", "cc-by-4.0")
    assert f"{image.parent.relative_to(folder).as_posix()}/other.png" in payload.left_out
    moved = image.rename(tmp_path / "moved.png")
    with pytest.raises(UserError, match=f"{image.name} is missing"):
        dataset_payload(folder, "tester/pairs", "cc-by-4.0")
    moved.rename(image)
    shard = folder / "vqa-train.parquet"
    shard.rename(shard.with_name("other.parquet"))
    with pytest.raises(UserError, match="must have files of configuration vqa, got none"):
        dataset_payload(folder, "tester/pairs", "cc-by-4.0")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "shards" / "00001.json").unlink(), "got shard 1 of 3 unfinished"),
        (lambda run: (run / "data" / "pairs-00002.parquet").unlink(), "got shard 2 of 3 unfinished"),
        (
            lambda run: (run / "shards" / "00001.json").write_text('{"fingerprint": "x"}'),
            "got another fingerprint in shard 1",
        ),
        (lambda run: (run / "run.json").unlink(), "a dataset with run.json or prepared.json, got .* with neither"),
        (lambda run: (run / "README.md").unlink(), "a folder with shards and a README.md"),
        (
            lambda run: shutil.copy(run / "data" / "pairs-00000.parquet", run / "data" / "pairs-00003.parquet"),
            "must have 6 pairs in 3 shards according to run.json, got 8 in 4",
        ),
        (lambda run: (run / "data" / "pairs-00000.parquet").write_bytes(b"PAR1"), "must be a complete Parquet file"),
    ],
)
def test_a_dataset_that_is_not_whole_is_refused(run_copy, harm, message):
    harm(run_copy)
    with pytest.raises(UserError, match=message):
        dataset_payload(run_copy, "tester/pairs", "cc-by-4.0")


def test_a_run_that_is_not_complete_is_refused(tmp_path):
    folder = write_dataset(tmp_path / "out", status="running")
    with pytest.raises(UserError, match="a complete run, got one with status 'running'; .*`artiagent status"):
        dataset_payload(folder, "tester/pairs", "cc-by-4.0")


def test_what_the_run_did_not_write_is_left_out(run_copy):
    (run_copy / "notes.txt").write_text("mine")
    shutil.copy(run_copy / "data" / "pairs-00000.parquet", run_copy / "data" / "mine.parquet")
    payload = dataset_payload(run_copy, "tester/pairs", "cc-by-4.0")
    assert payload.left_out == ("logs/", "notes.txt", "shards/", "data/mine.parquet")


def test_a_model_by_its_folder_in_the_settings_is_refused(tmp_path):
    folder = write_dataset(tmp_path / "out", model="/home/alice/flux")
    with pytest.raises(UserError, match=r"README.md must not .* got a local path \('/home/alice/flux'\) in line \d+"):
        dataset_payload(folder, "tester/pairs", "cc-by-4.0")


# Metrics and the pipeline

NEEDED_BY_MIOU = ("citations", "descriptions", "intervals", "lengths", "miou", "regions", "versions")


def test_a_metric_is_sent_under_its_own_name(tmp_path):
    folder = ROOT / "evaluate_metrics" / "miou"
    payload = metric_payload(folder, "tester/miou")
    needed = [f"functional_{name}.py" for name in NEEDED_BY_MIOU]
    paths = ["README.md", "app.py", *needed, "miou.py", "requirements.txt", "space.py"]
    assert [file.path for file in payload.files] == paths
    assert 'evaluate.load("tester/miou")' in payload.card
    with pytest.raises(UserError, match="REPO must end in /miou"):
        metric_payload(folder, "tester/iou")
    with pytest.raises(UserError, match="must be a metric's name, or a folder with"):
        metric_payload(tmp_path, "tester/x")


def test_the_pipeline_is_what_it_imports(tmp_path):
    payload = pipeline_payload(installed_pipeline(), "tester/injection")
    sent = {file.path for file in payload.files}
    assert {"pipeline.py", "denoising_loop.py", "modular_blocks.py", "modular_config.json"} <= sent
    assert {*payload.left_out} - {"__pycache__/"} == {
        *("__init__.py", "py.typed", "registration.py"),
        # The second pipeline, which is not pushed with the first.
        *("pipeline_corruption.py", "corruptions.py", "corruption_levels.py", "corruption_variants.py"),
        *("family_unet.py", "path_ddim.py", "path_flow.py", "renoise.py"),
        # Search and guidance, which serve stock pipelines.
        *("best_of_n.py", "detector_guidance.py", "guidance_gradients.py", "guidance_observer.py"),
        # Repair, which takes the pipeline or a stock one.
        *("repair.py", "repair_denoising.py", "repair_inpainting.py", "repair_regions.py", "repair_sources.py"),
        "held_photo.py",  # what the app holds ready
        *("artifact_types/", "embedded/", "notebooks/", "tools/"),
    }
    (tmp_path / "pipeline.py").write_text("from .denoising_loop import DenoisingLoop\n")
    with pytest.raises(UserError, match="all modules that pipeline.py imports, got no denoising_loop.py"):
        pipeline_payload(tmp_path, "tester/injection")


@pytest.mark.parametrize("repo", ["detector", "a/b/c", "tester/-x-", "tester/a b"])
def test_a_wrong_repository_id_is_told(repo, model):
    with pytest.raises(UserError, match="REPO must be OWNER/NAME"):
        run_command("model", str(model), repo, "--license", "mit", "--dry-run")


def run_command(*arguments: str) -> int:
    parser = build_parser()
    args = parser.parse_args(["push", *arguments])
    return args.run(args)


# The Hub


@contextmanager
def reachable_hub() -> Iterator[LocalHub]:
    """Start a Hub and point this process's client to it, which is offline otherwise."""
    with LocalHub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with reachable_hub() as hub:
        yield hub


@pytest.fixture
def artiagent(hub, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run `artiagent push` with a token; return exit status, output and errors."""

    def call(*arguments: str | Path, token: str | None = TOKEN) -> tuple[int, str, str]:
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        else:
            monkeypatch.delenv("HF_TOKEN", raising=False)
        try:
            status = run_command(*map(str, arguments))
        except UserError as error:
            return 2, capsys.readouterr().out, f"{error}\n"
        return status, *capsys.readouterr()

    return call


def blobs(hub: LocalHub, since: int) -> list[str]:
    return [request for request in hub.requests[since:] if request.startswith("PUT /blobs/")]


def test_a_dry_run_shows_all_and_sends_nothing(hub, artiagent, model):
    before = len(hub.requests)
    status, out, _ = artiagent("model", model, "tester/dry", "--license", "mit", "--dry-run", token=None)
    assert (status, len(hub.requests)) == (0, before)
    assert "model to tester/dry (model repository, public if new):" in out
    assert "not uploaded, as not part of a model repository" in out
    assert "  model.safetensors " in out and "  # dry\n" in out
    assert out.endswith("dry run: nothing was uploaded\n")


def test_a_server_that_fails_midway_leaves_no_commit_and_is_sent_only_the_rest(hub, artiagent, run_folder):
    pushing = ("dataset", run_folder, "tester/flaky", "--license", "cc-by-4.0")
    start = len(hub.requests)
    hub.faults = [Fault("PUT /blobs/", 403, passes=2)]
    status, _, err = artiagent(*pushing)
    assert status == 3 and "Nothing was committed; repeat the command" in err and err.count("\n") == 1
    assert hub.files("dataset", "tester/flaky") == {} and len(hub.blobs) == 2
    hub.faults = [Fault("/commit/main", 500)]
    assert artiagent(*pushing)[0] == 3
    hub.faults = [Fault("/commit/main", None)]
    assert artiagent(*pushing)[0] == 3
    assert hub.files("dataset", "tester/flaky") == {}
    status, out, _ = artiagent(*pushing)
    assert status == 0 and "tester/flaky exists; adding a commit to it" in out
    # Two of three shards arrive at once; the third fails once and arrives when the command is repeated.
    assert len(blobs(hub, start)) == 4 and len(set(blobs(hub, start))) == 3
    sent = content(dataset_payload(run_folder, "tester/flaky", "cc-by-4.0"))
    assert hub.files("dataset", "tester/flaky") == sent
    assert len(hub.repositories["dataset", "tester/flaky"]) == 2
    assert "unchanged: already up to date" in artiagent(*pushing)[1]
    assert len(hub.repositories["dataset", "tester/flaky"]) == 2


def test_a_smaller_state_takes_the_shards_of_the_larger_away_in_one_commit(hub, artiagent, run_folder, tmp_path):
    pushing = ("tester/shrinking", "--license", "cc-by-4.0", "--message", "Fewer pairs")
    assert artiagent("dataset", run_folder, *pushing)[0] == 0
    hub.commit("dataset", "tester/shrinking", {"logo.svg": b"<svg/>"}, [])
    status, out, _ = artiagent("dataset", write_dataset(tmp_path / "out", count=4), *pushing)
    assert status == 0 and "data/pairs-00002.parquet is no longer part of it" in out
    files = hub.files("dataset", "tester/shrinking")
    assert sorted(path for path in files if path.startswith("data/")) == [
        "data/pairs-00000.parquet",
        "data/pairs-00001.parquet",
    ]
    assert files["logo.svg"] == b"<svg/>"
    assert len(hub.repositories["dataset", "tester/shrinking"]) == 4


def test_tokens_that_do_not_suffice(hub, artiagent):
    pushing = ("metric", "miou", "tester/miou")
    for token, message in (
        (None, "HF_TOKEN must be set, or a token saved by `hf auth login`, found neither"),
        ("hf_wrong", "the Hub rejected the token"),
        (READ_TOKEN, "the token must have write access to tester/miou"),
    ):
        status, _, err = artiagent(*pushing, token=token)
        assert status == 2 and message in err and err.count("\n") == 1
    status, _, err = artiagent("metric", "miou", "other/miou")
    assert status == 2 and "write access to other/miou" in err
    assert ("space", "tester/miou") not in hub.repositories


def test_repositories_that_exist(hub, artiagent, model):
    assert artiagent("pipeline", "tester/taken", "--private")[0] == 0
    assert ("model", "tester/taken") in hub.private
    status, _, err = artiagent("model", model, "tester/taken", "--license", "mit")
    assert status == 2 and "of kind model, got tester/taken, which holds something else, such as alignment.py" in err
    assert artiagent("metric", "css", "tester/css")[0] == 0
    status, _, err = artiagent("metric", "css", "tester/css", "--private")
    assert status == 2 and "--private must be used with a new or private repository, got tester/css" in err


# Files of repositories that kinds have in common, and those that tell them apart.
WEIGHTS = ("config.json", "model.safetensors")
HELD = {
    "model": (*WEIGHTS, "processor_config.json", "tokenizer.json", "training.json"),
    "detector": (*WEIGHTS, "pixel_detector.json", "training.json"),
    "reward": (*WEIGHTS, "reward_model.json", "training.json"),
    "lora": ("pytorch_lora_weights.safetensors", "training.json"),
    "dataset": ("data/pairs-00000.parquet", "run.json"),
    "metric": ("app.py", "functional_regions.py", "requirements.txt", "taken.py"),
    "pipeline": ("denoising_loop.py", "pipeline.py"),
    "app": ("app.py", "datasets_script/__init__.py", "datasets_script/app/main.py", "requirements.txt"),
}
# Repositories that were not pushed from here, with files of the names of ours.
OTHERS = {
    "model": (*WEIGHTS, "processor_config.json", "tokenizer.json"),
    "detector": (*WEIGHTS, "preprocessor_config.json"),
    "reward": WEIGHTS,
    "lora": ("pytorch_lora_weights.safetensors",),
    "dataset": ("data/train-00000-of-00001.parquet",),
    "metric": ("app.py", "requirements.txt"),
    "pipeline": ("modeling.py",),
    "app": ("app.py", "requirements.txt"),
}


def holding(hub: LocalHub, kind: str, *paths: str) -> Payload:
    """Make a repository with files on the Hub, and a small payload of a kind for it."""
    chosen = find_kind(kind)
    hub.create_repository(chosen.repo_type, "tester/taken")
    if paths:
        hub.commit(chosen.repo_type, "tester/taken", dict.fromkeys((".gitattributes", *paths), b"theirs"), [])
    files = tuple(SentFile(path, b"ours") for path in ("README.md", *HELD[kind]))
    return Payload(chosen, "tester/taken", files, ())


def test_what_another_kind_holds_is_not_replaced(hub):
    types = {kind: find_kind(kind).repo_type for kind in HELD}
    taken = [(kind, HELD[other]) for kind in HELD for other in HELD if other != kind and types[other] == types[kind]]
    for kind, there in [*taken, *OTHERS.items()]:
        payload = holding(hub, kind, "README.md", "LICENSE", *there)
        with pytest.raises(UserError) as refused:
            prepare_target(HfApi(token=TOKEN), payload, private=False)
        missing = missing_mark(payload.kind, payload.repo_id, there)
        assert missing and str(refused.value) == (
            f"REPO must be new, empty or of kind {kind}, got tester/taken, which holds something else, such as "
            f"{sorted(there)[0]}, and no {missing}; use another name"
        )


def test_an_earlier_push_of_its_kind_or_an_empty_repository_takes_a_push(hub):
    for kind, held in HELD.items():
        for there in ((), ("README.md",), ("LICENSE", "README.md"), held, (*held, "README.md", "logo.svg")):
            target = prepare_target(HfApi(token=TOKEN), holding(hub, kind, *there), private=False)
            assert (target.is_new, target.deleted) == (False, ())


def test_every_payload_can_be_pushed_again(model, run_folder, tmp_path):
    prepare_pairs_folder(run_folder, tmp_path / "prepared", ["pairs"])
    for payload in (
        model_payload(model, "tester/detector", "mit"),
        dataset_payload(run_folder, "tester/pairs", "mit"),
        dataset_payload(tmp_path / "prepared", "tester/pairs", "mit"),
        *(metric_payload(ROOT / "evaluate_metrics" / name, f"tester/{name}") for name in METRICS),
        pipeline_payload(installed_pipeline(), "tester/injection"),
    ):
        assert missing_mark(payload.kind, payload.repo_id, content(payload)) is None


def test_a_licence_that_was_added_on_the_hub_stays(hub):
    there = (*HELD["reward"], "LICENSE.md", "NOTICE", "reward_report.json")
    payload, api = holding(hub, "reward", "README.md", *there), HfApi(token=TOKEN)
    target = prepare_target(api, payload, private=False)
    assert target.deleted == ("reward_report.json",)
    push(api, payload, target, "Push")
    files = hub.files("model", "tester/taken")
    assert files["LICENSE.md"] == files["NOTICE"] == b"theirs" and files["model.safetensors"] == b"ours"
    assert "reward_report.json" not in files


def test_a_commit_of_somebody_else_meanwhile_is_not_overwritten(hub):
    payload, api = metric_payload(ROOT / "evaluate_metrics" / "rouge", "tester/rouge"), HfApi(token=TOKEN)
    target = prepare_target(api, payload, private=False)
    hub.commit("space", "tester/rouge", {"app.py": b"theirs"}, [])
    with pytest.raises(
        UserError, match="tester/rouge received another commit during the push, and nothing was changed"
    ):
        push(api, payload, target, "Push")
    assert hub.files("space", "tester/rouge")["app.py"] == b"theirs"
