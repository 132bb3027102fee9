"""`artiagent detect`: whether images have flaws, where, and what is wrong."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ..detection.detector import ArtifactDetector, upright
from ..figures.detections import detection_picture
from ..utils.errors import UserError
from ..utils.files import replacing
from ..utils.photos import SourceError, list_sources
from ..vlm.local import DEFAULT_VLM
from .options import add_answer_options, add_vlm_run_options, check_answer_options, make_vlm


_OUT = Path("runs/detect")
_MISTAKES_SHOWN = 20
# Processors of Qwen's models refuse narrower images.
_LARGEST_RATIO = 200

_EPILOG = f"""\
examples:
  artiagent detect portrait.jpg --model my-tuned-model
  artiagent detect photos/ --model my-lora-adapter --out seen/ > seen.jsonl
  artiagent detect photos/ --model my-model --endpoint http://localhost:8000/v1

A line of output is a JSON object about an image, in their order: image, width, height, has_artifact (true, false, or
null where the answer could not be read), regions (box as [x_min, y_min, x_max, y_max] in pixels of the upright image,
exclusive maxima, and label; null where they were not asked for or could not be read), explanation, answers (as they
came), failures (what could not be read, and why), overlay (the picture).

No checkpoint trained on pairs of ArtiAgent has been published yet. The default, {DEFAULT_VLM}, runs,
but has not learned to see such flaws and will call most images sound: pass a model that you have tuned (README, "Train
your own detector"). A folder with a PEFT adapter is one. An endpoint's key is read from ARTIAGENT_API_KEY; HF_TOKEN is
sent to servers of Hugging Face alone, OPENAI_API_KEY to OpenAI's."""


@dataclass(frozen=True)
class Input:
    """An image, and the name of its overlay relative to the folder of them."""

    path: Path
    overlay: Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "detect",
        help="find structural flaws in images: where they are, and what is wrong",
        description="Asks a vision-language model whether images have structural flaws, and of those with a yes, where"
        " and what is wrong. Writes JSON lines to the standard output, and a picture of each image with numbered "
        "boxes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="file, or folder searched recursively")
    parser.add_argument(
        "--model",
        dest="vlm",
        default=DEFAULT_VLM,
        help="Hub id or folder of a model or PEFT adapter, or its name at --endpoint (default: %(default)s, which is "
        "not trained for this)",
    )
    parser.add_argument("--out", type=Path, default=_OUT, help="folder of the pictures (default: %(default)s)")
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--ask-all", action="store_true", help="ask where and why of images without flaws, too, as training did"
    )
    add_answer_options(asked)
    add_vlm_run_options(parser.add_argument_group("how the model is run"))
    parser.set_defaults(
        interrupted="lines and pictures so far are whole; the same command again takes those answers from the cache.",
        run=run,
        device=None,
    )


def run(args: argparse.Namespace) -> int:
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
    """Writes line and picture of each image once it has been asked about."""
    found: Counter[str] = Counter()
    with tqdm(desc="looking for flaws", total=len(inputs), unit="image") as bar:
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
    check_answer_options(args)
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
    try:
        width, height = upright(path).size
    except SourceError as error:
        return str(error)
    if max(width, height) > _LARGEST_RATIO * min(width, height):
        return f"{path}: too narrow: {width}x{height} px, one side is over {_LARGEST_RATIO} times the other"
    return ""
