"""
Sheets of pictures with what the oracle says of them.

    python tests/benchmarks/creatures/sheets.py --clean clean.png --planted planted.png

writes one of clean renders, and one of renders with planted artifacts; `fix.py` writes those of drawn pictures. A red
frame marks a picture with an artifact, and a line below says which.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from datasets_script.utils.files import replacing
from tests.benchmarks.creatures.oracle import Verdict, judge
from tests.benchmarks.creatures.planting import Planted, plant
from tests.benchmarks.creatures.renderer import Render, render_many
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.words import Words
from training.script import run_script


COLUMNS, ROWS, SCALE, TEXT = 8, 5, 2, 24
_FRAME, _CLEAN = (215, 30, 40), (255, 255, 255)


def write_sheet(pictures: np.ndarray, words: Sequence[Words], path: Path, columns: int = COLUMNS) -> None:
    """
    Write a sheet of the first pictures with the oracle's verdicts.

    Args:
        pictures (`np.ndarray` of shape `(batch, 64, 64, 3)`, `uint8`): Pictures.
        words (`Sequence[Words]`): What each was asked to show.
        path (`Path`): PNG file to write.
        columns (`int`, *optional*, defaults to 8): Pictures in a row.
    """
    shown = list(zip(pictures, words, strict=True))[: columns * ROWS]
    side = SIDE * SCALE + 6
    sheet = Image.new("RGB", (columns * side, -(-len(shown) // columns) * (side + TEXT)), _CLEAN)
    for index, (picture, asked) in enumerate(shown):
        place = index % columns * side, index // columns * (side + TEXT)
        sheet.paste(_tile(picture, judge(picture, asked), side), place)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _tile(picture: np.ndarray, verdict: Verdict, side: int) -> Image.Image:
    tile = Image.new("RGB", (side, side + TEXT), _CLEAN)
    frame = _FRAME if verdict.has_artifact else _CLEAN
    tile.paste(Image.new("RGB", (side, side), frame), (0, 0))
    tile.paste(Image.fromarray(picture).resize((SIDE * SCALE,) * 2, Image.Resampling.NEAREST), (3, 3))
    draw = ImageDraw.Draw(tile)
    faults = dict.fromkeys((fault.type, fault.part.replace("inner_", "")) for fault in verdict.faults)
    for line, (kind, part) in enumerate(list(faults)[:2]):
        draw.text((3, side + 11 * line), f"{kind}: {part}", fill=_FRAME)
    return tile


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, help="PNG file to write, of clean renders")
    parser.add_argument("--planted", type=Path, help="PNG file to write, of planted artifacts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the renders (default: %(default)s)")
    args = parser.parse_args(arguments)
    made: dict[Path | None, Sequence[Render | Planted]] = {
        args.clean: render_many(COLUMNS * ROWS, args.seed, "sheet"),
        args.planted: [plant(index, args.seed, "sheet") for index in range(COLUMNS * ROWS)],
    }
    for path, those in made.items():
        if path:
            write_sheet(np.stack([one.image for one in those]), [one.words for one in those], path)


if __name__ == "__main__":
    run_script(main)
