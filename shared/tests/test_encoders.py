"""Encoders of every kind answer alike; of a language model the hidden states are the encoding."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from crosslingual.frozen.encoders import encoder_on_meta, encoder_shape, load_multilingual_encoder

WIDTH, MAX_TOKENS = 16, 12


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A causal language model as it is published: with a head, without a padding token."""
    folder = tmp_path_factory.mktemp("llama")
    pieces = ["<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    rules = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def test_a_language_models_hidden_states_are_an_encoding(llama: str) -> None:
    encoder = load_multilingual_encoder(llama)
    assert encoder.width == WIDTH and encoder.max_length == MAX_TOKENS
    assert encoder_shape(llama) == (WIDTH, MAX_TOKENS)
    states, mask = encoder.encode(["Haus", "ein Haus"])
    assert states.shape == (2, MAX_TOKENS, WIDTH) and mask.sum(dim=1).tolist() == [4, 8]
    whole = LlamaForCausalLM.from_pretrained(llama)
    ids = encoder.tokenizer(["ein Haus"], return_tensors="pt").input_ids
    expected = whole(ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(states[1:, :8], expected, atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())


def test_its_parameters_are_counted_without_the_head(llama: str) -> None:
    model = load_multilingual_encoder(llama).model
    assert encoder_on_meta(llama) == sum(p.numel() for p in model.parameters())


def test_an_unknown_kind_is_refused_by_name(llama: str, tmp_path: Path) -> None:
    config = json.loads((Path(llama) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ValueError, match="no text encoder of type 'gpt2' is known; there are"):
        load_multilingual_encoder(str(tmp_path))
