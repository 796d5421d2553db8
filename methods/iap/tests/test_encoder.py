"""The encoder that trains: XLM-R's weights, AltCLIP's names and maths, LoRA, published sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AltCLIPTextModel, XLMRobertaModel

from crosslingual.adapter.artifact import load_strict
from iap.artifact import encoder_config, load_encoder, save_encoder
from iap.encoder import (
    add_lora,
    altclip_config,
    build_encoder,
    merged_state,
    start_encoder,
    stock_model,
)
from iap.method import TargetEncoder, expand_states
from iap.settings import TrainSettings
from iap.verbs import info

PAD, LENGTH = 1, 16


def captions(*lengths: int) -> Tensor:
    """Ids of captions of these many tokens, padded on the right to LENGTH."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.full((len(lengths), LENGTH), PAD)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(5, 100, (length,), generator=generator)
    return ids


@pytest.fixture(scope="module")
def shape(encoder: str) -> dict[str, Any]:
    return altclip_config(encoder, None, width=16)


@pytest.fixture(scope="module")
def started(encoder: str, shape: dict[str, Any]) -> TargetEncoder:
    torch.manual_seed(0)
    return start_encoder(shape, encoder, None)


def test_body_is_the_xlm_r_that_it_starts_from(encoder: str, started: TargetEncoder) -> None:
    theirs = XLMRobertaModel.from_pretrained(encoder, add_pooling_layer=False).eval()
    ids = captions(7, 3, LENGTH)
    given = {"input_ids": ids, "attention_mask": ids.ne(PAD).long()}
    with torch.no_grad():
        expected = theirs(**given).last_hidden_state
        torch.testing.assert_close(started.roberta(**given).last_hidden_state, expected)


@pytest.mark.parametrize("lengths", [(7, 3, 5), (LENGTH, 2), (LENGTH - 1, 4), (2, 2)])
def test_states_are_altclips_although_padding_is_computed_once(
    shape: dict[str, Any], started: TargetEncoder, lengths: tuple[int, ...]
) -> None:
    """Every position of the prompt, the padded ones too, against transformers' own model."""
    model = stock_model(shape, started.state_dict())
    ids = captions(*lengths)
    with torch.no_grad():
        expected = model(ids, attention_mask=ids.ne(PAD).long()).last_hidden_state
        states, times_last = started(ids)
    assert states.shape[1] == min(max(lengths) + 1, LENGTH)
    assert states.shape[1] + times_last - 1 == LENGTH
    torch.testing.assert_close(expand_states(states, times_last), expected)


def test_all_of_the_encoder_trains_and_has_no_dropout(started: TargetEncoder) -> None:
    started.train()
    ids = captions(7, 3)
    first, second = started(ids)[0], started(ids)[0]
    assert torch.equal(first, second)
    first.square().sum().backward()
    without = [name for name, p in started.named_parameters() if p.grad is None]
    assert not without
    started.zero_grad()


def test_head_gives_states_of_unit_scale(shape: dict[str, Any]) -> None:
    torch.manual_seed(0)
    states, _ = build_encoder({**shape, "project_dim": 768})(captions(9, 12, 4))
    assert states.std().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(
    ("name", "head", "total"),
    [
        # XLM-R base without its pooler 277,453,056 + LayerNorm 1,536 + linear 768 x 768 + 768
        ("FacebookAI/xlm-roberta-base", 2 * 768 + 768 * 768 + 768, 278_045_184),
        # XLM-R large 558,840,832 + LayerNorm 2,048 + linear 1024 x 768 + 768
        ("FacebookAI/xlm-roberta-large", 2 * 1024 + 1024 * 768 + 768, 559_630_080),
    ],
)
def test_published_sizes(name: str, head: int, total: int) -> None:
    with torch.device("meta"):
        encoder = build_encoder(altclip_config(name, None, width=768))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == total
    parts = (encoder.pre_LN, encoder.transformation)
    assert sum(p.numel() for part in parts for p in part.parameters()) == head


def test_lora_trains_its_matrices_and_the_head_and_is_merged_exactly(
    encoder: str, shape: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    plain = start_encoder(shape, encoder, None)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    adapted = add_lora(plain, 3)
    ids = captions(7, 3)
    untouched = adapted(ids)[0]
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    head = {name for name in trained if name.startswith(("pre_LN", "transformation"))}
    assert len(head) == 4 and all(".lora_" in name for name in trained.keys() - head)
    # query, key, value, output; both linears of the feed-forward: 2 matrices each, in one layer
    assert len(trained) == 4 + 2 * 6
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    changed = adapted(ids)[0]
    assert (changed - untouched).abs().max() > 1e-3
    state = merged_state(adapted, {name: p.detach() for name, p in trained.items()})
    whole = build_encoder(shape)
    load_strict(whole, state)
    torch.testing.assert_close(whole(ids)[0], changed, atol=1e-5, rtol=1e-5)
    for name in ("embeddings.word_embeddings.weight", "encoder.layers.0.output.LayerNorm.weight"):
        assert torch.equal(state[f"roberta.{name}"], before[f"roberta.{name}"])


def test_a_trained_encoder_is_where_another_may_start(
    sd: str, encoder: str, tmp_path: Path
) -> None:
    """Head and all: an exported encoder, or an AltCLIP, is a `text_encoder` like an XLM-R."""
    settings = TrainSettings(
        pretrained_model_name_or_path=sd, text_encoder=encoder, target_language=["de"]
    )
    config = encoder_config(settings)
    torch.manual_seed(3)
    first = start_encoder(config["altclip"], encoder, None)
    save_encoder(first.state_dict(), config, tmp_path / "it")
    again = str(tmp_path / "it" / "text_encoder")
    second = start_encoder(altclip_config(again, None, width=16), again, None)
    assert second.state_dict().keys() == first.state_dict().keys()
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name])
    with pytest.raises(ValueError, match="projects to 16, but the base's UNet takes 24"):
        altclip_config(again, None, width=24)


def test_another_kind_of_encoder_is_refused(sd: str) -> None:
    with pytest.raises(ValueError, match=r"is a clip_text_model: IAP starts from an XLM-R"):
        altclip_config(f"{sd}/text_encoder", None, width=16)


def test_missing_or_renamed_weights_are_an_error(
    sd: str, encoder: str, shape: dict[str, Any], tmp_path: Path
) -> None:
    """Older files say `layer.N` for `layers.N`; transformers would leave those layers random."""
    settings = TrainSettings(
        pretrained_model_name_or_path=sd, text_encoder=encoder, target_language=["de"]
    )
    config = encoder_config(settings)
    save_encoder(start_encoder(shape, encoder, None).state_dict(), config, tmp_path / "it")
    weights = tmp_path / "it" / "text_encoder" / "model.safetensors"
    (tmp_path / "it" / "crosslingual.json").unlink()  # as in a folder of another program
    state = load_file(weights)
    gone = {name: tensor for name, tensor in state.items() if "layers.0.output" not in name}
    save_file(gone, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing \['roberta.encoder.layers.0.output"):
        load_encoder(tmp_path / "it")
    older = {name.replace("encoder.layers.", "encoder.layer."): t for name, t in state.items()}
    save_file(older, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="its layers would be random, so it is not used"):
        load_encoder(tmp_path / "it")


def test_info_counts_the_encoder_that_trains(capsys: pytest.CaptureFixture[str]) -> None:
    known = {
        "pretrained_model_name_or_path": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "text_encoder": "FacebookAI/xlm-roberta-base",
        "target_language": ["zh"],
    }
    whole = info(TrainSettings(**known))
    assert whole["trainable"] == 278_045_184 and whole["denoiser"] == 859_520_964
    lora = info(TrainSettings(**known, train_encoder="lora", lora_rank=16))
    # 12 layers of 4 squares of 768, 768 x 3072 and back, rank 16 on each side, and the head
    matrices = 12 * 16 * (4 * 2 * 768 + 2 * (768 + 3072))
    assert lora["trainable"] == matrices + 592_128
    assert lora["total"] == whole["total"] + matrices
    assert "encoder (trains)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, 859_520_964),
        # 16 cross-attentions: queries and outputs of 320 to 1,280 channels, keys and values of 768
        ({"english_draws": 1}, 43_962_560),
        ({"objective": "text"}, 0),
    ],
)
def test_info_counts_what_of_the_unet_training_holds(
    capsys: pytest.CaptureFixture[str], changes: dict[str, Any], held: int
) -> None:
    base = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    settings = {"pretrained_model_name_or_path": base, "target_language": ["zh"], **changes}
    info(TrainSettings(text_encoder="FacebookAI/xlm-roberta-base", **settings))
    assert f"holds the encoder and {held:,} parameters of the denoiser" in capsys.readouterr().out


def test_a_base_with_a_pooled_vector_gets_a_head_for_it() -> None:
    settings = TrainSettings(
        pretrained_model_name_or_path="stabilityai/stable-diffusion-xl-base-1.0",
        text_encoder="FacebookAI/xlm-roberta-base",
    )
    config = encoder_config(settings)
    with torch.device("meta"):
        plain, pooled = (build_encoder(config["altclip"], width) for width in (None, 1280))
    sizes = [sum(p.numel() for p in encoder.parameters()) for encoder in (plain, pooled)]
    assert config["pooled_width"] == 1280 and sizes[1] - sizes[0] == 2048 * 1280 + 1280


def test_altclips_class_and_names_are_what_is_exported(
    shape: dict[str, Any], started: TargetEncoder
) -> None:
    model = stock_model(shape, started.state_dict())
    assert type(model) is AltCLIPTextModel and model.config.use_attention_mask is True
    assert model.config.project_dim == 16 and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
