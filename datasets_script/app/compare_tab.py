"""The tab Compare: blind votes between pictures of several models, with intervals."""

from __future__ import annotations

from typing import Any

from ..comparison.votes import CHOICES, Ballot, Voting
from ..utils.errors import UserError
from ..utils.photos import open_source
from .package import import_gradio


GUIDE = """\
Which picture has fewer errors of structure, such as doubled, missing, distorted or merged parts? Sides and order are
random, and nothing tells which model made which. Keys: **A** left, **S** equal, **D** right."""
NAMES = {"left": "Left (A)", "equal": "Equal (S)", "right": "Right (D)"}
NOTHING_LEFT = "You have voted on everything. Thank you."


def add_compare_tab(voting: Voting, has_names: bool) -> None:
    """
    Add the components and events of the tab to the current `gr.Tab`.

    Args:
        voting (`Voting`): The votes.
        has_names (`bool`): Whether people log in with names and tokens, so that they are not asked for their name.
    """
    gr = import_gradio()
    gr.Markdown(GUIDE)
    state = gr.State(None)
    with gr.Row():
        name = gr.Textbox("", label="Your name", visible=not has_names, elem_id="compare-name", min_width=160)
        start = gr.Button("Start", variant="primary", elem_id="compare-start", min_width=90)
    status = gr.Markdown("Type your name and press **Start**.", elem_id="compare-status")
    with gr.Row():
        sides = [
            gr.Image(
                label=side,
                type="pil",
                format="png",
                interactive=False,
                buttons=["fullscreen"],
                height=420,
                min_width=160,
                elem_id=f"compare-{side}-image",
            )
            for side in ("left", "right")
        ]
    with gr.Row():
        buttons = {
            choice: gr.Button(NAMES[choice], elem_id=f"compare-{choice}", min_width=90)
            for choice in ("left", "equal", "right")
        }
    with gr.Accordion(
        "Results (they tell what is what: look when you are done)", open=False, elem_id="compare-results-box"
    ):
        text = gr.Markdown(elem_id="compare-results")
        show = gr.Button("Show the results so far", min_width=90, elem_id="compare-show")

    def who(typed: str | None, request: Any) -> str:
        return (request.username if has_names else (typed or "").strip()) or ""

    def view(ballot: Ballot | None, message: str = "") -> list[Any]:
        if ballot is None:
            return [None, f"{message} {NOTHING_LEFT}".strip(), None, None]
        paths = (ballot.image.paths[ballot.left], ballot.image.paths[ballot.right])
        prompt = f"Prompt: *{ballot.image.prompt}*" if ballot.image.prompt else "Which one?"
        return [ballot, f"{message} {prompt}".strip(), *(open_source(path, min_side=1) for path in paths)]

    def begin(typed: str | None, request: Any) -> list[Any]:
        person = who(typed, request)
        if not person:
            raise gr.Error("Type your name first.", print_exception=False)
        return view(voting.next(person))

    def vote(ballot: Ballot | None, typed: str | None, choice: str, request: Any) -> list[Any]:
        person, message = who(typed, request), ""
        if ballot is None or not person:
            raise gr.Error("Press Start first.", print_exception=False)
        try:
            voting.vote(person, ballot, choice)
        except UserError as error:  # on another page of the same person
            message = f"{error}."
        return view(voting.next(person), message)

    def results() -> str:
        return "\n\n".join(f"- {preference.as_text()}" for preference in voting.preferences())

    # gradio passes the request to what is annotated with its own class.
    for function in (begin, vote):
        function.__annotations__["request"] = gr.Request
    views = [state, status, *sides]
    start.click(begin, name, views, api_name="begin_votes")
    for choice in CHOICES:
        given = gr.State(choice)
        buttons[choice].click(vote, [state, name, given], views, api_name=f"vote_{choice}")
    show.click(results, None, text, api_name="results")
