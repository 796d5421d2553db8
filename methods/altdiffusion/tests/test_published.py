"""The authors' AltDiffusion, in the layout of its folders, as a stock pipeline."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn
from transformers import XLMRobertaConfig, XLMRobertaModel

import altdiffusion
from altdiffusion.artifact import read_config
from altdiffusion.pipeline import load_pipeline
from altdiffusion.published import import_published
from altdiffusion.settings import ImportSettings
from altdiffusion.text.encoder import load_text_encoder, unpack
from crosslingual.frozen.base import Base
from crosslingual_worlds.testing.conformance.pipelines import draw
from crosslingual_worlds.testing.fixtures import Command, succeeded
from crosslingual_worlds.testing.miniatures import MAX_TOKENS, WIDTH, fill

PROMPTS, KINDS = ["ein Haus 3", "maison 5"], ["m9", "m18"]
OLD_VAE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def text_model(encoder: str, kind: str) -> tuple[nn.Module, dict[str, Tensor], dict[str, Any]]:
    """The XLM-R, its parts and its config as FlagAI's model holds them, filled."""
    config = XLMRobertaConfig.from_pretrained(encoder, num_hidden_layers=3)
    own = fill(XLMRobertaModel(config, add_pooling_layer=True))
    parts = {
        "transformation": nn.Linear(12, WIDTH),
        "pre_LN": nn.LayerNorm(12, config.layer_norm_eps),
    }
    if kind == "m18":
        parts["transformation_pre"] = nn.Linear(12, WIDTH)
    state = {f"roberta.{name}": tensor for name, tensor in own.state_dict().items()}
    state["roberta.embeddings.position_ids"] = torch.arange(10)[None]
    for name, part in parts.items():
        nn.init.normal_(part.bias)
        state |= {f"{name}.{kind}": tensor for kind, tensor in part.state_dict().items()}
    extra = {"project_dim": WIDTH, "pooler_fn": "cls", "architectures": ["RobertaSeriesModel"]}
    return own, state, {**config.to_dict(), **extra, "has_pre_transformation": kind == "m18"}


def states_of(own: nn.Module, state: dict[str, Tensor], ids: Tensor, kind: str) -> Tensor:
    """What the authors' UNet reads."""
    hidden = own(ids, attention_mask=ids.ne(1).long(), output_hidden_states=True).hidden_states

    def linear(name: str, x: Tensor) -> Tensor:
        return nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    if kind == "m9":
        return linear("transformation", hidden[-1])
    norm = (state[f"pre_LN.{kind}"] for kind in ("weight", "bias"))
    x = nn.functional.layer_norm(hidden[-2], (12,), *norm, own.config.layer_norm_eps)
    return linear("transformation_pre", x)


def write_published(folder: Path, sd: str, encoder: str, kind: str) -> tuple[nn.Module, dict]:
    """A folder as on the hub: pickles, a text encoder and a pipeline of classes that are gone, and
    the VAE's attention by its old names.
    """
    own, state, config = text_model(encoder, kind)
    base = StableDiffusionPipeline.from_pretrained(sd, safety_checker=None)
    for name in ("unet", "vae"):
        part = getattr(base, name)
        part.save_config(folder / name)
        tensors = part.state_dict()
        for new, old in OLD_VAE.items():
            tensors = {
                n.replace(f"attentions.0.{new}.", f"attentions.0.{old}.") if name == "vae" else n: t
                for n, t in tensors.items()
            }
        torch.save(tensors, folder / name / "diffusion_pytorch_model.bin")
    base.scheduler.save_pretrained(folder / "scheduler")
    load_text = Path(encoder)
    (folder / "tokenizer").mkdir()
    for path in load_text.glob("tokenizer*"):
        (folder / "tokenizer" / path.name).write_bytes(path.read_bytes())
    (folder / "text_encoder").mkdir()
    torch.save(state, folder / "text_encoder" / "pytorch_model.bin")
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config))
    index = {"_class_name": "AltDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    index["text_encoder"] = ["alt_diffusion", "RobertaSeriesModelWithTransformation"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return own, state


@pytest.mark.parametrize("kind", KINDS)
def test_the_authors_pipeline_becomes_a_stock_one_that_draws_the_same(
    tmp_path: Path, sd: str, encoder: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / f"AltDiffusion-{kind}"
    source.mkdir()
    own, state = write_published(source, sd, encoder, kind)
    folder = import_published(ImportSettings(str(source), str(tmp_path / "stock")))
    left = "roberta.encoder.layers.2, transformation, " if kind == "m18" else "pre_LN, "
    assert f"needs it: {left}roberta.pooler, safety_checker" in capsys.readouterr().err
    assert len(read_config(folder)["languages"]) == int(kind[1:])
    pipe = StableDiffusionPipeline.from_pretrained(folder, trust_remote_code=False)
    pipe.set_progress_bar_config(disable=True)
    ids = pipe.tokenizer(
        PROMPTS, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
    ).input_ids
    expected = states_of(own, state, ids, kind)
    states = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    torch.testing.assert_close(states, expected, atol=0, rtol=0)
    bare = Base.open(sd).load_pipeline()
    theirs = {"prompt_embeds": expected, "guidance_scale": 1.0}
    np.testing.assert_allclose(
        draw(pipe, prompt=PROMPTS, guidance_scale=1.0), draw(bare, **theirs), atol=1e-5
    )

    encoder = load_text_encoder(str(folder))
    assert encoder.width == WIDTH
    packed = unpack(encoder.encode_packed(PROMPTS), MAX_TOKENS)
    torch.testing.assert_close(packed, expected, atol=1e-5, rtol=1e-5)
    again = load_pipeline(str(folder))
    np.testing.assert_allclose(draw(again, prompt=PROMPTS), draw(pipe, prompt=PROMPTS), atol=1e-5)
    attached = altdiffusion.attach(Base.open(sd).load_pipeline(), folder)
    np.testing.assert_allclose(
        draw(attached, prompt=PROMPTS), draw(pipe, prompt=PROMPTS), atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_authors_pipeline_is_imported_draws_and_attaches_by_the_commands(
    command: Command, tmp_path: Path, sd: str, encoder: str, kind: str
) -> None:
    source, stock = tmp_path / f"AltDiffusion-{kind}", tmp_path / "stock"
    source.mkdir()
    write_published(source, sd, encoder, kind)
    succeeded(command("import", input=source, output_dir=stock, guidance_scale=5))
    assert read_config(stock)["guidance_scale"] == 5.0
    drawing = {"prompt": ["ein Haus"], "height": 32, "width": 32, "num_inference_steps": 1}
    succeeded(command("generate", adapter=stock, output_dir=tmp_path / "pictures", **drawing))
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 1
    attached = altdiffusion.attach(Base.open(sd).load_pipeline(), stock)
    loaded = load_pipeline(str(stock))
    np.testing.assert_allclose(
        draw(attached, prompt=PROMPTS), draw(loaded, prompt=PROMPTS), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "kind", "num_languages"),
    [
        ("AltDiffusion", "m9", 2),
        ("AltDiffusion", "m18", 18),
        ("other", "m18", 18),
        ("other", "m9", 0),
    ],
)
def test_the_form_and_the_name_tell_the_languages(
    tmp_path: Path, sd: str, encoder: str, name: str, kind: str, num_languages: int
) -> None:
    source = tmp_path / name
    source.mkdir()
    write_published(source, sd, encoder, kind)
    folder = import_published(ImportSettings(str(source), str(tmp_path / "stock")))
    languages = read_config(folder)["languages"]
    assert len(languages) == num_languages
    assert num_languages != 2 or languages == ["en", "zh"]


@pytest.mark.parametrize(
    ("kind", "is_told", "left_out", "message"),
    [
        (
            "m9",
            True,
            "none",
            "true, and the weights lack transformation_pre.weight, tr.*_pre.bias:",
        ),
        ("m18", True, "transformation_pre.bias", "true, and the weights lack tr.*_pre.bias:"),
        ("m18", False, "none", "false, and the weights have transformation_pre.weight, tr.*bias:"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(
    tmp_path: Path, sd: str, encoder: str, kind: str, is_told: bool, left_out: str, message: str
) -> None:
    source = tmp_path / "AltDiffusion"
    source.mkdir()
    _, state = write_published(source, sd, encoder, kind)
    state.pop(left_out, None)
    torch.save(state, source / "text_encoder" / "pytorch_model.bin")
    config = json.loads((source / "text_encoder" / "config.json").read_text())
    config["has_pre_transformation"] = is_told
    (source / "text_encoder" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"has_pre_transformation {message}") as raised:
        import_published(ImportSettings(str(source), str(tmp_path / "stock")))
    assert "\n" not in str(raised.value) and not (tmp_path / "stock").exists()


class Evil:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_what_is_not_the_authors_pipeline_is_refused_in_one_line(
    tmp_path: Path, sd: str, encoder: str
) -> None:
    def brought_in(source: str, **changes: Any) -> Path:
        return import_published(ImportSettings(source, str(tmp_path / "stock"), **changes))

    with pytest.raises(ValueError, match="is a StableDiffusionPipeline, and this verb reads"):
        brought_in(sd)
    source = tmp_path / "AltDiffusion"
    source.mkdir()
    _, state = write_published(source, sd, encoder, "m18")
    with pytest.raises(FileNotFoundError, match="fp16.bin, but diffusion_pytorch_model.bin; name"):
        brought_in(str(source), variant="fp16")
    weights = source / "text_encoder" / "pytorch_model.bin"
    torch.save(
        {n: t for n, t in state.items() if n != "pre_LN.bias"} | {"odd": torch.zeros(1)}, weights
    )
    with pytest.raises(ValueError, match="missing: pre_LN.bias; unexpected: odd"):
        brought_in(str(source))
    torch.save({"odd": Evil(tmp_path / "ran")}, weights)
    with pytest.raises(ValueError, match="is not opened"):
        brought_in(str(source))
    with pytest.raises(ValueError, match="is one file, as FlagAI's own code writes it"):
        brought_in(str(weights))
    assert not (tmp_path / "ran").exists() and not (tmp_path / "stock").exists()
