"""Push a LoRA that was trained for a text-to-image model."""

from __future__ import annotations

from pathlib import Path

from datasets_script.schema.training_record import TRAINING_FILE, TrainingRecord
from datasets_script.utils.errors import UserError

from ..payload import LICENSE, Kind, Payload, divide
from ..trained import card_of, check_pickles, check_weights


# `LORA_FILE` of `training.denoiser.lora`, which loads torch.
_STEM = "pytorch_lora_weights"


def lora_payload(folder: Path, repo_id: str, license: str | None) -> Payload:
    """
    Collect the files to send of a LoRA: weights as safetensors, `training.json`, the pictures before and after
    training, and a card made from them. A card written by hand is kept.

    Args:
        folder (`Path`): Folder of the LoRA.
        repo_id (`str`): Repository of the LoRA, `owner/name`.
        license (`str`, *optional*): Hub identifier of the licence. Required unless the card was written by hand.

    Returns:
        `Payload`: The files.

    Raises:
        UserError: A file is missing, incomplete, or must not be published; or the LoRA changes nothing.
    """
    from ..cards import lora_card

    files, left_out = divide(KIND, folder)
    names = {file.path for file in files}
    check_pickles(folder)
    check_weights(folder, names, _STEM)
    record = TrainingRecord.read(folder)
    if record.data.get("kept_step") == 0:
        raise UserError(
            f"PATH must be a LoRA that changes its model, got '{folder}', whose training kept the model of before: "
            f"{record.data.get('stopped') or 'no step was better'}"
        )
    pictures = [name for name in ("pictures/before.png", "pictures/after.png") if name in names]
    card = card_of(folder, record, license, lambda _, checked: lora_card(repo_id, record, pictures, checked))
    return Payload.of(KIND, repo_id, folder, files, card, left_out)


KIND = Kind(
    name="lora",
    repo_type="model",
    help="a LoRA of a text-to-image model, with training.json",
    path_help="folder of the LoRA; its pictures before and after training go into the card",
    examples=("lora runs/treat_flux_schnell me/flux-treated --license apache-2.0 --private",),
    allowed=(f"{_STEM}.safetensors", TRAINING_FILE, "pictures/before.png", "pictures/after.png"),
    # LoRAs of other programs have weights of this name too, but no record.
    marks=((TRAINING_FILE,), (f"{_STEM}.safetensors",)),
    build=lora_payload,
    options=(LICENSE,),
)
