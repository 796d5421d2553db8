"""The embedded models: small enough for the package, and read by the ordinary loaders."""

import torch
from PIL import Image

from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.frozen.weights import load_frozen, resolve
from crosslingual_worlds.drawn import WEIGHTS as TESTBED_WEIGHTS
from crosslingual_worlds.drawn.evaluation import EVALUATION
from crosslingual_worlds.drawn.world import RESOLUTION, sample_scenes
from crosslingual_worlds.evaluation import text_accuracy


def test_they_take_at_most_30_mib_together_and_sd3_11_mb_more() -> None:
    files = [path for path in TESTBED_WEIGHTS.rglob("*") if path.is_file()]
    of_sd3 = sum(p.stat().st_size for p in files if p.is_relative_to(TESTBED_WEIGHTS / "sd3"))
    assert of_sd3 <= 11_000_000
    assert sum(path.stat().st_size for path in files) - of_sd3 <= 30 * 2**20
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_the_diffusion_base_loads_strictly_and_fits_together() -> None:
    base = Base.open("testbed:sd")
    unet, vae = base.load_model(), base.load_vae(torch.device("cpu"))
    picture = torch.zeros(1, 3, RESOLUTION, RESOLUTION)
    with torch.no_grad():
        latents = vae.encode(picture).latent_dist.mode()
        text = torch.zeros(1, 4, unet.config.cross_attention_dim)
        noise = unet(latents, torch.tensor([10]), encoder_hidden_states=text).sample
        decoded = vae.decode(latents).sample
    assert (noise.shape, decoded.shape) == (latents.shape, picture.shape)
    assert noise.isfinite().all() and decoded.isfinite().all()
    assert not any(part.requires_grad for model in (unet, vae) for part in model.parameters())


def test_sd3_draws_what_english_prompts_say() -> None:
    pipe = Base.open("testbed:sd3").load_pipeline()
    judged = EVALUATION.judge_prompts(pipe, sample_scenes("val", 8, seed=3), "en")
    assert text_accuracy(judged) >= 0.75


def test_the_multilingual_encoder_loads_strictly() -> None:
    encoder = load_multilingual_encoder("testbed:xlm-r")
    states, mask = encoder.encode(["一颗红色的大五角星", "ein großer roter Stern"])
    assert states.shape == (2, encoder.max_length, encoder.width)
    assert states.isfinite().all()
    assert (mask.sum(dim=1) > 2).all()


def test_clip_loads_strictly_and_embeds_pictures_and_english() -> None:
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    clip = load_frozen(CLIPModel, "testbed:clip")
    tokens = AutoTokenizer.from_pretrained(resolve("testbed:clip"))
    processor = CLIPImageProcessor.from_pretrained(resolve("testbed:clip"))
    paper = Image.new("RGB", (RESOLUTION, RESOLUTION), "white")
    with torch.no_grad():
        answer = clip(
            **tokens(["a big red star"], return_tensors="pt"),
            **processor(paper, return_tensors="pt"),
        )
    assert answer.text_embeds.shape == answer.image_embeds.shape
    assert answer.logits_per_image.isfinite().all()
