"""An exported encoder in pipelines of all kinds on its base, and in stock diffusers without us."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import iap
from crosslingual.frozen.base import Base
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.pipelines import NEGATIVE, PROMPTS, draw
from iap.artifact import encoder_config, load_encoder, save_encoder
from iap.encoder import start_encoder
from iap.settings import TrainSettings


@pytest.fixture(scope="module")
def adapter(sd: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An exported encoder whose head is random, with the whole pipeline."""
    settings = TrainSettings(
        pretrained_model_name_or_path=sd, text_encoder=encoder, target_language=["de", "fr"]
    )
    config, folder = encoder_config(settings), tmp_path_factory.mktemp("exported") / "it"
    torch.manual_seed(0)
    state = start_encoder(config["altclip"], encoder, None).state_dict()
    return str(save_encoder(state, config, folder, pipeline=True))


class TestPipelines(conformance.Pipelines):
    def embeddings(
        self, adapter: str, prompts: list[str], negative: list[str]
    ) -> dict[str, Tensor]:
        """Ids and mask through the exported model."""
        model, tokenizer, config = load_encoder(adapter)

        def states(texts: list[str]) -> Tensor:
            length = config["max_length"]
            given = tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt")
            return model(given.input_ids, attention_mask=given.attention_mask).last_hidden_state

        return {"prompt_embeds": states(prompts), "negative_prompt_embeds": states(negative)}


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
    sd: str, adapter: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", STOCK, adapter, sd, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == ["AltCLIPTextModel", "XLMRobertaTokenizer", True, 16]
    pipe = iap.attach(Base.open(sd).load_pipeline(), adapter)
    ours = draw(pipe, prompt=PROMPTS, negative_prompt=NEGATIVE, num_inference_steps=4)
    for number in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{number}.npy"), ours, atol=1e-5)


def test_a_base_of_another_family_is_refused(sd: str, sdxl: str, adapter: str) -> None:
    pipe = Base.open(sd).load_pipeline()
    pipe.unet.register_to_config(cross_attention_dim=24)
    with pytest.raises(ValueError, match="states of width 16 .* takes width 24 without a pooled"):
        iap.attach(pipe, adapter)
    pooled = "takes width 32 with a pooled .* use the adapter's base"
    with pytest.raises(ValueError, match=pooled):
        iap.attach(Base.open(sdxl).load_pipeline(), adapter)
