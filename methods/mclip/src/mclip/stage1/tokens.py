"""Parallel text as token arrays: `mclip tokenize` writes them once, training memory-maps them.

A folder of tokens holds `block-00000.safetensors`, ... and `index.json`, which is written last. A
block covers consecutive records of one source. For each pair of languages it holds `de-en/de.ids`
(int32, the sentences' tokens one after another, each from <s> to </s>), `de-en/de.offsets`
(rows + 1), the same for `en`, and `de-en/numbers`, the records' numbers in the source. Processes
share the blocks, and complete blocks are kept: a second run goes on where the first one stopped.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from crosslingual.files import (
    naming_full_disk,
    read_fields,
    remove_leftovers,
    replacing,
    write_json,
)
from crosslingual.folders import mark_folder
from crosslingual.frozen.weights import open_tokenizer
from crosslingual.training.folder import lock_folder, on_first_rank
from crosslingual.training.processes import Ranks, start_processes
from mclip.stage1.parallel_text import (
    Pair,
    ParallelText,
    Record,
    both_ways,
    expand_pairs,
    open_sources,
)
from mclip.stage1.settings import TokenizeSettings

INDEX, CLAIM, VERSION = "index.json", "made_of.json", 1
ANEW = "make the tokens anew, in another folder"
_FIELDS = {"made_of": dict[str, Any], "num_rows": dict[str, int], "counts": dict[str, int]}
_FIELDS |= {"blocks": list[dict[str, Any]]}
RECORDS_PER_BLOCK = 250_000
SENTENCES_AT_A_TIME = 10_000
NUM_MARKS = 2  # <s> and </s>, which every sentence has


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of vocabulary and rules: another tokenizer's tokens cannot be read with this one."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for name in ("truncation", "padding"):  # of the last call, not of the tokenizer
        rules.pop(name)
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def load_tokenizer(name: str, revision: str | None, max_length: int | None) -> tuple[Any, int]:
    """An encoder's tokenizer, and the tokens of a sentence: at most 256, if they are not given.

    Raises:
        FileNotFoundError: no tokenizer of that name can be reached.
        ValueError: more tokens than the encoder reads.
    """
    tokenizer = open_tokenizer(name, revision)
    limit = int(tokenizer.model_max_length)
    if max_length is not None and not 3 <= max_length <= limit:
        raise ValueError(f"max_length is {max_length}; {name} reads 3 to {limit} tokens")
    return tokenizer, max_length or min(limit, 256)


def pair_name(pair: Pair) -> str:
    """The name of a pair's arrays and counts, the same in both directions."""
    return "-".join(sorted(pair))


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, size)), [])


def _token_ids(texts: list[str], tokenizer: Any, max_length: int) -> tuple[list[np.ndarray], int]:
    """The tokens of sentences, and how many sentences were cut."""
    tokens, num_cut = [], 0
    for part in chunks(texts, SENTENCES_AT_A_TIME):
        for ids in tokenizer(part, return_attention_mask=False, verbose=False).input_ids:
            if len(ids) > max_length:
                ids = [*ids[: max_length - 1], ids[-1]]
                num_cut += 1
            tokens.append(np.array(ids, dtype=np.int32))
    return tokens, num_cut


def write_block(
    path: Path,
    records: Iterable[Record],
    pairs: Sequence[Pair],
    tokenizer: Any,
    max_length: int,
) -> None:
    """Tokenises records and writes the block; the file is complete or absent.

    Each sentence is tokenised once, however many pairs it is part of.

    Args:
        path: the block's file.
        records: numbers and sentences by language.
        pairs: languages, sorted.
        tokenizer: the encoder's.
        max_length: tokens a sentence.
    """
    texts: dict[str, list[str]] = {language: [] for pair in pairs for language in pair}
    rows: dict[Pair, list[tuple[int, int, int]]] = {pair: [] for pair in pairs}
    for number, captions in records:
        first = {language: len(known) for language, known in texts.items()}
        for language, known in texts.items():
            known += captions.get(language, [])
        for pair in pairs:
            left, right = (captions.get(language, []) for language in pair)
            for place in range(min(len(left), len(right))):
                rows[pair].append((first[pair[0]] + place, first[pair[1]] + place, number))
    tokenized = {name: _token_ids(known, tokenizer, max_length) for name, known in texts.items()}
    arrays, num_rows, num_empty = {}, {}, 0
    for pair, places in rows.items():
        sides = [tokenized[language][0] for language in pair]
        full = [row for row in places if all(len(sides[n][row[n]]) > NUM_MARKS for n in (0, 1))]
        num_empty += len(places) - len(full)
        num_rows[pair_name(pair)] = len(full)
        arrays[f"{pair_name(pair)}/numbers"] = np.array([row[2] for row in full], dtype=np.int64)
        for side, language in enumerate(pair):
            tokens = [sides[side][row[side]] for row in full]
            name = f"{pair_name(pair)}/{language}"
            arrays[f"{name}.ids"] = np.concatenate([np.empty(0, np.int32), *tokens])
            arrays[f"{name}.offsets"] = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
    facts = {"num_rows": num_rows, "num_cut": sum(num for _, num in tokenized.values())}
    facts["num_without_tokens"] = num_empty
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"facts": json.dumps(facts)})


def read_facts(path: Path) -> dict[str, Any]:
    """The counts that `write_block` kept: `num_rows` by pair, `num_cut`, `num_without_tokens`."""
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["facts"])


def write_tokens(
    sources: Sequence[ParallelText],
    pairs: Sequence[Pair],
    folder: str | Path,
    tokenizer: Any,
    max_length: int,
    ranks: Ranks,
    *,
    records_per_block: int = RECORDS_PER_BLOCK,
) -> dict[str, Any]:
    """Writes the tokens of the pairs' sentences; every process must call it.

    Sentences longer than `max_length` are cut with </s> kept; those without a token are left out.
    Both are counted, as are empty lines and records that are not parallel.

    Args:
        sources: the parallel text.
        pairs: languages that translate one another; their direction does not matter.
        folder: where the tokens go.
        tokenizer: the encoder's.
        max_length: tokens a sentence.
        ranks: this process among those that share the work.
        records_per_block: records a file.

    Returns:
        The index.

    Raises:
        ValueError: the folder holds tokens of other text or settings, or other files; another
            process writes into it; or a source is faulty.
        OSError: the disk is full; a second run goes on.
    """
    folder, full = Path(folder), f"the tokens in {folder} are not complete; make room and try again"
    made_of = {
        "tokenizer": tokenizer_hash(tokenizer),
        "max_length": max_length,
        "pairs": [list(pair) for pair in both_ways(pairs)],
        "sources": [[source.name, source.digest] for source in sources],
        "records_per_block": records_per_block,
    }
    with lock_folder(folder, ranks), naming_full_disk(full):
        return _write(sources, pairs, folder, tokenizer, max_length, ranks, made_of)


def _write(
    sources: Sequence[ParallelText],
    pairs: Sequence[Pair],
    folder: Path,
    tokenizer: Any,
    max_length: int,
    ranks: Ranks,
    made_of: dict[str, Any],
) -> dict[str, Any]:
    if (folder / INDEX).is_file():
        index = read_index(folder)
        check_fresh(index, made_of, folder)
        return index
    on_first_rank(ranks, lambda: _claim(folder, made_of))
    blocks, counts = [], Counter()
    for source in sources:
        own = [pair for pair in both_ways(pairs) if set(pair) <= set(source.languages)]
        seen: Counter[str] = Counter()
        for records in chunks(_counted(source.records(), seen), made_of["records_per_block"]):
            name = f"block-{len(blocks):05d}.safetensors"
            if len(blocks) % ranks.world_size == ranks.rank and not (folder / name).exists():
                write_block(folder / name, records, own, tokenizer, max_length)
            blocks.append({"name": name, "source": source.name})
        counts.update(source.count(seen))
    torch.distributed.barrier()
    if ranks.rank == 0:
        _finish(folder, made_of, blocks, counts)
    torch.distributed.barrier()
    return read_index(folder)


def read_index(folder: str | Path) -> dict[str, Any]:
    """Reads `index.json`: `made_of`, `blocks` (name, source, `num_rows` by pair) and `counts`.

    Raises:
        FileNotFoundError: the folder holds no complete tokens.
        ValueError: the tokens are of another version.
    """
    if not is_tokens(folder):
        raise FileNotFoundError(f"no complete tokens in {folder}: run `mclip tokenize` (again)")
    path = Path(folder) / INDEX
    if read_fields(path, {"version": int}, ANEW)["version"] != VERSION:
        raise ValueError(f"the tokens in {folder} are of another version: make them anew")
    return read_fields(path, _FIELDS, ANEW)


def is_tokens(folder: str | Path) -> bool:
    """Whether a folder holds complete tokens."""
    path = Path(folder) / INDEX
    return path.is_file() and "tokenizer" in (read_fields(path, {}, ANEW).get("made_of") or ())


def seen_ids(folder: str | Path, pairs: Iterable[Pair]) -> torch.Tensor:
    """The different tokens (N) of the pairs' sentences in a folder of tokens, ascending."""
    names = {f"{pair_name(pair)}/{language}.ids" for pair in pairs for language in pair}
    seen = np.empty(0, np.int32)
    for block in read_index(folder)["blocks"]:
        with safe_open(Path(folder) / block["name"], "np") as file:
            held = sorted(names & set(file.keys()))
            seen = np.unique(np.concatenate([seen, *map(file.get_tensor, held)]))
    return torch.from_numpy(seen).long()


def check_fresh(index: dict[str, Any], made_of: dict[str, Any], folder: str | Path) -> None:
    """Refuses tokens that were made of other text or by another tokenizer.

    Raises:
        ValueError: the first difference is named.
    """
    for name, wanted in made_of.items():
        found = index["made_of"].get(name)
        if found != wanted:
            raise ValueError(
                f"the tokens in {folder} are stale: {name} was {str(found):.80} and is "
                f"{str(wanted):.80}; remove the folder or change the setting"
            )


def _claim(folder: Path, made_of: dict[str, Any]) -> None:
    """Says what a folder is being filled with, or checks that it is that."""
    if (folder / CLAIM).is_file():
        check_fresh({"made_of": read_fields(folder / CLAIM, {}, ANEW)}, made_of, folder)
        remove_leftovers(folder)
    elif foreign := sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")):
        raise ValueError(f"{folder} holds {foreign[0]}, which is no token array; {ANEW}")
    else:
        write_json(folder / CLAIM, made_of)


def _counted(records: Iterable[Record], seen: Counter[str]) -> Iterator[Record]:
    for record in records:
        seen["records"] += 1
        seen["bare"] += not record[1]
        yield record


def _finish(
    folder: Path, made_of: dict[str, Any], blocks: list[dict[str, Any]], counts: Counter[str]
) -> None:
    """Writes `index.json` over all blocks, which makes the folder complete."""
    num_rows: Counter[str] = Counter()
    for block in blocks:
        facts = read_facts(folder / block["name"])
        block["num_rows"] = facts["num_rows"]
        num_rows.update(facts["num_rows"])
        counts.update({name: facts[name] for name in ("num_cut", "num_without_tokens")})
    index = {"version": VERSION, "made_of": made_of, "num_rows": num_rows, "counts": counts}
    mark_folder(folder, "tokens", {block["name"] for block in blocks})
    write_json(folder / INDEX, {**index, "blocks": blocks})


def describe(index: dict[str, Any]) -> str:
    """One line on the sentence pairs of a folder of tokens, and on what was left out or cut."""
    rows = ", ".join(f"{name} {count:,}" for name, count in sorted(index["num_rows"].items()))
    lost = ", ".join(
        f"{name.removeprefix('num_').replace('_', ' ')} {count:,}"
        for name, count in index["counts"].items()
        if count
    )
    return f"sentence pairs: {rows}; {lost}"


def tokenize_text(
    names: Iterable[str],
    pairs: Iterable[str],
    folder: Path,
    tokenizer: Any,
    max_length: int,
    ranks: Ranks,
) -> list[Pair]:
    """`write_tokens` of the named text and pairs; returns the directions to translate in."""
    sources = open_sources(names)
    directions = expand_pairs(pairs, [source.languages for source in sources])
    index = write_tokens(sources, directions, folder, tokenizer, max_length, ranks)
    if ranks.rank == 0:
        print(f"{folder}: {describe(index)}")
    return directions


def tokenize(settings: TokenizeSettings) -> None:
    """`mclip tokenize`: writes the tokens of `train_data` to `tokens_dir`."""
    if not settings.tokens_dir:
        raise ValueError("`mclip tokenize` needs --tokens_dir, where the token arrays go")
    name, revision = settings.text_encoder, settings.text_encoder_revision
    limits = load_tokenizer(name, revision, settings.max_length)
    folder, ranks = Path(settings.tokens_dir), start_processes()
    with lock_folder(folder, ranks, flag="--tokens_dir"):
        tokenize_text(settings.train_data, settings.pairs, folder, *limits, ranks)
