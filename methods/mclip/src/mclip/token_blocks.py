"""One block of token arrays: the sentences of many records of a source, tokenised."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from mclip.parallel_text import Pair, Record

SENTENCES_AT_A_TIME = 10_000
NUM_MARKS = 2  # <s> and </s>, which every sentence has


def pair_name(pair: Pair) -> str:
    """What arrays and counts of a pair are called, whichever its direction."""
    return "-".join(sorted(pair))


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, size)), [])


@dataclass
class _Sentences:
    """The sentences of a block in one language, tokenised."""

    texts: list[str] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)
    num_cut: int = 0

    def tokenize(self, tokenizer: Any, max_length: int) -> None:
        for texts in chunks(self.texts, SENTENCES_AT_A_TIME):
            encoded = tokenizer(texts, return_attention_mask=False, verbose=False)
            for ids in encoded.input_ids:
                if len(ids) > max_length:
                    ids = [*ids[: max_length - 1], ids[-1]]
                    self.num_cut += 1
                self.tokens.append(np.array(ids, dtype=np.int32))


def write_block(
    path: Path,
    records: Iterable[Record],
    pairs: Sequence[Pair],
    tokenizer: Any,
    max_length: int,
) -> None:
    """Tokenises records and writes the block; it is complete or absent.

    Each sentence is tokenised once, however many pairs it is part of.

    Args:
        path: the block's file.
        records: numbers and sentences by language.
        pairs: languages, sorted.
        tokenizer: of the encoder.
        max_length: tokens a sentence.
    """
    sentences = {language: _Sentences() for pair in pairs for language in pair}
    rows: dict[Pair, list[tuple[int, int, int]]] = {pair: [] for pair in pairs}
    for number, captions in records:
        first = {language: len(sentences[language].texts) for language in sentences}
        for language, known in sentences.items():
            known.texts += captions.get(language, [])
        for pair in pairs:
            left, right = (captions.get(language, []) for language in pair)
            for place in range(min(len(left), len(right))):
                rows[pair].append((first[pair[0]] + place, first[pair[1]] + place, number))
    for known in sentences.values():
        known.tokenize(tokenizer, max_length)
    arrays, num_rows, num_empty = {}, {}, 0
    for pair, places in rows.items():
        sides = [sentences[language].tokens for language in pair]
        full = [row for row in places if all(len(sides[n][row[n]]) > NUM_MARKS for n in (0, 1))]
        num_empty += len(places) - len(full)
        num_rows[pair_name(pair)] = len(full)
        arrays[f"{pair_name(pair)}/numbers"] = np.array([row[2] for row in full], dtype=np.int64)
        for side, language in enumerate(pair):
            tokens = [sides[side][row[side]] for row in full]
            name = f"{pair_name(pair)}/{language}"
            arrays[f"{name}.ids"] = np.concatenate([np.empty(0, np.int32), *tokens])
            arrays[f"{name}.offsets"] = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
    cut = sum(known.num_cut for known in sentences.values())
    facts = {"num_rows": num_rows, "num_cut": cut, "num_without_tokens": num_empty}
    beside = path.with_name(f".{path.name}.partial")
    save_file(arrays, beside, metadata={"facts": json.dumps(facts)})
    beside.replace(path)


def read_facts(path: Path) -> dict[str, Any]:
    """What `write_block` counted: `num_rows` by pair, `num_cut`, `num_without_tokens`."""
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["facts"])
