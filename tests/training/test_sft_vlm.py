"""The training script for vision-language models at tiny size: models learn every answer by heart."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import trl
import yaml
from peft import PeftModel
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.chat_template_utils import get_training_chat_template
from trl.scripts.sft import make_parser as make_trl_parser
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_json
from datasets_script.vlm.base import VLMRequest
from datasets_script.vlm.conventions import BoxFormat, convention_for
from datasets_script.vlm.local import LocalVLM
from tests.helpers import tiny_vlms
from tests.helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run
from training.sft_vlm import main, parse
from training.vlm.data import PAIR_CONVERSATIONS, Conversations
from training.vlm.freezing import PARTS, part_of
from training.vlm.processor import prepare_processor, set_chat_template

from ..helpers.paths import ROOT


RECIPES = sorted((ROOT / "training" / "recipes" / "sft_vlm").glob("*.yaml"))
SMALL = "cpu_small"
GOLDEN = ROOT / "tests" / "golden" / "sft_vlm.json"
FAMILIES = ("qwen2_5_vl", "internvl", "llava")


def mosaic(seed):
    """Make an image that the smallest vision tower distinguishes from others."""
    colors = np.random.default_rng(seed).integers(0, 2, (2, 2, 3), dtype=np.uint8) * 255
    return Image.fromarray(colors).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)


def write_pairs(folder):
    """Write a run with eight pairs."""
    pairs = [replace(make_pair(index), clean=mosaic(2 * index), flawed=mosaic(2 * index + 1)) for index in range(8)]
    assert len({image.tobytes() for pair in pairs for image in (pair.clean, pair.flawed)}) == 16
    return write_run(folder, pairs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "run")


def conversations(run, family, kinds=PAIR_CONVERSATIONS):
    box_format = BoxFormat(convention_for(family), 28 * 28, 56 * 56)
    return Conversations(str(run), kinds, box_format).load()["train"]


def texts_of(rows):
    return [part["text"] for row in rows["messages"] for message in row for part in message["content"] if part["text"]]


def learn_words(tokenizer, texts):
    """Add merges to a byte-level tokenizer, so that questions take few tokens; other ids stay the same."""
    trained = tokenizer.train_new_from_iterator(texts, 1500, show_progress=False)
    merges = json.loads(trained.backend_tokenizer.to_str())["model"]["merges"]
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    new = dict.fromkeys("".join(merge) for merge in merges)
    state["model"]["vocab"] |= {token: len(tokenizer) + index for index, token in enumerate(new)}
    state["model"]["merges"] = merges
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def save_base(family, folder, texts, width=32):
    """Save a tiny random model and its processor, which reads and writes the texts as words."""
    model, processor = getattr(tiny_vlms, f"tiny_{family}")()
    learn_words(processor.tokenizer, texts)
    config = model.config
    config.text_config.vocab_size = len(processor.tokenizer)
    config.text_config.hidden_size, config.text_config.intermediate_size = width, 2 * width
    config.text_config.initializer_range = 0.02
    if family == "qwen2_5_vl":
        config.vision_config.out_hidden_size = width
        config.text_config.rope_parameters["mrope_section"] = [width // 32, width // 32, width // 16]
        # The published models' templates, which TRL knows.
        processor.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5_vl.jinja").read_text()
    torch.manual_seed(0)
    type(model)(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bases(run, tmp_path_factory):
    """Return a base model of each family, with hidden size 32."""
    folder = tmp_path_factory.mktemp("bases")
    return {family: save_base(family, folder / family, texts_of(conversations(run, family))) for family in FAMILIES}


def train(base, run, out, *options, recipe=SMALL):
    main(
        ["--config", str(recipe), "--model_name_or_path", str(base), "--dataset_name", str(run)]
        + ["--output_dir", str(out), "--disable_tqdm", "true", *options]
    )
    return json.loads((out / "training.json").read_text())


def weights(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


@torch.inference_mode()
def greedy(vlm, prompts):
    """Generate greedy continuations of conversations `(images, messages)` of several turns."""
    answers = []
    for start in range(0, len(prompts), 32):
        batch = prompts[start : start + 32]
        texts = [vlm.processor.apply_chat_template(messages, add_generation_prompt=True) for _, messages in batch]
        inputs = vlm.processor(images=[images for images, _ in batch], text=texts, padding=True, return_tensors="pt")
        output = vlm.network.generate(**inputs, do_sample=False, max_new_tokens=160)
        answers += vlm.processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


ONE_STEP = ("--max_steps", "1", "--warmup_steps", "0", "--per_device_train_batch_size", "2")
# Conversations that each family learns by heart, and the number of steps: boxes and several turns, or two images. This
# needs a larger hidden size than the other tests.
LEARNED = {"qwen2_5_vl": ("vqa", 140), "internvl": ("comparisons", 80)}
OVERFIT = ("--learning_rate", "6e-3", "--per_device_train_batch_size", "8", "--save_strategy", "no")


def overfit(family, run, folder):
    """Train a model in `folder / "tuned"` until it has learned its conversations; return them and the record."""
    kind, steps = LEARNED[family]
    rows = conversations(run, family, [kind])
    base = save_base(family, folder / "base", texts_of(rows), width=64)
    options = ("--conversations", kind, "--max_steps", str(steps), *OVERFIT)
    return rows, train(base, run, folder / "tuned", *options)


@pytest.fixture(scope="module", params=LEARNED)
def overfitted(request, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder / "tuned", *overfit(request.param, run, folder)


def test_every_answer_is_reproduced(overfitted):
    _, folder, rows, _ = overfitted
    vlm = LocalVLM(str(folder), batch_size=24)
    prompts, answers, requests = [], [], []
    for row in rows:
        requests.append(
            VLMRequest("first", "1", row["messages"][0]["content"][-1]["text"], tuple(row["images"]), None, 8)
        )
        for place in range(1, len(row["messages"]), 2):
            prompts.append((row["images"], row["messages"][:place]))
            answers.append(row["messages"][place]["content"][0]["text"])
    assert len(answers) >= 16 and len(set(answers)) >= 9
    assert greedy(vlm, prompts) == answers
    # The first question of each conversation, as `artiagent predict` asks it.
    firsts = [row["messages"][1]["content"][0]["text"] for row in rows]
    assert [reply.raw for reply in vlm.ask(requests)] == firsts


def test_losses_are_those_on_record(overfitted):
    family, _, _, record = overfitted
    golden = json.loads(GOLDEN.read_text())
    for name, made_with in golden["versions"].items():
        if version(name).split(".")[0] != made_with.split(".")[0]:
            pytest.skip(f"the golden losses are of {name} {made_with}: see tests/golden/README.md")
    steps, losses = zip(*golden["loss"][family], strict=True)
    assert tuple(step for step, _ in record["loss"][: len(steps)]) == steps
    assert [loss for _, loss in record["loss"][: len(steps)]] == pytest.approx(losses, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_of_answers_alone(family, run, bases):
    processor = AutoProcessor.from_pretrained(bases[family])
    prepare_processor(processor, convention_for(family))
    set_chat_template(processor, family)
    collator = DataCollatorForVisionLanguageModeling(
        processor, assistant_only_loss=True, chat_template=get_training_chat_template(processor)
    )
    for row in conversations(run, family, ["vqa", "comparisons"]).select(range(6)):
        batch = collator([row])
        tokens, kept = batch["input_ids"][0], batch["labels"][0] != -100
        assert (batch["labels"][0][kept] == tokens[kept]).all()
        learned = processor.tokenizer.decode(tokens[kept])
        answers = [message["content"][0]["text"] for message in row["messages"][1::2]]
        assert [text.strip() for text in learned.split("<|im_end|>")] == [*answers, ""]
        # Prompts in use begin as those in training.
        prompt = processor.apply_chat_template(row["messages"][:1], add_generation_prompt=True)
        asked = processor(images=row["images"], text=prompt, return_tensors="pt")["input_ids"][0]
        assert (tokens[: len(asked)] == asked).all() and not kept[: len(asked)].any() and kept[len(asked)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frozen", [("vision", "language"), ("projector",)], ids="+".join)
def test_frozen_parts_stay_and_others_learn(family, frozen, run, bases, tmp_path):
    options = ("--conversations", "comparisons", "--gradient_checkpointing", "true", "--save_strategy", "no")
    record = train(bases[family], run, tmp_path / "out", "--freeze", *frozen, *options, *ONE_STEP)
    before, after = weights(bases[family]), weights(tmp_path / "out")
    changed = dict.fromkeys(PARTS, False)
    for name, value in before.items():
        changed[part_of(name, family)] |= not torch.equal(value, after[name])
    assert changed == {part: part not in frozen for part in PARTS}
    assert record["method"]["frozen"] == list(frozen)
    assert 0 < record["method"]["trainable_parameters"] < record["method"]["parameters"]


@pytest.mark.parametrize("family", ["Qwen3VL", "Idefics3", "SmolVLM", "Qwen2VL"])
def test_parts_of_larger_families(family):
    config = getattr(transformers, f"{family}Config")()
    config.get_text_config().pad_token_id = 0  # that of some configurations is beyond their vocabulary
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    parts = {name: part_of(name, model.config.model_type) for name, _ in model.named_parameters()}
    projector = ("merger", "connector")
    assert set(parts.values()) == set(PARTS)
    assert all((parts[name] == "projector") == any(word in name for word in projector) for name in parts)
    assert all((parts[name] == "vision") == ("vis" in name and parts[name] != "projector") for name in parts)


def test_resumed_equals_uninterrupted(run, bases, tmp_path):
    options = [*("--max_steps", "4", "--save_steps", "2", "--save_total_limit", "5", "--logging_steps", "1")]
    options += ["--per_device_train_batch_size", "2"]
    whole = train(bases["llava"], run, tmp_path / "whole", *options)
    # As after Ctrl-C during the writing of another checkpoint.
    for name in ("checkpoint-2", "recipe.json"):
        copy = shutil.copytree if name != "recipe.json" else shutil.copy
        (tmp_path / "resumed").mkdir(exist_ok=True)
        copy(tmp_path / "whole" / name, tmp_path / "resumed" / name)
    (tmp_path / "resumed" / "checkpoint-3").mkdir()
    resumed = train(bases["llava"], run, tmp_path / "resumed", *options)
    assert whole["resumed_from_step"] is None and resumed["resumed_from_step"] == 2
    assert resumed["loss"] == whole["loss"] and len(whole["loss"]) == 4
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "resumed").items())
    with pytest.raises(
        UserError, match="a run with learning_rate = 0.5, got .* with learning_rate = 0.001; choose another"
    ):
        train(bases["llava"], run, tmp_path / "resumed", *options, "--learning_rate", "0.5")


def test_record(run, bases, tmp_path):
    options = (*ONE_STEP, "--conversations", "vqa", "comparisons", "--test_share", "0.25")
    record = train(bases["llava"], run, tmp_path / "one", *options, "--coordinates", "normalized")
    assert str(tmp_path) not in json.dumps(record) and str(run.parent) not in json.dumps(record)
    assert record["recipe"]["learning_rate"] == 1e-3 and "adam_beta1" not in record["recipe"]
    assert record["data"]["rows"]["test"] == {"vqa": 4, "comparisons": 2}
    assert record["base_model"]["id"] == "llava" and len(record["eval_loss"]) == 1
    # A second stage records the base model of the first, and keeps its box convention.
    second = train(tmp_path / "one", run, tmp_path / "two", *options)
    assert second["base_model"]["id"] == "one" and second["base_model"]["base_model"] == record["base_model"]
    assert record["data"]["coordinates"] == second["data"]["coordinates"] == "normalized"


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_lora(family, run, bases, tmp_path):
    options = ("--use_peft", "--lora_target_modules", "all-linear", "--freeze", "vision", "projector")
    record = train(bases[family], run, tmp_path / "out", *options, *ONE_STEP, "--save_strategy", "no")
    assert record["method"]["peft"] and 0 < record["method"]["trainable_parameters"] < record["method"]["parameters"]
    base = AutoModelForImageTextToText.from_pretrained(bases[family])
    model = PeftModel.from_pretrained(base, tmp_path / "out")
    adapted = {name: value for name, value in model.state_dict().items() if "lora_B" in name}
    assert adapted and all("language_model" in name and value.any() for name, value in adapted.items())
    request = VLMRequest("detection", "1", "Task: detection.", (mosaic(0),), None, 4)
    assert LocalVLM(str(tmp_path / "out")).ask([request])[0].error == ""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_understood(recipe):
    # Bfloat16 is refused without a GPU, so the recipe's value is overridden.
    script_args, training_args, _, given = parse(["--config", str(recipe), "--use_cpu", "true", "--bf16", "false"])
    assert training_args.max_length is None and training_args.assistant_only_loss
    content = yaml.safe_load(recipe.read_text())
    assert content.keys() - {"output_dir"} <= given.keys()
    told = r"Effective batch (\d+) = (\d+) per device x (\d+) accumulated x (\d+) device"
    (numbers,) = re.findall(told, recipe.read_text())
    batch, per_device, accumulated, devices = map(int, numbers)
    assert batch == per_device * accumulated * devices
    if "cpu" not in recipe.stem:  # no paper publishes a batch for these
        assert batch == (16 if "synartifact" in recipe.stem else 64)
    assert (per_device, accumulated) == (
        training_args.per_device_train_batch_size,
        training_args.gradient_accumulation_steps,
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_trl_runs_a_recipe_wholly_or_not_at_all(recipe):
    arguments = ["--config", str(recipe), "--use_cpu", "true", "--bf16", "false"]
    *_, unknown, _ = make_trl_parser().parse_args_and_config(
        arguments, return_remaining_strings=True, separate_remaining_strings=True
    )
    # `trl sft` passes unknown names to `accelerate launch`, which refuses them.
    assert bool(unknown) == ("lora" not in recipe.stem)


@pytest.mark.parametrize(
    "options, message",
    [
        (("--max_length", "512"), "--max_length must be unset, as it would truncate"),
        (("--packing", "true"), "--packing must be unset, as it would truncate"),
        (("--assistant_only_loss", "false"), "--assistant_only_loss must be true"),
        (("--freeze", "eyes"), "--freeze must be among vision, projector, language, got 'eyes'"),
        (("--freeze", *PARTS), "--freeze must leave a part to train"),
        (("--conversations", "talk"), "--conversations must be among"),
        (("--min_pixels", "1000"), "--min_pixels and --max_pixels must be unset except for Qwen2-VL"),
        (("--min_pixels", "10", "--max_pixels", "5"), "--min_pixels must be at least 1 and at most --max_pixels"),
        (("--load_in_4bit", "true"), "--use_peft must be true for quantized weights"),
        (("--chat_template_path", "no.jinja"), "--chat_template_path must be a file, got 'no.jinja'"),
        (("--push_to_hub", "true"), "`artiagent push model "),
        (("--eval_strategy", "steps"), "--test_share must be above 0 for --eval_strategy, got 0.0"),
        (("--model_name_or_path", "no/such/model"), "--model_name_or_path must be"),
    ],
)
def test_mistakes_are_told_in_a_line(options, message, run, bases, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        train(bases["llava"], run, tmp_path / "out", *options)
    assert "Traceback" not in str(raised.value)


def test_a_broken_record_of_the_base_model_is_told(run, bases, tmp_path):
    base = shutil.copytree(bases["llava"], tmp_path / "base")
    (base / "training.json").write_text("{")
    with pytest.raises(UserError, match="--model_name_or_path must have a readable training.json or none"):
        train(base, run, tmp_path / "out")


def test_unknown_names_of_a_recipe_are_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("learning_rat: 1.0e-5\n")
    with pytest.raises(UserError, match="--config must set known names only, got learning_rat in"):
        parse(["--config", str(tmp_path / "mine.yaml")])


def write_golden():
    with tempfile.TemporaryDirectory() as work:
        run = write_pairs(Path(work) / "run")
        records = {family: overfit(family, run, Path(work) / family)[1] for family in LEARNED}
    golden = {
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "loss": {family: record["loss"][:5] for family, record in records.items()},
    }
    write_json(GOLDEN, golden)


if __name__ == "__main__":
    write_golden()
