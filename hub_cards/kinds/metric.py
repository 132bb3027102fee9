"""Push a metric as a Space: its module, and beside it the functions that compute it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import evaluate_metrics
from datasets_script.utils.errors import UserError
from evaluate_metrics import METRICS, metric_path

from ..checks import parse_card
from ..payload import CARD, Kind, Payload, SentFile, divide, given_folder, replaced


_PACKAGE = Path(evaluate_metrics.__file__).parent
# `evaluate` copies only files that the module itself imports: no folders, and nothing that those files import.
_PREFIX = "functional_"
_FROM_PACKAGE = re.compile(r"^( *from )evaluate_metrics\.functional\.(\w+ import .*?)(?:  # From: .*)?$", re.MULTILINE)
_FROM_SIBLING = re.compile(r"^( *from \.)(\w+) import ", re.MULTILINE)
_PAGE = "from evaluate_metrics.space import"
_FROM_COPY = re.compile(rf"^from \.{_PREFIX}(\w+) import .*\n", re.MULTILINE)


def metric_payload(folder: Path, repo_id: str) -> Payload:
    """
    Collect the files of a metric's Space, for `evaluate.load(repo_id)` with only its `requirements.txt` installed.

    The modules of `evaluate_metrics.functional` that the metric needs are sent beside it as `functional_*.py`, and the
    page of the Space as `space.py`. Imports and examples are rewritten to match.

    Args:
        folder (`Path`): Folder of the metric.
        repo_id (`str`): Space of the metric, `owner/name`; the name must be that of the metric's module.

    Returns:
        `Payload`: The files.

    Raises:
        UserError: The folder is not that of a metric, or the Space has another name than its module.
    """
    from ..cards import space_card

    files, left_out = divide(KIND, folder)
    names = {file.path for file in files}
    name, repo_name = folder.resolve().name, repo_id.rpartition("/")[2]
    module = f"{name}.py"
    if not {module, "app.py", "requirements.txt"} <= names or not (folder / CARD).is_file():
        raise UserError(
            f"PATH must be a metric's name, or a folder with {module}, app.py, requirements.txt and {CARD}, got "
            f"'{folder}'"
        )
    if repo_name != name:
        raise UserError(
            f"REPO must end in /{name}, got '{repo_id}'; evaluate.load looks for a module with the name of the Space"
        )
    card = parse_card((folder / CARD).read_text(encoding="utf-8"), "space")
    metadata = card.data.to_dict()
    missing = [key for key in ("title", "sdk", "sdk_version", "app_file") if key not in metadata]
    if missing or metadata["app_file"] not in names:
        raise UserError(
            f"'{folder / CARD}' must have title, sdk, sdk_version and an existing app_file in its metadata, got "
            f"{', '.join(metadata) or 'no metadata'}"
        )
    text = space_card(repo_id, _on_the_hub(card.text, name, repo_id), metadata)
    return Payload.of(KIND, repo_id, folder, list(_standing_alone(files, name, repo_id)), text, left_out)


def _standing_alone(files: list[SentFile], name: str, repo_id: str) -> Iterator[SentFile]:
    """Yield the files of a metric without imports of this package, and the modules that they need instead."""
    module = next(file for file in files if file.path == f"{name}.py")
    needed = _needed(module.read().decode())

    def rewritten(file: SentFile) -> bytes | None:
        if not file.path.endswith(".py"):
            return None
        text = _on_the_hub(_FROM_PACKAGE.sub(rf"\1.{_PREFIX}\2", file.read().decode()), name, repo_id)
        if file.path == module.path:
            text = _with_all(text, needed)
        return text.replace(_PAGE, "from space import").encode()

    yield from replaced(files, rewritten)
    for other in needed:
        source = (_PACKAGE / "functional" / f"{other}.py").read_text(encoding="utf-8")
        yield SentFile(f"{_PREFIX}{other}.py", _FROM_SIBLING.sub(rf"\1{_PREFIX}\2 import ", source).encode())
    if any(_PAGE in file.read().decode() for file in files if file.path.endswith(".py")):
        yield SentFile("space.py", (_PACKAGE / "space.py").read_bytes())


def _needed(module: str) -> list[str]:
    """List the modules of `evaluate_metrics.functional` that a metric's module imports, directly or indirectly."""
    found: set[str] = set()
    waiting = [match.split()[0] for _, match in _FROM_PACKAGE.findall(module)]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            source = (_PACKAGE / "functional" / f"{name}.py").read_text(encoding="utf-8")
            waiting += [sibling for _, sibling in _FROM_SIBLING.findall(source)]
    return sorted(found)


def _with_all(text: str, needed: list[str]) -> str:
    """Make a metric's module import every module it needs, since `evaluate` copies no others."""
    imports = list(_FROM_COPY.finditer(text))
    if not imports:
        return text
    named, end = {found[1] for found in imports}, imports[-1].end()
    others = [f"from .{_PREFIX}{name} import __name__ as _{name}\n" for name in needed if name not in named]
    note = "# Imported for `evaluate`, which copies only files that this module imports itself.\n" if others else ""
    return text[:end] + note + "".join(others) + text[end:]


def _on_the_hub(text: str, name: str, repo_id: str) -> str:
    """Rewrite the examples of a card or a module to load the metric from its Space."""
    text = re.sub(r"^ *>>> from evaluate_metrics import metric_path\n", "", text, flags=re.MULTILINE)
    return text.replace(f'metric_path("{name}")', f'"{repo_id}"')


def metric_folder(path: str | None) -> Path:
    """Return the folder of the metric that PATH names, or PATH itself if it is a folder."""
    return Path(metric_path(path)) if path in METRICS else given_folder(path)


KIND = Kind(
    name="metric",
    repo_type="space",
    help=f"a metric as a Space: {', '.join(METRICS)}",
    path_help="name or folder of the metric",
    examples=('metric miou me/miou                                 then: evaluate.load("me/miou")',),
    allowed=("*.py", "requirements.txt"),
    marks=(("{name}.py",),),
    build=metric_payload,
    find_folder=metric_folder,
    space_sdk="gradio",
)
