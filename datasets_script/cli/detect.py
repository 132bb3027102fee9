"""`artiagent detect`: find artifacts in images, with boxes, and explanations or maps."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.errors import UserError
from .options import add_answer_options, add_tile_option, add_vlm_run_options, make_pixel_detector, make_vlm
from .parser import Parser


if TYPE_CHECKING:
    import numpy as np

    from ..detection.base import Detector


_MISTAKES_SHOWN = 20
# The name of the detector in this package, as in `detection.pixel.locating`, which loads torch.
_EMBEDDED = "embedded"
# The image processors of Qwen's models reject images with a larger ratio of long to short side.
_LARGEST_RATIO = 200

DESCRIPTION = """\
Ask a model whether each image has structural artifacts and, if so, where they are. A vision-language model also says
what is wrong. Print one JSON object per image to the standard output, and write a copy of each image with numbered
boxes."""

EPILOG = """\
Each line of output is a JSON object for one image, in the order of the images:
  image, width, height  path and size in pixels
  has_artifact          true, false, or null if the answer could not be parsed
  score, measures       of a pixel detector: probability that there are artifacts; smoothed maximum and mean of its
                        map, and the share of the image above its threshold
  regions               a label and a box [x_min, y_min, x_max, y_max] for each artifact, in pixels of the upright
                        image, with exclusive maxima, and of a pixel detector a score; null if not asked for or if it
                        could not be parsed
  explanation           what is wrong, in one sentence
  answers, failures     the model's raw answers, and which of them could not be parsed and why
  overlay               path of the copy with numbered boxes
  map                   with --maps, path of the map

A folder or repository with pixel_detector.json is a pixel detector, which gives a map in place of words. Any other is
a vision-language model or an adapter.

Files of a folder that cannot be read as images are named on the standard error and passed over.

The default is a small pixel detector that comes with this package and needs no network. It was trained on synthetic
artifacts: datasets_script/detection/pixel/embedded/README.md says what it finds and what not. It does not say what is
wrong. For that, pass a vision-language model that you have trained, for example with `artiagent train`: a folder with
a full model or with a PEFT adapter.

Set ARTIAGENT_API_KEY to the API key of the endpoint. HF_TOKEN is only sent to Hugging Face, OPENAI_API_KEY only to
OpenAI.

examples:
  artiagent detect portrait.jpg
  artiagent detect portrait.jpg --model my-tuned-model
  artiagent detect photos/ --model my-lora-adapter --out seen/ > seen.jsonl
  artiagent detect photos/ --model my-pixel-detector --maps maps/ > seen.jsonl
  artiagent detect photos/ --model my-model --endpoint http://localhost:8000/v1"""


@dataclass(frozen=True)
class Input:
    """An image file, and the path of its overlay relative to the output folder."""

    path: Path
    overlay: Path


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image file, or folder to search recursively"
    )
    parser.add_argument(
        "--model",
        dest="vlm",
        metavar="MODEL",
        default=_EMBEDDED,
        help="Hub id or folder of a pixel detector, a vision-language model or a PEFT adapter, the model's name at "
        "--endpoint, or 'embedded' for the small detector that comes with this package (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder to write the copies with boxes to (default: FOLDER-detected beside the folder of the first "
        "IMAGE)",
    )
    parser.add_argument("--maps", type=Path, help="folder to write a pixel detector's maps to, as PNG of 16 bits")
    asked = parser.add_argument_group("questions")
    asked.add_argument(
        "--ask-all",
        action="store_true",
        help="ask where the artifacts are and what is wrong even if the model reports none, as in training",
    )
    add_answer_options(asked)
    add_tile_option(asked)
    add_vlm_run_options(parser.add_argument_group("running the model"))
    parser.set_defaults(
        interrupted="the lines and images so far are complete; rerun the command to continue from cached answers.",
        device=None,
    )


def run(args: argparse.Namespace) -> int:
    if args.vlm_endpoint and args.vlm == _EMBEDDED:
        raise UserError(f"--model must name the model at --endpoint {args.vlm_endpoint}, got none")
    args.out = args.out or _beside(args.images[0])
    _check(args)
    inputs = find_inputs(args.images, args.out)
    write_detections(_make_detector(args), inputs, args.out, args.maps)
    return 0


def write_detections(detector: Detector, inputs: Sequence[Input], out: Path, maps: Path | None = None) -> None:
    """
    Print the JSON line of each image and write its overlay, as soon as the detector has answered.

    Args:
        detector (`Detector`): A loaded detector.
        inputs (`Sequence[Input]`): Images to ask about, in order.
        out (`Path`): Folder of the overlays.
        maps (`Path`, *optional*): Folder of the maps; by default they are not written.
    """
    from tqdm import tqdm

    from ..detection.images import upright
    from ..figures.detections import detection_picture
    from ..utils.files import replacing

    found: Counter[str] = Counter()
    with tqdm(desc="looking for artifacts", total=len(inputs), unit="image") as bar:
        for item, detection in zip(inputs, detector.stream(item.path for item in inputs), strict=True):
            overlay = out / item.overlay
            with replacing(overlay) as temporary:
                drawn = detection_picture(upright(item.path), detection, str(item.path))
                drawn.save(temporary, format="PNG")
            line = {"image": str(item.path), **detection.to_dict(), "overlay": str(overlay)}
            if maps is not None and detection.artifact_map is not None:
                line["map"] = str(_write_map(maps / item.overlay, detection.artifact_map))
            with tqdm.external_write_mode():
                print(json.dumps(line), flush=True)
            found["with artifacts"] += detection.has_artifact is True
            found["unparsable"] += bool(detection.failures)
            bar.set_postfix(found)
            bar.update()


def _make_detector(args: argparse.Namespace) -> Detector:
    if (pixel := make_pixel_detector(args)) is not None:
        return pixel
    if args.maps is not None:
        raise UserError(f"--maps must come with a pixel detector, got the vision-language model {args.vlm}")
    from ..detection.detector import ArtifactDetector

    vlm = make_vlm(args)
    assert vlm is not None  # --model has a default
    return ArtifactDetector(
        vlm,
        batch_size=args.vlm_concurrency if args.vlm_endpoint else args.vlm_batch_size,
        coordinates=args.coordinates,
        min_pixels=args.min_pixels,
        max_pixels=args.max_pixels,
        ask_all=args.ask_all,
        max_new_tokens=args.max_new_tokens,
    )


def _write_map(path: Path, values: np.ndarray) -> Path:
    from ..utils.files import replacing
    from ..utils.stored_images import stored_map

    with replacing(path) as temporary:
        temporary.write_bytes(stored_map(values)["bytes"])
    return path


def _beside(image: Path) -> Path:
    """Return the folder of overlays: beside the folder of the images, in which they would be photos like others."""
    folder = image.resolve() if image.is_dir() else image.resolve().parent
    return folder.parent / f"{folder.name}-detected"


def _check(args: argparse.Namespace) -> None:
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out must be a folder that can be created, got '{args.out}': {error.strerror}") from error


def find_inputs(paths: Sequence[Path], out: Path) -> list[Input]:
    """
    List all images, and check that each can be read before a model is loaded, which takes minutes. Files of a folder
    that cannot be are named and passed over; those that were asked for one by one are a mistake.
    """
    found = [item for path in paths for item in _expanded(path, out)]
    reasons = {path: reason for path, _ in found if (reason := _why_unreadable(path))}
    mistakes = list(reasons.values())
    if mistakes and len(reasons) < len({path for path, _ in found}) and not reasons.keys() & set(paths):
        for reason in mistakes:
            print(f"passed over: {reason}", file=sys.stderr)
        found = [(path, name) for path, name in found if path not in reasons]
    elif mistakes:
        more = len(mistakes) - _MISTAKES_SHOWN
        shown = mistakes[:_MISTAKES_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise UserError(
            "\n  ".join(
                [f"IMAGE must be images that can be read, got {len(mistakes)} of {len(found)} that cannot:", *shown]
            )
        )
    names: Counter[str] = Counter()
    inputs = []
    for path, name in found:
        overlay = Path(name).with_suffix(".png")
        names[str(overlay)] += 1
        # Images in different folders, or of different formats, may share a name.
        number = names[str(overlay)]
        inputs.append(Input(path, overlay.with_suffix(f".{number}.png") if number > 1 else overlay))
    return inputs


def _expanded(path: Path, out: Path) -> Iterator[tuple[Path, str]]:
    """Yield an image, or the images of a folder except overlays, with the names of their overlays."""
    if not path.is_dir():
        yield path, path.name
        return
    from PIL import Image

    from ..utils.photos import list_sources

    known = {*Image.registered_extensions(), ".heic", ".heif"}
    names = [
        name
        for name in list_sources(path)
        if ((path / name).suffix.lower() in known or (path / name).is_dir())
        and not (path / name).resolve().is_relative_to(out.resolve())
    ]
    if not names:
        raise UserError(f"IMAGE must be an image or a folder of images, found none in '{path}'")
    yield from ((path / name, name) for name in names)


def _why_unreadable(path: Path) -> str:
    from ..detection.images import upright
    from ..utils.photos import SourceError

    try:
        width, height = upright(path).size
    except SourceError as error:
        return str(error)
    if max(width, height) > _LARGEST_RATIO * min(width, height):
        return f"{path}: too narrow: {width}x{height} px, one side is more than {_LARGEST_RATIO} times the other"
    return ""
