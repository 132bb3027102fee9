"""
Examples beside the guideline of the tab Annotate. Their pictures in `examples/` are of a run of `artiagent demo`:

    artiagent demo runs/demo && python -m datasets_script.app.examples runs/demo
"""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ..annotation.records import Verdict
from ..figures.style import TYPE_COLORS
from ..pairs.storage import read_pairs
from ..utils.errors import UserError


FOLDER = Path(__file__).parent / "examples"
_SIDE = 200
_QUALITY = 85
_MARGIN = 3
"""Pixels between an artifact and the box that is drawn around it."""


@dataclass(frozen=True)
class Example:
    """
    An example.

    Attributes:
        name (`str`): Name of its picture, without the ending.
        pair_id (`str`): Pair of the demo that it is from, of photos in the public domain or under CC0.
        verdict (`str`): The right answer.
        text (`str`): Why.
        type (`str`): Type of its artifact; empty for the clean image of the pair.
        is_boxed (`bool`): Whether a box shows where the artifact is.
    """

    name: str
    pair_id: str
    verdict: Verdict
    text: str
    type: str = ""
    is_boxed: bool = False


EXAMPLES = (
    Example("third_eye", "cat.png:1", "yes", "duplication: a third eye at the edge of the face", "duplication", True),
    Example("eyeless", "cat.png:2", "yes", "omission: fur where an eye should be", "omission", True),
    Example("face", "cameraman.png:1", "yes", "distortion: the face is scrambled", "distortion", True),
    Example("spoon", "coffee.png:0", "yes", "fusion: the spoon grows together with the saucer", "fusion", True),
    Example("cat", "cat.png:0", "no", "all parts are there, each once"),
    Example("shuttle", "space_shuttle.png:0", "no", "out of focus, but nothing is wrong with its structure"),
    Example(
        "button", "admiral_name_tag.png:0", "unsure", "two buttons that touch: perhaps an error, perhaps the coat"
    ),
)
"""All examples, in the order in which they are shown."""


def write_examples(run: Path, folder: Path = FOLDER) -> list[Path]:
    """
    Write the pictures of all examples.

    Args:
        run (`Path`): Folder of a run of `artiagent demo`.
        folder (`Path`, *optional*): Folder to write.

    Returns:
        `list[Path]`: The files.

    Raises:
        UserError: The run does not hold the pair of an example.
    """
    pairs = {pair.pair_id: pair for pair in read_pairs(run)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for example in EXAMPLES:
        if example.pair_id not in pairs:
            raise UserError(f"'{run}' must be a run of `artiagent demo`, got one without {example.pair_id}")
        pair = pairs[example.pair_id]
        picture = (pair.clean if example.verdict == "no" else pair.flawed).convert("RGB")
        if example.is_boxed:
            artifact = pair.artifacts[0]  # the demo's have one
            x_min, y_min, x_max, y_max = artifact.bbox
            box = (x_min - _MARGIN, y_min - _MARGIN, x_max + _MARGIN, y_max + _MARGIN)
            ImageDraw.Draw(picture).rectangle(box, outline=TYPE_COLORS[artifact.type], width=3)
        paths.append(folder / f"{example.name}.jpg")
        picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(paths[-1], quality=_QUALITY, optimize=True)
    return paths


def examples_html(types: Sequence[str]) -> str:
    """
    Return the examples as HTML that asks for no file.

    Args:
        types (`Sequence[str]`): Types of the queue; examples of others are left out.
    """
    shown = [example for example in EXAMPLES if not example.type or example.type in types]
    figures = "".join(
        f'<figure style="margin:0;width:150px"><img src="{_as_url(example)}" alt="{html.escape(example.text)}" '
        'style="width:150px;height:150px;border-radius:6px">'
        f'<figcaption style="font-size:13px;line-height:1.35;margin-top:4px"><b>{example.verdict.capitalize()}</b> - '
        f"{html.escape(example.text)}</figcaption></figure>"
        for example in shown
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:14px">{figures}</div>'


def _as_url(example: Example) -> str:
    content = (FOLDER / f"{example.name}.jpg").read_bytes()
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


if __name__ == "__main__":
    for path in write_examples(Path(sys.argv[1])):
        print(path, path.stat().st_size)
