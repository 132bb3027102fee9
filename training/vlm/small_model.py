"""
A small vision-language model with random weights, to be trained from scratch on a CPU: FastVLM's form, with a ResNet
as vision tower and GPT-2 as language model, 1.7 million parameters.

    python -m training.vlm.small_model runs/base --dataset_name runs/demo

It serves to try the recipes, and `tests/benchmarks/learning.py`. Convolutions with batch norm learn in minutes what
SegFormer's encoder has not begun to learn by then. The language model's position embeddings of the image's tokens
begin as sines of row and column, and its weights are drawn with a larger deviation than GPT-2's; with neither it
answers boxes of zeros. Numbers are written digit by digit, so that each digit is seen often enough to be learned.
"""

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    GPT2Config,
    LlavaImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    ResNetConfig,
)

from datasets_script.vlm.conventions import BoxFormat
from training.run_folder import check_new_folder, new_model_folder
from training.script import run_script
from training.vlm.data import PAIR_CONVERSATIONS, Conversations
from training.vlm.processor import CHAT_TEMPLATES


IMAGE, END, PAD = "<image>", "<|endofanswer|>", "<|pad|>"
STRIDE = 16

# For a conversation, besides the image.
_TEXT_POSITIONS = 1792

# GPT-2's own .02 is for layers six times as wide. What was compared: tests/benchmarks/README.md.
_WEIGHT_STD = 0.08
# Of the sines. Larger than words, they are not lost in what a token of the image looks like.
PLACE_SCALE = 2.0
# Radians a row of the fastest sines, and how many times slower others become.
_PLACE_FREQUENCY, _PLACE_RANGE = math.pi / 2, 100.0


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """Byte-level BPE, which loses nothing of any text and writes that of `texts` in few tokens."""
    backend = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=END, extra_special_tokens={"image_token": IMAGE}
    )


def make_processor(tokenizer: PreTrainedTokenizerFast, side: int = 256) -> LlavaProcessor:
    """Pads images to a square and resizes it to `side` px."""
    return LlavaProcessor(
        LlavaImageProcessor(
            do_pad=True,
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_mean=[0.5] * 3,
            image_std=[0.25] * 3,
        ),
        tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        chat_template=(CHAT_TEMPLATES / "llava.jinja").read_text(encoding="utf-8"),
    )


def make_model(processor: LlavaProcessor, seed: int = 0) -> FastVlmForConditionalGeneration:
    """Random weights; a token of the image for each `STRIDE` x `STRIDE` px that the processor gives."""
    tokenizer = processor.tokenizer
    rows = processor.image_processor.crop_size["height"] // STRIDE
    widths = [32, 64, 128]
    vision = ResNetConfig(
        embedding_size=widths[0], hidden_sizes=widths, depths=[1, 2, 2], layer_type="basic", hidden_size=widths[-1]
    )
    text = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=rows**2 + _TEXT_POSITIONS,
        n_embd=128,
        n_layer=3,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=_WEIGHT_STD,
        # FastVLM looks for the tied weights under names that GPT-2 does not have.
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = FastVlmConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    torch.manual_seed(seed)
    model = FastVlmForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ""}]}]
    first = tokenizer(processor.apply_chat_template(question)).input_ids.index(config.image_token_index)
    with torch.no_grad():
        model.model.language_model.wpe.weight[first : first + rows**2] = PLACE_SCALE * place_codes(rows, text.n_embd)
    return model


def place_codes(rows: int, width: int) -> torch.Tensor:
    """
    Sines and cosines of where the tokens of a square image are, row by row.

    Args:
        rows (`int`): Of tokens, and columns.
        width (`int`): Of a code, a multiple of 4.

    Returns:
        `torch.Tensor` of shape `(rows * rows, width)`: Of mean square 1; half of them tell the column, half the row.
    """
    number = width // 4
    frequencies = _PLACE_FREQUENCY * _PLACE_RANGE ** (-torch.arange(number) / number)
    angles = torch.arange(rows)[:, None] * frequencies
    codes = math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, lines = codes.repeat(rows, 1), codes.repeat_interleave(rows, dim=0)
    return torch.cat([columns, lines], dim=1)


def conversation_texts(source: str) -> Iterator[str]:
    """Everything that is asked and answered about the pairs of a source."""
    rows = Conversations(source, PAIR_CONVERSATIONS, BoxFormat("normalized")).load()["train"]
    for messages in rows.select_columns(["messages"])["messages"]:
        for message in messages:
            yield from (part["text"] for part in message["content"] if part["text"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.vlm.small_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write, new or empty")
    parser.add_argument(
        "--dataset_name",
        required=True,
        help="pairs whose texts the tokenizer is made for",
    )
    parser.add_argument("--side", type=int, default=256, help="of the square it sees, px (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.side < STRIDE or args.side % STRIDE:
        parser.error(f"--side must be a multiple of {STRIDE}, got {args.side}")
    check_new_folder(args.out, "OUT")
    tokenizer = train_tokenizer(conversation_texts(args.dataset_name))
    processor = make_processor(tokenizer, args.side)
    model = make_model(processor, args.seed)
    with new_model_folder(args.out, "OUT") as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    print(
        f"{model.num_parameters():,} parameters with random weights in {args.out}; next: python -m training.sft_vlm "
        f"--config cpu_small --model_name_or_path {args.out} --dataset_name {args.dataset_name}"
    )


if __name__ == "__main__":
    run_script(main)
