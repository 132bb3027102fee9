"""The image of a detection: numbered boxes on the image, and below it what was said."""

from __future__ import annotations

from PIL import Image, ImageDraw

from ..schema.detection import Detection
from .drawing import draw_box, draw_tag, fitted, wrapped
from .style import BLUE, FAINT, GREEN, INK, LINE, OCHRE, ORANGE, PURPLE, TEXT_FONT, TITLE_FONT, Color


_BOXES: tuple[Color, ...] = (ORANGE, BLUE, PURPLE, GREEN, OCHRE)

# The image's long side is brought within these, px: boxes and text have one size on all.
_LEAST, _MOST = 768, 1280
_LEAST_WIDTH = 640
_MARGIN = 18
_HEADING = 36


def detection_picture(image: Image.Image, detection: Detection, name: str = "") -> Image.Image:
    """
    The image with a numbered box for each region, over the verdict, the numbered labels, the explanation, and what
    could not be read of the answers.

    Args:
        image (`PIL.Image.Image`): Upright, of the detection's size.
        detection ([`Detection`]): What was said of it.
        name (`str`, *optional*): Of the image.

    Returns:
        `PIL.Image.Image`: RGB, at least 640 px wide.

    Raises:
        ValueError: the image is of another size.
    """
    if image.size != detection.size:
        raise ValueError(f"`image` must be of the detection's size, {detection.size}, got {image.size}")
    picture = fitted(image, min(max(_LEAST, *image.size), _MOST))
    regions = detection.regions or ()
    scale = (picture.width / image.width, picture.height / image.height)
    for number, region in enumerate(regions):
        draw_box(picture, region.box, scale, _color(number))
    for number, region in enumerate(regions):
        corner = (region.box[0] * scale[0], region.box[1] * scale[1])
        draw_tag(picture, str(number + 1), corner, _color(number))
    return _with_text(picture, detection, name)


def _color(number: int) -> Color:
    return _BOXES[number % len(_BOXES)]


def _with_text(picture: Image.Image, detection: Detection, name: str) -> Image.Image:
    width = max(picture.width, _LEAST_WIDTH)
    color, verdict = _verdict(detection)
    lines = [
        (color, line)
        for color, text in _paragraphs(detection, name)
        for line in wrapped(_printable(text), width - 2 * _MARGIN)
    ]
    top = picture.height + _MARGIN
    sheet = Image.new("RGB", (width, top + _HEADING + LINE * len(lines) + _MARGIN), "white")
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, top - 4), verdict, fill=color, font=TITLE_FONT)
    for number, (color, line) in enumerate(lines):
        draw.text((_MARGIN, top + _HEADING + LINE * number), line, fill=color, font=TEXT_FONT)
    return sheet


def _verdict(detection: Detection) -> tuple[Color, str]:
    if detection.has_artifact is None:
        return FAINT, "No verdict: the answer could not be read"
    return (ORANGE, "Artifacts") if detection.has_artifact else (GREEN, "No artifacts")


def _paragraphs(detection: Detection, name: str) -> list[tuple[Color, str]]:
    labels = [
        (_color(number), f"{number + 1}. {region.label or 'no label'}")
        for number, region in enumerate(detection.regions or ())
    ]
    if detection.has_artifact and detection.regions == ():
        labels = [(FAINT, "No place is named.")]
    explanation = [(INK, detection.explanation)] if detection.explanation else []
    failures = [(FAINT, f"not read: {failure}") for failure in detection.failures]
    return [*labels, *explanation, *failures, *([(FAINT, name)] if name else [])]


def _printable(text: str) -> str:
    # Names of files and escapes in JSON may hold half characters, which no font draws.
    return text.encode("utf-8", "replace").decode()
