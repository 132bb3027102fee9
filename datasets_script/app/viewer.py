"""The viewer of the tab Browse: what it is told of a sample. The page's part of it is `viewer.js` and `viewer.css`."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageColor

from .colors import type_colors
from .package import import_gradio


if TYPE_CHECKING:
    # Not imported at run time: it loads pyarrow and datasets, which only the first look needs.
    from .browsing import Sample, SeenRegion


_FILL, _EDGE = 70, 235
"""Opacity of a mask, of 255, and of its outline."""

# Images whose outlines are one pixel wide.
_THIN = 600
_MEDIA = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}


def add_viewer(folder: Path, has_names: bool) -> Any:
    """
    Add the viewer to the current `gr.Tab`.

    Args:
        folder (`Path`): Folder of the data, by which the page remembers the place.
        has_names (`bool`): Whether people log in, so that nobody types a name.
    """
    gr = import_gradio()
    here = Path(__file__)
    # Templates of the page are Handlebars within a JavaScript template string.
    place = "".join(one if one.isalnum() or one in "/ .-_" else f"&#{ord(one)};" for one in str(folder.absolute()))
    return gr.HTML(
        value=None,
        html_template=f'<div class="browse" tabindex="0" data-place="{place}" data-names="{int(has_names)}"></div>',
        css_template=here.with_suffix(".css").read_text(encoding="utf-8"),
        js_on_load=here.with_suffix(".js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="browse-viewer",
    )


def viewer_value(sample: Sample, types: Sequence[str]) -> dict[str, Any]:
    """
    Return what the viewer shows of a sample, JSON-serialisable: pictures, and masks of regions, as data URLs.

    Args:
        sample (`Sample`): The sample.
        types (`Sequence[str]`): Types that a region can be given.
    """
    kinds = list(dict.fromkeys((*types, *(region.type for region in sample.regions))))
    color_of = dict(zip(kinds, type_colors(kinds), strict=True))
    width, height = sample.size
    edited = sample.edited
    flawed = True if sample.of_pairs else edited["has_artifact"]
    return {
        "key": list(sample.key),
        "stamp": sample.stamp,
        "size": [width, height],
        "pictures": [{"name": name, "url": _url(content)} for name, content in sample.pictures.items()],
        "regions": [_region(region, color_of[region.type]) for region in sample.regions],
        "types": [{"name": kind, "color": color_of[kind]} for kind in kinds],
        "has_artifact": flawed,
        "verdict": sample.edits.verdict,
        "history": [
            f"{edit.action} by {edit.who}, {edit.at[:16].replace('T', ' ')}" for edit in sample.edits.standing
        ],
        "void": sample.void,
        "can_add": not sample.of_pairs,
        "texts": _texts(edited, sample.of_pairs),
    }


def _texts(row: Mapping[str, Any], of_pairs: bool) -> list[list[str]]:
    named = [("What is wrong", row["explanation"]), ("Caption", row["caption"])]
    if of_pairs:
        author = row["explanation_source"]
        named += [("Source photo", row["source_id"]), ("Texts by", author), ("Model", row["model"])]
    return [[name, text] for name, text in named if text]


def _region(region: SeenRegion, color: str) -> dict[str, Any]:
    return {
        "number": region.number,
        "type": region.type,
        "color": color,
        "box": None if region.box is None else list(region.box),
        "mask": None if region.mask is None else _mask_url(region.mask, color),
        "label": region.label,
        "caption": region.caption,
        "facts": [[name, value] for name, value in region.facts.items()],
    }


def _mask_url(mask: np.ndarray, color: str) -> str:
    """Draw a mask as a translucent area with an outline, in two colours of a palette."""
    width = max(1, round(max(mask.shape) / _THIN))
    inner = mask.copy()
    for _ in range(width):
        shrunk = inner.copy()
        shrunk[1:] &= inner[:-1]
        shrunk[:-1] &= inner[1:]
        shrunk[:, 1:] &= inner[:, :-1]
        shrunk[:, :-1] &= inner[:, 1:]
        inner = shrunk
    drawn = Image.fromarray(mask.astype(np.uint8) + (mask & ~inner))
    drawn.putpalette([0, 0, 0, *ImageColor.getrgb(color), *ImageColor.getrgb(color)])
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", transparency=bytes((0, _FILL, _EDGE)), compress_level=1)
    return _data_url(buffer.getvalue(), "image/png")


def _url(content: bytes) -> str:
    """Return the data URL of an image file, as it is if browsers show its format, else as PNG."""
    with Image.open(io.BytesIO(content)) as image:
        media = _MEDIA.get(image.format or "")
        if media is None:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, format="PNG")
            content, media = buffer.getvalue(), "image/png"
    return _data_url(content, media)


def _data_url(content: bytes, media: str) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode('ascii')}"
