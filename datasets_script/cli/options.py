"""Options of perception backends, vision-language models and pixel detectors, shared by several commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers_artifact.mapping import ARTIFACT_TYPES

from ..agents.perception.backends import BACKENDS, NAMED, PerceptionSpec
from ..engine.plan import PERCEPTION_BATCH_SIZE
from ..utils.errors import UserError
from ..vlm.cache import default_cache_folder
from ..vlm.conventions import CONVENTIONS
from ..vlm.spec import VLMSpec
from .parser import named_number, names_among, positive_float, positive_int


if TYPE_CHECKING:
    from ..agents.perception.base import PerceptionAgent
    from ..detection.pixel.detector import PixelDetector
    from ..pairs.filters import PairFilter
    from ..vlm.base import VLM


# Options of a vision-language model that a pixel detector does not have.
_OF_LANGUAGE_MODELS = (
    *("coordinates", "min_pixels", "max_pixels", "max_new_tokens", "tasks", "ask_all"),
    *("vlm_quantization", "vlm_cache"),
)


def add_perception_options(
    parser: argparse.ArgumentParser,
    default: str | None = "annotations",
    default_help: str = "annotations",
    detector: str = "detector for grounded-sam (default: IDEA-Research/grounding-dino-tiny)",
) -> None:
    """
    Add the options for choosing and loading a perception backend, which [`perception_spec`] reads.

    Args:
        parser (`argparse.ArgumentParser`): Parser to add them to.
        default (`str`, *optional*, defaults to `"annotations"`): Default backend; `None` for no backend.
        default_help (`str`, *optional*, defaults to `"annotations"`): Default backend as the help words it.
        detector (`str`, *optional*): Help of `--detector`.
    """
    group = parser.add_argument_group("perception (finds entities and their parts in the photos)")
    group.add_argument(
        "--perception",
        choices=NAMED,
        default=default,
        help="; ".join(f"{name}: {BACKENDS[name].help}" for name in NAMED) + f" (default: {default_help})",
    )
    group.add_argument(
        "--annotations", type=Path, help="COCO-format file (default: annotations.json in the folder of photos)"
    )
    group.add_argument("--detector", help=detector)
    group.add_argument("--segmenter", help="SAM or SAM 2 model for grounded-sam, or SAM 3 model for sam3")
    group.add_argument(
        "--perception-device", help="device of detector and segmenter, such as cuda:1 (default: same as --device)"
    )
    group.add_argument(
        "--perception-batch-size",
        type=positive_int,
        help="photos per batch of perception, and of explanation "
        f"(default: {PERCEPTION_BATCH_SIZE} with a VLM, else 1)",
    )


def add_vlm_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for an optional vision-language model, which [`vlm_spec`] reads."""
    group = parser.add_argument_group(
        "vision-language model, VLM (names entities, judges and explains artifacts)",
        "Without a VLM, names come from annotations or a detector, artifacts are judged by image metrics, and\n"
        "explanations are filled into templates. Set ARTIAGENT_API_KEY to the API key of the endpoint. HF_TOKEN is\n"
        "only sent to Hugging Face, OPENAI_API_KEY only to OpenAI.",
    )
    group.add_argument("--vlm", help="Hub id or folder of a local model, or the model's name at --vlm-endpoint")
    add_vlm_run_options(group, "--vlm-", "same as --device")


def add_answer_options(asked: argparse._ArgumentGroup) -> None:
    """Add the options of commands that ask a model for boxes: their coordinates, and the length of an answer."""
    asked.add_argument(
        "--coordinates",
        choices=CONVENTIONS,
        help="coordinates of the model's boxes (default: those it was trained on)",
    )
    asked.add_argument(
        "--min-pixels",
        type=positive_int,
        help="min_pixels of the model's image processor, for qwen2.5 (default: the model's own)",
    )
    asked.add_argument(
        "--max-pixels",
        type=positive_int,
        help="max_pixels of the model's image processor, for qwen2.5 (default: the model's own)",
    )
    asked.add_argument(
        "--max-new-tokens",
        type=positive_int,
        help="maximum length of an answer in tokens, e.g. 8192 for reasoning models (default: 256 to 1024, depending "
        "on the question)",
    )


def add_vlm_run_options(
    group: argparse._ArgumentGroup, prefix: str = "--", device: str = "cuda if available, else cpu"
) -> None:
    """
    Add the options for running the vision-language model, which [`make_vlm`] reads.

    Args:
        group (`argparse._ArgumentGroup`): Group to add them to.
        prefix (`str`, *optional*, defaults to `"--"`): Beginning of their names.
        device (`str`, *optional*): Default device as the help words it.
    """
    # argparse formats help texts with %.
    cache = str(default_cache_folder()).replace("%", "%%")
    options: dict[str, dict[str, Any]] = {
        "endpoint": {
            "metavar": "URL",
            "help": "OpenAI-compatible server to use instead of a local model, e.g. http://localhost:8000/v1",
        },
        "revision": {"help": "branch, tag or commit of a model on the Hub"},
        "device": {"help": f"device of a local model, such as cuda:1 (default: {device})"},
        "quantization": {"choices": ("4bit", "8bit"), "help": "quantize a local model with bitsandbytes"},
        "batch-size": {
            "type": positive_int,
            "default": 4,
            "help": "questions per batch of a local model (default: 4)",
        },
        "concurrency": {
            "type": positive_int,
            "default": 8,
            "help": "parallel requests to an endpoint (default: 8)",
        },
        "timeout": {
            "type": positive_float,
            "default": 120.0,
            "help": "seconds to wait for an answer of an endpoint (default: 120)",
        },
        "cache": {"type": Path, "help": f"folder of cached answers (default: {cache})"},
    }
    for name, option in options.items():
        group.add_argument(f"{prefix}{name}", dest=f"vlm_{name.replace('-', '_')}", **option)


def add_filter_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for a choice of pairs, which [`pair_filter`] reads."""
    group = parser.add_argument_group(
        "filters (keep the pairs all of whose artifacts fit; an image shows all of its artifacts)"
    )
    group.add_argument(
        "--types",
        type=names_among(ARTIFACT_TYPES),
        metavar="NAMES",
        default=(),
        help=f"comma-separated list of artifact types: {', '.join(ARTIFACT_TYPES)} (default: all)",
    )
    group.add_argument("--parts", metavar="NAMES", help="comma-separated list of parts, e.g. hand,left ear")
    group.add_argument(
        "--min-score",
        action="append",
        type=named_number,
        default=[],
        metavar="NAME=VALUE",
        help="least value of a score of artifacts that have it, e.g. change_inside=0.1 or stlpips=0.2; repeatable",
    )


def pair_filter(args: argparse.Namespace) -> PairFilter:
    """Return the choice of pairs that the options describe."""
    from ..pairs.filters import PairFilter

    parts = tuple(name.strip() for name in args.parts.split(",")) if args.parts else ()
    return PairFilter(args.types, parts, tuple(args.min_score))


def vlm_spec(args: argparse.Namespace) -> VLMSpec | None:
    """
    Return the vision-language model that the options name, or `None` if they name none.

    Raises:
        UserError: An endpoint is given without a model, or it is not a URL.
    """
    if args.vlm is None:
        if args.vlm_endpoint:
            raise UserError(f"--vlm must name a model at --vlm-endpoint {args.vlm_endpoint}, got none")
        return None
    return vlm_spec_of(args, args.vlm)


def vlm_spec_of(args: argparse.Namespace, model: str) -> VLMSpec:
    """Return how a vision-language model is run, by the options of [`add_vlm_run_options`] with `--vlm-`."""
    return VLMSpec(
        model=model,
        endpoint=args.vlm_endpoint,
        revision=args.vlm_revision,
        device=args.vlm_device,
        quantization=args.vlm_quantization,
        batch_size=args.vlm_batch_size,
        concurrency=args.vlm_concurrency,
        timeout=args.vlm_timeout,
        cache=args.vlm_cache,
    )


def make_vlm(args: argparse.Namespace) -> VLM | None:
    """
    Load the vision-language model that the options name, behind a cache of its answers; `None` if they name none.

    Raises:
        UserError: See [`vlm_spec`].
        VLMUnavailable: The model cannot be loaded.
    """
    spec = vlm_spec(args)
    return spec.load(args.device) if spec else None


def add_tile_option(asked: argparse._ArgumentGroup) -> None:
    """Add the option of commands that run a pixel detector, which [`make_pixel_detector`] reads."""
    asked.add_argument(
        "--tile",
        type=positive_int,
        help="examine images with a side longer than this in tiles of this many px, with a pixel detector (default: "
        "images are reduced as a whole)",
    )


def make_pixel_detector(args: argparse.Namespace) -> PixelDetector | None:
    """
    Load the pixel detector that the options name, or return `None` if their model is a vision-language model.

    Raises:
        UserError: The detector cannot be loaded, or an option is given that only the other kind of model has.
    """
    from ..detection.pixel.locating import is_pixel_detector

    if args.vlm_endpoint or not is_pixel_detector(args.vlm, args.vlm_revision):
        if args.tile is not None:
            raise UserError(f"--tile must come with a pixel detector, got the vision-language model {args.vlm}")
        return None
    from ..detection.pixel.detector import PixelDetector

    for name in _OF_LANGUAGE_MODELS:
        if getattr(args, name, None):
            option = name.removeprefix("vlm_").replace("_", "-")
            raise UserError(f"--{option} must come with a vision-language model, got the pixel detector {args.vlm}")
    return PixelDetector.from_pretrained(
        args.vlm,
        revision=args.vlm_revision,
        device=args.vlm_device,
        batch_size=args.vlm_batch_size,
        tile=args.tile,
    )


def perception_spec(args: argparse.Namespace) -> PerceptionSpec:
    """Return the perception backend that the options name."""
    return PerceptionSpec(args.perception, args.annotations, args.detector, args.segmenter, args.perception_device)


def make_perception(args: argparse.Namespace, source: Path, vlm: VLM | None) -> PerceptionAgent:
    """
    Load the perception backend that the options name.

    Args:
        args (`argparse.Namespace`): Parsed arguments, with the options of [`add_perception_options`].
        source (`Path`): Folder of photos.
        vlm (`VLM`, *optional*): Vision-language model, for the backends that need one.

    Raises:
        UserError: Annotations or the vision-language model are missing.
        ImportError: The backend's extra is not installed.
    """
    return perception_spec(args).load(source, vlm, args.device)
