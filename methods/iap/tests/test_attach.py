"""An exported encoder in pipelines of all kinds on its base, and in stock diffusers without us."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from PIL import Image
from torch import Tensor

import iap
from crosslingual.frozen.base import load_pipeline
from iap.config import TrainSettings
from iap.encoder import start_encoder
from iap.export import load_encoder, save_encoder
from iap.generate import load_pipeline as load_with_encoder
from iap.info import encoder_config

PROMPTS, NEGATIVE = ["ein Haus", "maison"], ["grün", "bleu"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype("uint8"))
MASK = Image.fromarray(np.pad(np.full((16, 32), 255, "uint8"), ((0, 16), (0, 0))))


def write(folder: Path, base: str, encoder: str, **changes: Any) -> str:
    """An exported encoder whose head is random, with the whole pipeline."""
    settings = TrainSettings(
        pretrained_model_name_or_path=base, text_encoder=encoder, target_language=["de", "fr"]
    )
    config = encoder_config(settings) | changes
    torch.manual_seed(0)
    state = start_encoder(config["altclip"], encoder, None).state_dict()
    save_encoder(state, config, folder, pipeline=True)
    return str(folder)


@pytest.fixture(scope="module")
def exported(sd: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("exported") / "it", sd, encoder)


def draw(pipe: Any, **inputs: Any) -> np.ndarray:
    options = {"num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "np"}
    generator = torch.Generator().manual_seed(0)
    return pipe(**inputs, **options, generator=generator).images


STOCK = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("iap", "crosslingual"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy, torch
from diffusers import StableDiffusionPipeline
from transformers import AltCLIPTextModel, XLMRobertaTokenizer

folder, base, out = sys.argv[1:]
whole = StableDiffusionPipeline.from_pretrained(f"{folder}/pipeline")
parts = StableDiffusionPipeline.from_pretrained(
    base,
    text_encoder=AltCLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
    tokenizer=XLMRobertaTokenizer.from_pretrained(folder, subfolder="tokenizer"),
)
prompts = {"prompt": ["ein Haus", "maison"], "negative_prompt": ["grün", "bleu"]}
options = {"num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "np"}
for number, pipe in enumerate((whole, parts)):
    generator = torch.Generator().manual_seed(0)
    numpy.save(f"{out}/{number}.npy", pipe(**prompts, **options, generator=generator).images)
assert not {"iap", "crosslingual"} & set(sys.modules)
kinds = [type(whole.text_encoder).__name__, type(whole.tokenizer).__name__]
print(json.dumps([*kinds, whole.text_encoder.config.use_attention_mask,
                  whole.tokenizer.model_max_length]))
"""


def test_stock_diffusers_loads_it_without_this_package_and_draws_the_same(
    sd: str, exported: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", STOCK, exported, sd, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == ["AltCLIPTextModel", "XLMRobertaTokenizer", True, 16]
    ours = draw(iap.attach(load_pipeline(sd), exported), prompt=PROMPTS, negative_prompt=NEGATIVE)
    for number in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{number}.npy"), ours, atol=1e-5)


def embeddings(folder: str, prompts: list[str]) -> Tensor:
    """Without any pipeline: ids and mask through the exported model."""
    model, tokenizer, config = load_encoder(folder)
    given = tokenizer(
        prompts, padding="max_length", max_length=config["max_length"], return_tensors="pt"
    )
    return model(given.input_ids, attention_mask=given.attention_mask).last_hidden_state


def lora(unet: torch.nn.Module) -> dict[str, Tensor]:
    """A LoRA of rank 2 on the cross-attentions, by the names that diffusers saves."""
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
def test_every_pipeline_sees_the_encoders_states(sd: str, exported: str, kind: str) -> None:
    pipe, inputs = make(kind, sd)
    pipe.set_progress_bar_config(disable=True)
    assert iap.attach(pipe, exported) is pipe
    states, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=NEGATIVE)[:2]
    torch.testing.assert_close(states, embeddings(exported, PROMPTS))
    torch.testing.assert_close(negative, embeddings(exported, NEGATIVE))
    pictures = draw(pipe, prompt=PROMPTS, negative_prompt=NEGATIVE, **inputs)
    assert pictures.shape == (2, 32, 32, 3) and np.isfinite(pictures).all()
    embeds = {"prompt_embeds": states, "negative_prompt_embeds": negative}
    np.testing.assert_allclose(pictures, draw(pipe, **embeds, **inputs), atol=1e-4)
    other = draw(pipe, **{**embeds, "prompt_embeds": states.flip(0)}, **inputs)
    assert np.abs(other - pictures).max() > 1e-3, "the prompt matters"


def test_load_pipeline_is_the_base_with_the_encoder_attached(sd: str, exported: str) -> None:
    attached = iap.attach(load_pipeline(sd), exported)
    pipes = (load_with_encoder(exported), load_with_encoder(exported, sd))
    expected = draw(attached, prompt="ein Haus")
    assert all(np.array_equal(draw(pipe, prompt="ein Haus"), expected) for pipe in pipes)


def test_a_base_of_another_family_is_refused(
    sd: str, encoder: str, exported: str, tmp_path: Path
) -> None:
    pipe = load_pipeline(sd)
    pipe.unet.register_to_config(cross_attention_dim=24)
    with pytest.raises(ValueError, match="states of width 16 .* takes width 24 without a pooled"):
        iap.attach(pipe, exported)
    pipe.unet.register_to_config(cross_attention_dim=16, addition_embed_type="text_time")
    with pytest.raises(ValueError, match="takes width 16 with a pooled .* use the encoder's base"):
        iap.attach(pipe, exported)


def test_an_export_of_another_method_is_refused(sd: str, encoder: str, tmp_path: Path) -> None:
    other = write(tmp_path / "other", sd, encoder, method="mulan")
    with pytest.raises(ValueError, match="an adapter of 'mulan', not of iap"):
        load_encoder(other)
