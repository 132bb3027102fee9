"""The models of perception and curation as the command line names them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agents.perception.backends import BACKENDS, PerceptionSpec
from ..engine.plan import PERCEPTION_BATCH_SIZE
from ..utils.errors import UserError
from ..vlm.cache import default_cache_folder
from ..vlm.conventions import CONVENTIONS
from ..vlm.spec import VLMSpec
from .parser import positive_float, positive_int


if TYPE_CHECKING:
    from ..agents.perception.base import PerceptionAgent
    from ..vlm.base import VLM


def add_perception_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("perception: what is in the photos, and where")
    group.add_argument(
        "--perception",
        choices=BACKENDS,
        default="annotations",
        help="; ".join(f"{name}: {backend.help}" for name, backend in BACKENDS.items()) + " (default: annotations)",
    )
    group.add_argument(
        "--annotations", type=Path, help="COCO-format file (default: annotations.json in the folder of photos)"
    )
    group.add_argument("--detector", help="detector of grounded-sam (default: IDEA-Research/grounding-dino-tiny)")
    group.add_argument("--segmenter", help="SAM or SAM 2 model of grounded-sam, or SAM 3 model of sam3")
    group.add_argument("--perception-device", help="device of these models, such as cuda:1 (default: as --device)")
    group.add_argument(
        "--perception-batch-size",
        type=positive_int,
        help=f"photos perceived, and explained, together (default: {PERCEPTION_BATCH_SIZE} with a VLM, else 1)",
    )


def add_vlm_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "vision-language model (VLM): names what is there, judges artifacts and explains them",
        "Without one, annotations or detectors name, measures judge and templates explain. The key of an endpoint is\n"
        "read from ARTIAGENT_API_KEY; HF_TOKEN is sent to servers of Hugging Face alone, OPENAI_API_KEY to OpenAI's.",
    )
    group.add_argument("--vlm", help="model: a Hub id or folder to run here, or its name at --vlm-endpoint")
    add_vlm_run_options(group, "--vlm-", "as --device")


def add_answer_options(asked: argparse._ArgumentGroup) -> None:
    """Add the options of commands that ask a model for boxes: how it writes them, and how long it may answer."""
    asked.add_argument(
        "--coordinates", choices=CONVENTIONS, help="how the model writes boxes (default: as it was trained)"
    )
    asked.add_argument(
        "--min-pixels",
        type=positive_int,
        help="least pixels of an image after the model's image processor, for qwen2.5 (default: its own setting)",
    )
    asked.add_argument(
        "--max-pixels",
        type=positive_int,
        help="most pixels of an image after the model's image processor, for qwen2.5 (default: its own setting)",
    )
    asked.add_argument(
        "--max-new-tokens",
        type=positive_int,
        help="longest answer in tokens, e.g. 8192 for models that think (default: 256 to 1024, by question)",
    )


def add_vlm_run_options(group: argparse._ArgumentGroup, prefix: str = "--", device: str = "cuda, or cpu") -> None:
    """
    Add the options of how the model `args.vlm` is run, for [`make_vlm`].

    Args:
        group (`argparse._ArgumentGroup`): Where to add them.
        prefix (`str`, *optional*, defaults to `"--"`): What their names begin with.
        device (`str`, *optional*): The default device in words.
    """
    # argparse takes a lone % for a format.
    cache = str(default_cache_folder()).replace("%", "%%")
    options: dict[str, dict[str, Any]] = {
        "endpoint": {
            "metavar": "URL",
            "help": "ask a server with an OpenAI-compatible interface, e.g. http://localhost:8000/v1",
        },
        "revision": {"help": "branch, tag or commit of a model on the Hub"},
        "device": {"help": f"device of a local model, such as cuda:1 (default: {device})"},
        "quantization": {"choices": ("4bit", "8bit"), "help": "quantize a local model with bitsandbytes"},
        "batch-size": {
            "type": positive_int,
            "default": 4,
            "help": "questions that a local model answers at once (default: 4)",
        },
        "concurrency": {"type": positive_int, "default": 8, "help": "requests to an endpoint at once (default: 8)"},
        "timeout": {"type": positive_float, "default": 120.0, "help": "seconds an answer may take (default: 120)"},
        "cache": {"type": Path, "help": f"folder that keeps answers (default: {cache})"},
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
