"""Push the code of the pipeline."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from datasets_script.utils.errors import UserError

from ..payload import Kind, Payload, SentFile, divide


_PIPELINE = "pipeline.py"
_BLOCK = ("modular_config.json", "modular_blocks.py")
_SIBLING = re.compile(r"^from \.(\w+) import", re.MULTILINE)


def installed_pipeline() -> Path:
    """Return the folder of the installed pipeline."""
    spec = find_spec("diffusers_artifact")
    assert spec is not None and spec.origin is not None  # part of the same distribution
    return Path(spec.origin).parent


def pipeline_payload(folder: Path, repo_id: str) -> Payload:
    """
    Collect the files that `custom_pipeline=` needs.

    These are `pipeline.py`, the Modular Diffusers block if there is one, and the modules that they import from the
    folder.

    Args:
        folder (`Path`): Folder of the pipeline.
        repo_id (`str`): Repository of the pipeline, `owner/name`.

    Returns:
        `Payload`: The files.

    Raises:
        UserError: The folder has no `pipeline.py`, or an imported module is missing.
    """
    from ..cards import pipeline_card

    allowed, left_out = divide(KIND, folder)
    by_name = {file.path: file for file in allowed}
    if _PIPELINE not in by_name:
        raise UserError(f"PATH must be a folder with {_PIPELINE}, got '{folder}' without it")
    has_block = all(name in by_name for name in _BLOCK)
    names = _with_siblings([_PIPELINE, *(_BLOCK if has_block else ())], by_name)
    modules = [(f"`{name}`", _first_line(by_name[name])) for name in sorted(names) if name.endswith(".py")]
    card = pipeline_card(repo_id, modules, has_block)
    others = sorted({*left_out, *(by_name.keys() - names)})
    return Payload.of(KIND, repo_id, folder, [by_name[name] for name in sorted(names)], card, others)


def _with_siblings(names: list[str], by_name: dict[str, SentFile]) -> set[str]:
    needed: set[str] = set()
    while names:
        name = names.pop()
        if name not in by_name:
            raise UserError(f"PATH must hold all modules that {_PIPELINE} imports, got no {name}")
        if name not in needed:
            needed.add(name)
            names += [f"{sibling}.py" for sibling in _SIBLING.findall(by_name[name].read().decode())]
    return needed


def _first_line(file: SentFile) -> str:
    docstring = ast.get_docstring(ast.parse(file.read())) or ""
    return docstring.partition("\n")[0]


def pipeline_folder(path: str | None) -> Path:
    """Return PATH as a folder, or the folder of the installed pipeline if PATH is not given."""
    return installed_pipeline() if path is None else Path(path)


KIND = Kind(
    name="pipeline",
    repo_type="model",
    help="the code of the pipeline, for custom_pipeline=",
    path_help="folder of the pipeline (default: the installed one)",
    examples=('pipeline me/artifact-injection                      then: custom_pipeline="me/artifact-injection"',),
    allowed=("*.py", "modular_config.json"),
    marks=((_PIPELINE,),),
    build=pipeline_payload,
    find_folder=pipeline_folder,
    needs_path=False,
)
