"""Well-known models are counted from shapes that are written down, without network."""

import pytest

from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import encoder_on_meta, encoder_shape, existing_encoder
from crosslingual.frozen.shapes import published_shape

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SD21 = "stabilityai/stable-diffusion-2-1-base"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
PIXART = "PixArt-alpha/PixArt-XL-2-512x512"
SD35 = "stabilityai/stable-diffusion-3.5-medium"
FLUX = "black-forest-labs/FLUX.1-dev"
SANA = "Efficient-Large-Model/Sana_1600M_1024px_diffusers"
LARGE = "FacebookAI/xlm-roberta-large"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("base", "family", "text", "denoiser", "vae", "latents"),
    [
        (SD35, "sd3", (4096, 2048, 333), 2_243_171_520, 83_819_683, (16, 1.5305, 0.0609, 8)),
        (FLUX, "flux", (4096, 768, 512), 11_901_408_320, 83_819_683, (16, 0.3611, 0.1159, 8)),
        (SANA, "sana", (2304, None, 300), 1_604_462_752, 312_250_275, (32, 0.41407, 0.0, 32)),
    ],
)
def test_bases_of_flow_matching_have_their_published_sizes(
    base: str, family: str, text: tuple, denoiser: int, vae: int, latents: tuple
) -> None:
    """The positions of SD 3.5's grid, 226 M numbers, are no parameters."""
    opened = Base.open(base)
    assert opened.family.name == family and opened.text[:3] == text
    assert opened.count_parameters() == {"denoiser": denoiser, "vae": vae}
    assert opened.latents == latents


@pytest.mark.parametrize(
    ("base", "family", "width", "pooled", "denoiser", "scale"),
    [
        (SD15, "sd", 768, None, 859_520_964, 0.18215),
        (SD21, "sd", 1024, None, 865_910_724, 0.18215),
        (SDXL, "sdxl", 2048, 1280, 2_567_463_684, 0.13025),
        (PIXART, "pixart", 4096, None, 610_856_096, 0.18215),
    ],
)
def test_a_known_base_has_its_published_size(
    base: str, family: str, width: int, pooled: int | None, denoiser: int, scale: float
) -> None:
    opened = Base.open(base)
    assert opened.family.name == family
    assert (opened.text.width, opened.text.pooled_width) == (width, pooled)
    assert opened.count_parameters() == {"denoiser": denoiser, "vae": 83_653_863}
    assert opened.latents == (4, scale, 0.0, 8)
    assert not opened.process.predicts_velocity


def test_known_bases_say_how_prompts_reach_them() -> None:
    """PixArt's captions are 4096 wide and pass a projection; SDXL's come from two encoders."""
    assert Base.open(PIXART).denoiser_config["caption_channels"] == 4096
    assert Base.open(PIXART).text[2:] == (120, 1152, (4096,), True, None)
    assert Base.open(SDXL).text[2:] == (77, 2048, (768, 1280), False, (2816, 1280))
    assert Base.open(SD15).text[2:] == (77, 768, (768,), False, None)


def test_xlm_r_large_has_its_published_size_and_gives_77_tokens() -> None:
    assert encoder_shape(LARGE) == (1024, 77)
    assert encoder_on_meta(LARGE) == 558_840_832
    assert published_shape(LARGE, "tokenizer") == {"model_max_length": 512}


@pytest.mark.parametrize(
    ("encoder", "width", "length", "parameters"),
    [
        ("encoders/OFA-Sys/chinese-clip-vit-huge-patch14", 1024, 52, 324_472_832),
        (
            "encoders/laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k",
            1024,
            77,
            558_840_832,
        ),
        ("encoders/laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k", 768, 77, 277_453_056),
        ("encoders/google/mt5-large", 1024, 77, 564_446_720),
        ("encoders/google/byt5-xxl", 4672, 77, 8_990_317_632),
        ("encoders/OpenGVLab/InternVL-14B-224px", 4096, 77, 6_680_883_200),
        ("Qwen/Qwen3-Embedding-0.6B", 1024, 77, 595_776_512),
        ("setu4993/LaBSE", 768, 77, 470_336_256),
    ],
)
def test_encoders_trained_with_pictures_and_large_ones_have_their_published_sizes(
    encoder: str, width: int, length: int, parameters: int
) -> None:
    assert encoder_shape(encoder) == (width, length)
    assert encoder_on_meta(encoder) == parameters


def test_an_encoder_that_is_not_made_yet_is_counted_by_the_one_it_starts_from() -> None:
    assert existing_encoder("runs/stage-1/encoder", LARGE) == LARGE
    assert existing_encoder("testbed:xlm-r", LARGE) == "testbed:xlm-r"
    assert existing_encoder("runs/stage-1/encoder", None) == "runs/stage-1/encoder"
