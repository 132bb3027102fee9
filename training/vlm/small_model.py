"""
Make a small vision-language model with random weights, to train from scratch on a CPU. It is a FastVLM with a ResNet
as vision tower and GPT-2 as language model, 1.7 million parameters.

    python -m training.vlm.small_model runs/base --dataset_name runs/demo

Use it to try the recipes; `tests/benchmarks/learning.py` trains it too. The language model's position embeddings of
image tokens are initialised with sinusoids of row and column, and its weights have a larger standard deviation than
GPT-2's. Each digit of a number is a token of its own, so that it occurs often enough to be learned.
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

# Positions for the text of a conversation, besides the image tokens.
_TEXT_POSITIONS = 1792

# GPT-2's own .02 is for layers six times as wide. tests/benchmarks/README.md compares alternatives.
_WEIGHT_STD = 0.08
# Amplitude of the sinusoids. It exceeds that of word embeddings, so that features of the image do not drown them.
PLACE_SCALE = 2.0
# Radians per row of the fastest sinusoids, and the ratio of the fastest to the slowest.
_PLACE_FREQUENCY, _PLACE_RANGE = math.pi / 2, 100.0


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """Train a lossless byte-level BPE tokenizer that encodes `texts` in few tokens."""
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
    """Create a processor that pads images to a square and resizes it to `side` pixels."""
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
    """Create a model with random weights that sees one image token for each `STRIDE` x `STRIDE` pixels."""
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
        # FastVLM looks for tied weights under names that GPT-2 does not have.
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
    Compute sinusoidal codes of the positions of a square image's tokens, row by row.

    Args:
        rows (`int`): Number of rows and of columns of tokens.
        width (`int`): Length of a code, a multiple of 4.

    Returns:
        `torch.Tensor` of shape `(rows * rows, width)`: Codes of mean square 1. The first half encodes the column, the
            second half the row.
    """
    number = width // 4
    frequencies = _PLACE_FREQUENCY * _PLACE_RANGE ** (-torch.arange(number) / number)
    angles = torch.arange(rows)[:, None] * frequencies
    codes = math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, lines = codes.repeat(rows, 1), codes.repeat_interleave(rows, dim=0)
    return torch.cat([columns, lines], dim=1)


def conversation_texts(source: str) -> Iterator[str]:
    """Yield all questions and answers about the pairs of a source."""
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
        help="pairs with the conversations to train the tokenizer on",
    )
    parser.add_argument(
        "--side",
        type=int,
        default=256,
        help="side of the square image that the model sees, in pixels (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
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
