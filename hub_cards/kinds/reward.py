"""Push a trained reward model."""

from __future__ import annotations

from pathlib import Path

from datasets_script.schema.training_record import TRAINING_FILE, TrainingRecord
from datasets_script.utils.errors import UserError
from training.reward.report_table import REPORT_FILE

from ..checks import read_json
from ..payload import LICENSE, Kind, Payload, SentFile, divide, replaced
from ..trained import as_json, card_of, check_pickles, check_weights, shortened


_CONFIGURATION = "config.json"
# `REWARD_FILE` of `datasets_script.detection.reward.record`, which loads torch.
_RECORD = "reward_model.json"


def reward_payload(folder: Path, repo_id: str, license: str | None) -> Payload:
    """
    Collect the files to send of a reward model: weights as safetensors, configuration, `reward_model.json`,
    `training.json`, `reward_report.json`, and a card made from them. A card written by hand is kept.

    Args:
        folder (`Path`): Folder of the model.
        repo_id (`str`): Repository of the model, `owner/name`.
        license (`str`, *optional*): Hub identifier of the licence. Required unless the card was written by hand.

    Returns:
        `Payload`: The files.

    Raises:
        UserError: A file is missing, incomplete, or must not be published.
    """
    from datasets_script.detection.reward.record import RewardRecord

    from ..cards import reward_card

    files, left_out = divide(KIND, folder)
    names = {file.path for file in files}
    check_pickles(folder)
    for name in (_CONFIGURATION, _RECORD):
        if name not in names:
            raise UserError(
                f"PATH must be a reward model with {name}, got '{folder}' without it; write it with "
                "RewardModel.save_pretrained"
            )
    check_weights(folder, names, "model")
    record, reward = TrainingRecord.read(folder), RewardRecord.read(folder / _RECORD)
    network = read_json(folder / _CONFIGURATION)
    report = read_json(folder / REPORT_FILE) if REPORT_FILE in names else None
    card = card_of(
        folder, record, license, lambda _, checked: reward_card(repo_id, record, reward, network, report, checked)
    )
    return Payload.of(KIND, repo_id, folder, list(replaced(files, _without_paths)), card, left_out)


def _without_paths(file: SentFile) -> bytes | None:
    """Reduce the paths of models and data in the configuration and in the report to their last component."""
    if file.path not in (_CONFIGURATION, REPORT_FILE):
        return None
    assert isinstance(file.content, Path)
    content = read_json(file.content)
    cleaned = shortened(content)
    return None if cleaned == content else as_json(cleaned)


KIND = Kind(
    name="reward",
    repo_type="model",
    help="a trained reward model, with training.json",
    path_help="folder of the reward model; its reward_report.json goes into the card",
    examples=("reward runs/reward_model me/artifact-reward --license apache-2.0 --private",),
    allowed=("model.safetensors", _CONFIGURATION, _RECORD, TRAINING_FILE, REPORT_FILE),
    build=reward_payload,
    options=(LICENSE,),
)
