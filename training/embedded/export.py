"""Puts the trained parts together as the embedded default model, bfloat16, in diffusers' folder layout.

python -m training.embedded.export --vae work/vae --transformer work/transformer --out diffusers_artifact/embedded
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from diffusers_artifact.autoencoder import AutoencoderPCA


# exp(1.6094) shifts the grid by 5: of 1, 1.65 (FLUX.1-dev's at 256 tokens), 2.5, 3.5, 5 and 7 the one that inverts and
# denoises photographs best in 8 and in 10 FireFlow steps. Without dynamic shifting it would look like FLUX.1-schnell.
SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_shift": 1.6094,
    "max_shift": 1.6094,
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--transformer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    AutoencoderPCA.from_pretrained(args.vae).to(torch.bfloat16).save_pretrained(args.out / "vae")
    transformer = FluxTransformer2DModel.from_pretrained(args.transformer).to(torch.bfloat16)
    transformer.save_pretrained(args.out / "transformer")
    FlowMatchEulerDiscreteScheduler(**SCHEDULER).save_pretrained(args.out / "scheduler")
    (args.out / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    for config in args.out.glob("*/config.json"):  # the folder trained from is of no use to others
        content = json.loads(config.read_text())
        content.pop("_name_or_path", None)
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
