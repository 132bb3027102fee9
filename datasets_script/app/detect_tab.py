"""The tab Detect: find artifacts in an image, accept or edit their mask, take the decision, and have it corrected."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..figures.style import ORANGE, as_hex
from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.photos import open_source
from .decision import Decision, Examined
from .mask_editor import mask_editor
from .package import import_gradio
from .painted import painted_masks, painting, shown_size
from .studio import Studio


if TYPE_CHECKING:
    # Not imported at run time: it loads torch and diffusers, which only the first correction needs.
    from ..schema.correction import CorrectedRegion

BRUSH = as_hex(ORANGE)
GUIDE = """\
Upload an image and look at what was found. Keep the mask, paint what is missing or erase what is wrong, and press
**Decide**. An empty mask says that nothing is wrong. **Correct** has the mask of the decision drawn again, until the
detector sees no artifact there; the slider shows the image before and after."""

_ENDS = {
    "clean": "corrected: the detector sees no artifact there any more",
    "better": "corrected in part: the detector is clearly less sure than before, but still sees an artifact",
    "unsolved": "left as it was: no repair was better",
    "worse": "left as it was: a repair was worse",
    "too large": "left as it was: the mask leaves too little around it to draw from; erase some of it",
}
"""Words for the outcomes of a region that was given."""


def add_detect_tab(studio: Studio) -> None:
    """
    Add the components and events of the tab to the current `gr.Tab`.

    Args:
        studio (`Studio`): Loads the detector, and what corrects.
    """
    gr = import_gradio()
    gr.Markdown(GUIDE)
    examined_state, decision_state = gr.State(None), gr.State(None)
    with gr.Row():
        with gr.Column(min_width=300):
            upload = gr.Image(
                label="Image", type="filepath", sources=["upload", "clipboard"], height=200, elem_id="detect-image"
            )
            status = gr.Markdown("Upload an image.", elem_id="detect-status")
            overlay = gr.AnnotatedImage(label="What was found", format="png", elem_id="detect-overlay")
        with gr.Column(min_width=300):
            editor = mask_editor([BRUSH], label="Mask of what is wrong", height=480, elem_id="detect-editor")
            with gr.Row():
                decide = gr.Button("Decide", variant="primary", elem_id="detect-decide", min_width=90)
                correct = gr.Button("Correct", elem_id="detect-correct", min_width=90)
            download = gr.DownloadButton("Download the decision", interactive=False, elem_id="detect-download")
            corrected = gr.Markdown(elem_id="detect-corrected")
            slider = gr.ImageSlider(
                label="Before | after", type="pil", format="png", interactive=False, elem_id="detect-slider"
            )
            details = gr.JSON(label="Decision", elem_id="detect-details")

    def examine(path: str | None) -> tuple[Any, ...]:
        if not path:
            empty = gr.update(value=None, interactive=False)
            return None, None, "Upload an image.", None, None, None, empty, "", None
        try:
            image, detector = open_source(path, min_side=16), studio.detector
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        examined = Examined(Path(path).name, image, detector(image), detector.name, detector.revision or "")
        background = _background(examined)
        return (
            examined,
            None,
            _summary(examined),
            _overlay(examined),
            background,
            None,
            gr.update(value=None, interactive=False),
            "",
            None,
        )

    def decide_on(examined: Examined | None, painted: dict[str, Any] | None) -> tuple[Any, ...]:
        if examined is None:
            raise gr.Error("Upload an image first.", print_exception=False)
        (mask,) = painted_masks(painted, examined.image.size, (BRUSH,))
        decision = examined.decide(mask)
        return decision, decision.as_dict(), gr.update(value=_file(decision), interactive=True), "", None

    def correct_decided(decision: Decision | None) -> tuple[str, tuple[Image.Image, Image.Image]]:
        if decision is None:
            raise gr.Error("Press Decide first: what is corrected is the mask of the decision.", print_exception=False)
        if not decision.mask.any():
            raise gr.Error(
                "Paint what is wrong and press Decide again: by the decision, nothing is.", print_exception=False
            )
        from ..correction.regions import given_region
        from ..utils.errors import StoppedError

        image = decision.examined.image
        try:
            done = studio.corrector(image, [given_region(image.size, mask=decision.mask)], name=decision.examined.name)
        except (UserError, StoppedError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        (region,) = done.regions
        return _outcome(region), (image, done.image)

    shown = [examined_state, decision_state, status, overlay, editor, details, download, corrected, slider]
    upload.change(examine, upload, shown, api_name="detect", show_progress="minimal")
    decided = [decision_state, details, download, corrected, slider]
    decide.click(decide_on, [examined_state, editor], decided, api_name="decide")
    # One at a time: pipelines change while they run.
    correct.click(correct_decided, decision_state, [corrected, slider], api_name="correct", concurrency_limit=1)


def _summary(examined: Examined) -> str:
    found = examined.detection
    score = "" if found.score is None else f" (score {found.score:.2f})"
    regions = len(found.regions or ())
    verdict = "found artifacts" if found.has_artifact else "found no artifact"
    where = f" in {regions} region{'s' if regions != 1 else ''}" if regions else ""
    explanation = f" {found.explanation}" if found.explanation else ""
    return f"**{examined.name}**: the detector {verdict}{where}{score}.{explanation}"


def _outcome(region: CorrectedRegion) -> str:
    scores = [region.before.score, *(one.verdicts[one.best].score for one in region.rounds[-1:])]
    seen = " → ".join(f"{score:.2f}" for score in scores if score is not None)
    count = len(region.rounds)
    told = f"{count} round{'s' if count != 1 else ''}{f', score {seen}' if seen else ''}"
    return f"The region was {_ENDS[region.outcome]} ({told})."


def _overlay(examined: Examined) -> tuple[Image.Image, list[tuple[Any, str]]]:
    sections: list[tuple[Any, str]] = []
    for number, region in enumerate(examined.detection.regions or (), start=1):
        sure = "" if region.score is None else f" ({region.score:.2f})"
        where = tuple(map(round, region.box)) if region.mask is None else region.mask.astype(np.float32)
        sections.append((where, f"{region.label or f'region {number}'}{sure}"))
    return examined.image, sections


def _background(examined: Examined) -> dict[str, Any]:
    size, mask = shown_size(examined.image.size), examined.mask
    shown = np.asarray(examined.image.convert("RGBA").resize(size, Image.Resampling.LANCZOS))
    return {"background": shown, "layers": [painting(mask, size, BRUSH)] if mask.any() else [], "composite": shown}


def _file(decision: Decision) -> str:
    """Write a decision to a temporary file, of which the app serves a copy."""
    path = Path(tempfile.mkdtemp(prefix="artiagent-")) / f"{Path(decision.examined.name).stem}.json"
    write_text(path, json.dumps(decision.as_dict(), indent=1, ensure_ascii=False) + "\n")
    return str(path)
