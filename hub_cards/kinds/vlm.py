"""Push a trained vision-language model or adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from datasets_script.schema.training_record import TRAINING_FILE, TrainingRecord
from datasets_script.utils.errors import UserError

from ..checks import check_license, parse_card, read_json
from ..payload import CARD, LICENSE, Kind, Payload, SentFile, divide, replaced


_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# Of the trainer, not of the model: they are left out, not refused.
_TRAINER_FILES = ("training_args.bin", "optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_WEIGHTS = {"config.json": "model", "adapter_config.json": "adapter_model"}
_CONFIGURATIONS = ("config.json", "adapter_config.json", "tokenizer_config.json")


def model_payload(folder: Path, repo_id: str, license: str | None) -> Payload:
    """
    Collect what is sent of a model: weights as safetensors, configurations, the processor, `training.json`,
    `evaluation/`, and a card made of these. A card written by hand stays; those that trl, peft and transformers make
    are replaced.

    Raises:
        UserError: something is missing, is not whole, or must not be published.
    """
    from ..cards import model_card
    from ..records import read_evaluations

    files, left_out = divide(KIND, folder)
    names = {file.path for file in files}
    _check_pickles(folder)
    is_adapter = _check_whole(folder, names)
    record = TrainingRecord.read(folder)
    card = kept_card(folder)
    if card is None:
        if license is None:
            raise UserError(
                "--license is needed: a model derives from its base model and from photos; give the Hub's "
                f"identifier of a licence that theirs allow (base model: {record.base.id})"
            )
        reports = read_evaluations(folder)
        card = model_card(repo_id, record, reports, check_license(license), is_adapter)
    elif license is not None:
        raise UserError(f"--license is for cards made here; '{folder / CARD}' was written by hand and says its own")
    portable = list(replaced(files, lambda file: _without_paths(file, record)))
    return Payload.of(KIND, repo_id, folder, portable, card, left_out)


def kept_card(folder: Path) -> str | None:
    """Return the card that somebody wrote, or `None` where there is none or a program made it."""
    from ..cards import MARK

    path = folder / CARD
    if not path.is_file():
        return None
    content = path.read_text(encoding="utf-8")
    tags = parse_card(content, "model").data.to_dict().get("tags") or []
    # trl's and the trainer's have the second, peft's and transformers' the third.
    if MARK in tags or "generated_from_trainer" in tags or "[More Information Needed]" in content:
        return None
    return content


def _check_pickles(folder: Path) -> None:
    for path in sorted(folder.glob("*")):
        is_trainers = any(fnmatchcase(path.name, pattern) for pattern in _TRAINER_FILES)
        if path.suffix in _PICKLED and not is_trainers:
            raise UserError(
                f"{path.name} is a pickle, which can run code where it is loaded: save as safetensors and remove it"
            )


def _check_whole(folder: Path, names: set[str]) -> bool:
    """Whether it is an adapter."""
    configuration = next((name for name in ("adapter_config.json", "config.json") if name in names), None)
    if configuration is None:
        raise UserError(f"PATH must be a model with its config.json or adapter_config.json, got '{folder}'")
    stem = _WEIGHTS[configuration]
    index = f"{stem}.safetensors.index.json"
    parts = set(read_json(folder / index)["weight_map"].values()) if index in names else {f"{stem}.safetensors"}
    if missing := sorted(parts - names):
        raise UserError(f"PATH must hold the model's weights as safetensors, found no {missing[0]} in '{folder}'")
    if not names.intersection(_PROCESSORS):
        raise UserError(
            f"PATH must hold the model's processor, found no {' and no '.join(_PROCESSORS)} in '{folder}': "
            "processor.save_pretrained writes it there"
        )
    return configuration == "adapter_config.json"


def _without_paths(file: SentFile, record: TrainingRecord) -> bytes | None:
    """Configurations and reports name models and data by their folders: their last names are all that is told."""
    if not (file.path in _CONFIGURATIONS or file.path.startswith("evaluation/")) or file.path == TRAINING_FILE:
        return None
    assert isinstance(file.content, Path)
    content = read_json(file.content)
    cleaned = _shortened(content)
    if file.path == "adapter_config.json":
        cleaned["base_model_name_or_path"] = record.base.id
        cleaned["revision"] = record.base.revision if record.base.is_on_hub else None
    return None if cleaned == content else json.dumps(cleaned, indent=2, ensure_ascii=False).encode() + b"\n"


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and "\n" not in value:
        if PurePosixPath(value).is_absolute():
            return PurePosixPath(value).name
        if PureWindowsPath(value).is_absolute():
            return PureWindowsPath(value).name
    return value


KIND = Kind(
    name="model",
    repo_type="model",
    help="a trained vision-language model or adapter, with training.json",
    path_help="folder of the model; its evaluation/*.json, reports of `artiagent evaluate`, go into the card",
    examples=(
        "model runs/detector me/detector --license apache-2.0 --dry-run    shows files and card, sends nothing",
        "model runs/detector me/detector --license apache-2.0 --private",
    ),
    allowed=(
        "*.safetensors",
        "*.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "adapter_config.json",
        "processor_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/*.jinja",
        "training.json",
        "evaluation/*.json",
    ),
    build=model_payload,
    options=(LICENSE,),
)
