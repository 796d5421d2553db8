"""An exported adapter in pipelines of all kinds on its base."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from torch import Tensor

import pea
from crosslingual.adapter.text_encoder import encode_prompts
from crosslingual.frozen.base import load_pipeline
from crosslingual.frozen.encoders import load_multilingual_encoder
from pea.export import load_adapter, save_adapter
from pea.generate import load_pipeline as load_with_adapter
from pea.method import build_adapter

PROMPTS, NEGATIVE = ["ein Haus", "maison"], ["grün", "bleu"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype("uint8"))
MASK = Image.fromarray(np.pad(np.full((16, 32), 255, "uint8"), ((0, 16), (0, 0))))


def write(folder: Path, base: str, encoder: str, **changes: Any) -> str:
    """An adapter with random weights."""
    config = {"method": "pea", "variant": "published", "encoder_width": 12, "hidden_width": 24}
    config |= {"width": 16, "pooled_width": None, "rank": 4, "max_length": 16, "base": base}
    config |= {"base_revision": None, "text_encoder": encoder, "text_encoder_revision": None}
    config |= {"languages": ["de", "fr"], "guidance_scale": 2.0, "null_policy": "adapter"}
    torch.manual_seed(0)
    save_adapter(build_adapter(config | changes).state_dict(), config | changes, folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapter(sd: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("adapters") / "sd", sd, encoder)


@pytest.fixture(scope="module")
def sdxl_adapter(sdxl: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("adapters") / "sdxl"
    return write(folder, sdxl, encoder, width=32, pooled_width=20)


def embeddings(adapter: str, prompts: list[str], negative: list[str] | None) -> dict[str, Tensor]:
    """Without any pipeline."""
    module, config = load_adapter(adapter)
    encoder = load_multilingual_encoder(config["text_encoder"], None, config["max_length"])
    return encode_prompts(encoder, module, prompts, negative)


def lora(unet: torch.nn.Module) -> dict[str, Tensor]:
    """A LoRA of rank 2 on the first cross-attention, by the names that diffusers saves."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            down, up = (2, layer.in_features), (layer.out_features, 2)
            state[f"unet.{name}.lora_A.weight"] = torch.randn(down, generator=generator)
            state[f"unet.{name}.lora_B.weight"] = torch.randn(up, generator=generator)
    return state


def make(kind: str, base: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline of a kind on the base, and what it takes beside prompts."""
    pipe = load_pipeline(base)
    if kind == "img2img":
        return StableDiffusionImg2ImgPipeline(**pipe.components), {"image": [PICTURE] * 2}
    if kind == "inpaint":
        pictures = {"image": PICTURE, "mask_image": MASK}
        return StableDiffusionInpaintPipeline(**pipe.components), pictures
    if kind == "controlnet":
        torch.manual_seed(0)
        controlnet = ControlNetModel.from_unet(pipe.unet)
        controlled = StableDiffusionControlNetPipeline(**pipe.components, controlnet=controlnet)
        return controlled, {"image": [PICTURE] * 2}
    if kind == "lcm":
        pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    if kind == "lora":
        pipe.load_lora_weights(lora(pipe.unet))
    return pipe, {}


@pytest.mark.parametrize("kind", ["text2img", "img2img", "inpaint", "controlnet", "lcm", "lora"])
def test_every_pipeline_sees_the_embeddings_of_encode_prompts(
    sd: str, adapter: str, kind: str
) -> None:
    pipe, inputs = make(kind, sd)
    pipe.set_progress_bar_config(disable=True)
    assert pea.attach(pipe, adapter) is pipe
    expected = embeddings(adapter, PROMPTS, NEGATIVE)
    states, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=NEGATIVE)[:2]
    torch.testing.assert_close(states, expected["prompt_embeds"])
    torch.testing.assert_close(negative, expected["negative_prompt_embeds"])

    def draw(**prompts: Any) -> np.ndarray:
        options = {"num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "np"}
        generator = torch.Generator().manual_seed(0)
        return pipe(**prompts, **inputs, **options, generator=generator).images

    from_prompts = draw(prompt=PROMPTS, negative_prompt=NEGATIVE)
    assert from_prompts.shape == (2, 32, 32, 3) and np.isfinite(from_prompts).all()
    np.testing.assert_allclose(from_prompts, draw(**expected), atol=1e-4)
    other = draw(**{**expected, "prompt_embeds": expected["prompt_embeds"].flip(0)})
    assert np.abs(other - from_prompts).max() > 1e-3, "the prompt matters"
    if kind == "lora":
        pipe.disable_lora()
        without = draw(prompt=PROMPTS, negative_prompt=NEGATIVE)
        assert np.abs(without - from_prompts).max() > 1e-3, "the LoRA matters"


def test_sdxl_gets_states_and_pooled_vectors_and_the_empty_prompt_through_the_adapter(
    sdxl: str, sdxl_adapter: str
) -> None:
    pipe = pea.attach(load_pipeline(sdxl), sdxl_adapter)
    expected = embeddings(sdxl_adapter, PROMPTS, None)
    found = pipe.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=True)
    prefixes = ("", "negative_", "pooled_", "negative_pooled_")
    for prefix, tensor in zip(prefixes, found, strict=True):
        torch.testing.assert_close(tensor, expected[f"{prefix}prompt_embeds"])
    options = {"num_inference_steps": 2, "output_type": "np"}
    pictures = [
        pipe(**prompts, **options, generator=torch.Generator().manual_seed(0)).images
        for prompts in ({"prompt": PROMPTS}, expected)
    ]
    np.testing.assert_allclose(*pictures, atol=1e-4)


def test_load_pipeline_is_the_base_with_the_adapter_attached(sd: str, adapter: str) -> None:
    attached = pea.attach(load_pipeline(sd), adapter)
    options = {"num_inference_steps": 2, "output_type": "np"}
    pictures = [
        pipe("ein Haus", **options, generator=torch.Generator().manual_seed(0)).images
        for pipe in (attached, load_with_adapter(adapter), load_with_adapter(adapter, sd))
    ]
    assert np.array_equal(pictures[0], pictures[1]) and np.array_equal(pictures[0], pictures[2])
    assert isinstance(attached, StableDiffusionPipeline)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_pipeline_is_saved_and_loaded_by_diffusers_with_the_adapter_in_it(
    sd: str, sdxl: str, adapter: str, sdxl_adapter: str, tmp_path: Path, family: str
) -> None:
    base, folder = {"sd": (sd, adapter), "sdxl": (sdxl, sdxl_adapter)}[family]
    attached = pea.attach(load_pipeline(base), folder)
    attached.save_pretrained(tmp_path / "pipe")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "pipe")
    loaded.set_progress_bar_config(disable=True)
    assert not list((tmp_path / "pipe").rglob("*.bin"))
    pictures = [
        pipe(
            prompt=PROMPTS,
            num_inference_steps=2,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images
        for pipe in (attached, loaded)
    ]
    np.testing.assert_allclose(*pictures, atol=1e-5)


def test_a_base_of_another_family_is_refused(
    sd: str, sdxl: str, adapter: str, sdxl_adapter: str, encoder: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="states of width 16 .* takes width 32 with a pooled"):
        pea.attach(load_pipeline(sdxl), adapter)
    with pytest.raises(ValueError, match="width 32 .* takes width 16 without a pooled vector"):
        pea.attach(load_pipeline(sd), sdxl_adapter)
    wider = write(tmp_path / "wider", sd, encoder, width=24)
    with pytest.raises(ValueError, match="states of width 24 .* use the adapter's base"):
        load_with_adapter(wider)


def test_an_adapter_of_another_method_or_shape_is_refused(
    sd: str, encoder: str, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", sd, encoder, method="mulan")
    with pytest.raises(ValueError, match="an adapter of 'mulan', not of pea"):
        load_adapter(other)
    folder = Path(write(tmp_path / "narrow", sd, encoder))
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"hidden_width": 24', '"hidden_width": 20'))
    with pytest.raises(ValueError, match=r"projector.0.weight is \(24, 12\), not \(20, 12\)"):
        load_adapter(folder)
