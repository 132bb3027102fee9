"""
Preview what a model will see in training: the first conversations, as the recipe's processor and collator make them.

```bash
python -m training.preview_vlm --config qwen2_5_vl_7b_stage1 --dataset_name runs/pairs
```

Writes one HTML page with all images embedded: each image as the model gets it, with the normalisation undone; the text
token by token, with masked tokens in grey and learned tokens in black; and the boxes in that text, parsed as
`artiagent evaluate` parses them and drawn on the image. No weights are loaded. Takes the arguments of
`training.sft_vlm`, and two of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from trl.chat_template_utils import get_training_chat_template, has_generation_markers
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from datasets_script.detection.box_answers import find_boxes
from datasets_script.figures.drawing import draw_box, draw_tag
from datasets_script.figures.page import embedded_image, html_page
from datasets_script.figures.style import BLUE, ORANGE
from datasets_script.schema.boxes import Box
from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_text
from datasets_script.vlm.conventions import BoxFormat
from training.script import run_script
from training.sft_vlm import parse, prepare_inputs
from training.vlm.seen_images import SeenImage, seen_images


_ANSWERED, _ASKED = ORANGE, BLUE
# Images smaller than this are enlarged by an integer factor, so that single pixels stay visible.
_LEAST_SIDE = 448

_STYLE = """
figure { display: inline-block; margin: 12px 12px 0 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px; line-height: 1.6; }
.masked { color: #a0a0a8; } .learned { color: #000; } .learned span:nth-child(even) { background: #e4e4ea; }
.image { border: 1px solid #a0a0a8; border-radius: 4px; padding: 0 4px; }
"""


@dataclass(frozen=True)
class Run:
    """
    Consecutive tokens of one kind.

    Attributes:
        kind (`str`): `"learned"`, `"masked"` from the loss, or `"image"`, which is masked too.
        tokens (`tuple[str, ...]`): Texts of the tokens: of a learned run one for each token, of a masked run a single
            text, of an image the text of its first token.
        count (`int`): Number of tokens.
    """

    kind: str
    tokens: tuple[str, ...]
    count: int

    @property
    def text(self) -> str:
        return f"<image x {self.count}>" if self.kind == "image" else "".join(self.tokens)


@dataclass(frozen=True, eq=False)
class Conversation:
    """
    A conversation as the model will see it.

    Attributes:
        images (`tuple[SeenImage, ...]`): Images in the order of the conversation.
        runs (`tuple[Run, ...]`): All tokens.
        asked, answered (`tuple[Box, ...]`): Boxes in the masked and in the learned text, in pixels of the stored
            image.
        warnings (`tuple[str, ...]`): Problems found in the conversation.
    """

    images: tuple[SeenImage, ...]
    runs: tuple[Run, ...]
    asked: tuple[Box, ...]
    answered: tuple[Box, ...]
    warnings: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    args, rest = make_parser().parse_known_args(arguments)
    if args.num_rows < 1:
        raise UserError(f"--num-rows must be at least 1, got {args.num_rows}")
    # Nothing is computed, so that a recipe for GPUs can be previewed without one.
    script_args, training_args, model_args, _ = parse([*rest, "--use_cpu", "True", "--bf16", "False"])

    inputs = prepare_inputs(script_args, training_args, model_args)
    dataset = inputs.conversations.load()["train"]
    box_format, processor = inputs.conversations.box_format, inputs.processor
    collator = make_collator(processor)
    rows = dataset.select(range(min(args.num_rows, len(dataset))))
    limit = inputs.config.get_text_config().max_position_embeddings
    conversations = [see(row, processor, collator, box_format, limit) for row in rows]
    facts = (
        f"{model_args.model_name_or_path} · {', '.join(inputs.conversations.kinds)} · "
        f"boxes: {box_format.coordinates} · {len(rows)} of {len(dataset):,} conversations"
    )
    write_text(args.out / "preview.html", make_page(conversations, facts))
    for number, conversation in enumerate(conversations, start=1):
        for warning in conversation.warnings:
            print(f"warning: conversation {number}: {warning}")
    print(f"{len(rows)} conversations in {args.out / 'preview.html'}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.preview_vlm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/preview"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument(
        "--num-rows", "--num_rows", type=int, default=8, help="number of conversations to show (default: %(default)s)"
    )
    return parser


def make_collator(processor: Any) -> DataCollatorForVisionLanguageModeling:
    """Create the collator that `SFTTrainer` uses in `sft_vlm.py`."""
    is_marked = has_generation_markers(processor.chat_template)
    return DataCollatorForVisionLanguageModeling(
        processor,
        assistant_only_loss=True,
        chat_template=None if is_marked else get_training_chat_template(processor),
    )


def see(row: Mapping[str, Any], processor: Any, collator: Any, form: BoxFormat, limit: int) -> Conversation:
    """
    Process a conversation as training does, and check it.

    Args:
        row (`Mapping`): Conversation with `images` (PIL) and `messages`.
        processor (`ProcessorMixin`): Processor that the recipe trains with.
        collator (`Callable`): Collator from [`make_collator`].
        form (`BoxFormat`): Format of the boxes in the text.
        limit (`int`): Number of positions of the model.

    Returns:
        `Conversation`: Its warnings name boxes that cannot be read or are cut off, and sequences that are too long.
    """
    sizes = [image.size for image in row["images"]]
    batch = collator([dict(row)])
    images = seen_images(processor, batch, sizes)
    runs = tuple(token_runs(processor, batch))
    warnings = [*_warn_of_tokens(runs, limit), *_warn_of_sizes(images, sizes, form)]
    boxes: dict[str, list[Box]] = {"masked": [], "learned": [], "image": []}
    for run in runs:
        found = find_boxes(run.text, sizes[0], form.coordinates, form.resized(sizes[0]))
        boxes[run.kind] += found.boxes
        warnings += [f"a box in the text cannot be read: {failure}" for failure in found.failures]
    for box in boxes["masked"] + boxes["learned"]:
        if not images[0].holds(box):
            warnings.append(f"the box {_rounded(box)} is cut off: the model does not see all of it")
    if len(images) > 1 and (boxes["masked"] or boxes["learned"]):
        warnings.append("the conversation has boxes and several images: all boxes are drawn in the first")
    return Conversation(tuple(images), runs, tuple(boxes["masked"]), tuple(boxes["learned"]), tuple(warnings))


def token_runs(processor: Any, batch: Mapping[str, torch.Tensor]) -> Iterator[Run]:
    """Yield the runs of tokens of a batch that holds one conversation, without padding."""
    length = int(batch["attention_mask"][0].sum())
    tokens, labels = (batch[name][0, :length].tolist() for name in ("input_ids", "labels"))
    pairs = zip(tokens, labels, strict=True)
    for kind, run in groupby(pairs, lambda pair: _kind(pair[0], pair[1], processor.image_token_id)):
        own = [token for token, _ in run]
        if kind == "learned":
            texts = _texts(processor.tokenizer, own)
        else:
            texts = (processor.tokenizer.decode(own[:1] if kind == "image" else own),)
        yield Run(kind, texts, len(own))


def annotated(image: SeenImage, asked: Sequence[Box], answered: Sequence[Box]) -> Image.Image:
    """Draw the boxes of questions and of answers on an image, which is enlarged if it is small."""
    factor = max(1, -(-_LEAST_SIDE // max(image.image.size)))
    size = (image.image.width * factor, image.image.height * factor)
    drawn = image.image.resize(size, Image.Resampling.NEAREST)
    if image.tile:
        _draw_tiles(drawn, (image.tile[0] * factor, image.tile[1] * factor))
    for boxes, color, name in ((asked, _ASKED, "asked"), (answered, _ANSWERED, "answer")):
        for number, box in enumerate(boxes, start=1):
            place = image.place(box)
            draw_box(drawn, place, (factor, factor), color)
            draw_tag(drawn, f"{name} {number}", (place[0] * factor, place[1] * factor), color)
    return drawn


def make_page(conversations: Sequence[Conversation], facts: str) -> str:
    """Compose the HTML page; `facts` is the line under its title."""
    sections = "\n".join(_section(number, item) for number, item in enumerate(conversations, start=1))
    body = (
        f'<h1>What the model will see</h1>\n<p class="faint">{escape(facts)}</p>\n'
        '<p>Tokens masked from the loss are <span class="masked">grey</span>, learned tokens are '
        '<span class="learned">black</span>, every other one shaded. Boxes are read from the text: those of '
        f'<b class="orange">answers</b> and of <b class="blue">questions</b>.</p>\n{sections}'
    )
    return html_page("What the model will see", body, _STYLE)


def _kind(token: int, label: int, image_token: int) -> str:
    if token == image_token:
        return "image"
    return "masked" if label == -100 else "learned"


def _texts(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, ...]:
    """Return the text of each token; the last of several tokens that make up one character has that character."""
    texts, begun = [], ""
    for end in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:end])
        is_whole = not text.endswith("\ufffd") or end == len(tokens)
        texts.append(text[len(begun) :] if is_whole else "")
        begun = text if is_whole else begun
    return tuple(texts)


def _warn_of_tokens(runs: Sequence[Run], limit: int) -> Iterator[str]:
    count = sum(run.count for run in runs)
    if not any(run.kind == "learned" for run in runs):
        yield "no token is learned"
    if count > limit:
        yield f"it has {count:,} tokens, but the model has only {limit:,} positions"


def _warn_of_sizes(images: Sequence[SeenImage], sizes: Sequence[tuple[int, int]], form: BoxFormat) -> Iterator[str]:
    for image, size in zip(images, sizes, strict=True):
        written = form.resized(size)
        if written and written != image.image.size:
            yield f"boxes are written for {_by(written)} px, but the model sees {_by(image.image.size)} px"


def _draw_tiles(drawn: Image.Image, tile: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(drawn)
    for x in range(tile[0], drawn.width, tile[0]):
        draw.line((x, 0, x, drawn.height), fill="white", width=2)
    for y in range(tile[1], drawn.height, tile[1]):
        draw.line((0, y, drawn.width, y), fill="white", width=2)


def _section(number: int, item: Conversation) -> str:
    learned = sum(run.count for run in item.runs if run.kind == "learned")
    total = sum(run.count for run in item.runs)
    figures = "".join(
        _figure(image, item.asked if first else (), item.answered if first else ())
        for first, image in zip([True] + [False] * len(item.images), item.images, strict=False)
    )
    warnings = "".join(f'<p class="note warning">{escape(warning)}</p>' for warning in item.warnings)
    text = "".join(_span(run) for run in item.runs)
    return (
        f"<section><h2>Conversation {number}</h2>"
        f'<p class="faint">{total:,} tokens, {learned:,} of them learned</p>'
        f"{warnings}{figures}<pre>{text}</pre></section>"
    )


def _figure(image: SeenImage, asked: Sequence[Box], answered: Sequence[Box]) -> str:
    drawn = annotated(image, asked, answered)
    stored = tuple(round(side / scale) for side, scale in zip(image.image.size, image.scale, strict=True))
    told = f"{_by(image.image.size)} px, {image.tokens:,} tokens"
    if image.offset == (0.0, 0.0):
        told += f"; stored with {_by(stored)} px"
    if image.tile:
        told += f"; in tiles of {_by(image.tile)} px, and a thumbnail"
    element = embedded_image(drawn, told, "PNG", drawn.width, drawn.height)
    return f'<figure>{element}<figcaption class="faint">{told}</figcaption></figure>'


def _span(run: Run) -> str:
    if run.kind == "image":
        return f'<span class="masked image">{escape(run.text)}</span>'
    if run.kind == "masked":
        return f'<span class="masked">{escape(run.text)}</span>'
    return f'<span class="learned">{"".join(f"<span>{escape(text)}</span>" for text in run.tokens)}</span>'


def _by(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _rounded(box: Box) -> str:
    return f"[{', '.join(f'{value:.1f}' for value in box)}]"


if __name__ == "__main__":
    run_script(main)
