"""The folder of a metric, as what is pushed."""

from __future__ import annotations

from pathlib import Path

from datasets_script.utils.errors import UserError
from evaluate_metrics import METRICS, metric_path

from ..checks import parse_card
from ..payload import CARD, Kind, Payload, divide, given_folder


def metric_payload(folder: Path, repo_id: str) -> Payload:
    """
    The Space of a metric, for `evaluate.load(repo_id)`.

    Raises:
        UserError: the folder is no metric's, or the repository has another name than its module.
    """
    from ..cards import space_card

    files, left_out = divide(KIND, folder)
    names = {file.path for file in files}
    module, repo_name = f"{folder.resolve().name}.py", repo_id.rpartition("/")[2]
    if not {module, "app.py", "requirements.txt"} <= names or not (folder / CARD).is_file():
        raise UserError(
            f"PATH must be a metric's name or folder, which has {module}, app.py, requirements.txt and {CARD}, got "
            f"'{folder}'"
        )
    if f"{repo_name}.py" != module:
        raise UserError(
            f"REPO must end in /{module[:-3]}, since evaluate.load looks for a module of the Space's name, got "
            f"'{repo_id}'"
        )
    card = parse_card((folder / CARD).read_text(encoding="utf-8"), "space")
    metadata = card.data.to_dict()
    missing = [key for key in ("title", "sdk", "sdk_version", "app_file") if key not in metadata]
    if missing or metadata["app_file"] not in names:
        raise UserError(f"'{folder / CARD}' must name title, sdk, sdk_version and an app_file that is there")
    text = space_card(repo_id, card.text, metadata)
    return Payload.of(KIND, repo_id, folder, files, text, left_out)


def metric_folder(path: str | None) -> Path:
    """Return the folder of a metric that PATH names, or that PATH is."""
    return Path(metric_path(path)) if path in METRICS else given_folder(path)


KIND = Kind(
    name="metric",
    repo_type="space",
    help=f"a metric as a Space: {', '.join(METRICS)}",
    path_help="name of the metric, or its folder",
    examples=('metric miou me/miou                                 then: evaluate.load("me/miou")',),
    allowed=("*.py", "requirements.txt"),
    build=metric_payload,
    find_folder=metric_folder,
    space_sdk="gradio",
)
