"""Miniature models with random weights for tests: Stable Diffusion, SDXL, PixArt, SD 3, FLUX, Sana,
CLIP and XLM-R in folders of the true formats, a few kilobytes each, so that the code that loads the
real ones loads them; and pictures with captions to train on.

Pictures are of 32 x 32 pixels and latents of 4 x 4; prompts have 16 tokens.
"""

import io
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from PIL import Image
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards

RESOLUTION, MAX_TOKENS, WIDTH, ENCODER_WIDTH = 32, 16, 16, 12
SD_LAYOUT = {
    "sample_size": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "cross_attention_dim": WIDTH,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
SDXL_LAYOUT = {
    **SD_LAYOUT,
    "cross_attention_dim": 2 * WIDTH,  # of both text encoders, one beside the other
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 20 + 6 * 4,
}
TEXT_LAYOUT = {
    "vocab_size": 514,
    "hidden_size": WIDTH,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": MAX_TOKENS,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}


def fill(module: nn.Module) -> nn.Module:
    """Weights from each parameter's name alone, so that no library's initialisation matters; the
    module is frozen.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            if parameter.ndim <= 1:
                parameter.fill_(1.0 if name.endswith(("weight", "logit_scale")) else 0.0)
            else:
                scale = parameter[0].numel() ** -0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval().requires_grad_(False)


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer over bytes, 514 entries."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"{c}</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=MAX_TOKENS)


def clip_text(model_class: type, **widths: int) -> nn.Module:
    """A text half of CLIP; `widths` are further entries of its config."""
    return fill(model_class(CLIPTextConfig(**TEXT_LAYOUT, **widths)))


def make_vae(**options: Any) -> nn.Module:
    """A VAE of 8 pixels a position; `options` are further entries of its config."""
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        sample_size=RESOLUTION,
        **options,
    )
    return fill(vae)


def make_t5(width: int) -> nn.Module:
    """An encoder of T5."""
    t5 = T5Config(vocab_size=514, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return fill(T5EncoderModel(t5))


def t5_tokenizer() -> T5Tokenizer:
    """T5's tokenizer over letters."""
    letters = [(chr(code), -5.0) for code in (*range(33, 127), *range(161, 384))]
    special = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    return T5Tokenizer(vocab=[*special, ("▁", -2.0), *letters], extra_ids=0, model_max_length=512)


def write_base(folder: Path, pipeline: str, **parts: Any) -> str:
    """Writes a pipeline's folder and returns it; with a VAE and DDIM's noise schedule if `parts`
    have none.
    """
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    parts = {"vae": make_vae(), "scheduler": scheduler, **parts}
    index = {}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **index}))
    return str(folder)


def write_sd(folder: Path) -> str:
    """Writes a Stable Diffusion of cross-attention width 16 and returns its folder."""
    return write_base(
        folder,
        "StableDiffusionPipeline",
        unet=fill(UNet2DConditionModel(**SD_LAYOUT)),
        text_encoder=clip_text(CLIPTextModel),
        tokenizer=clip_tokenizer(),
    )


def write_sdxl(folder: Path) -> str:
    """Writes an SDXL of cross-attention width 32 with pooled vectors of width 20 and returns its
    folder.
    """
    return write_base(
        folder,
        "StableDiffusionXLPipeline",
        unet=fill(UNet2DConditionModel(**SDXL_LAYOUT)),
        text_encoder=clip_text(CLIPTextModel),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(CLIPTextModelWithProjection, projection_dim=20),
        tokenizer_2=clip_tokenizer(),
    )


def write_encoder(folder: Path, num_layers: int = 1, max_positions: int = MAX_TOKENS + 2) -> str:
    """Writes an XLM-R of width 12 whose pieces are letters and returns its folder; two of the
    `max_positions` rows of its position table are never used.
    """
    letters = [chr(c) for c in (*range(33, 127), *range(161, 384), *range(0x4E00, 0x4E40))]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters]
    tokenizer = XLMRobertaTokenizer(
        vocab=[(piece, 0.0 if len(piece) > 2 else -5.0) for piece in pieces],
        model_max_length=MAX_TOKENS,
    )
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=ENCODER_WIDTH,
        intermediate_size=ENCODER_WIDTH,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        max_position_embeddings=max_positions,
        type_vocab_size=1,
    )
    fill(XLMRobertaModel(config, add_pooling_layer=False)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_long_encoder(folder: Path) -> str:
    """Writes the same encoder with positions for as many tokens as PixArt's and Sana's pipelines
    pad to, and returns its folder.
    """
    return write_encoder(folder, max_positions=302)


def write_pixart_sigma(folder: Path) -> str:
    """Writes the same model as `write_pixart` as a PixArt-sigma and returns its folder."""
    return write_pixart(folder, "PixArtSigmaPipeline")


def write_pixart(folder: Path, pipeline: str = "PixArtAlphaPipeline") -> str:
    """Writes a PixArt with a T5 of width 8 and returns its folder.

    Its pictures have 256 x 256 pixels where a call does not ask for smaller ones.
    """
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        sample_size=32,
        caption_channels=8,
    )
    return write_base(
        folder,
        pipeline,
        transformer=fill(transformer),
        text_encoder=make_t5(8),
        tokenizer=clip_tokenizer(),
    )


def write_sd3(folder: Path) -> str:
    """Writes an SD 3.5 with states of width 32, pooled vectors of width 16 + 20 and one layer of
    dual attention, and returns its folder.
    """
    transformer = SD3Transformer2DModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=16 + 20,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return write_base(
        folder,
        "StableDiffusion3Pipeline",
        transformer=fill(transformer),
        vae=make_vae(scaling_factor=1.5305, shift_factor=0.0609),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=clip_text(CLIPTextModelWithProjection, projection_dim=16),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(CLIPTextModelWithProjection, projection_dim=20),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=make_t5(2 * WIDTH),
        tokenizer_3=t5_tokenizer(),
    )


def write_flux(folder: Path, guidance_embeds: bool = True) -> str:
    """Writes a FLUX.1, dev or without guidance schnell, of width 16 and returns its folder."""
    transformer = FluxTransformer2DModel(
        in_channels=16,  # four positions of a latent
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
    )
    shift = {"shift": 3.0, "use_dynamic_shifting": True} if guidance_embeds else {"shift": 1.0}
    return write_base(
        folder,
        "FluxPipeline",
        transformer=fill(transformer),
        vae=make_vae(scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=FlowMatchEulerDiscreteScheduler(**shift),
        text_encoder=clip_text(CLIPTextModel),
        tokenizer=clip_tokenizer(),
        text_encoder_2=make_t5(WIDTH),
        tokenizer_2=t5_tokenizer(),
    )


def write_sana(folder: Path) -> str:
    """Writes a Sana with a Gemma of width 8, on latents of 8 x 8 pixels instead of 32 x 32, and
    returns its folder. Its pictures have 512 x 512 pixels where a call does not ask for others.
    """
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=8,
        sample_size=16,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(4, 4, 8, 8),
        decoder_block_out_channels=(4, 4, 8, 8),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), (5,)),
        decoder_qkv_multiscales=((), (), (), (5,)),
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        scaling_factor=0.41407,
    )
    gemma = Gemma2Config(
        vocab_size=128,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *map(chr, range(33, 127))]
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    return write_base(
        folder,
        "SanaPipeline",
        transformer=fill(transformer),
        vae=fill(vae),
        scheduler=DPMSolverMultistepScheduler(**flow),
        text_encoder=fill(Gemma2Model(gemma)),
        tokenizer=GemmaTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[]),
    )


def write_clip(folder: Path, width: int, vision: Mapping[str, Any]) -> str:
    """Writes a CLIP whose texts and pictures share a space of `width`, with the vision tower that
    the config entries `vision` describe, and returns its folder.
    """
    size = vision["image_size"]
    config = CLIPConfig(text_config=TEXT_LAYOUT, vision_config=vision, projection_dim=width)
    fill(CLIPModel(config)).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    crop = {"height": size, "width": size}
    CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=crop).save_pretrained(folder)
    return str(folder)


def random_picture(random: np.random.Generator) -> bytes:
    """A picture of noise as PNG."""
    buffer = io.BytesIO()
    pixels = random.integers(0, 256, (RESOLUTION, RESOLUTION, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def parallel_record(number: int, picture: bytes) -> Record:
    """A sample captioned in English, German and French."""
    texts = {"en": "house {}", "de": "ein Haus {}", "fr": "maison {}"}
    captions = {language: [text.format(number)] for language, text in texts.items()}
    return Record(f"{number:05d}", picture, captions, parallel=True)


def write_pictures(
    folder: Path, count: int, record: Callable[[int, bytes], Record] = parallel_record
) -> str:
    """Writes shards of random pictures, which `record` makes samples of; returns their folder."""
    random = np.random.default_rng(0)
    write_shards((record(number, random_picture(random)) for number in range(count)), folder)
    return str(folder)
