"""Checks before a push: no secrets, no local paths, a card that the Hub can read."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets_script.utils.errors import UserError


if TYPE_CHECKING:
    from huggingface_hub import RepoCard


# From https://huggingface.co/docs/hub/repositories-licenses, without `unknown`.
LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma other
    """.split()
)
RELATIONS = ("adapter", "finetune", "merge", "quantized")

_SECRETS = (
    ("a Hub token", re.compile(r"\bhf_[A-Za-z0-9]{20,}")),
    ("an API key", re.compile(r"\bsk-[A-Za-z0-9_-]{20,}")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})")),
    ("an AWS access key", re.compile(r"\bAKIA[0-9A-Z]{16}\b")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
)
_PATH = "a local path"
_SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "ARTIAGENT_API_KEY", "OPENAI_API_KEY")
_BINARY_SUFFIXES = (".safetensors", ".parquet", ".png")
# Tokens such as "/root" are not local paths.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")


def is_text(name: str) -> bool:
    """Return whether a file is text by its suffix."""
    return not name.endswith(_BINARY_SUFFIXES)


def check_text(name: str, content: bytes, folder: Path) -> None:
    """
    Raise an error if a file holds a secret or a local path.

    Args:
        name (`str`): Path of the file in the repository.
        content (`bytes`): Content of the file.
        folder (`Path`): Local folder of the file, one of the paths to look for.

    Raises:
        UserError: The file holds a secret or a local path; the message names the file and the line.
    """
    text = content.decode("utf-8", errors="replace")
    patterns = [*_SECRETS, *_own_secrets()]
    if name not in _VOCABULARIES:
        patterns += _machine_paths(folder)
    for what, pattern in patterns:
        if match := pattern.search(text):
            line = text.count("\n", 0, match.start()) + 1
            shown = "" if what != _PATH else f" ('{match[0]}')"
            raise UserError(
                f"{name} must not hold secrets or local paths, got {what}{shown} in line {line}; remove it"
            )


def _own_secrets() -> Iterator[tuple[str, re.Pattern[str]]]:
    for name in _SECRET_VARIABLES:
        # Short values are placeholders such as "EMPTY".
        if len(value := os.environ.get(name, "")) >= 8:
            yield f"the value of {name}", re.compile(re.escape(value))


def _machine_paths(folder: Path) -> Iterator[tuple[str, re.Pattern[str]]]:
    roots = {Path.home(), Path.cwd(), Path(tempfile.gettempdir()), Path(sys.prefix), folder.resolve()}
    named = "|".join(re.escape(str(root)) for root in sorted(roots) if root != Path(root.anchor))
    # Must not match inside a URL or a longer path.
    patterns = (
        rf"(?<![\w./:-])(?:{named})(?![\w.-])(?:/[\w./-]*)?",
        r"(?<![\w./:-])/(?:home|Users)/[\w.-]+[\w./-]*",
        r"\b[A-Za-z]:\\{1,2}Users\\{1,2}[\w.-]+",
    )
    for pattern in patterns:
        yield _PATH, re.compile(pattern)


def read_json(path: Path) -> Any:
    """
    Read a JSON file.

    Raises:
        UserError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{path}' must be JSON, got an error: {error}") from error


def check_license(license: str) -> str:
    """
    Return a licence identifier after checking it.

    Raises:
        UserError: It is not an identifier of the Hub.
    """
    if license not in LICENSES:
        raise UserError(
            "--license must be a licence identifier of the Hub, such as apache-2.0, cc-by-4.0 or other, got "
            f"'{license}'"
        )
    return license


def parse_card(content: str, repo_type: str) -> RepoCard:
    """
    Parse a card and its metadata.

    Args:
        content (`str`): Text of the card.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.

    Returns:
        `RepoCard`: The card.

    Raises:
        UserError: The metadata cannot be read.
    """
    import yaml
    from huggingface_hub import DatasetCard, ModelCard, SpaceCard

    card_class: type[RepoCard] = {"model": ModelCard, "dataset": DatasetCard, "space": SpaceCard}[repo_type]
    try:
        return card_class(content)
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"README.md must begin with valid YAML metadata, got an error: {' '.join(str(error).split())}"
        ) from error


def check_card(content: str, repo_type: str) -> None:
    """
    Raise an error if the Hub would misread a card. The Hub checks the card further during the push.

    Args:
        content (`str`): Text of the card.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.

    Raises:
        UserError: The metadata cannot be read, changes when written again, or has an invalid value.
    """
    card = parse_card(content, repo_type)
    metadata = card.data.to_dict()
    if metadata != parse_card(str(card), repo_type).data.to_dict():
        raise UserError("README.md must have metadata that stays the same when written again; simplify its YAML")
    licenses = metadata.get("license") or ["none"]
    for license in [licenses] if isinstance(licenses, str) else licenses:
        if license not in LICENSES:
            raise UserError(
                f"`license` in README.md must be a licence identifier of the Hub, got '{license}'; correct it or give "
                "--license"
            )
    relation = metadata.get("base_model_relation")
    if relation not in (None, *RELATIONS):
        raise UserError(f"`base_model_relation` in README.md must be one of {', '.join(RELATIONS)}, got {relation!r}")
    for key in ("base_model", "datasets"):
        names = metadata.get(key) or []
        for name in [names] if isinstance(names, str) else names:
            _check_id(key, name)


def _check_id(key: str, name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"`{key}` in README.md must hold ids on the Hub, got '{name}'") from error
