"""Imported adapters compute what the authors' code computes, in stock pipelines too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, PixArtTransformer2DModel
from torch import Tensor, nn

import mulan
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.frozen.families import call_options
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.conformance.pipelines import draw, parts_of
from crosslingual_worlds.testing.fixtures import Command, succeeded
from crosslingual_worlds.testing.miniatures import fill
from mulan.artifact import load_adapter
from mulan.pipeline import attach_module, load_pipeline
from mulan.published import import_published
from mulan.settings import ImportSettings

PREFIX, LENGTH = "red:", 15


class Queries(nn.Module):
    """The authors' adapter: a token MLP, then torch's own transformer over learned queries."""

    def __init__(self, encoder_width: int, width: int, depth: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        linear = nn.Linear(encoder_width, width), nn.Linear(width, width)
        self.proj = nn.Sequential(linear[0], nn.GELU(), linear[1])
        self.queries = nn.Parameter(torch.randn(1, 20, width))
        self.transformer = nn.Transformer(
            width, 8, *depth, 4 * width, 0.0, batch_first=True, norm_first=True
        )

    def forward(self, states: Tensor) -> Tensor:
        return self.transformer(self.proj(states), self.queries.expand(len(states), -1, -1))


class Pool(nn.Module):
    """Their attention pool, in the words of torch's functional form."""

    def __init__(self, num: int, width: int, pooled_width: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(num + 1, width))
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, pooled_width)

    def forward(self, states: Tensor) -> Tensor:
        x = torch.cat([states.mean(1, keepdim=True), states], 1) + self.positional_embedding
        x, three = x.transpose(0, 1), (self.q_proj, self.k_proj, self.v_proj)
        return F.multi_head_attention_forward(
            *(x[:1], x, x, x.shape[-1], 8, None, torch.cat([part.bias for part in three])),
            *(None, None, False, 0.0, self.c_proj.weight, self.c_proj.bias),
            use_separate_proj_weight=True,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
        )[0][0]


class Head(nn.Module):
    """Their MLP on the encoder's own pooled vector, and PixArt's projection."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(in_width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(x), approximate="tanh"))


class Two(nn.Module):
    """Their adapter for SDXL; `pool` reads its states, or another vector."""

    def __init__(self, encoder_width: int, widths: tuple[int, int], pool: nn.Module) -> None:
        super().__init__()
        self.adapter1, self.adapter2 = (Queries(encoder_width, width) for width in widths)
        self.pool_caption_projection = pool

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.cat([self.adapter1(states), self.adapter2(states)], -1)
        return states, self.pool_caption_projection(states)


def brought_in(folder: Path, theirs: nn.Module, **changes: Any) -> str:
    torch.save({f"module.{n}": t for n, t in theirs.state_dict().items()}, folder / "theirs.pth")
    given = {"state_dict": str(folder / "theirs.pth"), "output_dir": str(folder / "adapter")}
    given |= {"pretrained_model_name_or_path": "a/base", "text_encoder": "an/encoder"}
    return str(import_published(ImportSettings(**{**given, **changes})))


@pytest.mark.parametrize("depth", [(1, 1), (2, 2), (1, 2)])
def test_adapters_of_any_depth_give_what_their_authors_compute(
    tmp_path: Path, depth: tuple[int, int]
) -> None:
    theirs = fill(Queries(12, 16, depth)).eval()
    ours, config = load_adapter(brought_in(tmp_path, theirs))
    states = torch.randn(3, 5, 12)
    torch.testing.assert_close(ours(states)[0], theirs(states), atol=1e-5, rtol=1e-5)
    assert (config["max_length"], config["prompt_prefix"]) == (80, "summarize:")
    assert (config["drop_tokens"], config["prefix_negative"]) == (3, False)


@pytest.mark.parametrize("policy", ["adapter", None])
def test_the_attention_pool_gives_what_its_authors_compute(tmp_path: Path, policy: Any) -> None:
    theirs = fill(Two(12, (24, 16), Pool(20, 40, 20))).eval()
    folder = brought_in(tmp_path, theirs, null_policy="adapter", pooled_policy=policy)
    ours, config = load_adapter(folder)
    states = torch.randn(3, 5, 12)
    (found, pooled), (expected, expected_pooled) = ours(states), theirs(states)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    expected_pooled = expected_pooled if policy else torch.zeros(3, 20)  # the authors' default
    torch.testing.assert_close(pooled, expected_pooled, atol=1e-5, rtol=1e-5)
    assert (config["max_length"], config["prefix_negative"]) == (83, True)


@pytest.fixture
def reading(encoder: str) -> dict[str, Any]:
    """How an adapter is imported whose prompts are the miniature encoder's."""
    tokenizer = load_multilingual_encoder(encoder).tokenizer
    drop = len(tokenizer(PREFIX, add_special_tokens=False).input_ids)
    return {"text_encoder": encoder, "prompt_prefix": PREFIX, "drop_tokens": drop} | {
        "max_length": LENGTH
    }


def theirs_of(encoder: str, texts: list[str], drop: int, length: int) -> tuple[Tensor, Tensor]:
    """States and mask as the authors take them: the start, and what comes after the prefix."""
    loaded = load_multilingual_encoder(encoder, max_length=length)
    states, mask = loaded.encode(texts)
    kept = [0, *range(1 + drop, length)]
    return states[:, kept], mask[:, kept]


PROMPTS, NEGATIVES = ["a cat", "a house with a roof and trees"], ["dogs", "trees and a garden "]


def test_sd_reads_prompts_with_the_prefix_and_negative_prompts_without(
    tmp_path: Path, sd: str, encoder: str, reading: dict[str, Any]
) -> None:
    theirs = fill(Queries(12, 16)).eval()
    options = {"pretrained_model_name_or_path": sd, **reading}
    folder = brought_in(tmp_path, theirs, **options)
    drop = reading["drop_tokens"]
    states, _ = theirs_of(encoder, [PREFIX + text for text in PROMPTS], drop, LENGTH)
    negative, _ = theirs_of(encoder, NEGATIVES, 0, LENGTH - drop)
    pipe = mulan.attach(Base.open(sd).load_pipeline(), folder)
    found = pipe.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=NEGATIVES)
    encoded = mulan.encode(folder, PROMPTS, NEGATIVES)
    pairs = zip(("", "negative_"), found, (theirs(states), theirs(negative)), strict=True)
    for prefix, ours, expected in pairs:
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoded[f"{prefix}prompt_embeds"], expected)
    pipe.save_pretrained(tmp_path / "saved")
    again = DiffusionPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=False)
    again.set_progress_bar_config(disable=True)
    options = {"prompt": PROMPTS, "negative_prompt": NEGATIVES}
    np.testing.assert_allclose(draw(again, **options), draw(pipe, **options), atol=1e-5)


@pytest.mark.parametrize("pool", ["states", "encoder"])
def test_sdxl_reads_negative_prompts_with_the_prefix_too_and_gets_a_pooled_vector_of_zeros(
    tmp_path: Path, sdxl: str, encoder: str, reading: dict[str, Any], pool: str
) -> None:
    head = Pool(20, 32, 20) if pool == "states" else Head(10, 20)
    theirs = fill(Two(12, (16, 16), head)).eval()
    options = {"pretrained_model_name_or_path": sdxl, "null_policy": "adapter", **reading}
    folder = brought_in(tmp_path, theirs, **options)
    pipe = mulan.attach(Base.open(sdxl).load_pipeline(), folder)
    found = pipe.encode_prompt(PROMPTS, device="cpu", negative_prompt=NEGATIVES)
    for ours, texts in zip(found, (PROMPTS, NEGATIVES), strict=False):
        texts = [PREFIX + text for text in texts]
        states, _ = theirs_of(encoder, texts, reading["drop_tokens"], LENGTH)
        expected = torch.cat([theirs.adapter1(states), theirs.adapter2(states)], -1)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert not found[2].any() and not found[3].any()
    encoded = mulan.encode(folder, PROMPTS, NEGATIVES)
    torch.testing.assert_close(encoded["negative_prompt_embeds"], found[1])
    assert draw(pipe, prompt=PROMPTS).std() > 0


def whole_pixart(pixart: str) -> nn.Module:
    """The authors' transformer, whose caption projection reads the multilingual encoder."""
    base = Base.open(pixart)
    return fill(
        PixArtTransformer2DModel.from_config({**base.denoiser_config, "caption_channels": 12})
    )


def write_transformer(folder: Path, transformer: nn.Module) -> None:
    """As diffusers wrote it then, a pickle."""
    torch.save(transformer.state_dict(), folder / "diffusion_pytorch_model.bin")
    (folder / "config.json").write_text(
        transformer.to_json_string().replace("PixArtTransformer2DModel", "Transformer2DModel")
    )


@pytest.mark.parametrize("is_whole", [False, True])
def test_pixart_reads_states_and_mask_without_the_prefix(
    tmp_path: Path, pixart: str, encoder: str, reading: dict[str, Any], is_whole: bool
) -> None:
    pipe, changes = Base.open(pixart).load_pipeline(), {}
    transformer = whole_pixart(pixart)
    theirs = transformer.caption_projection
    if is_whole:
        write_transformer(tmp_path, transformer)
        changes["state_dict"] = str(tmp_path)
    options = {"pretrained_model_name_or_path": pixart, **reading, **changes}
    folder = brought_in(tmp_path, theirs, **options)
    before = parts_of(pipe)
    module, config = load_adapter(folder)
    for wrong, error in (
        ({"text_encoder": "no/such"}, FileNotFoundError),
        ({"width": 9}, ValueError),
    ):
        with pytest.raises(error):
            attach_module(pipe, module, {**config, **wrong})
        assert parts_of(pipe) == before, "an error leaves the pipeline's own transformer"
    mulan.attach(pipe, folder)
    options = {"clean_caption": False, "max_sequence_length": LENGTH}
    assert load_adapter(folder)[1]["call_options"] == options
    found = pipe.encode_prompt(PROMPTS, negative_prompt=NEGATIVES[0], device="cpu", **options)
    drop = reading["drop_tokens"]
    expected = (
        *theirs_of(encoder, [PREFIX + text for text in PROMPTS], drop, LENGTH),
        *theirs_of(encoder, [NEGATIVES[0]] * 2, 0, LENGTH - drop),
    )
    for ours, authors in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, authors, atol=1e-5, rtol=1e-5)
    if is_whole:
        latents, steps = torch.randn(2, 4, 8, 8), torch.tensor([10, 20])
        sizes = {"resolution": torch.zeros(2, 2), "aspect_ratio": torch.zeros(2, 1)}
        call = {"encoder_attention_mask": found[1], "added_cond_kwargs": sizes}
        with torch.no_grad():
            ours, authors = (
                each(latents, found[0], steps, **call).sample
                for each in (pipe.transformer, transformer)
            )
        torch.testing.assert_close(ours, authors)
    assert draw(pipe, prompt=PROMPTS, **options).std() > 0
    with pytest.raises(ValueError, match=f"call the pipeline with max_sequence_length={LENGTH}"):
        draw(pipe, prompt=PROMPTS, clean_caption=False)


FORMS = {
    "one layer": ("sd", lambda: Queries(12, 16)),
    "two layers": ("sd", lambda: Queries(12, 16, (2, 2))),
    "attention pool": ("sdxl", lambda: Two(12, (16, 16), Pool(20, 32, 20))),
    "MLP pool": ("sdxl", lambda: Two(12, (16, 16), Head(10, 20))),
    "projection": ("pixart", lambda: Head(12, 16)),
    "whole PixArt": ("pixart", None),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_published_form_is_imported_draws_and_attaches_by_the_commands(
    command: Command,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    reading: dict[str, Any],
    form: str,
) -> None:
    kind, make = FORMS[form]
    base = request.getfixturevalue(kind)
    given = {"state_dict": tmp_path / "theirs.pth", "output_dir": tmp_path / "adapter"}
    given |= {"pretrained_model_name_or_path": base, "languages": ["en", "de"], **reading}
    if make:
        torch.save(fill(make()).state_dict(), given["state_dict"])
    else:
        write_transformer(tmp_path, whole_pixart(base))
        given["state_dict"] = tmp_path
    if kind == "sdxl":
        line = refusal(command("import", **given))
        assert "say --null_policy zeros or --null_policy adapter" in line
        given["null_policy"] = "zeros"
    succeeded(command("import", **given))
    assert load_adapter(tmp_path / "adapter")[1]["languages"] == ["en", "de"]
    drawing = {"prompt": ["ein Haus"], "height": 32, "width": 32, "num_inference_steps": 1}
    drawing |= {"adapter": tmp_path / "adapter", "output_dir": tmp_path / "pictures"}
    succeeded(command("generate", **drawing))
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 1
    attached = mulan.attach(Base.open(base).load_pipeline(), tmp_path / "adapter")
    loaded = load_pipeline(str(tmp_path / "adapter"))
    ours, theirs = (
        draw(pipe, prompt=["ein Haus"], **call_options(pipe)) for pipe in (attached, loaded)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_an_encoder_of_another_width_is_refused_at_import(tmp_path: Path, encoder: str) -> None:
    with pytest.raises(ValueError, match="reads states of width 10 .* gives 12: name the encoder"):
        brought_in(tmp_path, Queries(10, 16), text_encoder=encoder)


def test_an_encoder_that_spells_the_prefix_otherwise_is_refused(
    tmp_path: Path, sd: str, reading: dict[str, Any]
) -> None:
    options = {"pretrained_model_name_or_path": sd, **reading, "drop_tokens": 99}
    folder = brought_in(tmp_path, Queries(12, 16), **options)
    with pytest.raises(ValueError, match="leaves out 99 tokens of 'red:', and this tokenizer"):
        mulan.attach(Base.open(sd).load_pipeline(), folder)
