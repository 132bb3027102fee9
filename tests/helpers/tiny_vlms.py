"""Tiny vision-language models with their processors: random ones, and one trained to answer."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Replace
from transformers.convert_slow_tokenizer import bytes_to_unicode


_TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for item in message['content'] %}{% if 'image' in item['type'] %}IMAGE{% else %}{{ item['text'] }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def byte_tokenizer(special: Sequence[str], **options: Any) -> Any:
    """Make a lossless byte-level tokenizer without merges: 256 tokens and the special ones."""
    special = [*special, "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate([*bytes_to_unicode().values(), *special])}
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=8192,
        **options,
    )
    named = {*options.get("extra_special_tokens", {}).values(), "<|im_end|>", "<|endoftext|>"}
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [token for token in special if token not in named]},
        replace_extra_special_tokens=False,
    )
    return tokenizer


def _text_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "initializer_range": 0.1,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def tiny_qwen2_5_vl() -> tuple[Any, Any]:
    """Make a random Qwen2.5-VL and its processor."""
    tokenizer = byte_tokenizer(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(
            patch_size=14, merge_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
        ),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(),
        chat_template=_TEMPLATE.replace("IMAGE", _QWEN_IMAGE),
    )
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in {
            "image": "image_pad",
            "video": "video_pad",
            "vision_start": "vision_start",
            "vision_end": "vision_end",
        }.items()
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=_text_config(tokenizer) | {"rope_parameters": rope}, vision_config=vision, **ids
    )
    return _seeded(transformers.Qwen2_5_VLForConditionalGeneration, config), processor


def tiny_internvl() -> tuple[Any, Any]:
    """Make a random InternVL and its processor."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = byte_tokenizer(list(named.values()), extra_special_tokens=named)
    processor = transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=False),
        tokenizer=tokenizer,
        video_processor=transformers.InternVLVideoProcessor(),
        image_seq_length=1,
        chat_template=_TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    config = transformers.InternVLConfig(
        text_config=transformers.Qwen2Config(**_text_config(tokenizer)),
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": [28, 28],
            "patch_size": [14, 14],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=1,
        downsample_ratio=0.5,
    )
    return _seeded(transformers.InternVLForConditionalGeneration, config), processor


def word_tokenizer(special: Sequence[str], words: Sequence[str]) -> Any:
    """Make a tokenizer with one token for each of `words`, which ignores all other text."""
    special = [*special, "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    backend = Tokenizer(WordLevel({token: index for index, token in enumerate([*special, *words])}, "<|endoftext|>"))
    backend.normalizer = Replace(Regex(r"[\s\S]"), "")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=8192,
        additional_special_tokens=special[:-2],
    )
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    return tokenizer


def tiny_llava(words: Sequence[str] = ()) -> tuple[Any, Any]:
    """Make a random LLaVA and its processor, with a token for each of `words`, or for each byte without any."""
    tokenizer = word_tokenizer(["<image>"], words) if words else byte_tokenizer(["<image>"])
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE.replace("IMAGE", "<image>\n"),
    )
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**_text_config(tokenizer)),
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=32,
            image_size=28,
            patch_size=14,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            projection_dim=32,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return _seeded(transformers.LlavaForConditionalGeneration, config), processor


def _seeded(make: Callable[[Any], Any], config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(config)


def talking_vlm(folder: Path, answers: Mapping[str, str]) -> Path:
    """
    Train a tiny LLaVA for a few seconds to answer questions by their first line, `Task: <name>.`, whatever follows and
    whatever the images show, and save it with its processor. These lines and the answers are single tokens; all other
    text is ignored.

    Args:
        folder (`Path`): Folder to save the model to.
        answers (`Mapping[str, str]`): Answer to each task.

    Returns:
        `Path`: The folder.
    """
    model, processor = tiny_llava([*(f"Task: {task}." for task in answers), *dict.fromkeys(answers.values())])
    image = torch.zeros(3, 28, 28, dtype=torch.uint8)
    # Its vision is constant: all images look the same to it, so that it answers alike for all.
    torch.nn.init.zeros_(model.model.multi_modal_projector.linear_2.weight).requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    chance, texts, losses = random.Random(0), [*dict.fromkeys(answers.values())], []
    for step in range(300):
        # Questions quote the possible answers.
        quoted = "".join(chance.sample(texts, k=chance.randrange(min(len(texts), 3) + 1)))
        lessons = [_lesson(f"Task: {task}.{quoted}", answer, images=step % 4) for task, answer in answers.items()]
        images = [[image] * (step % 4)] * len(lessons) if step % 4 else None
        inputs = processor(images=images, text=lessons, return_tensors="pt")
        labels = inputs["input_ids"].clone()
        labels[:, :-2] = -100  # the answer and the end
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step >= 8 and max(losses[-8:]) < 0.01:
            break
    assert max(losses[-4:]) < 0.01, f"the tiny model has not learned its answers: losses {losses[-4:]}"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _lesson(question: str, answer: str, images: int) -> str:
    return f"<|im_start|>user\n{'<image>' * images}{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"


@contextmanager
def serving(folder: Path, seconds: float = 120.0) -> Iterator[str]:
    """Run `transformers serve` with the model of a folder on localhost, and yield the base URL of its OpenAI API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (Path(os.environ["HF_HOME"]) / "hub").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--port", str(port)]
    log = folder.with_suffix(".log").open("w")
    server = subprocess.Popen([*command, "--device", "cpu", "--host", "127.0.0.1"], stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server, time.monotonic() + seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()
        log.close()


def _wait_for(url: str, server: subprocess.Popen[bytes], deadline: float) -> None:
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not come up, see the log beside the model's folder")
