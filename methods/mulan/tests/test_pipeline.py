"""An exported adapter in pipelines of all kinds on its base."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PixArtAlphaPipeline, StableDiffusionPipeline
from torch import Tensor

import crosslingual.adapter.pipeline
import mulan
from crosslingual.frozen.base import Base
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.pipelines import OFFLOADS, PROMPTS, draw, parts_of
from crosslingual_worlds.testing.host import unchanged_host
from mulan.artifact import adapter_config, load_adapter, save_adapter
from mulan.method import build_adapter
from mulan.pipeline import attach_module
from mulan.pipeline import load_pipeline as load_with_adapter
from mulan.settings import TrainSettings


def load_pipeline(base: str, **parts: Any) -> Any:
    return Base.open(base).load_pipeline(**parts)


def write(folder: Path, base: str, encoder: str, **changes: Any) -> str:
    """An adapter with random weights; 20 queries, so that prompts and states differ in length."""
    given = {"pretrained_model_name_or_path": base, "text_encoder": encoder, "num_queries": 20}
    settings = TrainSettings(**{**given, "num_heads": 2, "guidance_scale": 2.0, **changes})
    config = adapter_config(settings)
    torch.manual_seed(0)
    save_adapter(build_adapter(config).state_dict(), config, folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapter(sd: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("adapters") / "sd", sd, encoder)


@pytest.fixture(scope="module")
def sdxl_adapter(sdxl: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("adapters") / "sdxl", sdxl, encoder)


@pytest.fixture(scope="module")
def pixart_adapter(pixart: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("adapters") / "pixart"
    return write(folder, pixart, encoder, english_states=False)


class TestPipelines(conformance.Pipelines):
    families = {"sd": "adapter", "sdxl": "sdxl_adapter"}
    states_are_tokens = False

    def embeddings(
        self, adapter: str, prompts: list[str], negative: list[str] | None
    ) -> dict[str, Tensor]:
        expected = mulan.encode(adapter, prompts, negative)
        assert expected["prompt_embeds"].shape == (2, 20, 16), "queries, not tokens"
        return expected


def test_prompts_and_negative_prompts_longer_than_the_encoder_reads_are_cut_alike(
    sd: str, adapter: str
) -> None:
    """Stock pipelines pad a negative prompt to the number of states, 20, and the encoder's length
    is 16.
    """
    long = ["a house with a roof and a garden and trees"] * 2
    pipe = mulan.attach(load_pipeline(sd), adapter)
    states, negative = pipe.encode_prompt(long, "cpu", 1, True, negative_prompt=long)[:2]
    torch.testing.assert_close(negative, states)
    torch.testing.assert_close(mulan.encode(adapter, long)["prompt_embeds"], states)


@pytest.mark.parametrize("null_policy", ["adapter", "zeros"])
def test_sdxl_gets_states_and_pooled_vectors_and_the_empty_prompt_by_its_policy(
    sdxl: str, sdxl_adapter: str, encoder: str, tmp_path: Path, null_policy: str
) -> None:
    adapter = sdxl_adapter
    if null_policy == "zeros":
        adapter = write(tmp_path / "zeros", sdxl, encoder, null_policy="zeros")
    pipe = mulan.attach(load_pipeline(sdxl), adapter)
    expected = mulan.encode(adapter, PROMPTS)
    found = pipe.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=True)
    prefixes = ("", "negative_", "pooled_", "negative_pooled_")
    for prefix, tensor in zip(prefixes, found, strict=True):
        torch.testing.assert_close(tensor, expected[f"{prefix}prompt_embeds"])
    is_zero = not expected["negative_prompt_embeds"].any()
    assert is_zero == (null_policy == "zeros")
    np.testing.assert_allclose(draw(pipe, prompt=PROMPTS), draw(pipe, **expected), atol=1e-4)


def test_pixart_reads_the_encoder_through_the_replaced_projection_and_saves_in_stock_classes(
    pixart: str, pixart_adapter: str, tmp_path: Path
) -> None:
    pipe = load_with_adapter(pixart_adapter)
    assert isinstance(pipe, PixArtAlphaPipeline)
    options = {"height": 32, "width": 32, "use_resolution_binning": False}
    pictures = draw(pipe, prompt=PROMPTS, negative_prompt="grün", **options)
    assert pictures.shape == (2, 32, 32, 3) and np.isfinite(pictures).all()
    other = draw(pipe, prompt=PROMPTS[::-1], negative_prompt="grün", **options)
    assert np.abs(pictures - other).max() > 1e-3, "the prompt matters"
    module, _ = load_adapter(pixart_adapter)
    states, mask, *_ = pipe.encode_prompt(PROMPTS, device="cpu")
    projected = pipe.transformer.caption_projection(states)
    torch.testing.assert_close(projected, module(states)[0])
    assert mask.sum() < mask.numel()
    pipe.save_pretrained(tmp_path / "saved")
    stock = PixArtAlphaPipeline.from_pretrained(tmp_path / "saved")
    modules = [type(part).__module__ for part in stock.components.values()]
    assert all(name.startswith(("diffusers.", "transformers.")) for name in modules)
    again = draw(stock, prompt=PROMPTS, negative_prompt="grün", **options)
    np.testing.assert_allclose(pictures, again, atol=1e-5)


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("family", ["pixart", "sana"])
def test_an_offloaded_pipeline_keeps_its_own_projection(
    request: pytest.FixtureRequest, tmp_path: Path, encoder: str, family: str, offload: str
) -> None:
    """Where the adapter would take its place."""
    base = request.getfixturevalue(family)
    adapter = write(tmp_path / "adapter", base, encoder, english_states=False)
    pipe = load_pipeline(base)
    getattr(pipe, offload)(device="cpu")
    before = parts_of(pipe)
    with pytest.raises(ValueError, match="attach first"):
        mulan.attach(pipe, adapter)
    assert parts_of(pipe) == before


def test_encoder_is_gone_after_encode_and_the_pipeline_draws_without_it(
    sd: str, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = crosslingual.adapter.pipeline.load_multilingual_encoder

    def watched(*given: Any) -> Any:
        encoder = load(*given)
        loaded.append(weakref.ref(encoder.model))
        return encoder

    monkeypatch.setattr(crosslingual.adapter.pipeline, "load_multilingual_encoder", watched)
    expected = draw(load_with_adapter(adapter), prompt=PROMPTS)
    prompts = mulan.encode(adapter, PROMPTS)
    pipe = load_pipeline(sd, text_encoder=None, tokenizer=None)
    gc.collect()
    assert len(loaded) == 2 and [model() for model in loaded] == [None, None]
    np.testing.assert_allclose(draw(pipe, **prompts), expected, atol=1e-4)


def test_seed_adapter_reads_by_the_language_that_is_chosen(
    sd: str, encoder: str, adapter: str, tmp_path: Path
) -> None:
    seed = write(tmp_path / "seed", sd, encoder, variant="seed", languages=["de", "fr"])
    encoded = {
        language: mulan.encode(seed, PROMPTS, language=language)["prompt_embeds"]
        for language in (None, "de", "fr")
    }
    assert torch.equal(encoded[None], encoded["de"])
    assert not torch.allclose(encoded["de"], encoded["fr"])
    pipe = mulan.attach(load_pipeline(sd), seed, language="fr")
    states = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    torch.testing.assert_close(states, encoded["fr"])
    pipe.save_pretrained(tmp_path / "saved")
    again = StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again.encode_prompt(PROMPTS, "cpu", 1, False)[0], states)
    with pytest.raises(ValueError, match="has no 'ja'; it has de, fr"):
        mulan.attach(load_pipeline(sd), seed, language="ja")
    with pytest.raises(ValueError, match="one set of weights for all languages"):
        mulan.attach(load_pipeline(sd), adapter, language="de")


def test_replaced_added_embedding_goes_into_the_unet(
    sdxl: str, encoder: str, tmp_path: Path
) -> None:
    adapter = write(tmp_path / "adapter", sdxl, encoder, replace_add_embedding=True)
    pipe = load_pipeline(sdxl)
    parts, own = dict(pipe.components), pipe.unet.add_embedding.linear_1.weight.clone()
    module, config = load_adapter(adapter)
    with pytest.raises(FileNotFoundError, match="no/such"):
        attach_module(pipe, module, {**config, "text_encoder": "no/such/encoder"})
    assert pipe.components == parts and torch.equal(pipe.unet.add_embedding.linear_1.weight, own)
    mulan.attach(pipe, adapter)
    expected = load_adapter(adapter)[0].add_embedding.state_dict()
    found = pipe.unet.add_embedding.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with pytest.raises(ValueError, match="changes a layer of the base too: attach it"):
        mulan.encode(adapter, PROMPTS)


def test_a_base_of_another_family_or_size_is_refused(
    sd: str,
    sdxl: str,
    pixart: str,
    adapter: str,
    sdxl_adapter: str,
    pixart_adapter: str,
    encoder: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="states of width 16 .* takes width 32 with a pooled"):
        mulan.attach(load_pipeline(sdxl), adapter)
    with pytest.raises(ValueError, match="width 32 .* takes width 16 without a pooled vector"):
        mulan.attach(load_pipeline(sd), sdxl_adapter)
    with pytest.raises(ValueError, match="width 16 .* PixArtTransformer2DModel takes width 8 "):
        mulan.attach(load_pipeline(pixart), adapter)
    with pytest.raises(
        ValueError, match="family pixart, .* denoises with a UNet2DConditionModel of sd"
    ):
        mulan.attach(load_pipeline(sd), pixart_adapter)
    folder = Path(pixart_adapter)
    module, config = load_adapter(folder)
    wider = {**config, "width": 24}
    save_adapter(build_adapter(wider).state_dict(), wider, tmp_path / "wider")
    with pytest.raises(
        ValueError, match="states of width 24 .* PixArtTransformer2DModel takes width 16"
    ):
        mulan.attach(load_pipeline(pixart), tmp_path / "wider")
    narrow = {**config, "encoder_width": 10}
    save_adapter(build_adapter(narrow).state_dict(), narrow, tmp_path / "narrow")
    with pytest.raises(ValueError, match="reads states of width 10 .* gives 12"):
        mulan.attach(load_pipeline(pixart), tmp_path / "narrow")


def test_an_adapter_of_another_method_or_shape_is_refused(adapter: str, tmp_path: Path) -> None:
    module, config = load_adapter(adapter)
    save_adapter(module.state_dict(), {**config, "method": "pea"}, tmp_path / "other")
    with pytest.raises(ValueError, match="an adapter of 'pea', not of mulan"):
        load_adapter(tmp_path / "other")
    save_adapter(module.state_dict(), {**config, "num_queries": 21}, tmp_path / "longer")
    with pytest.raises(ValueError, match=r"queries is \(1, 20, 16\), not \(1, 21, 16\)"):
        load_adapter(tmp_path / "longer")


def test_encode_leaves_the_host_program_as_it_found_it_and_warns_of_a_cut_prompt(
    adapter: str,
) -> None:
    mulan.encode(adapter, ["ein Haus"])
    with unchanged_host():
        mulan.encode(adapter, ["ein Haus"])
    with pytest.warns(UserWarning, match="longer than the .* tokens.*cut, from"):
        mulan.encode(adapter, ["ein Haus " * 99])
