"""Well-known models are counted from shapes that are written down, without network."""

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel

from crosslingual.frozen.base import denoiser_part, load_config
from crosslingual.frozen.encoders import encoder_on_meta, encoder_shape
from crosslingual.frozen.shapes import count_frozen, count_parameters, pooled_width

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SD21 = "stabilityai/stable-diffusion-2-1-base"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
PIXART = "PixArt-alpha/PixArt-XL-2-512x512"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("base", "width", "pooled", "unet", "vae"),
    [
        (SD15, 768, None, 859_520_964, 83_653_863),
        (SD21, 1024, None, 865_910_724, 83_653_863),
        (SDXL, 2048, 1280, 2_567_463_684, 83_653_863),
    ],
)
def test_a_known_base_has_its_published_size(
    base: str, width: int, pooled: int | None, unet: int, vae: int
) -> None:
    config = load_config(base, "unet")
    assert config["cross_attention_dim"] == width
    assert pooled_width(config) == pooled
    assert count_parameters(config, UNet2DConditionModel.from_config) == unet
    assert count_parameters(load_config(base, "vae"), AutoencoderKL.from_config) == vae


def test_pixart_has_a_transformer_of_its_published_size() -> None:
    """0.6 B, and 4096-wide captions; the other bases have a UNet."""
    assert denoiser_part(PIXART) == "transformer" and denoiser_part(SD15) == "unet"
    assert load_config(PIXART, "transformer")["caption_channels"] == 4096
    frozen = count_frozen(PIXART, None, "FacebookAI/xlm-roberta-large", None)
    assert frozen["transformer"] == 610_856_096 and frozen["VAE"] == 83_653_863
    assert "UNet" not in frozen


def test_xlm_r_large_has_its_published_size_and_gives_77_tokens() -> None:
    assert encoder_shape("FacebookAI/xlm-roberta-large") == (1024, 77)
    assert encoder_on_meta("FacebookAI/xlm-roberta-large") == 558_840_832
