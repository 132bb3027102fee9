"""Tiny FLUX and SD3 pipelines with random weights, built from configurations alone: real classes, no download."""

import string

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode


TEXT_DIM = 32


def tiny_flux(guidance: bool = True) -> FluxPipeline:
    """
    FLUX.1 with two double- and two single-stream blocks; one token is 16×16 px.

    Args:
        guidance (`bool`, *optional*, defaults to `True`):
            Guidance-distilled, as FLUX.1-dev; `False` is FLUX.1-schnell.
    """
    tokenizer, tokenizer_2 = _clip_tokenizer(), _t5_tokenizer()
    text_encoder, text_encoder_2 = _clip(CLIPTextModel, tokenizer), _t5(tokenizer_2, TEXT_DIM)
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_DIM,
        pooled_projection_dim=TEXT_DIM,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer.eval(),
    )


def tiny_sd3(dual_attention: bool = True) -> StableDiffusion3Pipeline:
    """
    Stable Diffusion 3 with three blocks; one token is 16×16 px.

    Args:
        dual_attention (`bool`, *optional*, defaults to `True`):
            The first block has a second attention and queries and keys are normalised, as in SD3.5; `False` is SD3.
    """
    tokenizer, tokenizer_3 = _clip_tokenizer(), _t5_tokenizer()
    text_encoders = [_clip(CLIPTextModelWithProjection, tokenizer) for _ in range(2)]
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * TEXT_DIM,
        caption_projection_dim=32,
        pooled_projection_dim=2 * TEXT_DIM,
        out_channels=16,
        pos_embed_max_size=24,
        dual_attention_layers=(0,) if dual_attention else (),
        qk_norm="rms_norm" if dual_attention else None,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(),
        text_encoder=text_encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=text_encoders[1],
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(tokenizer_3, 2 * TEXT_DIM),
        tokenizer_3=tokenizer_3,
    )


def _vae() -> AutoencoderKL:
    """A stride-8 autoencoder of 16 channels, with the scaling and shift of SD3's."""
    torch.manual_seed(0)
    return AutoencoderKL(
        sample_size=32,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    ).eval()


def _clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE with no merges, so any text is tokenised without loss."""
    symbols = list(bytes_to_unicode().values())
    pieces = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], model_max_length=77)


def _t5_tokenizer() -> T5TokenizerFast:
    characters = string.ascii_letters + string.digits + string.punctuation
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in characters)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def _clip(
    model_class: type[CLIPTextModel] | type[CLIPTextModelWithProjection], tokenizer: CLIPTokenizer
) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_DIM,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=TEXT_DIM,
        max_position_embeddings=77,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return model_class(config).eval()


def _t5(tokenizer: T5TokenizerFast, dim: int) -> T5EncoderModel:
    torch.manual_seed(0)
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=dim, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    ).eval()
