"""The tab Browse: look at a run or a prepared benchmark, accept and reject samples, correct types, boxes and masks."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..figures.style import ORANGE, as_hex
from .desk import Desk, begun_mask
from .mask_editor import mask_editor
from .package import import_gradio
from .painted import painted_masks, painting, shown_size
from .viewer import add_viewer


if TYPE_CHECKING:
    # Not imported at run time: it loads pyarrow and datasets, which only the first look needs.
    from .browsing import Choice, Sample

BRUSH = as_hex(ORANGE)
GUIDE = """\
Say of each sample whether its labels are right, and correct them. Edits are a layer beside the data, `edits.jsonl`,
which `artiagent prepare` and `artiagent merge` apply. They carry your name; the data stays as it is."""
MASK_GUIDE = """\
Paint what belongs to the region, and erase what does not. Keys: **+** and **−** grow and shrink it by a pixel, **F**
fills its box, **Enter** saves, **Esc** leaves it as it was."""


def add_browse_tab(folder: Path, has_names: bool) -> None:
    """
    Add the components and events of the tab to the current `gr.Tab`.

    Args:
        folder (`Path`): Folder of a run or a prepared benchmark; it may not exist yet.
        has_names (`bool`): Whether people log in with names and tokens, so that they are not asked for their name.
    """
    gr = import_gradio()
    desk = Desk(folder)
    gr.Markdown(GUIDE)
    state = gr.State(None)
    with gr.Row():
        name = gr.Textbox(
            "",
            label="Your name",
            visible=not has_names,
            elem_id="browse-name",
            max_lines=1,
            min_width=280,
            scale=1,
        )
        with gr.Column(scale=2, min_width=280), gr.Accordion("Filter (F)", open=False, elem_id="browse-filters"):
            with gr.Row():
                find = gr.Textbox("", label="Id contains", elem_id="browse-find", min_width=130)
                decision = gr.Dropdown(["all"], value="all", label="Decision", elem_id="browse-decision", min_width=99)
            types = gr.Dropdown([], multiselect=True, label="Types", elem_id="browse-types")
            parts = gr.Dropdown([], multiselect=True, label="Parts", elem_id="browse-parts", visible=False)
            with gr.Row():
                score = gr.Dropdown([""], value="", label="Score", elem_id="browse-score", visible=False, min_width=99)
                least = gr.Number(None, label="at least", elem_id="browse-least", visible=False, min_width=90)
                most = gr.Number(None, label="at most", elem_id="browse-most", visible=False, min_width=90)
            agreement = gr.Dropdown(
                [""], value="", label="Agreement of judges", elem_id="browse-agreement", visible=False
            )
    with gr.Column(visible=False) as painter:
        gr.Markdown(MASK_GUIDE)
        editor = mask_editor([BRUSH], label="Mask", height=480, elem_id="browse-editor")
        with gr.Row():
            save = gr.Button("Save (Enter)", variant="primary", elem_id="browse-save", min_width=90)
            grow = gr.Button("Grow (+)", elem_id="browse-grow", min_width=90)
            shrink = gr.Button("Shrink (−)", elem_id="browse-shrink", min_width=90)
            fill = gr.Button("Fill its box (F)", elem_id="browse-fill", min_width=90)
            cancel = gr.Button("Cancel (Esc)", elem_id="browse-cancel", min_width=90)
    viewer = add_viewer(folder, has_names)
    command = gr.Textbox("", visible="hidden", elem_id="browse-command")

    def who(typed: str | None, request: Any) -> str:
        return (request.username if has_names else (typed or "").strip()) or ""

    def obey(request: Any, written: str, typed: str | None, *chosen: Any) -> list[Any]:
        given, updates = json.loads(written), [gr.skip()] * (1 + len(filters))
        choice = _choice(*chosen)
        if given["do"] == "open":
            memory = given.get("memory") or {}
            typed = typed or given.get("name") or ("" if has_names else login_name())
            choice = _remembered(memory.get("filters") or {})
            given = {"do": "open", "key": memory.get("key"), "turn": given.get("turn")}
        shown = view(desk.act(given, choice, who(typed, request)), choice)
        if given["do"] == "open":
            updates = [typed, *_filters(gr, desk, choice)]
        return [*shown, *updates]

    def filter_again(request: Any, seen: dict[str, Any] | None, typed: str | None, *chosen: Any) -> list[Any]:
        choice = _choice(*chosen)
        given = {"do": "show", "key": (seen or {}).get("key")}
        return view(desk.act(given, choice, who(typed, request)), choice)

    def save_mask(
        request: Any, seen: dict[str, Any] | None, painted: dict[str, Any] | None, typed: str | None, *chosen: Any
    ) -> list[Any]:
        if not seen:
            return [gr.skip()] * len(views)
        (mask,) = painted_masks(painted, desk.sample(tuple(seen["key"])).size, (BRUSH,))
        value = desk.act({**seen, "do": "mask", "painted": mask}, _choice(*chosen), who(typed, request))
        if not value["error"]:
            return view(value, _choice(*chosen))
        # What was painted stays, and is of the sample as it was seen then: it is never saved over what came since.
        _, told, _, _ = view(value | {"region": seen["region"]}, _choice(*chosen))
        return [gr.skip(), told | {"mode": "mask"}, gr.update(visible=True), gr.skip()]

    def leave_mask(request: Any, seen: dict[str, Any] | None, typed: str | None, *chosen: Any) -> list[Any]:
        value = desk.act({**(seen or {}), "do": "stay"}, _choice(*chosen), who(typed, request))
        return view(value | {"region": (seen or {}).get("region")}, _choice(*chosen))

    def reshape(seen: dict[str, Any] | None, painted: dict[str, Any] | None, how: str) -> Any:
        from ..edits.shapes import filled, grown, within

        if not seen:
            return gr.skip()
        sample = desk.sample(tuple(seen["key"]))
        (mask,) = painted_masks(painted, sample.size, (BRUSH,))
        box = sample.region(seen["region"]).box
        if how == "fill" and box is not None:
            mask = filled(within(box, sample.size), sample.size)
        return _paintable(sample, grown(mask, {"grow": 1, "shrink": -1}.get(how, 0)))

    def view(value: dict[str, Any], choice: Choice) -> list[Any]:
        """Return the state, the viewer's value, whether one paints, and what one paints on."""
        sample, paints = value["sample"], value["mode"] == "mask"
        # Where nothing fits a filter, the page keeps its place for another filter.
        seen = {"key": sample["key"], "stamp": sample["stamp"], "region": value["region"]} if sample else gr.skip()
        if sample:
            value["memory"] = {"key": sample["key"], "filters": vars(choice)}
        on = gr.skip()
        if paints and sample:
            one = desk.sample(tuple(sample["key"]))
            on = _paintable(one, begun_mask(one, value["region"]))
        return [seen, value, gr.update(visible=paints), on]

    filters = [find, decision, types, parts, score, least, most, agreement]
    views = [state, viewer, painter, editor]
    quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple"}
    # gradio passes the request to what is annotated with its own class.
    for function in (obey, filter_again, save_mask, leave_mask):
        function.__annotations__["request"] = gr.Request
    # Not `input`, which gradio sends only for keys that are pressed in the field.
    command.change(obey, [command, name, *filters], [*views, name, *filters], api_name="browse", **quiet)
    gr.on(
        [one.input for one in filters],
        filter_again,
        [state, name, *filters],
        views,
        api_name="filter",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    save.click(save_mask, [state, editor, name, *filters], views, api_name="save_mask", **quiet)
    cancel.click(leave_mask, [state, name, *filters], views, api_name="leave_mask", **quiet)
    for button, how in ((grow, "grow"), (shrink, "shrink"), (fill, "fill")):
        button.click(reshape, [state, editor, gr.State(how)], editor, api_name=f"{how}_mask", **quiet)


def login_name() -> str:
    """Return the name of the user of this machine; empty if it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a list of users
        return ""


def _choice(
    find: str | None,
    decision: str | None,
    types: list[str] | None,
    parts: list[str] | None,
    score: str | None,
    least: float | None,
    most: float | None,
    agreement: str | None,
) -> Choice:
    from .browsing import Choice

    chosen = (tuple(types or ()), tuple(parts or ()), decision or "all", score or "")
    return Choice(*chosen, least, most, agreement or "", (find or "").strip())


def _remembered(filters: Mapping[str, Any]) -> Choice:
    """Return the choice that a page has remembered, without what this version does not know."""
    names = ("find", "decision", "types", "parts", "score", "least", "most", "agreement")
    return _choice(*(filters.get(name) for name in names))


def _filters(gr: Any, desk: Desk, choice: Choice) -> Iterator[Any]:
    """Yield the updates of the filters: what can be chosen of the data, and what is."""
    from .browsing import AGREEMENTS, DECISIONS

    found = desk.choices()
    yield choice.find
    yield gr.update(choices=list(DECISIONS), value=choice.decision)
    for name, values, chosen in (("types", found.types, choice.types), ("parts", found.parts, choice.parts)):
        known = list(dict.fromkeys((*values, *chosen)))
        yield gr.update(choices=known, value=list(chosen), visible=bool(known) or name == "types")
    has_scores = bool(found.scores)
    scores = [("any", ""), *((name.replace("_", " "), name) for name in found.scores)]
    yield gr.update(choices=scores, value=choice.score if choice.score in found.scores else "", visible=has_scores)
    yield gr.update(value=choice.least, visible=has_scores)
    yield gr.update(value=choice.most, visible=has_scores)
    judged = [("any", ""), *((name, name) for name in AGREEMENTS)]
    yield gr.update(choices=judged, value=choice.agreement, visible=found.has_judges)


def _paintable(sample: Sample, mask: np.ndarray) -> dict[str, Any]:
    """Return the image with a mask on it, as the editor takes them."""
    size = shown_size(sample.size)
    shown = np.asarray(sample.image.convert("RGBA").resize(size, Image.Resampling.LANCZOS))
    return {"background": shown, "layers": [painting(mask, size, BRUSH)] if mask.any() else [], "composite": shown}
