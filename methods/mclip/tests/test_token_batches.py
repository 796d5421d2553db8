"""Tokens of parallel text on disk, and the batches made of them."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual.data.sources import SOURCES
from crosslingual.training.processes import Ranks, start_processes
from mclip.stage1.data import PairOrder, PairTokens, TokenBatches
from mclip.stage1.parallel_text import expand_pairs, open_sources, sentence_pairs
from mclip.stage1.settings import TrainEncoderSettings
from mclip.stage1.tokens import load_tokenizer, read_index, write_tokens

MULTI30K = Path(
    os.environ.get("MULTI30K", Path(__file__).parents[4] / "shared" / "data" / "multi30k")
)
ONE = Ranks(0, 1, 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def ranks() -> Ranks:
    return start_processes()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of 200 records in English and German, every second in French too, and one record
    whose captions do not translate one another.
    """
    random = np.random.default_rng(0)

    def record(number: int) -> Record:
        words = " ".join(random.choice(["red", "green", "blue"], random.integers(1, 5)))
        captions = {"en": [f"{words} {number}"], "de": [f"die {words} {number}"]}
        if number % 2:
            captions["fr"] = [f"{number} la {words}"]
        return Record(f"{number:05d}", None, captions, parallel=number != 7)

    folder = tmp_path_factory.mktemp("texts")
    write_shards(map(record, range(200)), folder)
    return str(folder)


def tokens_of(names: list[str], encoder: str, folder: Path, ranks: Ranks, **options: Any) -> Path:
    sources = open_sources(names)
    pairs = expand_pairs(["all"], [source.languages for source in sources])
    tokenizer, max_length = load_tokenizer(encoder, None, options.pop("max_length", None))
    write_tokens(sources, pairs, folder, tokenizer, max_length, ranks, **options)
    return folder


@pytest.fixture(scope="module")
def tokens(
    texts: str, encoder: str, ranks: Ranks, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tokens of `texts`, in blocks of 60 records."""
    folder = tmp_path_factory.mktemp("tokens")
    return tokens_of([texts], encoder, folder, ranks, records_per_block=60)


def test_tokens_are_the_tokenizers_of_both_languages(
    texts: str, tokens: Path, encoder: str
) -> None:
    tokenizer, max_length = load_tokenizer(encoder, None, None)
    pair = PairTokens(tokens, read_index(tokens), ("fr", "en"))
    sentences = list(sentence_pairs(open_sources([texts]), ("fr", "en")))
    assert pair.num_rows == len(sentences) == 99
    rows = np.array([98, 0, 41, 40])
    for side in (0, 1):
        expected = tokenizer(
            [sentences[row][side] for row in rows],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        ids, mask = pair.ids(rows, side, pad=tokenizer.pad_token_id)
        assert torch.equal(ids, expected.input_ids)
        assert torch.equal(mask, expected.attention_mask)
        assert (pair.lengths(rows)[:, side] == mask.sum(1).numpy()).all()
    counts = read_index(tokens)["counts"]
    assert counts["num_not_parallel"] == 1 and counts["num_records"] == 200
    assert (
        counts["num_cut"]
        == sum(
            len(tokenizer(text).input_ids) > max_length
            for _, captions in open_sources([texts])[0].records()
            for (text,) in captions.values()
        )
        > 0
    )


def test_an_interrupted_tokenisation_goes_on_and_ends_the_same(
    texts: str, tokens: Path, encoder: str, ranks: Ranks, tmp_path: Path
) -> None:
    tokens_of([texts], encoder, tmp_path, ranks, records_per_block=60)
    (tmp_path / "index.json").unlink()
    (tmp_path / "block-00002.safetensors").unlink()
    kept = (tmp_path / "block-00001.safetensors").stat().st_mtime_ns
    tokens_of([texts], encoder, tmp_path, ranks, records_per_block=60)
    assert (tmp_path / "block-00001.safetensors").stat().st_mtime_ns == kept
    for path in tokens.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_processes_share_the_blocks(
    texts: str, tokens: Path, encoder: str, ranks: Ranks, tmp_path: Path
) -> None:
    """The group that they would meet in has this process alone, so they come one after another."""
    with pytest.raises(FileNotFoundError, match="no complete tokens"):
        tokens_of([texts], encoder, tmp_path, Ranks(1, 2, 1, ONE.device), records_per_block=60)
    blocks = [f"block-{number:05d}.safetensors" for number in range(4)]
    assert sorted(os.listdir(tmp_path)) == blocks[1::2]
    (tmp_path / "made_of.json").write_text((tokens / "made_of.json").read_text())
    for name in blocks[::2]:
        shutil.copy(tokens / name, tmp_path / name)
    tokens_of([texts], encoder, tmp_path, Ranks(0, 2, 0, ONE.device), records_per_block=60)
    for path in tokens.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_stale_tokens_are_refused(
    texts: str, tokens: Path, encoder: str, ranks: Ranks, tmp_path: Path
) -> None:
    again = {"records_per_block": 60}
    with pytest.raises(ValueError, match="are stale: max_length was 16 and is 8"):
        tokens_of([texts], encoder, tokens, ranks, max_length=8, **again)
    with pytest.raises(ValueError, match="are stale: tokenizer was"):
        tokens_of([texts], "testbed:xlm-r", tokens, ranks, max_length=16, **again)
    with pytest.raises(ValueError, match="are stale: sources was"):
        tokens_of([texts, texts], encoder, tokens, ranks, **again)
    with pytest.raises(FileNotFoundError, match="no complete tokens in"):
        read_index(tmp_path)
    with pytest.raises(ValueError, match="max_length is 17; .* reads 3 to 16 tokens"):
        load_tokenizer(encoder, None, 17)


def batches_of(tokens: Path, ranks: Ranks, batch_size: int, **options: Any) -> TokenBatches:
    settings = TrainEncoderSettings(train_batch_size=batch_size, **{"seed": 3, **options})
    pairs = [("de", "en"), ("en", "de"), ("en", "fr")]
    return TokenBatches(tokens, pairs, settings, ranks, pad=1)


def test_two_processes_share_the_batches_of_one(tokens: Path) -> None:
    whole = batches_of(tokens, ONE, 8).batches()
    parts = [batches_of(tokens, Ranks(rank, 2, rank, ONE.device), 4).batches() for rank in range(2)]
    for batch, left, right in islice(zip(whole, *parts, strict=True), 60):
        assert Counter(batch["keys"]) == Counter(left["keys"] + right["keys"])
        for part in (left, right):
            assert part["source_language"] == batch["source_language"]
            assert part["target_language"] == batch["target_language"]
        assert batch["keys"][::2] == left["keys"]


def test_a_resume_at_any_micro_step_gives_the_same_batches(
    tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mclip.stage1.data.DRAWS_AT_A_TIME", 64)
    seen = list(islice(batches_of(tokens, ONE, 8).batches(), 200))
    for start in (1, 63, 64, 150, 192):
        batch = next(batches_of(tokens, ONE, 8).batches(start))
        assert batch["keys"] == seen[start]["keys"]
        for name in ("source_ids", "source_mask", "target_ids", "target_mask"):
            assert torch.equal(batch[name], seen[start][name])
    assert seen[0]["keys"] != next(batches_of(tokens, ONE, 8, seed=4).batches())["keys"]


def test_an_epoch_has_each_row_at_most_once_and_all_but_a_rest(tokens: Path) -> None:
    order = PairOrder(PairTokens(tokens, read_index(tokens), ("en", "fr")), 8, seed=0)
    for epoch in range(2):
        rows = np.concatenate([order.rows(epoch * 12 + n) for n in range(12)])
        assert len(set(rows.tolist())) == 96 and set(rows.tolist()) <= set(range(99))
    assert not np.array_equal(order.rows(0), order.rows(12))


def test_neighbourhoods_of_a_large_pair_are_gone_through_whole(
    tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mclip.stage1.data.SHUFFLED_ROWS", 30)
    order = PairOrder(PairTokens(tokens, read_index(tokens), ("en", "fr")), 8, seed=0)
    rows = [order.rows(number) for number in range(12)]
    assert len(set(np.concatenate(rows).tolist())) == 96
    assert all(batch.max() // 33 == batch.min() // 33 for batch in rows)


def test_sentences_of_similar_length_are_batched(tokens: Path) -> None:
    """At least half of the padding that rows at random would have is saved."""
    pair = PairTokens(tokens, read_index(tokens), ("en", "de"))
    order = PairOrder(pair, 8, seed=0)
    random = np.random.default_rng(0).permutation(pair.num_rows)[:192].reshape(24, 8)

    def padded(batches: Iterable[np.ndarray]) -> float:
        masks = [pair.ids(rows, 0, pad=1)[1].float() for rows in batches]
        return sum((1 - mask).sum() for mask in masks) / sum(mask.numel() for mask in masks)

    assert padded(order.rows(number) for number in range(24)) < padded(random) / 2


def test_pairs_are_drawn_by_temperature(tokens: Path) -> None:
    batches = batches_of(tokens, ONE, 8, pair_temperature=1.0)
    shares = np.array([199, 199, 99]) / 497
    assert batches.shares == pytest.approx(shares)
    drawn = Counter(
        (batch["source_language"], batch["target_language"])
        for batch in islice(batches.batches(), 600)
    )
    assert [drawn[pair] / 600 for pair in batches.pairs] == pytest.approx(shares, abs=0.06)
    flat = batches_of(tokens, ONE, 8, pair_temperature=1e9)
    assert flat.shares == pytest.approx(np.full(3, 1 / 3))
    with pytest.raises(ValueError, match="pair_temperature is 0"):
        batches_of(tokens, ONE, 8, pair_temperature=0)
    with pytest.raises(ValueError, match="99 sentence pairs of en-fr do not fill one batch of 100"):
        batches_of(tokens, ONE, 100)


@pytest.mark.skipif(not MULTI30K.is_dir(), reason=f"no Multi30K in {MULTI30K}")
def test_multi30k_has_few_sentences_twice_in_a_batch(
    encoder: str, ranks: Ranks, tmp_path: Path
) -> None:
    """A sentence that stands twice in a batch is a negative of its own translation."""
    records = SOURCES["multi30k"](str(MULTI30K), split="val")
    write_shards(records, tmp_path / "shards")
    sources = open_sources([str(tmp_path / "shards")])
    pairs = expand_pairs(["en-centric"], [sources[0].languages])
    tokenizer, max_length = load_tokenizer("testbed:xlm-r", None, 32)
    folder = tmp_path / "tokens"
    index = write_tokens(sources, pairs, folder, tokenizer, max_length, ranks)
    assert index["num_rows"] == {"cs-en": 1014, "de-en": 1014, "en-fr": 1014}
    batches = TokenBatches(folder, pairs, TrainEncoderSettings(), ONE, pad=1).batches()
    repeated = [64 - len(batch["target_ids"].unique(dim=0)) for batch in islice(batches, 90)]
    assert sum(repeated) / (90 * 64) < 0.01


def test_a_folder_of_something_else_gets_no_tokens(
    texts: str, encoder: str, ranks: Ranks, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="holds thesis.tex, which is no token array; make the tok"):
        tokens_of([texts], encoder, tmp_path, ranks)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_flipped_byte_in_the_tokens_is_not_trained_on(
    tokens: Path, ranks: Ranks, tmp_path: Path
) -> None:
    spoilt = shutil.copytree(tokens, tmp_path / "tokens")
    block = spoilt / "block-00001.safetensors"
    data = bytearray(block.read_bytes())
    data[-1] ^= 1
    block.write_bytes(data)
    pair = PairTokens(spoilt, read_index(spoilt), ("fr", "en"))
    with pytest.raises(ValueError, match="block-00001.safetensors is not as it was written"):
        pair.lengths(np.arange(99))
    PairTokens(spoilt, read_index(spoilt), ("fr", "en"), verify=False).lengths(np.arange(99))
    (spoilt / "index.json").write_text('{"version": 1, "made_of": {"tokenizer": ""}, "counts": 1}')
    with pytest.raises(ValueError, match="index.json is broken .its num_rows is missing"):
        read_index(spoilt)
