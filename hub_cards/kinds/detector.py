"""Push a trained pixel detector."""

from __future__ import annotations

from pathlib import Path

from datasets_script.detection.pixel.locating import PIXEL_FILE
from datasets_script.schema.training_record import TRAINING_FILE, TrainingRecord
from datasets_script.utils.errors import UserError

from ..checks import read_json
from ..payload import LICENSE, Kind, Payload, SentFile, divide, replaced
from ..trained import as_json, card_of, check_pickles, check_weights, shortened


_CONFIGURATION = "config.json"


def detector_payload(folder: Path, repo_id: str, license: str | None) -> Payload:
    """
    Collect the files to send of a pixel detector: weights as safetensors, configuration, `pixel_detector.json`,
    `training.json`, `evaluation/`, overlays in `examples/`, and a card made from them. A card written by hand is kept.

    Args:
        folder (`Path`): Folder of the detector.
        repo_id (`str`): Repository of the detector, `owner/name`.
        license (`str`, *optional*): Hub identifier of the licence. Required unless the card was written by hand.

    Returns:
        `Payload`: The files.

    Raises:
        UserError: A file is missing, incomplete, or must not be published.
    """
    from datasets_script.detection.pixel.record import PixelRecord

    from ..cards import detector_card

    files, left_out = divide(KIND, folder)
    names = {file.path for file in files}
    check_pickles(folder)
    for name in (_CONFIGURATION, PIXEL_FILE):
        if name not in names:
            raise UserError(
                f"PATH must be a pixel detector with {name}, got '{folder}' without it; write it with "
                "PixelDetector.save_pretrained"
            )
    check_weights(folder, names, "model")
    record, detector = TrainingRecord.read(folder), PixelRecord.read(folder / PIXEL_FILE)
    architecture = read_json(folder / _CONFIGURATION).get("architectures", ["unknown"])[0]
    examples = sorted(name for name in names if name.startswith("examples/"))
    card = card_of(
        folder,
        record,
        license,
        lambda reports, checked: detector_card(repo_id, record, detector, architecture, reports, checked, examples),
    )
    return Payload.of(KIND, repo_id, folder, list(replaced(files, _without_paths)), card, left_out)


def _without_paths(file: SentFile) -> bytes | None:
    """Reduce the paths of models and data in the configuration and in reports to their last component."""
    if not (file.path == _CONFIGURATION or file.path.startswith("evaluation/")):
        return None
    assert isinstance(file.content, Path)
    content = read_json(file.content)
    cleaned = shortened(content)
    return None if cleaned == content else as_json(cleaned)


KIND = Kind(
    name="detector",
    repo_type="model",
    help="a trained pixel detector, with training.json",
    path_help="folder of the detector; reports of `artiagent evaluate` in its evaluation/*.json and overlays in its "
    "examples/*.png go into the card",
    examples=("detector runs/pixel me/pixel-detector --license apache-2.0 --private",),
    allowed=(
        "model.safetensors",
        "model-*.safetensors",
        "model.safetensors.index.json",
        _CONFIGURATION,
        PIXEL_FILE,
        TRAINING_FILE,
        "evaluation/*.json",
        "examples/*.png",
    ),
    build=detector_payload,
    options=(LICENSE,),
)
