"""Push a trained reward model."""

from __future__ import annotations

from pathlib import Path

from datasets_script.schema.training_record import TRAINING_FILE, TrainingRecord
from training.reward.report_table import REPORT_FILE

from ..checks import read_json
from ..payload import LICENSE, Kind, Payload, SentFile, divide, replaced
from ..trained import card_of, check_files, check_pickles, check_weights, without_paths


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
    check_files(folder, names, (_CONFIGURATION, _RECORD), "reward model", "RewardModel")
    check_weights(folder, names, "model")
    record, reward = TrainingRecord.read(folder), RewardRecord.read(folder / _RECORD)
    network = read_json(folder / _CONFIGURATION)
    report = read_json(folder / REPORT_FILE) if REPORT_FILE in names else None
    card = card_of(
        folder, record, license, lambda _, checked: reward_card(repo_id, record, reward, network, report, checked)
    )
    return Payload.of(KIND, repo_id, folder, list(replaced(files, _portable)), card, left_out)


def _portable(file: SentFile) -> bytes | None:
    return without_paths(file) if file.path in (_CONFIGURATION, REPORT_FILE) else None


KIND = Kind(
    name="reward",
    repo_type="model",
    help="a trained reward model, with training.json",
    path_help="folder of the reward model; its reward_report.json goes into the card",
    examples=("reward runs/reward_model me/artifact-reward --license apache-2.0 --private",),
    allowed=("model.safetensors", _CONFIGURATION, _RECORD, TRAINING_FILE, REPORT_FILE),
    marks=((_RECORD,),),
    build=reward_payload,
    options=(LICENSE,),
)
