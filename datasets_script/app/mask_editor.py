"""The editor that tabs paint masks in; [`~datasets_script.app.painted.painted_masks`] reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .package import import_gradio


# An editor puts a layer that is smaller than its canvas into the middle of it, and its canvas never gets smaller than
# it began: as large as an image, but larger than a smaller one, whose layer it would show, and give back, displaced.
_FIRST_CANVAS = (16, 16)


def mask_editor(colors: Sequence[str], brush_size: int = 24, **options: Any) -> Any:
    """
    Make an editor over an image that nothing but a brush and an eraser changes.

    Args:
        colors (`Sequence[str]`): Colours of the brush as `"#rrggbb"`, the first of which it begins with.
        brush_size (`int`, *optional*, defaults to 24): Size of brush and eraser in pixels.
        options: Further arguments of `gr.ImageEditor`, such as `label` and `elem_id`.
    """
    gr = import_gradio()
    return gr.ImageEditor(
        type="numpy",
        image_mode="RGBA",
        format="png",
        sources=(),
        transforms=(),
        layers=False,
        brush=gr.Brush(default_size=brush_size, colors=list(colors), default_color=colors[0], color_mode="fixed"),
        eraser=gr.Eraser(default_size=brush_size),
        interactive=True,
        **{"canvas_size": _FIRST_CANVAS, **options},
    )
