"""The models of perception and curation as the command line names them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..agents.perception.backends import BACKENDS, PerceptionSpec
from ..agents.perception.base import PerceptionAgent
from ..engine.plan import PERCEPTION_BATCH_SIZE
from ..utils.errors import UserError
from ..vlm.base import VLM
from ..vlm.cache import default_cache_folder
from ..vlm.conventions import CONVENTIONS
from ..vlm.spec import VLMSpec


def add_perception_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("perception: what is in the photographs, and where")
    group.add_argument(
        "--perception",
        choices=BACKENDS,
        default="annotations",
        help="; ".join(f"{name}: {backend.help}" for name, backend in BACKENDS.items()) + " (default: annotations)",
    )
    group.add_argument("--annotations", type=Path, help="COCO-format file; default: annotations.json in SOURCE")
    group.add_argument("--detector", help="grounded-sam: detection model (default: IDEA-Research/grounding-dino-tiny)")
    group.add_argument("--segmenter", help="grounded-sam: SAM or SAM 2 model; sam3: SAM 3 model")
    group.add_argument("--perception-device", help="default: as --device")
    group.add_argument(
        "--perception-batch-size",
        type=int,
        help=f"photographs perceived, and explained, together (default: {PERCEPTION_BATCH_SIZE} with a VLM, else 1)",
    )


def add_vlm_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "vision-language model: names what is there, judges flaws and explains them",
        "Without one, annotations or detectors name, measures judge and templates explain. An endpoint's key is "
        "read from ARTIAGENT_API_KEY; HF_TOKEN is sent to servers of Hugging Face alone, OPENAI_API_KEY to OpenAI's.",
    )
    group.add_argument("--vlm", help="model: a Hub id or folder to run here, or its name at --vlm-endpoint")
    add_vlm_run_options(group, "--vlm-", "default: as --device")


def add_answer_options(asked: argparse._ArgumentGroup) -> None:
    """Options of commands that ask a model for boxes: how it writes them, and how long it may answer."""
    asked.add_argument("--coordinates", choices=CONVENTIONS, help="of boxes (default: as the model was trained)")
    asked.add_argument(
        "--min-pixels", type=int, help="qwen2.5: least pixels of the model's image processor (default: its own)"
    )
    asked.add_argument("--max-pixels", type=int, help="qwen2.5: most pixels of it (default: its own)")
    asked.add_argument(
        "--max-new-tokens", type=int, help="longest answer, e.g. 8192 for models that think (default: 256 to 1024)"
    )


def check_answer_options(args: argparse.Namespace, *others: str) -> None:
    """
    Refuses numbers below 1.

    Args:
        args (`argparse.Namespace`): With what [`add_answer_options`] declares, and [`add_vlm_run_options`] without
            another prefix.
        others (`str`): Names of further options that must be at least 1 where they are given.

    Raises:
        UserError: a number is below 1.
    """
    for name in ("min_pixels", "max_pixels", "max_new_tokens", "vlm_batch_size", "vlm_concurrency", *others):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.removeprefix('vlm_').replace('_', '-')} must be at least 1, got {value}")


def add_vlm_run_options(
    group: argparse._ArgumentGroup, prefix: str = "--", device: str = "default: cuda, or cpu"
) -> None:
    """How the model `args.vlm` is run, for [`make_vlm`]: its options with a prefix, and the help of `device`."""
    options: dict[str, dict[str, Any]] = {
        "endpoint": {"help": "an OpenAI-compatible server, e.g. http://localhost:8000/v1"},
        "revision": {"help": "branch, tag or commit of a Hub model"},
        "device": {"help": device},
        "quantization": {"choices": ("4bit", "8bit"), "help": "of a local model, by bitsandbytes"},
        "batch-size": {"type": int, "default": 4, "help": "questions to a local model at once (default: 4)"},
        "concurrency": {"type": int, "default": 8, "help": "requests to an endpoint at once (default: 8)"},
        "timeout": {"type": float, "default": 120.0, "help": "seconds an answer may take (default: 120)"},
        "cache": {"type": Path, "help": f"folder of answers (default: {default_cache_folder()})"},
    }
    for name, option in options.items():
        group.add_argument(f"{prefix}{name}", dest=f"vlm_{name.replace('-', '_')}", **option)


def vlm_spec(args: argparse.Namespace) -> VLMSpec | None:
    """
    Read the vision-language model of the command line; `None` if none was named.

    Raises:
        UserError: an endpoint without the name of a model, or one that is no URL.
    """
    if args.vlm is None:
        if args.vlm_endpoint:
            raise UserError("--vlm-endpoint needs --vlm, the name of a model that the server has")
        return None
    return VLMSpec(
        model=args.vlm,
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
    Load the vision-language model of the command line, behind a cache of its answers; `None` if none was named.

    Raises:
        UserError: as [`vlm_spec`].
        VLMUnavailable: it cannot be loaded.
    """
    spec = vlm_spec(args)
    return spec.load(args.device) if spec else None


def perception_spec(args: argparse.Namespace) -> PerceptionSpec:
    """Read the perception backend of the command line."""
    return PerceptionSpec(args.perception, args.annotations, args.detector, args.segmenter, args.perception_device)


def make_perception(args: argparse.Namespace, source: Path, vlm: VLM | None) -> PerceptionAgent:
    """
    Load the perception backend of the command line.

    Raises:
        UserError: it lacks its annotations or its vision-language model.
        ImportError: it lacks its extra.
    """
    return perception_spec(args).load(source, vlm, args.device)


def at_least(name: str, number: int, least: int = 1) -> int:
    if number < least:
        raise UserError(f"{name} must be at least {least}, got {number}")
    return number
