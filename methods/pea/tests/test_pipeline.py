"""An exported adapter in pipelines of all kinds on its base."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor, nn

import pea
from crosslingual.adapter.pipeline import encode_prompts
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.frozen.families import call_options
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.pipelines import PROMPTS, draw, lora
from crosslingual_worlds.testing.miniatures import make_t5, t5_tokenizer
from pea.artifact import adapter_config, load_adapter, save_adapter
from pea.method import build_adapter
from pea.pipeline import load_pipeline as load_with_adapter
from pea.published import import_published
from pea.settings import ImportSettings, TrainSettings


def write(folder: Path, base: str, encoder: str, **changes: Any) -> str:
    """An adapter with random weights."""
    config = {
        "method": "pea",
        "variant": "published",
        "encoder_width": 12,
        "hidden_width": 24,
    }
    config |= {
        "width": 16,
        "pooled_width": None,
        "rank": 4,
        "max_length": 16,
        "base": base,
    }
    config |= {
        "base_revision": None,
        "text_encoder": encoder,
        "text_encoder_revision": None,
    }
    config |= {
        "languages": ["de", "fr"],
        "guidance_scale": 2.0,
        "null_policy": "adapter",
    }
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


class TestPipelines(conformance.Pipelines):
    families = {"sd": "adapter", "sdxl": "sdxl_adapter"}

    def embeddings(
        self, adapter: str, prompts: list[str], negative: list[str] | None
    ) -> dict[str, Tensor]:
        return embeddings(adapter, prompts, negative)


def test_sdxl_gets_states_and_pooled_vectors_and_the_empty_prompt_through_the_adapter(
    sdxl: str, sdxl_adapter: str
) -> None:
    pipe = pea.attach(Base.open(sdxl).load_pipeline(), sdxl_adapter)
    expected = embeddings(sdxl_adapter, PROMPTS, None)
    found = pipe.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=True)
    prefixes = ("", "negative_", "pooled_", "negative_pooled_")
    for prefix, tensor in zip(prefixes, found, strict=True):
        torch.testing.assert_close(tensor, expected[f"{prefix}prompt_embeds"])
    np.testing.assert_allclose(draw(pipe, prompt=PROMPTS), draw(pipe, **expected), atol=1e-4)


def test_a_base_of_another_family_is_refused(
    sd: str, sdxl: str, adapter: str, sdxl_adapter: str, encoder: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="states of width 16 .* takes width 32 with a pooled"):
        pea.attach(Base.open(sdxl).load_pipeline(), adapter)
    with pytest.raises(ValueError, match="width 32 .* takes width 16 without a pooled vector"):
        pea.attach(Base.open(sd).load_pipeline(), sdxl_adapter)
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
    (folder / "crosslingual.json").unlink()  # as from an earlier version: a file changes here
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"hidden_width": 24', '"hidden_width": 20'))
    with pytest.raises(ValueError, match=r"projector.0.weight is \(24, 12\), not \(20, 12\)"):
        load_adapter(folder)


def test_on_flow_matching_the_drop_in_has_the_denoisers_dtype(
    sd3: str, encoder: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "sd3", sd3, encoder, width=32, pooled_width=36)
    pipe = Base.open(sd3).load_pipeline(torch.bfloat16)
    pictures = draw(pea.attach(pipe, folder), prompt=PROMPTS, height=32, width=32)
    assert pipe.text_encoder_3.dtype == torch.bfloat16 and np.isfinite(pictures).all()
    assert pipe.tokenizer_max_length == 16


def test_what_overflows_in_fp16_stays_in_fp32(sd: str, tmp_path: Path) -> None:
    """As transformers loads a T5; `to` would cast it."""
    make_t5(12).save_pretrained(tmp_path / "t5")
    t5_tokenizer().save_pretrained(tmp_path / "t5")
    folder = write(tmp_path / "adapter", sd, str(tmp_path / "t5"))
    pipe = pea.attach(Base.open(sd).load_pipeline(torch.float16), folder)
    states = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    assert states.dtype == torch.float16 and states.isfinite().all()
    names = {n for n, p in pipe.text_encoder.named_parameters() if p.dtype == torch.float32}
    assert names and all(name.endswith("wo.weight") for name in names)


@pytest.mark.parametrize(("base", "widths"), [("flux", (16, 16)), ("sd3", (32, 36))])
def test_files_of_the_released_flux_form_give_stock_pipelines_what_their_users_compute(
    request: pytest.FixtureRequest, tmp_path: Path, base: str, widths: tuple[int, int]
) -> None:
    """ByT5 gets no mask, T5's slot the projector's output after a GELU, and CLIP's the mean of fc;
    on an SD 3 too, for which the authors released another one.
    """
    t5, tokenizer = make_t5(12), t5_tokenizer()
    t5.save_pretrained(tmp_path / "t5"), tokenizer.save_pretrained(tmp_path / "t5")
    layers = [nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, widths[0])]
    norm, fc = nn.LayerNorm(12), nn.Linear(*widths)
    state = {f"projector.{2 * n}.weight": layer.weight for n, layer in enumerate(layers)}
    state |= {f"layernorm.{n}": t for n, t in norm.state_dict().items()}
    torch.save(state | {f"fc.{n}": t for n, t in fc.state_dict().items()}, tmp_path / "proj.bin")
    given = {"state_dict": str(tmp_path / "proj.bin"), "output_dir": str(tmp_path / "adapter")}
    folder = request.getfixturevalue(base)
    given |= {"pretrained_model_name_or_path": folder, "text_encoder": str(tmp_path / "t5")}
    pipe = load_with_adapter(str(import_published(ImportSettings(**given, max_length=20))))

    ids = tokenizer(PROMPTS, padding="max_length", max_length=20, return_tensors="pt").input_ids
    x = norm(t5(ids).last_hidden_state)
    for layer in layers:
        x = F.gelu(F.linear(x, layer.weight))
    found = pipe.encode_prompt(PROMPTS, None, **{} if base == "flux" else {"prompt_3": None})
    states, pooled = found[0], found[1 if base == "flux" else 2]
    torch.testing.assert_close(states, x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, fc(x).mean(1), atol=1e-5, rtol=1e-5)
    assert draw(pipe, prompt=PROMPTS).std() > 0


def test_a_file_for_another_base_is_not_imported(sdxl: str, tmp_path: Path) -> None:
    adapter = build_adapter(
        {"variant": "published", "encoder_width": 12, "hidden_width": 8, "width": 32}
        | {"pooled_width": 16, "pooled_from": "states"}
    )
    torch.save(adapter.state_dict(), tmp_path / "flux.bin")
    given = {"state_dict": str(tmp_path / "flux.bin"), "output_dir": str(tmp_path / "adapter")}
    given |= {"pretrained_model_name_or_path": sdxl, "text_encoder": "a/byt5"}
    with pytest.raises(ValueError, match="family sdxl, the file gives states of width 16 and a p"):
        import_published(ImportSettings(**given))


def test_an_adapted_pixart_reads_prompts_without_cleaning_them(
    pixart: str, long_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own default deletes Chinese characters where bs4 and ftfy are installed."""
    module = sys.modules[diffusers.PixArtAlphaPipeline.__module__]
    for name in ("is_bs4_available", "is_ftfy_available"):
        monkeypatch.setattr(module, name, lambda: True)
    monkeypatch.setattr(
        diffusers.PixArtAlphaPipeline, "_clean_caption", lambda _, text: text.strip("蓝天")
    )
    pipe = Base.open(pixart).load_pipeline()
    read = []
    pea.attach(pipe, write(tmp_path / "pixart", pixart, long_encoder, width=8))
    tokenizer = pipe.tokenizer

    def tokenize(texts: list[str], **options: Any) -> Any:
        read.append(texts)
        return tokenizer(texts, **options)

    pipe.tokenizer = tokenize
    draw(pipe, prompt=["蓝天 A"], negative_prompt=["蓝"], **SANA)
    pipe.encode_prompt("天 B", False, clean_caption=True)
    assert {text for (text,) in read} == {"蓝天 a", "蓝", "天 b"}


def test_sanas_english_instruction_is_refused_and_our_own_calls_go_without_it(
    sana: str, long_encoder: str, tmp_path: Path
) -> None:
    pipe = Base.open(sana).load_pipeline()
    assert call_options(pipe) == {}, "it is for the base's own text encoder"
    pea.attach(pipe, write(tmp_path / "sana", sana, long_encoder, width=8))
    with pytest.raises(ValueError, match="complex_human_instruction=None"):
        draw(pipe, prompt="ein Haus", **SANA)
    assert np.isfinite(draw(pipe, prompt="ein Haus", **SANA, **call_options(pipe))).all()


SANA = {"height": 32, "width": 32, "use_resolution_binning": False}


def test_a_saved_pipeline_goes_on_refusing_what_its_text_encoder_cannot_do(
    sd: str, adapter: str, sana: str, long_encoder: str, tmp_path: Path
) -> None:
    """Loaded by diffusers itself, without `attach`."""
    folder = write(tmp_path / "adapter", sana, long_encoder, width=8)
    for base, attached in ((sd, adapter), (sana, folder)):
        pea.attach(Base.open(base).load_pipeline(), attached).save_pretrained(
            tmp_path / Path(base).name
        )
    again = DiffusionPipeline.from_pretrained(tmp_path / Path(sana).name, trust_remote_code=False)
    with pytest.raises(ValueError, match="complex_human_instruction=None"):
        draw(again, prompt="ein Haus", **SANA)
    assert call_options(again) == {"complex_human_instruction": None}
    assert np.isfinite(draw(again, prompt="ein Haus", **SANA, **call_options(again))).all()
    again = DiffusionPipeline.from_pretrained(tmp_path / Path(sd).name, trust_remote_code=False)
    with pytest.raises(ValueError, match="leave out clip_skip"):
        draw(again, prompt="ein Haus", clip_skip=1)
    layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    of_clip = {f"{layer}.lora_A.weight": torch.ones(2, 8)}
    of_clip[f"{layer}.lora_B.weight"] = torch.ones(8, 2)
    with pytest.raises(ValueError, match="load LoRA files without their text_encoder weights"):
        again.load_lora_weights({**lora(again.unet), **of_clip})


def test_several_pictures_of_several_prompts_each_read_their_own_mask_on_sana(
    sana: str, long_encoder: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "sana", sana, long_encoder, width=8)
    pipe = pea.attach(Base.open(sana).load_pipeline(), folder)
    texts, negative = ["ein Haus mit Garten", "x"], ["grün", "bleu et vert"]
    given = {"device": "cpu", "negative_prompt": negative}
    once = pipe.encode_prompt(texts, **given)
    for one, twice in zip(
        once, pipe.encode_prompt(texts, True, **given, num_images_per_prompt=2), strict=True
    ):
        torch.testing.assert_close(twice, one[[0, 0, 1, 1]])
    noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    options = {**SANA, **call_options(pipe), "negative_prompt": negative}
    drawn = draw(
        pipe, prompt=texts, num_images_per_prompt=2, latents=noise.expand(4, -1, -1, -1), **options
    )
    expected = draw(pipe, prompt=texts, latents=noise.expand(2, -1, -1, -1), **options)
    np.testing.assert_allclose(drawn, expected[[0, 0, 1, 1]], atol=1e-5)


def test_a_form_that_does_not_suit_a_base_is_refused_before_anything_is_loaded(
    sd3: str, encoder: str
) -> None:
    settings = TrainSettings(pretrained_model_name_or_path=sd3, text_encoder=encoder)
    with pytest.raises(ValueError, match="seed has no pooled output"):
        adapter_config(dataclasses.replace(settings, variant="seed"))
