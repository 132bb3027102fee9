"""The tab Make: mark a region of a photo, choose a tool, see clean and artifact image, keep the pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusers_artifact.tools import DISTORTION_KERNELS, TOOLS

from ..demo.photos import demo_photo_names, open_demo_photo
from ..figures.style import TYPE_COLORS, as_hex
from ..schema.boxes import Box
from ..utils.errors import UserError
from ..utils.photos import open_source
from .mask_editor import mask_editor
from .package import import_gradio
from .painted import painted_masks, shown_size
from .studio import Studio
from .wishes import BenchPhoto, Made, Wish


# Okabe and Ito's vermilion and sky blue: told apart by everybody, and visible on most photos.
FIRST, SECOND = "#d55e00", "#56b4e9"
# What a browser holds for a visitor is dropped after this many seconds.
_KEPT_FOR = 3600

GUIDE = """\
Choose a photo, and paint what the artifact is to happen to **orange**; for *fuse*, paint the second thing **blue**,
beside the first. Choose a tool and press **Make**. **Shuffle** makes another with the next seed."""


def add_make_tab(studio: Studio) -> None:
    """
    Add the components and events of the tab to the current `gr.Tab`.

    Args:
        studio (`Studio`): Makes the artifacts, and keeps pairs.
    """
    gr = import_gradio()
    demo = demo_photo_names()
    gr.Markdown(GUIDE)
    photo_state = gr.State(None, time_to_live=_KEPT_FOR)
    made_state = gr.State(None, time_to_live=_KEPT_FOR)
    with gr.Row():
        with gr.Column(min_width=300):
            upload = gr.Image(
                label="Photo",
                type="filepath",
                sources=["upload", "clipboard"],
                height=160,
                elem_id="make-photo",
            )
            chosen = gr.Dropdown(
                demo,
                value=None,
                label="or a photo of the demo",
                visible=bool(demo),
                elem_id="make-demo",
            )
            editor = mask_editor(
                [FIRST, SECOND], brush_size=36, label="Region", canvas_size=(640, 640), elem_id="make-editor"
            )
            with gr.Accordion("or type a box", open=False):
                box = gr.Textbox(
                    "",
                    label="x_min, y_min, x_max, y_max in pixels of the photo as the model sees it",
                    placeholder="96, 64, 144, 112",
                    elem_id="make-box",
                )
        with gr.Column(min_width=300):
            tool = gr.Radio(
                [(f"{name}: {one.description}", name) for name, one in TOOLS.items()],
                value="add",
                label="Tool",
                elem_id="make-tool",
            )
            kernel = gr.Dropdown(
                list(DISTORTION_KERNELS), value=DISTORTION_KERNELS[0], label="How patches change places", visible=False
            )
            with gr.Accordion("Names and parameters", open=False):
                with gr.Row():
                    entity = gr.Textbox(Wish.entity, label="Thing", min_width=90)
                    part = gr.Textbox(Wish.part, label="Its part", min_width=90)
                    second = gr.Textbox(Wish.second, label="Second thing (fuse)", min_width=90)
                with gr.Row():
                    reach = gr.Slider(0, 12, 0, step=1, label="Reach in patches (0: the tool's own)")
                    seed = gr.Number(0, precision=0, minimum=0, label="Seed")
            with gr.Row():
                make = gr.Button("Make", variant="primary", elem_id="make-go", min_width=90)
                shuffle = gr.Button("Shuffle", elem_id="make-shuffle", min_width=90)
                keep = gr.Button("Keep", elem_id="make-keep", min_width=90, visible=studio.data is not None)
            status = gr.Markdown("Choose a photo.", elem_id="make-status")
            label = gr.AnnotatedImage(
                label="Artifact image with its label", color_map=_colors(), format="png", elem_id="make-label"
            )
            slider = gr.ImageSlider(label="Clean | artifact", format="png", elem_id="make-slider")
            details = gr.JSON(label="Label", elem_id="make-details")

    def take(source: Image.Image, name: str) -> tuple[Any, ...]:
        photo = studio.bench.photo(source, name)
        studio.bench.hold(photo)
        width, height = photo.image.size
        text = f"**{photo.name}**, {width} × {height} pixels, is ready. Paint a region."
        return photo, None, text, _background(photo.image), None, None, None

    def take_upload(path: str | None) -> tuple[Any, ...]:
        if not path:
            return None, None, "Choose a photo.", None, None, None, None
        try:
            return take(open_source(path), Path(path).name)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def take_demo(name: str) -> tuple[Any, ...]:
        try:
            return take(open_demo_photo(name), name)
        except (UserError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    def make_one(
        photo: BenchPhoto | None,
        painting: dict[str, Any] | None,
        typed: str | None,
        tool: str,
        kernel: str,
        reach: float,
        entity: str,
        part: str,
        second: str,
        seed: float,
    ) -> tuple[Any, ...]:
        if photo is None:
            raise gr.Error("Choose a photo first.", print_exception=False)
        region, other = painted_masks(painting, photo.image.size, (FIRST, SECOND))
        try:
            if typed and typed.strip():
                region = box_mask(typed, photo.image.size)
            wish = Wish(tool, region, other, kernel, int(reach), entity, part, second, int(seed))
            made = studio.bench.make(photo, wish)
        except UserError as error:
            raise gr.Error(_in_the_words_of_the_tab(str(error)), print_exception=False) from error
        return made, _status(made), _labelled(made), (made.clean, made.flawed), made.as_dict()

    def next_seed(seed: float) -> int:
        return int(seed) + 1

    def keep_one(made: Made | None) -> tuple[None, str]:
        if made is None:
            raise gr.Error("Make an artifact first.", print_exception=False)
        try:
            pair_id = studio.kept.keep(made)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return None, f"Kept **{pair_id}** in `{studio.kept.folder}`, which now holds {len(studio.kept)} pairs."

    shown = [photo_state, made_state, status, editor, label, slider, details]
    upload.change(take_upload, upload, shown, api_name="take", show_progress="minimal")
    chosen.input(take_demo, chosen, shown, api_name="take_demo", show_progress="minimal")
    tool.change(lambda name: gr.update(visible=name == "distort"), tool, kernel, api_visibility="private")
    wanted = [photo_state, editor, box, tool, kernel, reach, entity, part, second, seed]
    results = [made_state, status, label, slider, details]
    make.click(make_one, wanted, results, api_name="make", show_progress="minimal")
    shuffle.click(next_seed, seed, seed, api_visibility="private", show_progress="hidden").then(
        make_one, wanted, results, api_name="shuffle", show_progress="minimal"
    )
    keep.click(keep_one, made_state, [made_state, status], api_name="keep")


def box_mask(text: str, size: tuple[int, int]) -> np.ndarray:
    """
    Return the mask of a typed box.

    Args:
        text (`str`): `"x_min, y_min, x_max, y_max"`, exclusive maxima, pixels.
        size (`tuple[int, int]`): `(width, height)` of the image.

    Raises:
        UserError: It is no box in the image.
    """
    try:
        x_min, y_min, x_max, y_max = (round(float(number)) for number in text.replace(",", " ").split())
    except ValueError as error:
        raise UserError(f"the box must be four numbers, x_min, y_min, x_max and y_max, got '{text}'") from error
    if not (0 <= x_min < x_max <= size[0] and 0 <= y_min < y_max <= size[1]):
        raise UserError(f"the box must lie in the photo of {size[0]} × {size[1]} pixels, got '{text}'")
    mask = np.zeros(size[::-1], dtype=bool)
    mask[y_min:y_max, x_min:x_max] = True
    return mask


def outlined(box: Box) -> str:
    """Write a box as `"x_min, y_min, x_max, y_max"`."""
    return ", ".join(f"{number:g}" for number in box)


def _background(image: Image.Image) -> dict[str, Any]:
    size = shown_size(image.size)
    shown = np.asarray(image.convert("RGBA").resize(size, Image.Resampling.LANCZOS))
    return {"background": shown, "layers": [], "composite": shown}


def _colors() -> dict[str, str]:
    return {kind: as_hex(color) for kind, color in TYPE_COLORS.items()}


def _labelled(made: Made) -> tuple[Image.Image, list[tuple[np.ndarray, str]]]:
    mask = made.artifact.mask
    return made.flawed, [(mask.astype(np.float32), made.artifact.type)] if mask.any() else []


def _status(made: Made) -> str:
    seen = f"{int(made.artifact.mask.sum())} pixels changed visibly, in box {outlined(made.artifact.bbox)}"
    if not made.artifact.mask.any():
        seen = "nothing of it can be seen: **shuffle**, or paint a region that differs more from its surroundings"
    return f"{made.artifact.explanation} Seed {made.seed}, {made.seconds:.2f} s; {seen}."


def _in_the_words_of_the_tab(message: str) -> str:
    for name, word in (("`region`", "the region"), ("`other`", "the second thing"), ("`tool`", "the tool")):
        message = message.replace(name, word)
    return message
