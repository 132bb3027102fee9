"""The generator: a FLUX of 2.8 million parameters that draws creatures from words, in the stock pipeline's classes.

    import torch
    from diffusers import FluxPipeline
    import diffusers_artifact.autoencoder  # diffusers loads parts only of what is imported
    pipe = FluxPipeline.from_pretrained("tests/benchmarks/creatures/middle", dtype=torch.float32)
    pipe("a green owl with two horns on a navy background", height=64, width=64, max_sequence_length=12)

Its texts have one token a word. `max_sequence_length` must be `MAX_TOKENS`, the length that it was trained with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from datasets_script.utils.errors import UserError
from diffusers_artifact.autoencoder import AutoencoderPCA
from tests.benchmarks.creatures.scene import SIDE
from tests.benchmarks.creatures.words import vocabulary


TOKEN = 8  # px, two latent pixels
GRID = SIDE // TOKEN
MIDDLE = Path(__file__).with_name("middle")
"""A generator with artifacts in about half of its pictures, trained by `train.py`."""
MAX_TOKENS = 12  # ten words and the end, padded to whole fours
TEXT_DIM = 64
# What every call of the stock pipeline needs beside a prompt.
CALL: dict[str, Any] = {"height": SIDE, "width": SIDE, "max_sequence_length": MAX_TOKENS}
TRANSFORMER: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 5,
    "attention_head_dim": 36,
    "num_attention_heads": 4,
    "joint_attention_dim": TEXT_DIM,
    "pooled_projection_dim": TEXT_DIM,
    "guidance_embeds": False,
    "axes_dims_rope": (4, 16, 16),
}
# The sigma grid is shifted as for a resolution of its own. Without dynamic shifting, the model would be taken for
# FLUX.1-schnell.
SHIFT = 2.0
SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_shift": log(SHIFT),
    "max_shift": log(SHIFT),
    "base_image_seq_len": 64,
    "max_image_seq_len": 4096,
    "shift": SHIFT,
}


def clip_tokenizer() -> CLIPTokenizer:
    """Make a tokenizer with a token for each word of the world and for each letter."""
    merges = _merges(vocabulary())
    letters = sorted({letter for word in vocabulary() for letter in word})
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(first + second for first, second in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, merges=merges, model_max_length=MAX_TOKENS
    )


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """
    Learn byte-pair merges until every word is one piece. `tokenizers` would choose among equally frequent pairs
    differently in each call, and weights belong to one order.
    """
    split = [(*word[:-1], f"{word[-1]}</w>") for word in words]
    merges = []
    while pairs := Counter(pair for pieces in split for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        split = [_merged(pieces, best) for pieces in split]
        merges.append(best)
    return merges


def _merged(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join a pair of neighbouring pieces wherever it occurs."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return tuple(joined)


def t5_tokenizer() -> T5TokenizerFast:
    """Make a tokenizer with a token for each word of the world."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -10.0), *((f"▁{w}", -1.0) for w in vocabulary())]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)


def _clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_DIM,
        intermediate_size=2 * TEXT_DIM,
        num_hidden_layers=1,
        num_attention_heads=4,
        projection_dim=TEXT_DIM,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _t5(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_DIM,
        d_kv=TEXT_DIM // 4,
        d_ff=2 * TEXT_DIM,
        num_layers=1,
        num_heads=4,
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)


def new_generator(vae: AutoencoderPCA, seed: int = 0) -> FluxPipeline:
    """
    Make the pipeline with random weights of transformer and text encoders.

    Args:
        vae (`AutoencoderPCA`): Autoencoder of [`autoencoder.fit_encoder`].
        seed (`int`, *optional*, defaults to 0): Seed of the weights.
    """
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=vae,
        text_encoder=_clip(tokenizer).eval(),
        tokenizer=tokenizer,
        text_encoder_2=_t5(tokenizer_2).eval(),
        tokenizer_2=tokenizer_2,
        transformer=FluxTransformer2DModel(**TRANSFORMER).eval(),
    )


TRAINED = ("transformer", "text_encoder", "text_encoder_2")
"""Components that are trained together."""


def trained_parameters(pipe: FluxPipeline) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, by component and name."""
    return {
        f"{component}.{name}": parameter
        for component in TRAINED
        for name, parameter in getattr(pipe, component).named_parameters()
    }


@dataclass(frozen=True)
class TokenIds:
    """
    Token ids of prompts.

    Args:
        clip, t5 (`torch.Tensor` of shape `(prompts, MAX_TOKENS)`): Ids for the two text encoders.
    """

    clip: torch.Tensor
    t5: torch.Tensor

    def __getitem__(self, index: torch.Tensor) -> TokenIds:
        return TokenIds(self.clip[index], self.t5[index])


def token_ids(pipe: FluxPipeline, prompts: Sequence[str]) -> TokenIds:
    """Tokenize prompts as the stock pipeline does."""

    def ids(tokenizer: Any) -> torch.Tensor:
        options = {"padding": "max_length", "max_length": MAX_TOKENS, "truncation": True, "return_tensors": "pt"}
        return tokenizer(list(prompts), **options).input_ids

    return TokenIds(ids(pipe.tokenizer), ids(pipe.tokenizer_2))


def velocity(pipe: FluxPipeline, tokens: torch.Tensor, time: torch.Tensor, ids: TokenIds) -> torch.Tensor:
    """
    Evaluate text encoders and transformer, with gradients.

    Args:
        pipe (`FluxPipeline`): Pipeline of [`new_generator`].
        tokens (`torch.Tensor` of shape `(batch, GRID * GRID, channels)`): Noisy latents, packed.
        time (`torch.Tensor` of shape `(batch,)`): Times in [0, 1], 1 for pure noise.
        ids (`TokenIds`): Token ids of as many prompts.
    """
    return pipe.transformer(
        hidden_states=tokens,
        timestep=time,
        img_ids=position_ids(GRID),
        txt_ids=torch.zeros(MAX_TOKENS, 3),
        encoder_hidden_states=pipe.text_encoder_2(ids.t5)[0],
        pooled_projections=pipe.text_encoder(ids.clip).pooler_output,
        return_dict=False,
    )[0]


def position_ids(side: int) -> torch.Tensor:
    """Return the position ids of all tokens, of shape `(side * side, 3)`, as `FluxPipeline` makes them."""
    rows, columns = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


@torch.no_grad()
def encode_tokens(vae: AutoencoderPCA, images: torch.Tensor) -> torch.Tensor:
    """
    Encode images, and pack the latents as `FluxPipeline` does.

    Args:
        vae (`AutoencoderPCA`): Autoencoder.
        images (`torch.Tensor` of shape `(batch, 3, 64, 64)`): Images in [-1, 1].

    Returns:
        `torch.Tensor` of shape `(batch, GRID * GRID, 4 * latent_channels)`.
    """
    latents = vae.encode(images, return_dict=False)[0].mode()
    return FluxPipeline._pack_latents(latents, *latents.shape)


def load_generator(folder: Path) -> FluxPipeline:
    """
    Load a generator that `export.py` wrote into the stock pipeline, in float32.

    Raises:
        UserError: The folder holds no pipeline.
    """
    if not (folder / "model_index.json").is_file():
        raise UserError(f"the generator must be a folder that export.py wrote, got '{folder}'")
    pipe = FluxPipeline.from_pretrained(folder).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(
    pipe: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int], steps: int = 28, batch: int = 32, **options: Any
) -> list[Image.Image]:
    """
    Draw a picture of each prompt with the stock pipeline, from noise of its own seed.

    Args:
        pipe (`FluxPipeline`): Pipeline of the generator.
        prompts (`Sequence[str]`): Prompts.
        seeds (`Sequence[int]`): A seed for each.
        steps (`int`, *optional*, defaults to 28): Number of steps.
        batch (`int`, *optional*, defaults to 32): Pictures drawn at a time; the noise does not depend on it.
        options: Further arguments of each call, such as `callback_on_step_end`.
    """
    drawn: list[Image.Image] = []
    for first in range(0, len(prompts), batch):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[first : first + batch]]
        drawn += pipe(
            list(prompts[first : first + batch]),
            **CALL,
            num_inference_steps=steps,
            generator=generators,
            **options,
        ).images
    return drawn
