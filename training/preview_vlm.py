"""
Shows what a model will see in training: the first conversations as the recipe's processor and collator make them.

```bash
python -m training.preview_vlm --config qwen2_5_vl_7b_stage1 --dataset_name runs/pairs
```

One page, with all images in it: each image as the model gets it, un-normalised; the text token by token, what is
masked from the loss in grey and what is learned in black; and boxes, read back from the text as `artiagent evaluate`
reads them, drawn where they lie in that image. No weights are loaded. Arguments are those of `training.sft_vlm`, and
two more.
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
# Images smaller than this are enlarged by whole factors, so that pixels stay pixels.
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
    Tokens in a row of one kind.

    Attributes:
        kind (`str`): `"learned"`, `"masked"` from the loss, or `"image"`, which is masked too.
        tokens (`tuple[str, ...]`): The text of each that is learned; of others, of all in one, of an image of one.
        count (`int`): How many there are.
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
        images (`tuple[SeenImage, ...]`): In their order.
        runs (`tuple[Run, ...]`): All tokens.
        asked, answered (`tuple[Box, ...]`): Boxes in what is masked and in what is learned, px of the stored image.
        warnings (`tuple[str, ...]`): What is wrong with it.
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
    # Nothing is computed, so a recipe for GPUs can be looked at without one.
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
    parser.add_argument("--num-rows", "--num_rows", type=int, default=8, help="conversations (default: %(default)s)")
    return parser


def make_collator(processor: Any) -> DataCollatorForVisionLanguageModeling:
    """As `SFTTrainer` makes it for `sft_vlm.py`."""
    is_marked = has_generation_markers(processor.chat_template)
    return DataCollatorForVisionLanguageModeling(
        processor,
        assistant_only_loss=True,
        chat_template=None if is_marked else get_training_chat_template(processor),
    )


def see(row: Mapping[str, Any], processor: Any, collator: Any, form: BoxFormat, limit: int) -> Conversation:
    """
    A conversation as the model will see it.

    Args:
        row (`Mapping`): With `images` (PIL) and `messages`.
        processor, collator: Of the training.
        form (`BoxFormat`): How its boxes are written.
        limit (`int`): Most tokens of a sequence that the model has positions for.
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
        warnings += [f"a box in the text is none of the image: {failure}" for failure in found.failures]
    for box in boxes["masked"] + boxes["learned"]:
        if not images[0].holds(box):
            warnings.append(f"the box {_rounded(box)} is cut off: the model does not see all of that place")
    if len(images) > 1 and (boxes["masked"] or boxes["learned"]):
        warnings.append("there are boxes and several images: they are drawn in the first")
    return Conversation(tuple(images), runs, tuple(boxes["masked"]), tuple(boxes["learned"]), tuple(warnings))


def token_runs(processor: Any, batch: Mapping[str, torch.Tensor]) -> Iterator[Run]:
    """The tokens of the only conversation of a batch, without padding."""
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
    """The image of an image with boxes of the questions and of the answers, enlarged where it is small."""
    factor = max(1, -(-_LEAST_SIDE // max(image.picture.size)))
    size = (image.picture.width * factor, image.picture.height * factor)
    picture = image.picture.resize(size, Image.Resampling.NEAREST)
    if image.tile:
        _draw_tiles(picture, (image.tile[0] * factor, image.tile[1] * factor))
    for boxes, color, name in ((asked, _ASKED, "asked"), (answered, _ANSWERED, "answer")):
        for number, box in enumerate(boxes, start=1):
            place = image.place(box)
            draw_box(picture, place, (factor, factor), color)
            draw_tag(picture, f"{name} {number}", (place[0] * factor, place[1] * factor), color)
    return picture


def make_page(conversations: Sequence[Conversation], facts: str) -> str:
    """The page as HTML."""
    sections = "\n".join(_section(number, item) for number, item in enumerate(conversations, start=1))
    body = (
        f'<h1>What the model will see</h1>\n<p class="faint">{escape(facts)}</p>\n'
        '<p>In <span class="masked">grey</span> what is masked from the loss, in <span class="learned">black</span> '
        "what is learned, every other token shaded. Boxes are read from the text: those of "
        f'<b class="orange">answers</b>, and of <b class="blue">questions</b>.</p>\n{sections}'
    )
    return html_page("What the model will see", body, _STYLE)


def _kind(token: int, label: int, image_token: int) -> str:
    if token == image_token:
        return "image"
    return "masked" if label == -100 else "learned"


def _texts(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, ...]:
    """The text of each token; where a character takes several tokens, the first has it."""
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
        yield f"it has {count:,} tokens, and the model positions for {limit:,}"


def _warn_of_sizes(images: Sequence[SeenImage], sizes: Sequence[tuple[int, int]], form: BoxFormat) -> Iterator[str]:
    for image, size in zip(images, sizes, strict=True):
        written = form.resized(size)
        if written and written != image.picture.size:
            yield f"boxes are written for {_by(written)} px, and the model sees {_by(image.picture.size)} px"


def _draw_tiles(picture: Image.Image, tile: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(picture)
    for x in range(tile[0], picture.width, tile[0]):
        draw.line((x, 0, x, picture.height), fill="white", width=2)
    for y in range(tile[1], picture.height, tile[1]):
        draw.line((0, y, picture.width, y), fill="white", width=2)


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
    picture = annotated(image, asked, answered)
    stored = tuple(round(side / scale) for side, scale in zip(image.picture.size, image.scale, strict=True))
    told = f"{_by(image.picture.size)} px, {image.tokens:,} tokens"
    if image.offset == (0.0, 0.0):
        told += f"; stored with {_by(stored)} px"
    if image.tile:
        told += f"; in tiles of {_by(image.tile)} px, and a thumbnail"
    element = embedded_image(picture, told, "PNG", picture.width, picture.height)
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
