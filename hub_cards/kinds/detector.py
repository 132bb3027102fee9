"""Push a trained pixel detector."""

from __future__ import annotations

from pathlib import Path

from datasets_script.detection.pixel.locating import PIXEL_FILE
from datasets_script.schema.training_record import TRAINING_FILE, TrainingRecord

from ..checks import read_json
from ..payload import LICENSE, Kind, Payload, SentFile, divide, replaced
from ..trained import card_of, check_files, check_pickles, check_weights, without_paths


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
    check_files(folder, names, (_CONFIGURATION, PIXEL_FILE), "pixel detector", "PixelDetector")
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
    return Payload.of(KIND, repo_id, folder, list(replaced(files, _portable)), card, left_out)


def _portable(file: SentFile) -> bytes | None:
    return without_paths(file) if file.path == _CONFIGURATION or file.path.startswith("evaluation/") else None


KIND = Kind(
    name="detector",
    repo_type="model",
    help="a trained pixel detector, with training.json",
    path_help="folder of the detector; reports of `artiagent evaluate` in its evaluation/*.json and overlays in its "
    "examples/*.png go into the card",
    examples=("detector runs/pixel_detector me/pixel-detector --license apache-2.0 --private",),
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
    marks=((PIXEL_FILE,),),
    build=detector_payload,
    options=(LICENSE,),
)
