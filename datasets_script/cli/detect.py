"""`artiagent detect`: whether images have artifacts, where, and what is wrong."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.errors import UserError
from ..vlm.base import DEFAULT_VLM
from .options import add_answer_options, add_vlm_run_options, make_vlm
from .parser import Parser


if TYPE_CHECKING:
    from ..detection.detector import ArtifactDetector


_OUT = Path("runs/detect")
_MISTAKES_SHOWN = 20
# Processors of Qwen's models refuse narrower images.
_LARGEST_RATIO = 200

DESCRIPTION = """\
Asks a vision-language model whether images have structural artifacts and, where it says yes, where they are and what
is wrong. Writes a line of JSON for each image to the standard output, and a copy of each image with numbered boxes."""

EPILOG = f"""\
A line of output is a JSON object about one image, in the order of the images:
  image, width, height  its path and size
  has_artifact          true, false, or null if the answer could not be read
  regions               box [x_min, y_min, x_max, y_max] in pixels of the upright image, maxima exclusive, and label;
                        null if regions were not asked for or could not be read
  explanation           what is wrong, in a sentence
  answers, failures     the model's texts, and what could not be read in them and why
  overlay               the copy with numbered boxes

No checkpoint trained on pairs of ArtiAgent has been published yet. The default, {DEFAULT_VLM}, runs, but
it has not learned to see such artifacts and calls most images sound: pass a model that you have tuned, for example
with `artiagent train`. A folder with a PEFT adapter is one.

The key of an endpoint is read from ARTIAGENT_API_KEY. HF_TOKEN is sent to servers of Hugging Face alone, and
OPENAI_API_KEY to OpenAI's.

examples:
  artiagent detect portrait.jpg --model my-tuned-model
  artiagent detect photos/ --model my-lora-adapter --out seen/ > seen.jsonl
  artiagent detect photos/ --model my-model --endpoint http://localhost:8000/v1"""


@dataclass(frozen=True)
class Input:
    """An image, and the name of its overlay relative to the folder of them."""

    path: Path
    overlay: Path


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image file, or folder that is searched recursively"
    )
    parser.add_argument(
        "--model",
        dest="vlm",
        metavar="MODEL",
        default=DEFAULT_VLM,
        help="Hub id or folder of a model or PEFT adapter, or its name at --endpoint (default: %(default)s, which is "
        "not trained for this)",
    )
    parser.add_argument(
        "--out", type=Path, default=_OUT, help="folder of the copies with boxes (default: %(default)s)"
    )
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--ask-all",
        action="store_true",
        help="ask where and why also of images that the model calls sound, as in training",
    )
    add_answer_options(asked)
    add_vlm_run_options(parser.add_argument_group("how the model is run"))
    parser.set_defaults(
        interrupted="lines and images so far are whole; the same command again takes those answers from the cache.",
        device=None,
    )


def run(args: argparse.Namespace) -> int:
    from ..detection.detector import ArtifactDetector

    _check(args)
    inputs = _find_inputs(args.images, args.out)
    vlm = make_vlm(args)
    assert vlm is not None  # --model has a default
    detector = ArtifactDetector(
        vlm,
        batch_size=args.vlm_concurrency if args.vlm_endpoint else args.vlm_batch_size,
        coordinates=args.coordinates,
        min_pixels=args.min_pixels,
        max_pixels=args.max_pixels,
        ask_all=args.ask_all,
        max_new_tokens=args.max_new_tokens,
    )
    write_detections(detector, inputs, args.out)
    return 0


def write_detections(detector: ArtifactDetector, inputs: Sequence[Input], out: Path) -> None:
    """Writes line and image of each image once it has been asked about."""
    from tqdm import tqdm

    from ..detection.detector import upright
    from ..figures.detections import detection_picture
    from ..utils.files import replacing

    found: Counter[str] = Counter()
    with tqdm(desc="looking for artifacts", total=len(inputs), unit="image") as bar:
        for item, detection in zip(inputs, detector.stream(item.path for item in inputs), strict=True):
            overlay = out / item.overlay
            with replacing(overlay) as temporary:
                picture = detection_picture(upright(item.path), detection, str(item.path))
                picture.save(temporary, format="PNG")
            line = {"image": str(item.path), **detection.to_dict(), "overlay": str(overlay)}
            with tqdm.external_write_mode():
                print(json.dumps(line), flush=True)
            found["flawed"] += detection.has_artifact is True
            found["unreadable"] += bool(detection.failures)
            bar.set_postfix(found)
            bar.update()


def _check(args: argparse.Namespace) -> None:
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out must be a folder that can be made, got '{args.out}': {error.strerror}") from error


def _find_inputs(paths: Sequence[Path], out: Path) -> list[Input]:
    """All images, each of which can be read: that is known before a model is loaded, which takes minutes."""
    found = [item for path in paths for item in _expanded(path, out)]
    mistakes = [reason for path, _ in found if (reason := _why_unreadable(path))]
    if mistakes:
        more = len(mistakes) - _MISTAKES_SHOWN
        shown = mistakes[:_MISTAKES_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise UserError(
            "\n  ".join([f"nothing was asked: {len(mistakes)} of {len(found)} images cannot be used", *shown])
        )
    names: Counter[str] = Counter()
    inputs = []
    for path, name in found:
        names[name] += 1
        # Two images may have one name, in different folders.
        suffix = f".{names[name]}.png" if names[name] > 1 else ".png"
        inputs.append(Input(path, Path(name + suffix)))
    return inputs


def _expanded(path: Path, out: Path) -> Iterator[tuple[Path, str]]:
    """An image, or those of a folder but for overlays, with their names."""
    if not path.is_dir():
        yield path, path.name
        return
    from PIL import Image

    from ..utils.photos import list_sources

    known = Image.registered_extensions()
    names = [
        name
        for name in list_sources(path)
        if (path / name).suffix.lower() in known and not (path / name).resolve().is_relative_to(out.resolve())
    ]
    if not names:
        raise UserError(f"IMAGE must be an image or a folder with images, found none in '{path}'")
    yield from ((path / name, name) for name in names)


def _why_unreadable(path: Path) -> str:
    from ..detection.detector import upright
    from ..utils.photos import SourceError

    try:
        width, height = upright(path).size
    except SourceError as error:
        return str(error)
    if max(width, height) > _LARGEST_RATIO * min(width, height):
        return f"{path}: too narrow: {width}x{height} px, one side is over {_LARGEST_RATIO} times the other"
    return ""
