"""Drawing of a correction: the image before, with its regions, beside the image after, and what became of each."""

from __future__ import annotations

from PIL import Image, ImageDraw

from ..schema.correction import CorrectedImage, CorrectedRegion
from .drawing import draw_box, draw_tag, fitted, wrapped
from .lettering import draw_text
from .style import BLUE, FAINT, GREEN, INK, LINE, OCHRE, ORANGE, PURPLE, TEXT_FONT, TITLE_FONT, Color


_BOXES: tuple[Color, ...] = (ORANGE, BLUE, PURPLE, GREEN, OCHRE)
_SIDE = 512
_MARGIN, _HEADING = 18, 34


def correction_picture(before: Image.Image, after: Image.Image, corrected: CorrectedImage) -> Image.Image:
    """
    Draw a correction.

    Args:
        before, after (`PIL.Image.Image`): The upright input and the corrected image, of one size.
        corrected ([`CorrectedImage`]): What was done.

    Returns:
        `PIL.Image.Image`: RGB.
    """
    pictures = [fitted(image, _SIDE) for image in (before, after)]
    width, height = pictures[0].size
    scale = (width / before.width, height / before.height)
    for number, region in enumerate(corrected.regions):
        color = _BOXES[number % len(_BOXES)]
        draw_box(pictures[0], region.box, scale, color)
        draw_tag(pictures[0], str(number + 1), (region.box[0] * scale[0], region.box[1] * scale[1]), color)
    lines = [
        (_BOXES[number % len(_BOXES)], line)
        for number, region in enumerate(corrected.regions)
        for line in wrapped(f"{number + 1}. {_described(region)}", 2 * width - _MARGIN)
    ]
    if not lines:
        lines = [(FAINT, "No artifact was found.")]
    canvas = Image.new("RGB", (2 * width + 3 * _MARGIN, _HEADING + height + 2 * _MARGIN + LINE * len(lines)), "white")
    draw = ImageDraw.Draw(canvas)
    for column, (title, picture) in enumerate(zip(("before", "after"), pictures, strict=True)):
        left = _MARGIN + column * (width + _MARGIN)
        draw_text(draw, (left, 6), title if corrected.changed or not column else "after: unchanged", INK, TITLE_FONT)
        canvas.paste(picture, (left, _HEADING))
    for number, (color, line) in enumerate(lines):
        draw_text(draw, (_MARGIN, _HEADING + height + _MARGIN // 2 + LINE * number), line, color, TEXT_FONT)
    return canvas


def _described(region: CorrectedRegion) -> str:
    words = {
        "clean": "no artifact any more",
        "better": "better, but still seen",
        "unsolved": "no repair was better: as before",
        "worse": "the repair was worse: as before",
        "not confirmed": "the verifier sees no artifact: as before",
        "too large": "too large to repair: as before",
        "too many": "beyond the most regions: as before",
    }
    rounds = len(region.rounds)
    parts = [words[region.outcome]]
    if rounds:
        parts.append(f"{rounds} round{'s' if rounds > 1 else ''}")
        after = region.rounds[-1].verdicts[region.rounds[-1].best].score
        if region.before.score is not None and after is not None:
            parts.append(f"score {region.before.score:.2f} to {after:.2f}")
    return f"{region.label + ': ' if region.label else ''}{', '.join(parts)}"
