"""Retrieval of sentences between languages, its baseline, and the small XLM-R of Multi30K."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import XLMRobertaModel, XLMRobertaTokenizer

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.training.processes import StopRequest
from mclip.stage1 import evaluate
from mclip.stage1.evaluate import encode_sentences, format_table, recall_of_pairs
from mclip.stage1.settings import EvaluateTextSettings

SCRIPTS = Path(__file__).parents[1] / "multi30k"
MULTI30K = Path(
    os.environ.get("MULTI30K", Path(__file__).parents[4] / "shared" / "data" / "multi30k")
)
TEXTS = {
    "en": ["a red circle", "a small blue star left of a green ring", "a ring", "two stars"],
    "de": ["ein roter Kreis", "ein kleiner blauer Stern links von", "ein Ring", "zwei Sterne"],
    "fr": ["un cercle rouge", "une petite étoile bleue à gauche", "un anneau", "deux étoiles"],
}


@pytest.fixture(scope="module")
def scripts():
    """The scripts of `multi30k/`, which are no package."""
    sys.path.insert(0, str(SCRIPTS))
    import baselines
    import make_encoder
    import masked_model

    yield {"baselines": baselines, "make_encoder": make_encoder, "masked_model": masked_model}
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def encoder():
    return load_multilingual_encoder("testbed:xlm-r")


def write_texts(folder: Path, texts: dict[str, list[str]], *, parallel: bool = True) -> str:
    records = [
        Record(f"r{row}", None, {name: [part[row]] for name, part in texts.items()}, parallel)
        for row in range(len(next(iter(texts.values()))))
    ]
    write_shards(records, folder)
    return str(folder)


def settings(tmp_path: Path, data: str, **changes) -> EvaluateTextSettings:
    given = {"encoder": "testbed:xlm-r", "languages": ["en", "de", "fr"], **changes}
    return EvaluateTextSettings(data=data, output_dir=str(tmp_path / "out"), **given)


def test_a_sentence_vector_is_the_plain_mean_of_its_states_in_the_order_of_the_texts(encoder):
    found = encode_sentences(encoder, TEXTS["en"], batch_size=3)
    for text, vector in zip(TEXTS["en"], found, strict=True):
        ids = torch.tensor([encoder.tokenizer(text).input_ids])
        states = encoder.model(ids).last_hidden_state[0]
        torch.testing.assert_close(vector, F.normalize(states.mean(dim=0), dim=0))


def test_each_direction_is_counted_by_the_language_that_seeks():
    one = torch.eye(3)
    other = torch.tensor([[1.0, 0, 0], [0.9, 1.0, 0], [0.9, 0, 1.0]])  # all near the first
    recalls, num_ties = recall_of_pairs(["xx", "yy"], lambda *_: (one, other))
    cosines = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T
    expected = [(cosines.argmax(dim=d) == torch.arange(3)).double().mean().item() for d in (1, 0)]
    assert [recalls["xx-yy"], recalls["yy-xx"]] == expected
    assert num_ties == 0


def test_a_sentence_that_stands_twice_counts_as_a_wrong_answer_ahead():
    vectors = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    recalls, num_ties = recall_of_pairs(["xx", "yy"], lambda *_: (vectors, vectors))
    assert recalls == {"xx-yy": 1 / 3, "yy-xx": 1 / 3}
    assert num_ties == 4


def test_the_table_has_a_row_a_language_that_seeks_with_its_mean():
    recalls = {"en-de": 0.5, "de-en": 0.25, "en-fr": 0.3, "fr-en": 0.2, "de-fr": 0.1, "fr-de": 0.0}
    lines = format_table(recalls, ["en", "de", "fr"], {"de": 12.34, "fr": 5.0}).split("\n")
    assert lines[2:5] == [
        "| en |  | 50.0 | 30.0 | 40.0 |  |",
        "| de | 25.0 |  | 10.0 | 17.5 | 12.3 |",
        "| fr | 20.0 | 0.0 |  | 10.0 | 5.0 |",
    ]
    assert lines[-1] == "mean of 6 directions: 22.5"


def test_each_run_appends_a_line_with_what_was_printed(tmp_path, capsys):
    data = write_texts(tmp_path / "shards", TEXTS)
    results = [evaluate.evaluate_text(settings(tmp_path, data)) for _ in range(2)]
    lines = (tmp_path / "out" / "text_retrieval.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == results
    assert results[0]["n_texts"] == 4
    assert format_table(results[0]["metrics"]["recall@1"], list(TEXTS)) in capsys.readouterr().out


def test_the_translation_model_brings_its_encoder_and_bleu(tmp_path, monkeypatch, encoder):
    folder = tmp_path / "translation"
    encoder.model.save_pretrained(folder / "encoder")
    encoder.tokenizer.save_pretrained(folder / "encoder")
    asked = []

    def load_translator(_, target_language):
        def translate(texts, **options):
            asked.append((texts[0], target_language, options["num_beams"]))
            return TEXTS["en"] if texts == TEXTS["de"] else ["nothing of the kind"] * len(texts)

        return translate

    monkeypatch.setattr(evaluate, "load_translator", load_translator)
    data = write_texts(tmp_path / "shards", TEXTS)
    given = settings(tmp_path, data, encoder=None, translation_model=str(folder), num_beams=2)
    result = evaluate.evaluate_text(given)
    assert asked == [(TEXTS["de"][0], "en", 2), (TEXTS["fr"][0], "en", 2)]
    assert result["metrics"]["bleu"]["de"] == pytest.approx(100)
    assert result["metrics"]["bleu"]["fr"] < 5
    assert result["model"] == str(folder / "encoder")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": None}, "needs --encoder or --translation_model"),
        ({"languages": ["en"]}, "two or more --languages"),
        (
            {"languages": ["en", "cs"]},
            "no sample has captions in .cs.; there are captions in de, en, fr",
        ),
        ({"translation_model": "x", "into": "cs"}, "--into cs is not among"),
    ],
)
def test_wrong_settings_are_named(tmp_path, changes, message):
    data = write_texts(tmp_path / "shards", TEXTS)
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate_text(settings(tmp_path, data, **changes))


def test_captions_that_translate_nothing_are_refused(tmp_path):
    data = write_texts(tmp_path / "shards", TEXTS, parallel=False)
    with pytest.raises(ValueError, match="do not translate one another"):
        evaluate.evaluate_text(settings(tmp_path, data))


def test_dense_pairs_have_the_cosines_of_the_sparse_rows_and_unit_length(scripts):
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)).fit(
        sum(TEXTS.values(), [])
    )
    one, other = (vectorizer.transform(TEXTS[language]) for language in ("de", "fr"))
    dense_one, dense_other = scripts["baselines"].dense_pair(one, other)
    np.testing.assert_allclose(
        (dense_one @ dense_other.T).numpy(), (one @ other.T).toarray(), atol=1e-6
    )
    for rows in (dense_one, dense_other):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))


def test_only_words_are_masked_in_the_shares_of_bert(scripts):
    ids = torch.randint(4, 99, (200, 32), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1], ids[::2, -4:] = 0, 2, 1
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(4, 99))]
    tokenizer = XLMRobertaTokenizer(vocab=[(piece, 0.0) for piece in pieces])
    torch.manual_seed(1)
    mask = scripts["make_encoder"].DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)
    batch = mask([{"input_ids": row} for row in ids.tolist()])
    read, chosen = batch["input_ids"], batch["labels"] != -100
    assert tokenizer.mask_token_id == 99
    assert not chosen[ids < 3].any()
    assert torch.equal(read[~chosen], ids[~chosen])
    assert chosen.sum() / (ids > 3).sum() == pytest.approx(0.5, abs=0.03)
    assert (read[chosen] == 99).float().mean() == pytest.approx(0.8, abs=0.03)
    assert (read[chosen] == ids[chosen]).float().mean() == pytest.approx(0.1, abs=0.03)


def test_an_epoch_has_each_row_at_most_once_and_goes_on_anywhere(scripts):
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    batches = scripts["make_encoder"].iter_batches(lengths, 16, 0, 0)
    steps = [next(batches) for _ in range(130)]  # two epochs of 62
    assert len(set(np.concatenate(steps[:62]))) == 62 * 16
    assert not np.array_equal(steps[0], steps[62])
    assert np.mean([np.ptp(lengths[rows]) for rows in steps]) < 5
    for first in (61, 62, 100):
        assert np.array_equal(
            next(scripts["make_encoder"].iter_batches(lengths, 16, 0, first)), steps[first]
        )


def test_the_masked_loss_scores_chosen_tokens_alone_with_the_input_embedding(scripts):
    part = scripts["masked_model"]
    config = part.encoder_config(50, width=16, num_layers=1, num_heads=2, max_length=8)
    model = part.MaskedLanguageModel(part.untrained_model(config, seed=0))
    ids = torch.tensor([[0, 7, 49, 2], [0, 49, 2, 1]])
    chosen = ids == 49
    labels = torch.full_like(ids, -100).masked_scatter(chosen, torch.tensor([9, 11]))
    loss, parts = model(ids, (ids != 1).long(), labels)
    states = model.encoder(ids, attention_mask=(ids != 1).long()).last_hidden_state
    hidden = model.head.layer_norm(F.gelu(model.head.dense(states)))
    scores = hidden @ model.encoder.embeddings.word_embeddings.weight.T + model.head.decoder.bias
    expected = F.cross_entropy(torch.stack([scores[0, 2], scores[1, 1]]), torch.tensor([9, 11]))
    torch.testing.assert_close(loss, expected)
    assert set(parts) == {"accuracy"}


def test_an_encoder_is_made_once_and_its_pretraining_goes_on(scripts, tmp_path, monkeypatch):
    make = scripts["make_encoder"]
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), rng.integers(1, 7))) for _ in range(400)]
    texts = {name: [" ".join(rng.choice(words, 8)) for _ in range(60)] for name in ("en", "de")}
    made = make.MakeEncoderSettings(
        train_data=write_texts(tmp_path / "shards", texts),
        output_dir=str(tmp_path / "encoder"),
        languages=["en", "de"],
        vocabulary_size=260,
        width=16,
        num_layers=1,
        num_heads=2,
        max_length=24,
        train_batch_size=8,
        max_train_steps=4,
        checkpointing_steps=1,
        lr_warmup_steps=1,
    )
    monkeypatch.setattr(StopRequest, "requested", lambda self, ranks: True)
    make.make_encoder(made)  # stopped after a step
    assert not (tmp_path / "encoder" / "pretrained").exists()
    monkeypatch.undo()
    make.make_encoder(made)
    steps = [
        json.loads(x) for x in (tmp_path / "encoder/mlm/metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    untrained, pretrained = (
        load_multilingual_encoder(str(tmp_path / "encoder" / name))
        for name in ("untrained", "pretrained")
    )
    assert len(pretrained.tokenizer) == pretrained.model.config.vocab_size == 260
    assert isinstance(pretrained.model, XLMRobertaModel)
    for (name, before), after in zip(
        untrained.model.named_parameters(), pretrained.model.parameters(), strict=True
    ):
        assert not torch.equal(before, after) or "token_type" in name, name


@pytest.mark.skipif(not (MULTI30K / "data").is_dir(), reason="no Multi30K beside the repository")
def test_captions_that_repeat_are_few_in_multi30k():
    from crosslingual.data.sources.multi30k import multi30k

    records = list(multi30k(str(MULTI30K), split="test_2016_flickr"))
    assert len(records) == 1000
    for language in ("en", "de", "fr", "cs"):
        texts = [record.captions[language][0] for record in records]
        assert 990 <= len(set(texts)) <= 1000
