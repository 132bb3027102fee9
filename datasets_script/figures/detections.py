"""Drawing of a detection: numbered boxes and tinted masks on the image, with the answer below it."""

from __future__ import annotations

from PIL import Image, ImageDraw

from ..schema.detection import DetectedRegion, Detection
from .drawing import draw_box, draw_tag, fitted, with_mask, wrapped
from .lettering import draw_text
from .style import BLUE, FAINT, GREEN, INK, LINE, OCHRE, ORANGE, PURPLE, TEXT_FONT, TITLE_FONT, Color


_BOXES: tuple[Color, ...] = (ORANGE, BLUE, PURPLE, GREEN, OCHRE)

# Limits of the long side, px: images are resized, so that boxes and text look alike on all.
_LEAST, _MOST = 768, 1280
_LEAST_WIDTH = 640
_MARGIN = 18
_HEADING = 36
_OPACITY = 0.3


def detection_picture(image: Image.Image, detection: Detection, name: str = "") -> Image.Image:
    """
    Draw a detection: the image with a numbered box for each region, and its mask if it has one, and below it the
    verdict, the numbered labels or scores, the explanation and the answers that could not be parsed.

    Args:
        image (`PIL.Image.Image`): The upright image, of the detection's size.
        detection ([`Detection`]): The answer of a detector about the image.
        name (`str`, *optional*, defaults to `""`): Name of the image, written in the last line.

    Returns:
        `PIL.Image.Image`: RGB, at least 640 px wide.

    Raises:
        ValueError: `image` does not have the size of `detection`.
    """
    if image.size != detection.size:
        raise ValueError(f"`image` must have the size of `detection`, {detection.size}, got {image.size}")
    drawn = fitted(image, min(max(_LEAST, *image.size), _MOST))
    regions = detection.regions or ()
    scale = (drawn.width / image.width, drawn.height / image.height)
    for number, region in enumerate(regions):
        if region.mask is not None:
            drawn = with_mask(drawn, region.mask, _color(number), _OPACITY)
    for number, region in enumerate(regions):
        draw_box(drawn, region.box, scale, _color(number))
    for number, region in enumerate(regions):
        corner = (region.box[0] * scale[0], region.box[1] * scale[1])
        draw_tag(drawn, str(number + 1), corner, _color(number))
    return _with_text(drawn, detection, name)


def _color(number: int) -> Color:
    return _BOXES[number % len(_BOXES)]


def _with_text(image: Image.Image, detection: Detection, name: str) -> Image.Image:
    width = max(image.width, _LEAST_WIDTH)
    color, verdict = _verdict(detection)
    lines = [
        (color, line)
        for color, text in _paragraphs(detection, name)
        for line in wrapped(_printable(text), width - 2 * _MARGIN)
    ]
    top = image.height + _MARGIN
    sheet = Image.new("RGB", (width, top + _HEADING + LINE * len(lines) + _MARGIN), "white")
    sheet.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    draw_text(draw, (_MARGIN, top - 4), verdict, color, TITLE_FONT)
    for number, (color, line) in enumerate(lines):
        draw_text(draw, (_MARGIN, top + _HEADING + LINE * number), line, color, TEXT_FONT)
    return sheet


def _verdict(detection: Detection) -> tuple[Color, str]:
    if detection.has_artifact is None:
        return FAINT, "No verdict: the answer could not be parsed"
    score = "" if detection.score is None else f" (score {detection.score:.2f})"
    return (ORANGE, f"Artifacts{score}") if detection.has_artifact else (GREEN, f"No artifacts{score}")


def _paragraphs(detection: Detection, name: str) -> list[tuple[Color, str]]:
    labels = [
        (_color(number), f"{number + 1}. {_described(region)}")
        for number, region in enumerate(detection.regions or ())
    ]
    if detection.has_artifact and detection.regions == ():
        labels = [(FAINT, "No region was given.")]
    explanation = [(INK, detection.explanation)] if detection.explanation else []
    failures = [(FAINT, f"not parsed: {failure}") for failure in detection.failures]
    return [*labels, *explanation, *failures, *([(FAINT, name)] if name else [])]


def _described(region: DetectedRegion) -> str:
    score = "" if region.score is None else f"score {region.score:.2f}"
    return ", ".join(filter(None, (region.label, score))) or "no label"


def _printable(text: str) -> str:
    # File names and escapes in JSON may hold lone surrogates, which no font draws.
    return text.encode("utf-8", "replace").decode()
