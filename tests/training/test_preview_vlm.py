"""The preview of a recipe: the images, tokens and boxes that a model will be trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
import trl
from PIL import Image, ImageDraw
from trl import SFTConfig, SFTTrainer

from datasets_script.utils.errors import UserError
from datasets_script.vlm.conventions import BoxFormat
from training import preview_vlm as preview
from training.preview_vlm import annotated, make_collator, see
from training.vlm.data import Conversations
from training.vlm.processor import prepare_processor, set_chat_template

from ..helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run
from ..helpers.tiny_vlms import byte_tokenizer, tiny_internvl, tiny_llava, tiny_qwen2_5_vl


RED, BLUE = (220, 30, 30), (40, 60, 200)
_TRL_TEMPLATES = Path(trl.__file__).parent / "chat_templates"


def _qwen2_5() -> tuple[Any, Any]:
    model, processor = tiny_qwen2_5_vl()
    processor.chat_template = (_TRL_TEMPLATES / "qwen2_5_vl.jinja").read_text()
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 24}
    return model, processor


def _qwen3() -> tuple[Any, Any]:
    names = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(
            patch_size=16, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 32 * 32 * 40}
        ),
        tokenizer=byte_tokenizer(names),
        video_processor=transformers.Qwen3VLVideoProcessor(),
        chat_template=(_TRL_TEMPLATES / "qwen3_vl.jinja").read_text(),
    )
    return None, processor


def _internvl() -> tuple[Any, Any]:
    model, processor = tiny_internvl()
    processor.image_processor.size = {"height": 84, "width": 84}
    processor.image_seq_length = 9
    return model, processor


def _internvl_of_one_tile() -> tuple[Any, Any]:
    model, processor = _internvl()
    processor.image_processor.max_patches = 1
    return model, processor


def _llava() -> tuple[Any, Any]:
    model, processor = tiny_llava()
    processor.image_processor.size = {"shortest_edge": 168}
    processor.image_processor.crop_size = {"height": 168, "width": 168}
    return model, processor


@dataclass(frozen=True)
class Family:
    make: Any
    model_type: str
    convention: str
    side: int  # px, of an image seen by the model that is WIDTH px wide when stored


FAMILIES = {
    "qwen2.5": Family(_qwen2_5, "qwen2_5_vl", "qwen2.5", 168),
    "qwen3": Family(_qwen3, "qwen3_vl", "qwen3", 192),
    "internvl": Family(_internvl, "internvl", "internvl", 252),
    "internvl of one tile": Family(_internvl_of_one_tile, "internvl", "internvl", 84),
    "llava": Family(_llava, "llava", "llava", 168),
}


@pytest.fixture(scope="module")
def pairs():
    """Make pairs with red artifacts on blue, so that their places can be seen."""
    made = []
    for index in range(4):
        pair = make_pair(index)
        flawed, clean = (Image.new("RGB", (WIDTH, HEIGHT), BLUE) for _ in range(2))
        for artifact in pair.artifacts:
            x_min, y_min, x_max, y_max = artifact.bbox
            ImageDraw.Draw(flawed).rectangle((x_min, y_min, x_max - 1, y_max - 1), fill=RED)
        made.append(replace(pair, flawed=flawed, clean=clean))
    return made


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("pairs") / "run", pairs, shards=1)


@pytest.fixture(params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


def prepared(family: Family, **bounds: int) -> tuple[Any, BoxFormat]:
    _, processor = family.make()
    box_format = prepare_processor(processor, family.convention, **bounds)
    set_chat_template(processor, family.model_type)
    return processor, box_format


def row(*turns: tuple[str, str], images: int = 1, size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    messages: list[Any] = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    messages[0]["content"] = [{"type": "image"}] * images + messages[0]["content"]
    return {"images": [Image.new("RGB", size, BLUE) for _ in range(images)], "messages": messages}


def test_boxes_of_the_text_lie_on_the_artifacts_of_the_image_as_it_is_seen(family, pairs, run):
    processor, form = prepared(family)
    box_format = prepare_processor(family.make()[1], family.convention)
    rows = Conversations(run, ["vqa", "instructions"], box_format).load()["train"]
    true = {tuple(artifact.bbox) for pair in pairs for artifact in pair.artifacts}
    collator, found = make_collator(processor), 0
    for conversation in (see(rows[index], processor, collator, form, 8192) for index in range(len(rows))):
        assert conversation.warnings == ()
        (image,) = conversation.images
        assert max(image.image.size) == family.side
        is_flawed = np.asarray(image.image)[..., 0] > 130
        if not is_flawed.any():
            continue
        for box in conversation.answered:
            # A hundredth of a square is the coarsest step.
            assert any(np.abs(np.subtract(box, other)).max() <= 2 for other in true)
            x_min, y_min, x_max, y_max = (round(edge) for edge in image.place(box))
            assert is_flawed[y_min + 2 : y_max - 2, x_min + 2 : x_max - 2].all()
            found += 1
        covered = np.zeros_like(is_flawed)
        for box in conversation.answered:
            x_min, y_min, x_max, y_max = (round(edge) for edge in image.place(box))
            covered[max(0, y_min - 2) : y_max + 2, max(0, x_min - 2) : x_max + 2] = True
        assert not conversation.answered or not (is_flawed & ~covered).any()
    assert found >= 2 * len(true)


def test_what_is_learned_is_the_answers_with_their_ends_and_nothing_else(family, run):
    processor, form = prepared(family)
    box_format = prepare_processor(family.make()[1], family.convention)
    rows = Conversations(run, ["vqa", "comparisons"], box_format).load()["train"]
    collator = make_collator(processor)
    for index in range(len(rows)):
        conversation = see(rows[index], processor, collator, form, 8192)
        answers = [m["content"][-1]["text"] for m in rows[index]["messages"] if m["role"] == "assistant"]
        learned = [run.text for run in conversation.runs if run.kind == "learned"]
        assert [re.sub(r"<\|im_end\|>\s*$", "", text).strip() for text in learned] == answers
        assert all("<|im_end|>" in text for text in learned)
        masked = "".join(run.text for run in conversation.runs if run.kind != "learned")
        assert all(m["content"][-1]["text"] in masked for m in rows[index]["messages"] if m["role"] == "user")
        assert [f"<image x {image.tokens}>" in masked for image in conversation.images] == [True] * len(
            rows[index]["images"]
        )


def test_boxes_of_questions_have_their_own_colour():
    processor, form = prepared(FAMILIES["qwen3"])
    asked = row(("user", "What is in [0, 0, 500, 500]?"), ("assistant", "It is at [500, 500, 1000, 1000]."))
    conversation = see(asked, processor, make_collator(processor), form, 8192)
    assert conversation.asked == ((0, 0, 96, 64),) and conversation.answered == ((96, 64, 192, 128),)
    pixels = np.asarray(annotated(conversation.images[0], conversation.asked, conversation.answered))
    assert (pixels == preview._ASKED).all(-1)[: len(pixels) // 2].any()
    assert not (pixels == preview._ASKED).all(-1)[len(pixels) // 2 + 4 :].any()
    assert (pixels == preview._ANSWERED).all(-1)[-1].any()


def test_characters_of_several_tokens_are_whole():
    processor, form = prepared(FAMILIES["qwen2.5"])
    conversation = see(row(("user", "耳?"), ("assistant", "耳朵 ✂")), processor, make_collator(processor), form, 8192)
    learned = next(run for run in conversation.runs if run.kind == "learned")
    assert learned.text.startswith("耳朵 ✂<|im_end|>") and learned.count == len(learned.tokens) == 12


class TestWarnings:
    def warnings(self, asked: dict[str, Any], family: str = "qwen2.5", limit: int = 8192, **changes: Any):
        processor, form = prepared(FAMILIES[family])
        return see(asked, processor, make_collator(processor), replace(form, **changes), limit).warnings

    def test_nothing_is_learned_or_the_model_has_too_few_positions(self):
        assert self.warnings(row(("user", "Where?"))) == ("no token is learned",)
        (warning,) = self.warnings(row(("user", "Where?"), ("assistant", "No.")), limit=50)
        assert re.fullmatch(r"it has \d+ tokens, but the model has only 50 positions", warning)

    def test_a_box_outside_of_the_image(self):
        (warning,) = self.warnings(row(("user", "Where?"), ("assistant", "[10, 10, 400, 60]")))
        assert (
            warning == "a box in the text cannot be read: [10, 10, 400, 60]: it reaches out of the image, "
            "which is [0, 0, 168, 112]"
        )

    def test_boxes_written_for_other_bounds(self):
        (warning,) = self.warnings(row(("user", "Where?"), ("assistant", "No.")), max_pixels=28 * 28 * 6)
        assert warning == "boxes are written for 84 x 56 px, but the model sees 168 x 112 px"

    def test_several_images(self):
        (warning,) = self.warnings(row(("user", "Which?"), ("assistant", "[0, 0, 50, 60]"), images=2))
        assert warning == "the conversation has boxes and several images: all boxes are drawn in the first"

    def test_a_processor_that_crops(self):
        _, processor = _llava()
        set_chat_template(processor, "llava")
        asked = row(("user", "Where?"), ("assistant", "[0.0, 0.0, 0.1, 0.5] and [0.4, 0.5, 0.6, 1.0]"))
        conversation = see(asked, processor, make_collator(processor), BoxFormat("normalized"), 8192)
        assert conversation.warnings == (
            "the box [0.0, 0.0, 19.2, 64.0] is cut off: the model does not see all of it",
        )
        assert conversation.images[0].place((32, 0, 160, 128)) == (0, 0, 168, 168)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, processor = _qwen2_5()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class TestCommand:
    def test_a_page_of_a_recipe_is_written(self, model, run, tmp_path, capsys):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"model_name_or_path: {model}\ndataset_name: {run}\noutput_dir: {tmp_path / 'never'}\n"
            "conversations: [instructions, comparisons]\nmax_length: null\nbf16: true\n"
        )
        options = ["--config", str(recipe), "--out", str(tmp_path / "seen"), "--num-rows", "5"]
        preview.main([*options, "--max_pixels", str(28 * 28 * 12)])
        page = (tmp_path / "seen" / "preview.html").read_text()
        assert capsys.readouterr().out.splitlines()[-1] == f"5 conversations in {tmp_path / 'seen' / 'preview.html'}"
        assert page.count("<section>") == 5 and "5 of 28 conversations" in page and "boxes: qwen2.5" in page
        assert "112 x 56 px, 8 tokens; stored with 192 x 128 px" in page and "&lt;image x 8&gt;" in page
        assert not re.search(r'(?:src|href)="(?!data:)', page) and not (tmp_path / "never").exists()

    def test_it_collates_as_the_trainer_does(self, model, run, tmp_path):
        processor = transformers.AutoProcessor.from_pretrained(model)
        rows = Conversations(run, ["vqa"], prepare_processor(processor, "qwen2.5")).load()["train"]
        args = SFTConfig(str(tmp_path), max_length=None, assistant_only_loss=True, use_cpu=True, bf16=False)
        trainer = SFTTrainer(str(model), args, train_dataset=rows, processing_class=processor)
        ours, theirs = (collator([rows[0], rows[1]]) for collator in (make_collator(processor), trainer.data_collator))
        assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)

    def test_mistakes_are_told_and_help_is_given(self, capsys):
        with pytest.raises(UserError, match="--num-rows must be at least 1, got 0"):
            preview.main(["--num-rows", "0"])
        with pytest.raises(UserError, match="--model_name_or_path must be set, got none"):
            preview.main(["--dataset_name", "x"])
        with pytest.raises(UserError, match="--model_name_or_path must be a folder or a model on the Hub"):
            preview.main(["--dataset_name", "x", "--model_name_or_path", "no/such-model"])
        with pytest.raises(SystemExit):
            preview.main(["--help"])
        assert "python -m training.preview_vlm --config" in capsys.readouterr().out
