"""Tiny pipelines of real classes with random weights, built from configurations without a download."""

import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    KolorsPipeline,
    PNDMScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode


TEXT_DIM = 32
_SMALL_LANGUAGE_MODEL = {
    "vocab_size": 512,
    "hidden_size": TEXT_DIM,
    "intermediate_size": 37,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def tiny_flux(guidance: bool = True) -> FluxPipeline:
    """
    Make a FLUX.1 with two double- and two single-stream blocks; one token is 16×16 px.

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


def tiny_flux2() -> Flux2Pipeline:
    """Make a FLUX.2-dev with two double- and two single-stream blocks; one token is 16×16 px."""
    template = (
        "{% for message in messages %}[INST]"
        "{% for part in message.content %}{{ part.text }}{% endfor %}[/INST]{% endfor %}"
    )
    tokenizer = _byte_tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"])
    # One token for each word of the system message, so that the prompt fits the length that diffusers truncates it to.
    tokenizer.add_tokens(re.findall(r" ?\w+|\W", SYSTEM_MESSAGE))
    processor = PixtralProcessor(PixtralImageProcessor(), tokenizer, chat_template=template)
    text = {**_SMALL_LANGUAGE_MODEL, "model_type": "mistral", "num_hidden_layers": 30}
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    torch.manual_seed(0)
    text_encoder = Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config={**vision, "num_attention_heads": 2, "head_dim": 8})
    )
    return Flux2Pipeline(
        scheduler=_scheduler_of_flux2(),
        vae=_vae_of_flux2(),
        text_encoder=text_encoder.eval(),
        tokenizer=processor,
        transformer=_transformer_of_flux2(guidance_embeds=True),
    )


def tiny_flux2_klein(is_distilled: bool = False) -> Flux2KleinPipeline:
    """
    Make a FLUX.2-klein, as `tiny_flux2` with another text encoder.

    Args:
        is_distilled (`bool`, *optional*, defaults to `False`):
            Says that it was distilled to few steps; `False` is FLUX.2-klein-base.
    """
    tokenizer = _byte_tokenizer(["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    torch.manual_seed(0)
    text_encoder = Qwen3ForCausalLM(Qwen3Config(**_SMALL_LANGUAGE_MODEL, num_hidden_layers=27))
    return Flux2KleinPipeline(
        scheduler=_scheduler_of_flux2(),
        vae=_vae_of_flux2(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=_transformer_of_flux2(guidance_embeds=False),
        is_distilled=is_distilled,
    )


def tiny_chroma() -> ChromaPipeline:
    """Make a Chroma with two double- and two single-stream blocks; one token is 16×16 px."""
    tokenizer = _t5_tokenizer()
    torch.manual_seed(0)
    transformer = ChromaTransformer2DModel(
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_DIM,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(),
        text_encoder=_t5(tokenizer, TEXT_DIM),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )


def tiny_sd3(dual_attention: bool = True) -> StableDiffusion3Pipeline:
    """
    Make a Stable Diffusion 3 with three blocks; one token is 16×16 px.

    Args:
        dual_attention (`bool`, *optional*, defaults to `True`):
            The first and last blocks have a second attention and queries and keys are normalised, as in SD3.5; `False`
            is SD3.
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
        dual_attention_layers=(0, 2) if dual_attention else (),
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


def tiny_qwen_image(**settings: bool | int) -> QwenImagePipeline:
    """
    Make a Qwen-Image with three blocks; one token is 16×16 px.

    Args:
        settings (`bool` or `int`): Settings of the transformer to override.
    """
    tokenizer = _byte_tokenizer(["<|im_start|>", "<|im_end|>"])
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_DIM,
        axes_dims_rope=(4, 6, 6),
        **settings,
    )
    vae = AutoencoderKLQwenImage(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    scheduler = FlowMatchEulerDiscreteScheduler(
        max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02, use_dynamic_shifting=True
    )
    pipeline = QwenImagePipeline(scheduler, vae.eval(), _qwen2_5_vl(), tokenizer, transformer.eval())
    # One token for each word of the template, so that the pipeline drops the same part of it as of the original.
    tokenizer.add_tokens(re.findall(r"\n| ?\w+|[,:]", pipeline.prompt_template_encode))
    return pipeline


def tiny_sd(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """
    Make a Stable Diffusion 1.5 with a U-Net of two levels; one latent pixel is 8×8 px.

    Args:
        prediction_type (`str`, *optional*, defaults to `"epsilon"`):
            What the U-Net is said to predict; `"v_prediction"` is Stable Diffusion 2.
    """
    tokenizer = _clip_tokenizer()
    return StableDiffusionPipeline(
        vae=_vae_of_unets(0.18215),
        text_encoder=_clip(CLIPTextModel, tokenizer),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        # As in the checkpoint.
        scheduler=PNDMScheduler(
            **_SCHEDULE_OF_UNETS, set_alpha_to_one=False, skip_prk_steps=True, prediction_type=prediction_type
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_sdxl() -> StableDiffusionXLPipeline:
    """Make an SDXL with a U-Net of two levels; one latent pixel is 8×8 px."""
    tokenizer, tokenizer_2 = _clip_tokenizer(), _clip_tokenizer()
    return StableDiffusionXLPipeline(
        vae=_vae_of_unets(0.13025),
        text_encoder=_clip(CLIPTextModel, tokenizer),
        text_encoder_2=_clip(CLIPTextModelWithProjection, tokenizer_2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=tiny_unet(
            cross_attention_dim=2 * TEXT_DIM,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + TEXT_DIM,
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(**_SCHEDULE_OF_UNETS, timestep_spacing="leading"),
        add_watermarker=False,
    )


def tiny_kolors() -> KolorsPipeline:
    """Make a Kolors without text encoder, whose prompts come as embeddings of `TEXT_DIM` channels; see `tiny_sdxl`."""
    return KolorsPipeline(
        vae=_vae_of_unets(0.13025),
        text_encoder=None,
        tokenizer=None,
        unet=tiny_unet(
            encoder_hid_dim=TEXT_DIM,
            encoder_hid_dim_type="text_proj",
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + TEXT_DIM,
        ),
        scheduler=EulerDiscreteScheduler(**_SCHEDULE_OF_UNETS, timestep_spacing="leading"),
    )


def tiny_unet(**settings: bool | int | str) -> UNet2DConditionModel:
    """
    Make a U-Net of two levels, with attention in the second.

    Args:
        settings (`bool`, `int` or `str`): Settings to override.
    """
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
        **{"cross_attention_dim": TEXT_DIM, **settings},
    ).eval()


_SCHEDULE_OF_UNETS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _vae() -> AutoencoderKL:
    """Make a stride-8 autoencoder of 16 channels, with the scaling and shift of SD3's."""
    return _stride_8_vae(
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )


def _vae_of_unets(scaling_factor: float) -> AutoencoderKL:
    """Make a stride-8 autoencoder of 4 channels."""
    return _stride_8_vae(latent_channels=4, scaling_factor=scaling_factor)


def _stride_8_vae(**settings: bool | int | float) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        sample_size=32,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **settings,
    ).eval()


def _scheduler_of_flux2() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def _transformer_of_flux2(guidance_embeds: bool) -> Flux2Transformer2DModel:
    torch.manual_seed(0)
    return Flux2Transformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * TEXT_DIM,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    ).eval()


def _vae_of_flux2() -> AutoencoderKLFlux2:
    """Make a stride-8 autoencoder of 16 channels, with statistics that differ by channel and by pixel of a token."""
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=1,
        sample_size=32,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae.eval()


def _byte_tokenizer(special: list[str]) -> Qwen2Tokenizer:
    """Make a lossless byte-level BPE tokenizer without merges, with some tokens that are not text."""
    symbols = bytes_to_unicode().values()
    tokenizer = Qwen2Tokenizer(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def _clip_tokenizer() -> CLIPTokenizer:
    """Make a lossless byte-level BPE tokenizer without merges."""
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


def _qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    text = {
        **_SMALL_LANGUAGE_MODEL,
        "num_hidden_layers": 2,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": TEXT_DIM}
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()


def save_pipelines(builders: Mapping[str, Callable[[], DiffusionPipeline]], folder: Path) -> dict[str, str]:
    """Save a pipeline of each builder into a folder of its name below `folder`, and return the folders by name."""
    for name, build in builders.items():
        build().save_pretrained(folder / name)
    return {name: str(folder / name) for name in builders}
