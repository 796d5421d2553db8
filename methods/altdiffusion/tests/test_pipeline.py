"""An exported pipeline in stock diffusers, without this package; its text encoder in pipelines of
other kinds; and what would make it draw something else.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from transformers import XLMRobertaConfig, XLMRobertaForTokenClassification

import altdiffusion
from altdiffusion.pipeline import load_pipeline
from altdiffusion.text.encoder import load_text_encoder, unpack
from crosslingual.adapter.pipeline import set_text_encoder
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.pipelines import check_weights_of_words, draw
from crosslingual_worlds.testing.fixtures import Command, succeeded
from crosslingual_worlds.testing.host import unchanged_host

STOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("altdiffusion", "crosslingual"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
try:
    import altdiffusion
except ImportError:
    pass
else:
    sys.exit("nothing is blocked")

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=False)
pipe.set_progress_bar_config(disable=True)
print(type(pipe.text_encoder).__name__, type(pipe.tokenizer).__name__)
pictures = pipe(
    ["ein Haus 3", "maison 5"],
    num_inference_steps=3,
    guidance_scale=2.0,
    generator=torch.Generator().manual_seed(0),
    output_type="np",
).images
np.save(sys.argv[2], pictures)
"""
PROMPTS = ["ein Haus 3", "maison 5"]


def pictures(pipe: Any, **changes: Any) -> np.ndarray:
    return draw(pipe, prompt=PROMPTS, **changes)


@pytest.fixture(scope="module")
def pipeline(
    command: Command, recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A pipeline whose every stage-2 weight was trained a little."""
    run = tmp_path_factory.mktemp("pipeline") / "run"
    settings = {**recipe, "stage": "quality_improvement", "max_train_steps": 2}
    succeeded(command("train", output_dir=run, **settings))
    return str(run / "pipeline")


def test_stock_diffusers_draws_the_same_pictures_without_this_package(
    pipeline: str, tmp_path: Path
) -> None:
    place = tmp_path / "pictures.npy"
    done = subprocess.run(
        [sys.executable, "-c", STOCK, pipeline, str(place)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["AltCLIPTextModel", "XLMRobertaTokenizer"]
    ours = pictures(load_pipeline(pipeline))
    np.testing.assert_allclose(np.load(place), ours, atol=1e-5)
    assert np.abs(pictures(load_pipeline(pipeline), guidance_scale=4.0) - ours).max() > 1e-3
    index = json.loads((Path(pipeline) / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["text_encoder"] == ["transformers", "AltCLIPTextModel"]
    assert index["tokenizer"] == ["transformers", "XLMRobertaTokenizer"]


def test_library_calls_leave_the_host_program_as_it_found_it(
    pipeline: str, student: str, sd: str
) -> None:
    load_pipeline(pipeline)
    with unchanged_host():
        load_pipeline(pipeline)
    pipe = StableDiffusionPipeline.from_pretrained(sd)
    with unchanged_host():
        altdiffusion.attach(pipe, student)
    with unchanged_host(), pytest.raises((FileNotFoundError, ValueError)):
        altdiffusion.attach(pipe, "no/such/encoder")


def test_a_loaded_pipeline_says_what_its_text_encoder_cannot_do(pipeline: str) -> None:
    with pytest.raises(ValueError, match="leave out clip_skip"):
        pictures(load_pipeline(pipeline), clip_skip=1)


def test_the_snippet_of_the_model_card_runs(pipeline: str, tmp_path: Path) -> None:
    conformance.Pipelines().test_the_snippet_of_the_model_card_runs(pipeline, tmp_path)


def test_stock_diffusers_encodes_prompts_as_training_did(pipeline: str, student: str) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(pipeline)
    states, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
    encoder = load_text_encoder(student)
    expected = unpack(encoder.encode_packed(PROMPTS), encoder.max_length)
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)
    null = unpack(encoder.encode_packed([""]), encoder.max_length).expand(2, -1, -1)
    torch.testing.assert_close(negative, null, rtol=1e-4, atol=1e-5)


def test_without_the_mask_flag_the_padding_would_be_read(pipeline: str) -> None:
    config = json.loads((Path(pipeline) / "text_encoder" / "config.json").read_text())
    assert config["use_attention_mask"] is True
    pipe = StableDiffusionPipeline.from_pretrained(pipeline)
    right = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    pipe.text_encoder.config.use_attention_mask = False
    wrong = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    assert (right - wrong).abs().max() > 1e-2


def test_the_tokenizer_says_how_many_tokens_the_unet_sees(
    command: Command, recipe: dict[str, Any], shards: str, tmp_path: Path
) -> None:
    """Saved with the pipeline; without it, stock pipelines would pad to the encoder's limit."""
    settings = {**recipe, "train_data": shards, "max_length": 11, "max_train_steps": 1}
    succeeded(command("train", output_dir=tmp_path / "run", **settings))
    folder = tmp_path / "run" / "pipeline"
    tokens = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    assert tokens["model_max_length"] == 11
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    assert pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0].shape == (2, 11, 16)


def test_half_precision_is_a_choice_of_export(
    command: Command, pipeline: str, tmp_path: Path
) -> None:
    run = Path(pipeline).parent
    succeeded(command("export", checkpoint=run, output_dir=tmp_path / "half", dtype="fp16"))
    name = "unet/diffusion_pytorch_model.safetensors"
    half, full = load_file(tmp_path / "half" / name), load_file(Path(pipeline) / name)
    assert all(torch.equal(half[key], tensor.half()) for key, tensor in full.items())
    names = ("text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors")
    for part in names:
        assert {t.dtype for t in load_file(tmp_path / "half" / part).values()} == {torch.float16}


def test_lora_is_merged_and_its_file_gives_the_same_pictures_on_the_base(
    command: Command, recipe: dict[str, Any], student: str, sd: str, tmp_path: Path
) -> None:
    settings = {**recipe, "lora_rank": 2, "max_train_steps": 3, "learning_rate": 0.1}
    succeeded(command("train", output_dir=tmp_path / "run", **settings))
    folder = tmp_path / "run" / "pipeline"
    before = load_file(Path(sd) / "unet/diffusion_pytorch_model.safetensors")
    after = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {n for n in before if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    ranks = {torch.linalg.matrix_rank(after[n] - before[n], atol=1e-5).item() for n in moved}
    assert ranks == {2}
    base = altdiffusion.attach(Base.open(sd).load_pipeline(), student)
    without = pictures(base)
    base.load_lora_weights(folder / "lora")
    np.testing.assert_allclose(pictures(base), pictures(load_pipeline(str(folder))), atol=1e-4)
    assert np.abs(pictures(base) - without).max() > 1e-3
    saved = torch.load(
        tmp_path / "run" / "checkpoint-3" / "deepspeed" / "mp_rank_00_model_states.pt"
    )
    assert all("lora_" in name for name in saved["module"])


def test_the_text_encoder_alone_goes_into_other_pipelines(pipeline: str, student: str) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(pipeline)
    expected = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype("uint8")
    )
    parts = Base.open(pipeline).load_pipeline().components
    whole = StableDiffusionImg2ImgPipeline(**parts)
    bare = StableDiffusionImg2ImgPipeline(**{**parts, "text_encoder": None, "tokenizer": None})
    assert altdiffusion.attach(bare, student) is bare
    torch.testing.assert_close(bare.encode_prompt(PROMPTS, "cpu", 1, False)[0], expected)
    drawn = [pictures(p, image=[picture] * 2, num_inference_steps=4) for p in (whole, bare)]
    assert np.array_equal(*drawn)


def test_compel_weighs_words_after_attach_whatever_the_encoder_calls_its_states(
    sd: str, student: str, encoder: str
) -> None:
    """m9's text encoder is an XLM-R for token classification, whose states are `logits`."""
    check_weights_of_words(altdiffusion.attach(Base.open(sd).load_pipeline(), student))
    loaded = load_multilingual_encoder(encoder)
    width = Base.open(sd).text.width
    config = XLMRobertaConfig(**{**loaded.model.config.to_dict(), "num_labels": width})
    torch.manual_seed(0)
    m9 = XLMRobertaForTokenClassification(config).eval()
    pipe = Base.open(sd).load_pipeline()
    check_weights_of_words(set_text_encoder(pipe, m9, loaded.tokenizer, width=width))


def test_a_unet_of_another_width_and_another_base_are_refused(
    pipeline: str, encoder: str, sd: str, tmp_path: Path
) -> None:
    from altdiffusion.text.encoder import build_student, save_text_encoder

    save_text_encoder(build_student(encoder, 20), tmp_path / "wide")
    with pytest.raises(
        ValueError, match="states of width 20 .* takes width 16 .*: use the adapter"
    ):
        altdiffusion.attach(Base.open(sd).load_pipeline(), tmp_path / "wide")
    with pytest.raises(ValueError, match="is a whole pipeline, made of .*: leave out another base"):
        load_pipeline(pipeline, "testbed:sd")
    with pytest.raises(FileNotFoundError, match="no altdiffusion.json in"):
        load_pipeline(sd)
    assert load_pipeline(pipeline, sd).unet.config.cross_attention_dim == 16
