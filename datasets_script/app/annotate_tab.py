"""The tab Annotate: a queue that several people share, as ArtiBench was made: classify images, then mark artifacts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from evaluate_metrics.functional.agreement import box_iou
from evaluate_metrics.functional.instances import connected_components

from ..annotation.exports import EXPORTS, export_queue
from ..annotation.progress import progress
from ..annotation.queue import ADMIN, GUIDELINE, AnnotationQueue, LostClaimError
from ..annotation.records import VERDICTS, Claim, Mark, Marking, Phase
from ..schema.boxes import Box
from ..utils.errors import UserError
from ..utils.photos import open_source
from .colors import type_colors
from .examples import examples_html
from .mask_editor import mask_editor
from .package import import_annotator, import_gradio
from .painted import painted_masks, painting, shown_size


PHASE_NAMES: tuple[tuple[str, Phase], ...] = (
    ("1 Classify: has it artifacts?", "classify"),
    ("2 Mark: where are they?", "mark"),
    ("Admin: decide what is open", "decide"),
)
NOTHING_LEFT = "Nothing is left for you here. Try the other phase, or look again later."
# Areas with fewer pixels are slips of the brush.
_LEAST_AREA = 4
_CAPTION = 2
"""Column of the table that holds captions."""

# An id for each page that outlives loading it again, and the name that was typed last, unless one is being typed.
REMEMBER = """(typed) => {
  let page = sessionStorage.getItem("artiagent-page");
  if (!page) {
    page = Array.from(crypto.getRandomValues(new Uint32Array(4)), part => part.toString(16)).join("-");
    sessionStorage.setItem("artiagent-page", page);
  }
  return [page, typed || localStorage.getItem("artiagent-name") || ""];
}"""
NOTE_NAME = """(name) => { localStorage.setItem("artiagent-name", name); return name; }"""


def add_annotate_tab(queue: AnnotationQueue, app: Any, has_names: bool) -> None:
    """
    Add the components and events of the tab to the current `gr.Tab`.

    Args:
        queue (`AnnotationQueue`): The queue.
        app (`gradio.Blocks`): The app, whose loading tells the page's id.
        has_names (`bool`): Whether people log in with names and tokens, so that they are not asked for their name.
    """
    gr, image_annotator = import_gradio(), import_annotator()
    types, colors = queue.settings.types, type_colors(queue.settings.types)
    page = gr.Textbox("", visible=False)
    state = gr.State(None)
    with gr.Row():
        name = gr.Textbox("", label="Your name", visible=not has_names, elem_id="annotate-name", min_width=160)
        phase = gr.Radio(list(PHASE_NAMES), value="classify", label="Phase", elem_id="annotate-phase", min_width=300)
        start = gr.Button("Start", variant="primary", elem_id="annotate-start", min_width=90)
    with gr.Accordion("Guideline", open=True):
        gr.Markdown(queue.settings.guideline, elem_id="annotate-guideline")
        if queue.settings.guideline == GUIDELINE:  # another one may draw the line elsewhere
            gr.HTML(examples_html(types), elem_id="annotate-examples")
    status = gr.Markdown("Type your name and press **Start**.", elem_id="annotate-status")
    picture = gr.Image(
        label="Image",
        type="pil",
        format="png",
        interactive=False,
        buttons=["fullscreen"],  # not the one that shares with others
        height=480,
        visible=False,
        elem_id="annotate-image",
    )
    with gr.Row(visible=False) as verdicts:
        buttons = {
            verdict: gr.Button(
                {"yes": "Yes, artifacts (Y)", "no": "No (N)", "unsure": "Unsure (U)"}[verdict],
                elem_id=f"annotate-{verdict}",
                min_width=90,
            )
            for verdict in VERDICTS
        }
    with gr.Column(visible=False) as marking:
        boxes = image_annotator(
            label="Draw boxes (keys: C draw, E edit, Delete)",
            label_list=list(types),
            label_colors=list(colors),
            image_type="filepath",
            sources=[],
            show_download_button=False,
            show_share_button=False,
            show_clear_button=False,
            box_min_size=2,
            elem_id="annotate-boxes",
        )
        with gr.Accordion("or paint regions, in the colour of their type", open=False):
            gr.Markdown(
                " · ".join(f"<span style='color:{c}'>■</span> {t}" for t, c in zip(types, colors, strict=True))
            )
            editor = mask_editor(colors, show_label=False, elem_id="annotate-editor")
        listed = gr.Button("List the regions, to caption them", elem_id="annotate-list", min_width=90)
        table = gr.Dataframe(
            headers=["region", "type", "caption"],
            datatype=["str", "str", "str"],
            type="array",
            row_count=(0, "dynamic"),
            column_count=(3, "fixed"),
            interactive=True,
            wrap=True,
            show_label=False,
            elem_id="annotate-table",
        )
        explanation = gr.Textbox(
            "",
            label="What is wrong with the image as a whole, in one to three sentences",
            lines=2,
            elem_id="annotate-explanation",
        )
        submit = gr.Button("Submit", variant="primary", elem_id="annotate-submit", min_width=90)
    with gr.Row(visible=False) as back_row:
        back = gr.Button("Give it back unanswered", elem_id="annotate-back", min_width=90)
    with gr.Accordion("Progress and agreement", open=False):
        text = gr.Markdown(progress(queue).as_text(), elem_id="annotate-progress")
        refresh = gr.Button("Refresh", min_width=90)
    with gr.Accordion("Export (admins)", open=False):
        with gr.Row():
            format = gr.Dropdown(list(EXPORTS), value="artibench", label="Format")
            export = gr.Button("Export into the queue's folder", elem_id="annotate-export", min_width=90)
        exported = gr.Markdown(elem_id="annotate-exported")

    views = [state, status, picture, verdicts, buttons["unsure"], marking, boxes, editor, table, explanation, back_row]

    def who(typed: str | None, request: Any) -> str:
        return (request.username if has_names else (typed or "").strip()) or ""

    def check_admin(person: str) -> None:
        if has_names and queue.people().get(person) != ADMIN:
            raise gr.Error("Only an admin may do this.", print_exception=False)

    def view(claim: Claim | None, message: str = "") -> list[Any]:
        if claim is None:
            empty = [gr.update(visible=False)] * 2
            return [
                None,
                f"{message} {NOTHING_LEFT}".strip(),
                gr.update(value=None, visible=False),
                *empty,
                gr.update(visible=False),
                None,
                None,
                [],
                "",
                gr.update(visible=False),
            ]
        image, marks = open_source(queue.folder / claim.item.file, min_side=1), claim.phase == "mark"
        drawn = _drawn(str(queue.folder / claim.item.file), claim.item.draft, types, colors) if marks else None
        painted = _painted(image, claim.item.draft, types, colors) if marks else None
        return [
            claim,
            f"{message} {_headline(claim)}".strip(),
            gr.update(value=None if marks else image, visible=not marks),
            gr.update(visible=not marks),
            gr.update(visible=claim.phase == "classify"),
            gr.update(visible=marks),
            drawn,
            painted,
            _rows(_begun(claim, drawn, painted, types, colors)) if marks else [],
            claim.item.draft.explanation if marks and claim.item.draft else "",
            gr.update(visible=True),
        ]

    def next_item(typed: str | None, phase: Phase, page: str | None, request: Any) -> list[Any]:
        person = who(typed, request)
        if phase == "decide":
            check_admin(person)
        try:
            return view(queue.claim(person, phase, page or request.session_hash))
        except UserError as error:
            raise gr.Error("Type your name first." if not person else str(error), print_exception=False) from error

    def answer(claim: Claim | None, content: str | Marking) -> list[Any]:
        if claim is None:
            raise gr.Error("Press Start first.", print_exception=False)
        message = ""
        try:
            queue.answer(claim, content)
        except LostClaimError as error:
            message = f"{error}."
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return view(queue.claim(claim.annotator, claim.phase, claim.holder), message)

    def submit_marks(
        claim: Claim | None, drawn: dict[str, Any] | None, painting: dict[str, Any] | None, rows: Any, text: str | None
    ) -> list[Any]:
        marks, lost = _captioned(read_marks(claim, drawn, painting, types, colors) if claim else (), rows)
        if claim and lost:
            raise gr.Error(
                f"The regions have changed since they were listed; captions without a region: {_quoted(lost)}. Press "
                "“List the regions” again, check the captions, then submit.",
                print_exception=False,
            )
        return answer(claim, Marking(marks, (text or "").strip()))

    def list_marks(
        claim: Claim | None, drawn: dict[str, Any] | None, painting: dict[str, Any] | None, rows: Any
    ) -> list[list[str]]:
        if claim is None:
            return []
        marks, lost = _captioned(read_marks(claim, drawn, painting, types, colors), rows, moved=True)
        if lost:
            gr.Warning(f"Taken off the list, because the region is gone: {_quoted(lost)}", duration=None)
        return _rows(marks)

    def give_back(claim: Claim | None) -> list[Any]:
        if claim is not None:
            queue.release(claim)
        hidden = view(None)
        hidden[1] = "Given back. Press **Start** for another."
        return hidden

    def export_all(format: str, typed: str | None, request: Any) -> str:
        check_admin(who(typed, request))
        out = queue.folder / "exports" / f"{format}-{datetime.now():%Y%m%d-%H%M%S-%f}"
        try:
            count = export_queue(queue, out, format)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return f"{count} images are in `{out}`."

    # gradio passes the request to what is annotated with its own class.
    for function in (next_item, export_all):
        function.__annotations__["request"] = gr.Request

    app.load(None, name, [page, name], js=REMEMBER)
    name.blur(None, name, name, js=NOTE_NAME)
    start.click(next_item, [name, phase, page], views, api_name="start")
    phase.input(next_item, [name, phase, page], views, api_visibility="private")
    for verdict, button in buttons.items():
        button.click(lambda claim, verdict=verdict: answer(claim, verdict), state, views, api_name=f"answer_{verdict}")
    regions = [state, boxes, editor, table]
    listed.click(list_marks, regions, table, api_name="list_regions")
    submit.click(submit_marks, [*regions, explanation], views, api_name="submit")
    back.click(give_back, state, views, api_name="give_back")
    refresh.click(lambda: progress(queue).as_text(), None, text, api_name="progress")
    export.click(export_all, [format, name], exported, api_name="export")


def read_marks(
    claim: Claim,
    drawn: dict[str, Any] | None,
    painting: dict[str, Any] | None,
    types: Sequence[str],
    colors: Sequence[str],
) -> tuple[Mark, ...]:
    """
    Read the regions that were drawn and painted. Each connected area of a colour is a region.

    Args:
        claim (`Claim`): The item.
        drawn (`dict`, *optional*): Value of the annotator of boxes.
        painting (`dict`, *optional*): Value of the image editor.
        types, colors (`Sequence[str]`): Types, and the colour of each.

    Returns:
        `tuple[Mark, ...]`: Boxes in the order in which they were drawn, then painted regions by type, from the top. A
        box without a type has an empty one.
    """
    (width, height), marks = claim.item.size, list[Mark]()
    for box in (drawn or {}).get("boxes") or []:
        x_min, x_max = sorted(min(max(float(box[side]), 0.0), float(width)) for side in ("xmin", "xmax"))
        y_min, y_max = sorted(min(max(float(box[side]), 0.0), float(height)) for side in ("ymin", "ymax"))
        # Without a type if none was chosen: what it is must not be guessed, and submitting tells it.
        marks.append(Mark(box.get("label") or "", (x_min, y_min, x_max, y_max)))
    for kind, mask in zip(types, painted_masks(painting, claim.item.size, colors), strict=True):
        areas = connected_components(mask)
        for number in range(1, int(areas.max()) + 1):
            area = areas == number
            if area.sum() >= _LEAST_AREA:
                marks.append(Mark.of_mask(kind, area))
    return tuple(marks)


def _captioned(marks: Sequence[Mark], rows: Any, moved: bool = False) -> tuple[tuple[Mark, ...], list[str]]:
    """
    Return the marks with the captions of the table, whose rows are those of the marks when it was listed, and the
    captions of no mark. With `moved`, a mark may also be what a row's region was moved to: one that overlaps it.
    """
    listed = [tuple(str(cell or "") for cell in row[: _CAPTION + 1]) for row in rows or [] if row]
    fits = [
        (_fit(name, kind, mark), row, number)
        for row, (name, kind, _) in enumerate(listed)
        for number, mark in enumerate(marks)
    ]
    given: dict[int, str] = {}
    taken = set[int]()
    for fit, row, number in sorted(fits, key=lambda one: (-one[0], *one[1:])):
        if fit > (0 if moved else 1) and row not in taken and number not in given:
            given[number] = listed[row][_CAPTION]
            taken.add(row)
    lost = [row[_CAPTION] for number, row in enumerate(listed) if number not in taken and row[_CAPTION].strip()]
    return tuple(replace(mark, caption=given.get(number, "")) for number, mark in enumerate(marks)), lost


def _fit(name: str, kind: str, mark: Mark) -> float:
    """Return how well a row and a mark fit: 3 and 2 if it is that region, at most 1 if they overlap, else 0."""
    if name == _named(mark):
        return 3.0 if kind == mark.type else 2.0
    numbers = [float(number) for number in re.findall(r"\d+", name)]
    if len(numbers) != 4 or name.partition(" ")[0] != _named(mark).partition(" ")[0]:
        return 0.0
    return box_iou((numbers[0], numbers[1], numbers[2], numbers[3]), mark.box)


def _begun(
    claim: Claim,
    drawn: dict[str, Any] | None,
    painting: dict[str, Any] | None,
    types: Sequence[str],
    colors: Sequence[str],
) -> list[Mark]:
    """Return the regions of a draft as they are read when they are submitted untouched, with their captions."""
    draft = claim.item.draft.marks if claim.item.draft else ()
    boxes, painted = iter([mark for mark in draft if not mark.counts]), [mark for mark in draft if mark.counts]
    begun = []
    for mark in read_marks(claim, drawn, painting, types, colors):
        if not mark.counts:
            begun.append(replace(mark, caption=next(boxes).caption))
            continue
        # One mask may be several areas, and areas of two masks may have grown together.
        area = np.asarray(mark.mask(claim.item.size))
        shared = [
            (int((area & np.asarray(one.mask(claim.item.size))).sum()), one.caption)
            for one in painted
            if one.type == mark.type
        ]
        begun.append(replace(mark, caption=max(shared, key=lambda one: one[0], default=(0, ""))[1]))
    return begun


def _quoted(captions: Sequence[str]) -> str:
    return ", ".join(f"“{caption.strip()}”" for caption in captions)


def _rows(marks: Sequence[Mark]) -> list[list[str]]:
    return [[_named(mark), mark.type, mark.caption] for mark in marks]


def _named(mark: Mark) -> str:
    return f"{'painted' if mark.counts else 'box'} {', '.join(map(str, _whole(mark.box)))}"


def _whole(box: Box) -> tuple[int, int, int, int]:
    """Round a box to whole pixels, as the annotator of boxes does with what it gives back."""
    x_min, y_min, x_max, y_max = map(round, box)
    return x_min, y_min, x_max, y_max


def _headline(claim: Claim) -> str:
    prompt = f" Prompt: *{claim.item.prompt}*" if claim.item.prompt else ""
    given = ", ".join(f"{name}: {verdict}" for name, verdict in claim.others.items())
    return f"**{claim.item.id}**.{prompt}{f' Answers so far: {given}.' if given else ''}"


def _drawn(path: str, draft: Marking | None, types: Sequence[str], colors: Sequence[str]) -> dict[str, Any]:
    color_of = dict(zip(types, colors, strict=True))
    return {
        "image": path,  # as it is: an array would be compressed with losses
        "boxes": [
            {
                **dict(zip(("xmin", "ymin", "xmax", "ymax"), _whole(mark.box), strict=True)),
                "label": mark.type,
                # As the component writes colours itself; it cannot read back what it was given otherwise.
                "color": "rgb({}, {}, {})".format(*ImageColor.getrgb(color_of.get(mark.type, colors[0]))),
            }
            for mark in (draft.marks if draft else ())
            if not mark.counts
        ],
    }


def _painted(image: Image.Image, draft: Marking | None, types: Sequence[str], colors: Sequence[str]) -> dict[str, Any]:
    size = shown_size(image.size)
    shown = np.asarray(image.convert("RGBA").resize(size, Image.Resampling.LANCZOS))
    layer = np.zeros_like(shown)
    for mark in draft.marks if draft else ():
        mask = mark.mask(image.size)
        if mask is not None and mark.type in types:
            of_mark = painting(mask, size, colors[list(types).index(mark.type)])
            layer[of_mark[..., 3] > 0] = of_mark[of_mark[..., 3] > 0]
    layers = [layer] if layer.any() else []
    return {"background": shown, "layers": layers, "composite": shown}
