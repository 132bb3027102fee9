"""Push the app as a Space: the code of this package, its small models, and a few lines that serve it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from datasets_script.utils.errors import UserError
from datasets_script.utils.hub_ids import is_hub_id
from evaluate_metrics.functional.versions import versions

from ..payload import Kind, Option, Payload, SentFile, is_allowed


SDK_VERSION = "6.31.0"
"""Version of gradio that the Space runs, as in constraints.txt."""
PYTHON_VERSION = "3.11"
# The app imports nothing else of this distribution. A Space installs packages before it has its own files, so that a
# wheel among them could not be installed, and the code itself has to be there.
_PACKAGES = ("diffusers_artifact", "datasets_script", "evaluate_metrics")
_DEPTH = 5
_DETECTOR = "datasets_script/detection/pixel/embedded"
_REQUIREMENTS = Path(__file__).parent.parent / "templates" / "app_requirements.txt"
_EMBEDDED, _NONE = "embedded", "none"

_APP = '''\
"""Serves the app of ArtiAgent."""

import os
from pathlib import Path

from datasets_script.app.main import AppSettings, launch
from datasets_script.utils.errors import UserError


try:
    settings = AppSettings(
        data={data},
        queue={queue},
        model={model!r},
        detector={detector!r},
        repairer={repairer!r},
        host="0.0.0.0",
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
    launch(settings)
except UserError as error:
    raise SystemExit(f"artiagent: {{error}}") from error
'''


def app_payload(
    folder: Path,
    repo_id: str,
    data: str | None = None,
    queue: str | None = None,
    model: str | None = None,
    detector: str | None = None,
    repairer: str | None = None,
) -> Payload:
    """
    Collect the files of a Space that serves the app.

    Args:
        folder (`Path`): Folder that holds the folders of this package.
        repo_id (`str`): Id of the Space, `owner/name`.
        data (`str`, *optional*): Folder in the Space for pairs that are kept. Only with `queue`: without names and
            tokens, visitors must not write what others see.
        queue (`str`, *optional*): Folder in the Space of an annotation queue, whose annotators' names and tokens
            protect all tabs. Without one anybody gets in.
        model, detector, repairer (`str`, *optional*): See [`~datasets_script.app.main.AppSettings`]; `"embedded"`, an
            id on the Hub, or for the first two `"none"`.

    Returns:
        `Payload`: The files.

    Raises:
        UserError: An option has no meaning in a Space, or the folder does not hold this package.
    """
    from ..cards import app_card

    if data is not None and queue is None:
        raise UserError(
            f"--data must come with --queue, got '{data}' alone: a Space that anybody can use keeps nothing. Leave it "
            "out, or name the folder of a queue, whose names and tokens protect what is kept"
        )
    for name, path in (("data", data), ("queue", queue)):
        if path is not None and not PurePosixPath(path).is_absolute():
            raise UserError(
                f"--{name} must be an absolute path in the Space, such as /data/{name}, got '{path}'; folders of this "
                "machine are not sent"
            )
    models = {
        "model": _model("model", model, may_be_none=True),
        "detector": _model("detector", detector, may_be_none=True),
        "repairer": _model("repairer", repairer, may_be_none=False),
    }
    if not (models["model"] or models["detector"] or queue):
        raise UserError("--model and --detector must not both be 'none' without --queue: there would be no tab")
    files = list(_sources(folder))
    program = _APP.format(data=_path(data), queue=_path(queue), **models)
    files += [SentFile("app.py", program.encode()), SentFile("requirements.txt", _REQUIREMENTS.read_bytes())]
    if version := versions().get("artiagent"):
        # What makes `importlib.metadata` tell the version in the Space too, for the records of pairs.
        told = f"Metadata-Version: 2.1\nName: artiagent\nVersion: {version}\n"
        files.append(SentFile(f"artiagent-{version}.dist-info/METADATA", told.encode()))
    return Payload.of(KIND, repo_id, folder, files, app_card(data, queue, models, SDK_VERSION, PYTHON_VERSION), ())


def _sources(folder: Path) -> Iterator[SentFile]:
    """Yield code and models of this package."""
    for package in _PACKAGES:
        if not (folder / package / "__init__.py").is_file():
            raise UserError(f"PATH must hold the folders {', '.join(_PACKAGES)}, got '{folder}' without {package}")
        for path in sorted((folder / package).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and is_allowed(KIND, name):
                yield SentFile(name, path)


def _model(option: str, value: str | None, may_be_none: bool) -> str:
    """Return a model as the app takes it: empty for none."""
    if value is None or value == _EMBEDDED:
        return _EMBEDDED
    if value == _NONE and may_be_none:
        return ""
    if not is_hub_id(value) or Path(value).exists():
        raise UserError(
            f"--{option} must be 'embedded'{', `none`' if may_be_none else ''} or the id of a model on the Hub, which "
            f"the Space can load, got '{value}'; push the model first".replace("`none`", "'none'")
        )
    return value


def _path(path: str | None) -> str:
    return "None" if path is None else f"Path({json.dumps(path)})"


def installed_app(path: str | None) -> Path:
    """Return PATH as a folder, or the folder that this package is installed in if PATH is not given."""
    if path is not None:
        return Path(path)
    spec = find_spec("datasets_script")
    assert spec is not None and spec.origin is not None  # part of the same distribution
    return Path(spec.origin).parent.parent


KIND = Kind(
    name="app",
    repo_type="space",
    help="the app as a Space, with the code of this package and its small models",
    path_help="folder that holds this package's folders (default: the installed ones)",
    examples=(
        "app me/artifacts                                   the tabs Make and Detect, for anybody; nothing is kept",
        "app me/annotate --queue /data/queue --private      the tab Annotate too, for people of the queue",
    ),
    allowed=(
        "app.py",
        "requirements.txt",
        *(
            f"{package}/{'*/' * depth}{name}"
            for package in _PACKAGES
            for depth in range(_DEPTH)
            for name in ("*.py", "*.json", "*.safetensors", "*.jpg", "*.css", "*.js")
        ),
        f"{_DETECTOR}/README.md",
        "artiagent-*.dist-info/METADATA",
    ),
    # Any Space has app.py.
    marks=(("datasets_script/__init__.py",),),
    build=app_payload,
    find_folder=installed_app,
    needs_path=False,
    options=(
        Option("data", "folder in the Space for kept pairs, on storage that stays; only with --queue (default: none)"),
        Option(
            "queue",
            "folder in the Space of an annotation queue, whose names and tokens protect the app (default: anybody "
            "gets in)",
        ),
        Option("model", "diffusion model of the tab Make on the Hub, or 'none' (default: embedded)"),
        Option("detector", "pixel detector of the tab Detect on the Hub, or 'none' (default: embedded)"),
        Option("repairer", "diffusion model on the Hub that corrects (default: embedded)"),
    ),
    space_sdk="gradio",
)
