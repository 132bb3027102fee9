"""Tiny random Grounding DINO, SAM, SAM 2 and SAM 3 models with their processors, made without a download."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode


# Tokens that Grounding DINO refers to by id.
_BERT_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}


def tiny_grounding_dino(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """
    Save a Grounding DINO to `folder`. A word has one token per letter. `changes` override the configuration.
    """
    tokenizer = bert_tokenizer()
    processor = transformers.GroundingDinoProcessor(
        transformers.GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}), tokenizer
    )
    backbone = transformers.SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1],
        num_heads=[2, 2, 2],
        window_size=2,
        out_features=["stage2", "stage3"],
    )
    text = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    settings = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 12,
        "num_feature_levels": 2,
    }
    config = transformers.GroundingDinoConfig(backbone_config=backbone, text_config=text, **settings | changes)
    return _save(folder, transformers.GroundingDinoForObjectDetection, config, processor, seed)


def tiny_sam(folder: Path, seed: int = 0) -> Path:
    """Save a SAM to `folder`."""
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
            "mlp_dim": 32,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config=_MASK_DECODER,
    )
    square = {"height": 64, "width": 64}
    processor = transformers.SamProcessor(
        transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size=square, mask_size={"longest_edge": 16})
    )
    return _save(folder, transformers.SamModel, config, processor, seed)


def tiny_sam2(folder: Path, seed: int = 0) -> Path:
    """Save a SAM 2 to `folder`."""
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "image_size": [64, 64],
                "blocks_per_stage": [1, 2, 1, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "window_size_per_stage": [4, 2, 2, 2],
                "global_attention_blocks": [2],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "mask_input_channels": 4},
        mask_decoder_config=_MASK_DECODER,
    )
    square = {"height": 64, "width": 64}
    processor = transformers.Sam2Processor(
        transformers.Sam2ImageProcessor(size=square, mask_size={"height": 16, "width": 16})
    )
    return _save(folder, transformers.Sam2Model, config, processor, seed)


def tiny_sam3(folder: Path, seed: int = 0) -> Path:
    """Save a SAM 3 to `folder`. A word has one token per byte."""
    tokenizer = clip_tokenizer()
    heads = {"hidden_size": 32, "num_attention_heads": 2}
    layers = {"num_layers": 1, "intermediate_size": 32, "dropout": 0.0}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 56,
                "patch_size": 14,
                "window_size": 2,
                "global_attn_indexes": [1],
                "pretrain_image_size": 56,
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "projection_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        geometry_encoder_config=heads | layers,
        detr_encoder_config=heads | layers,
        detr_decoder_config=heads | layers | {"num_queries": 6},
        mask_decoder_config=heads,
    )
    square = {"height": 56, "width": 56}
    processor = transformers.Sam3Processor(
        transformers.Sam3ImageProcessor(size=square, mask_size={"height": 16, "width": 16}), tokenizer
    )
    return _save(folder, transformers.Sam3Model, config, processor, seed)


def bert_tokenizer() -> Any:
    """Make a tokenizer that splits words into letters and digits."""
    letters = string.ascii_lowercase + string.digits + "-'"
    tokens = {f"[unused{index}]": index for index in range(1100)}
    vocabulary = {index: token for token, index in tokens.items()}
    vocabulary |= {index: token for token, index in _BERT_IDS.items()}
    vocabulary |= dict(enumerate([*letters, *(f"##{letter}" for letter in letters)], 200))
    return transformers.BertTokenizer(vocab={token: index for index, token in sorted(vocabulary.items())})


def clip_tokenizer() -> Any:
    """Make a tokenizer that splits words into bytes."""
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])


_MASK_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}


def _save(folder: Path, model: Any, config: Any, processor: Any, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = model(config)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
