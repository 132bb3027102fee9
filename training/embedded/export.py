"""
Export the trained parts as the embedded default model: `bfloat16`, in diffusers' folder layout.

    python -m training.embedded.export --vae work/vae --transformer work/transformer --out diffusers_artifact/embedded
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import write_text
from diffusers_artifact.autoencoder import AutoencoderPCA
from training.script import run_script


# exp(1.3863) shifts the sigma grid by 4: of 2.5, 3, 4, 5 and 6, it reconstructs photos best in 8 FireFlow steps.
# Without dynamic shifting, the model would be taken for FLUX.1-schnell.
SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_shift": 1.3863,
    "max_shift": 1.3863,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "shift": 3.0,
}
MODEL_INDEX = {
    "_class_name": "ArtifactInjectionPipeline",
    "_diffusers_version": "0.38.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers_artifact", "AutoencoderPCA"],
}


def load_part(model_class: Any, folder: Path, option: str) -> Any:
    """
    Load a trained part of the embedded model.

    Args:
        model_class (`type`): Class with diffusers' `from_pretrained`.
        folder (`Path`): Folder that its training wrote.
        option (`str`): Name of the argument in error messages.

    Raises:
        UserError: The folder holds no such model.
    """
    try:
        return model_class.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{option} must be a folder that its training wrote, got '{folder}': {str(error).splitlines()[0]}"
        ) from None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.embedded.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vae", type=Path, required=True, help="folder written by training.embedded.autoencoder")
    parser.add_argument(
        "--transformer", type=Path, required=True, help="folder written by training.embedded.transformer"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    args = parser.parse_args(arguments)
    vae = load_part(AutoencoderPCA, args.vae, "--vae")
    transformer = load_part(FluxTransformer2DModel, args.transformer, "--transformer")
    vae.to(torch.bfloat16).save_pretrained(args.out / "vae")
    transformer.to(torch.bfloat16).save_pretrained(args.out / "transformer")
    FlowMatchEulerDiscreteScheduler(**SCHEDULER).save_pretrained(args.out / "scheduler")
    write_text(args.out / "model_index.json", json.dumps(MODEL_INDEX, indent=2) + "\n")
    for config in args.out.glob("*/config.json"):  # drop the path of the folder that it was loaded from
        content = json.loads(config.read_text())
        content.pop("_name_or_path", None)
        write_text(config, json.dumps(content, indent=2, sort_keys=True) + "\n")
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    run_script(main)
