"""Stage 1's model trains what it says; padding changes nothing; its folder is the whole of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

from crosslingual.frozen.encoders import load_multilingual_encoder
from mclip.stage1.artifact import build_translation, load_translation, save_translation
from mclip.stage1.method import TranslationModel, set_trainable
from mclip.stage1.settings import TrainEncoderSettings
from mclip.stage1.step import enhancement_loss, nmt_loss, sentence_vectors

PAD = 1
SHAPE = {"num_decoder_layers": 2, "decoder_ffn_width": 16, "num_decoder_heads": 2}
ENGLISH = ["a house", "red house", "no"]
GERMAN = ["ein Haus", "rotes Haus", "nein , nein"]


def build(encoder: str, **changes: Any) -> tuple[TranslationModel, Any]:
    torch.manual_seed(0)
    settings = TrainEncoderSettings(text_encoder=encoder, **{**SHAPE, "dropout": 0.0, **changes})
    return build_translation(settings, ["en", "de"])


@pytest.fixture
def model(encoder: str) -> TranslationModel:
    """Width 12, decoder without dropout, maps away from the identity so that languages differ."""
    model = build(encoder)[0]
    with torch.no_grad():
        for parameter in model.language_maps.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="session")
def batch(encoder: str) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    source, target = (
        tokenizer(texts, padding=True, return_tensors="pt") for texts in (ENGLISH, GERMAN)
    )
    return {
        "source_ids": source.input_ids,
        "source_mask": source.attention_mask,
        "target_ids": target.input_ids,
        "target_mask": target.attention_mask,
        "source_language": "en",
        "target_language": "de",
    }


def turned(batch: dict[str, Any]) -> dict[str, Any]:
    swap = {"source": "target", "target": "source"}
    return {f"{swap[side]}_{rest}": batch[f"{side}_{rest}"] for side, rest in split_names(batch)}


def split_names(batch: dict[str, Any]) -> list[tuple[str, str]]:
    return [tuple(name.split("_")) for name in batch]


def padded(batch: dict[str, Any], count: int = 3) -> dict[str, Any]:
    fills = {"ids": PAD, "mask": 0}
    return {
        name: F.pad(value, (0, count), value=fills[name.split("_")[1]])
        if torch.is_tensor(value)
        else value
        for name, value in batch.items()
    }


def reached(model: TranslationModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("step", ["a", "b"])
@pytest.mark.parametrize("both_ways", [False, True])
def test_gradients_reach_exactly_what_the_step_trains(
    model: TranslationModel, batch: dict[str, Any], step: str, both_ways: bool
) -> None:
    """Decoder and maps in both steps; XLM-R's layers in b; its embeddings and their norm never."""
    parts = ("language_maps.", "decoder.", *(["encoder.encoder.layer."] * (step == "b")))
    expected = {name for name, _ in model.named_parameters() if name.startswith(parts)}
    left = {name for name, _ in model.named_parameters()} - expected
    assert any("embeddings.LayerNorm" in name for name in left)
    assert any("word_embeddings" in name for name in left) and len(expected) > 20
    set_trainable(model, step)
    output = model(batch, contrast=step == "b", both_ways=both_ways)
    enhancement_loss(*output, model.embedding_weight)[0].backward()
    assert reached(model) == expected


def test_the_mapped_states_are_those_that_the_decoder_reads(
    model: TranslationModel, batch: dict[str, Any]
) -> None:
    """The authors' code pools the source after its map, and the target before any."""
    torch.nn.init.normal_(model.language_maps.weight)
    ours, theirs = (model(batch, contrast=True, ctl_states=n) for n in ("encoder", "mapped"))
    states = model.encode(batch["source_ids"], batch["source_mask"])
    mapped = model.language_maps(states, model.language_index(batch["target_language"]))
    torch.testing.assert_close(theirs.source_BD, sentence_vectors(mapped, batch["source_mask"]))
    assert not torch.allclose(ours.source_BD, theirs.source_BD)
    assert torch.equal(ours.target_BD, theirs.target_BD)


def test_languages_share_one_parameter_of_which_a_batch_moves_its_own_map(
    model: TranslationModel, batch: dict[str, Any]
) -> None:
    set_trainable(model, "a")
    nmt_loss(*model(batch)[:2], model.embedding_weight)[0].backward()
    moved = model.language_maps.weight.grad.flatten(1).norm(dim=1) > 0
    assert model.config["languages"] == ["de", "en"] and moved.tolist() == [True, False]


def test_a_limited_decoder_predicts_its_tokens_alone(
    model: TranslationModel, batch: dict[str, Any]
) -> None:
    """Labels are rows of the output matrix, and tokens that have none are left out."""
    whole = model(batch)
    left_out = whole.labels_T[1]
    model.limit_output(whole.labels_T[whole.labels_T != left_out].flip(0))
    states, labels, *_ = model(batch)
    kept = whole.labels_T != left_out
    assert torch.equal(model.output_ids[labels], whole.labels_T[kept])
    assert torch.equal(states, whole.states_TD[kept])
    words = model.embedding_weight[model.output_ids]
    assert torch.equal(model.output_weight, words) and not model.output_weight.requires_grad
    expected = F.cross_entropy(states @ words.T, labels, label_smoothing=0.1)
    torch.testing.assert_close(nmt_loss(states, labels, model.output_weight)[0], expected)
    marks = [model.encoder.config.bos_token_id, PAD, model.encoder.config.eos_token_id]
    assert model.output_ids[marks].tolist() == marks
    with pytest.raises(ValueError, match="the encoder has"):
        model.limit_output(torch.tensor([len(model.embedding_weight)]))


def test_fresh_maps_are_the_identity(encoder: str, batch: dict[str, Any]) -> None:
    fresh = build(encoder)[0]
    english = {**batch, "target_language": "en"}
    assert torch.equal(fresh(batch).states_TD, fresh(english).states_TD)


def test_the_frozen_encoder_drops_nothing_while_the_decoder_trains(
    model: TranslationModel, batch: dict[str, Any]
) -> None:
    set_trainable(model, "a")
    model.train()
    assert torch.equal(model(batch).states_TD, model(batch).states_TD)
    set_trainable(model, "b")
    assert not torch.equal(model(batch).states_TD, model(batch).states_TD)


def test_padding_changes_neither_states_nor_vectors_nor_labels(
    model: TranslationModel, batch: dict[str, Any]
) -> None:
    ways = {"contrast": True, "both_ways": True}
    torch.testing.assert_close(model(batch, **ways), model(padded(batch), **ways))


def test_every_token_but_the_first_is_predicted_and_no_pad(
    model: TranslationModel, batch: dict[str, Any]
) -> None:
    output = model(batch)
    rows = [
        ids[mask.bool()][1:]
        for ids, mask in zip(batch["target_ids"], batch["target_mask"], strict=True)
    ]
    assert torch.equal(output.labels_T, torch.cat(rows))
    assert (output.source_BD, output.target_BD) == (None, None)


def test_a_state_depends_on_no_later_token(model: TranslationModel, batch: dict[str, Any]) -> None:
    states = model.encode(batch["source_ids"], batch["source_mask"])
    ids = batch["target_ids"]
    changed = torch.cat((ids[:, :4], ids[:, 4:].flip(1)), dim=1)
    before, after = (model.decode(states, batch["source_mask"], i, "de") for i in (ids, changed))
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_both_ways_are_the_two_directions_in_one_batch(
    model: TranslationModel, batch: dict[str, Any]
) -> None:
    there, back = model(batch, contrast=True), model(turned(batch), contrast=True)
    both = model(batch, contrast=True, both_ways=True)
    torch.testing.assert_close(both.states_TD, torch.cat((there.states_TD, back.states_TD)))
    assert torch.equal(both.labels_T, torch.cat((there.labels_T, back.labels_T)))
    torch.testing.assert_close((both.source_BD, both.target_BD), (back.target_BD, back.source_BD))


def test_decoder_and_maps_at_the_published_size() -> None:
    """XLM-R base, 12 layers, 7 languages; the token embedding is XLM-R's and counts once."""
    base = XLMRobertaConfig(
        vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1
    )
    config = {"num_decoder_layers": 12, "decoder_ffn_width": 3072, "num_decoder_heads": 12}
    with torch.device("meta"):
        encoder = XLMRobertaModel(base, add_pooling_layer=False)
        model = TranslationModel(encoder, {**config, "languages": list("abcdefg"), "dropout": 0.1})
    d, ffn = 768, 3072
    layer = 8 * (d * d + d) + 2 * d * ffn + ffn + d + 3 * 2 * d
    assert sum(p.numel() for p in model.decoder.parameters()) == 12 * layer + 2 * d == 113_422_848
    assert sum(p.numel() for p in model.language_maps.parameters()) == 7 * (d * d + d)
    set_trainable(model, "b")
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert frozen == (250002 + 514 + 1 + 2) * d


def test_a_folder_holds_the_model_and_an_encoder_of_its_own(
    model: TranslationModel, encoder: str, batch: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    with torch.no_grad():
        model.encoder.encoder.layer[0].output.dense.weight.add_(0.1)
    for _ in range(2):  # a folder is replaced by a later one
        save_translation(tmp_path / "translation", model, tokenizer)
    loaded, again = load_translation(tmp_path / "translation")
    assert torch.equal(loaded(batch).states_TD, model(batch).states_TD)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert again.get_vocab() == tokenizer.get_vocab()
    found = load_multilingual_encoder(str(tmp_path / "translation" / "encoder"))
    plain = AutoModel.from_pretrained(tmp_path / "translation" / "encoder", add_pooling_layer=False)
    expected = model.encode(batch["source_ids"], batch["source_mask"])
    assert (found.max_length, found.tokenizer.model_max_length) == (16, 16)
    for module in (found.model, plain.eval()):
        states = module(batch["source_ids"], attention_mask=batch["source_mask"])
        assert torch.equal(states.last_hidden_state, expected)
    config = json.loads((tmp_path / "translation" / "config.json").read_text())
    assert (config["method"], config["kind"]) == ("mclip", "translation")
    assert config["languages"] == ["de", "en"] and config["text_encoder"] == encoder
    assert "mclip translate" in (tmp_path / "translation" / "README.md").read_text()


def test_wrong_folders_encoders_and_languages_are_named(
    model: TranslationModel, encoder: str, clip: str, tmp_path: Path
) -> None:
    folder = tmp_path / "translation"
    save_translation(folder, model, AutoTokenizer.from_pretrained(encoder))
    (folder / "crosslingual.json").unlink()  # or each change would be damage
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"kind": "model"}, "holds no translation model"),
        ({"num_decoder_layers": 3}, "missing: decoder.layers.2"),
        ({"languages": ["de", "en", "fr"]}, "language_maps.bias is"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            load_translation(folder)
    with pytest.raises(FileNotFoundError, match="no adapter"):
        load_translation(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="stage 1 enhances an XLM-R"):
        build(clip)
    with pytest.raises(ValueError, match="5 decoder heads do not divide the width 12"):
        build(encoder, num_decoder_heads=5)
    with pytest.raises(ValueError, match="not translate into 'fr', but into de, en"):
        model.language_index("fr")
    with pytest.raises(ValueError, match="not 'c'"):
        set_trainable(model, "c")
