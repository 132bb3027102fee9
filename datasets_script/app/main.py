"""The app as a whole: its tabs, and how it is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..annotation.queue import AnnotationQueue
from ..utils.errors import ArgumentError, UserError
from .browse_tab import add_browse_tab
from .detect_tab import add_detect_tab
from .make_tab import add_make_tab
from .package import import_gradio
from .studio import Studio, keeps_pairs


if TYPE_CHECKING:
    import gradio as gr


TITLE = "ArtiAgent"
LOCAL_HOST = "127.0.0.1"
KEPT = Path("runs/app")
"""Folder of kept pairs, if no other is named."""

_LOCAL = (LOCAL_HOST, "localhost", "::1")
# Of images from other machines; gradio's notation.
_LARGEST_UPLOAD = "32mb"

# Large enough to hit with a thumb, and pixels of masks as they are.
STYLE = """
.gradio-container { max-width: 1280px !important; margin: auto; }
footer { display: none !important; }
button { min-height: 40px; }
"""


# Answers of the tabs Annotate and Compare by a key, unless somebody types.
KEYS = """<script>
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=radio]), textarea, [contenteditable]")) return;
  const keys = {y: "annotate-yes", n: "annotate-no", u: "annotate-unsure",
                a: "compare-left", s: "compare-equal", d: "compare-right"};
  const button = document.getElementById(keys[event.key.toLowerCase()]);
  if (button && button.offsetParent && !button.disabled) { button.click(); event.preventDefault(); }
});
</script>"""


@dataclass(frozen=True)
class AppSettings:
    """
    Settings of the app.

    Args:
        data (`Path`, *optional*, defaults to `runs/app`): Folder of a run or a prepared benchmark, which the tab
            Browse shows. Pairs are kept there too, unless it holds other data; see [`kept`]. `None` to keep none.
        queue (`Path`, *optional*): Folder of an annotation queue; without one there is no tab Annotate.
        compare (`tuple[Path, ...]`, *optional*): Folders of images that people vote between; see
            [`~datasets_script.comparison.folders.match_folders`]. Without any there is no tab Compare.
        votes (`Path`, *optional*): File of the votes.
        model (`str`, *optional*, defaults to `"embedded"`): Diffusion model of the tab Make; empty to leave the tab
            out, so that nothing is loaded.
        detector (`str`, *optional*, defaults to `"embedded"`): Pixel detector of the tab Detect; empty to leave the
            tab out.
        repairer (`str`, *optional*, defaults to `"embedded"`): Diffusion model of the button Correct there.
        revision, device (`str`, *optional*): See [`~datasets_script.engine.diffusion_model.DiffusionModel`].
        host (`str`, *optional*, defaults to `"127.0.0.1"`): Address to listen at.
        port (`int`, *optional*): Port; by default the first free one from 7860.
        share (`bool`, *optional*, defaults to `False`): Ask gradio.app for a public link, for 72 hours.

    Raises:
        ArgumentError: There would be no tab, or others could write although nothing protects the app.
    """

    data: Path | None = KEPT
    queue: Path | None = None
    compare: tuple[Path, ...] = ()
    votes: Path = Path("runs/votes.jsonl")
    model: str = "embedded"
    detector: str = "embedded"
    repairer: str = "embedded"
    revision: str | None = None
    device: str | None = None
    host: str = LOCAL_HOST
    port: int | None = None
    share: bool = False

    def __post_init__(self) -> None:
        if not (self.model or self.detector or self.queue or self.compare or self.has_data):
            raise ArgumentError(
                "`model`, `detector`, `queue`, `compare` or a folder with `data` must be given, got none; there would "
                "be nothing to show"
            )
        if self.is_public and self.queue is None and (self.data is not None or self.compare):
            raise ArgumentError(
                f"`queue` must be given for others to reach the app, got none with `host` {self.host} and `share` "
                f"{self.share}: names and tokens, which protect the app, are those of its annotators. Or let anybody "
                "make and detect, and keep nothing: with `data` none, and without `compare`"
            )

    @property
    def has_data(self) -> bool:
        """Whether there is data to go through."""
        return self.data is not None and self.data.is_dir()

    @property
    def kept(self) -> Path | None:
        """
        Return the folder that pairs are kept in: `data`, or `runs/app` if that holds what was not kept in the app;
        `None` to keep none.
        """
        return self.data if self.data is None or keeps_pairs(self.data) else KEPT

    def open_queue(self) -> AnnotationQueue | None:
        """
        Open the annotation queue, if there is one.

        Raises:
            UserError: The folder holds none.
        """
        if self.queue is None:
            return None
        return AnnotationQueue(self.queue)

    @property
    def is_public(self) -> bool:
        """Return whether people at other machines can reach the app."""
        return self.share or self.host not in _LOCAL


def build(settings: AppSettings, studio: Studio) -> gr.Blocks:
    """
    Build the app without serving it.

    Args:
        settings (`AppSettings`): Its settings.
        studio (`Studio`): Models of the tabs Make and Detect.

    Returns:
        `gradio.Blocks`: The app.

    Raises:
        ImportError: The extra `app` is missing.
        UserError: A folder is not what the settings say.
    """
    gr = import_gradio()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        gr.Markdown(f"# {TITLE}")
        for name, add in _tabs(settings, studio, app):
            with gr.Tab(name, id=name.lower()):
                add()
    return app


def launch(settings: AppSettings, block: bool = True, open_browser: bool = False) -> tuple[gr.Blocks, str]:
    """
    Serve the app.

    Args:
        settings (`AppSettings`): Its settings.
        block (`bool`, *optional*, defaults to `True`): Return only after Ctrl-C.
        open_browser (`bool`, *optional*, defaults to `False`): Open it in the user's browser.

    Returns:
        `tuple[gradio.Blocks, str]`: The app, and its address.

    Raises:
        ImportError, UserError: See [`build`].
        UserError: The port is taken.
    """
    gr = import_gradio()
    studio = Studio(
        settings.model, settings.kept, settings.revision, settings.device, settings.detector, settings.repairer
    )
    app = build(settings, studio)
    try:
        _, address, _ = app.queue(default_concurrency_limit=8, api_open=False).launch(
            server_name=settings.host,
            server_port=settings.port,
            share=settings.share,
            inbrowser=open_browser,
            quiet=True,
            prevent_thread_lock=True,
            auth=protection(settings),
            theme=_theme(gr),
            css=STYLE,
            head=KEYS,
            footer_links=[],
            allowed_paths=[] if settings.queue is None else [str((settings.queue / "images").absolute())],
            ssr_mode=False,
            show_error=True,
            max_file_size=_LARGEST_UPLOAD if settings.is_public else None,
        )
    except OSError as error:
        raise UserError(f"`port` must be free, got {settings.port}: {error}; choose another") from error
    if settings.model:
        # Only now: loading takes longer than all of the above, and the page can be looked at meanwhile.
        studio.begin()
    if block:
        print(f"The app is at {address} - end it with Ctrl-C.", flush=True)
        app.block_thread()
    return app, address


def _tabs(settings: AppSettings, studio: Studio, app: Any) -> list[tuple[str, Callable[[], None]]]:
    """Return names of the tabs, and what adds each to the app."""
    tabs: list[tuple[str, Callable[[], None]]] = []
    queue = settings.open_queue()
    if settings.model:
        tabs.append(("Make", partial(add_make_tab, studio)))
    if settings.detector:
        tabs.append(("Detect", partial(add_detect_tab, studio)))
    if settings.data is not None:
        tabs.append(("Browse", partial(add_browse_tab, settings.data, protection(settings) is not None)))
    if settings.compare:
        # Not at the top of this file, like what follows: it loads numpy's random numbers and the images' names.
        from ..comparison.folders import match_folders
        from ..comparison.votes import Voting
        from .compare_tab import add_compare_tab

        voting = Voting(match_folders(settings.compare), settings.votes)
        tabs.append(("Compare", partial(add_compare_tab, voting, protection(settings) is not None)))
    if queue is not None:
        # Not at the top of this file: its exports load pyarrow.
        from .annotate_tab import add_annotate_tab

        tabs.append(("Annotate", partial(add_annotate_tab, queue, app, protection(settings) is not None)))
    return tabs


def protection(settings: AppSettings) -> Callable[[str, str], bool] | None:
    """
    Return what checks names and tokens: those of the queue, once it has any. Without a queue there is nothing to
    protect.

    Raises:
        UserError: Others can reach the queue, and nobody was let in.
    """
    queue = settings.open_queue()
    if queue is not None and queue.people():
        return queue.admits
    if queue is not None and settings.is_public:
        raise UserError(
            f"the queue in '{settings.queue}' must have annotators for others to reach the app, got none; name some"
        )
    return None


def _theme(gr: Any) -> Any:
    """Return a theme whose fonts are the system's, so that no page asks another host for them."""
    return gr.themes.Default(
        primary_hue="orange", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
