"""`mclip tokenize`: parallel text as token arrays, written once, memory-mapped by training.

A folder of tokens holds `block-00000.safetensors`, ... and `index.json`, written last. A block is
of consecutive records of one source; for each pair of languages it holds `de-en/de.ids` (int32, the
sentences' tokens one after another, each from <s> to </s>), `de-en/de.offsets` (rows + 1), the same
for `en`, and `de-en/numbers`, the records' numbers in the source. Processes share the blocks, and
complete ones are kept: a second run goes on where the first one stopped.

mclip tokenize --train_data opus/Tatoeba.de-en data/shards --tokens_dir data/tokens
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from crosslingual.cli.verbs import run_verb
from crosslingual.features.loader import write_atomically
from crosslingual.frozen.encoders import resolve
from crosslingual.training.processes import Ranks, start_processes
from mclip.config_text import TokenizeSettings
from mclip.parallel_text import (
    Pair,
    ParallelText,
    Record,
    both_ways,
    count_records,
    expand_pairs,
    open_sources,
)
from mclip.token_blocks import chunks, read_facts, write_block

INDEX, CLAIM, VERSION = "index.json", "made_of.json", 1
RECORDS_PER_BLOCK = 250_000


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of vocabulary and rules: tokens by another tokenizer are another language."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for name in ("truncation", "padding"):  # of the last call, not of the tokenizer
        rules.pop(name)
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def load_tokenizer(name: str, revision: str | None, max_length: int | None) -> tuple[Any, int]:
    """An encoder's tokenizer, and the tokens of a sentence: at most 256, if they are not given.

    Raises:
        FileNotFoundError: nothing of that name can be reached.
        ValueError: more tokens than the encoder reads.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve(name), revision=revision)
    except OSError as error:
        raise FileNotFoundError(f"no tokenizer of {name} can be reached") from error
    limit = int(tokenizer.model_max_length)
    if max_length is not None and not 3 <= max_length <= limit:
        raise ValueError(f"max_length is {max_length}; {name} reads 3 to {limit} tokens")
    return tokenizer, max_length or min(limit, 256)


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
        tokenizer: of the encoder.
        max_length: tokens a sentence.
        ranks: this process among those that share the work.
        records_per_block: records a file.

    Returns:
        The index.

    Raises:
        ValueError: the folder holds tokens of something else, or a source is faulty.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made_of = {
        "tokenizer": tokenizer_hash(tokenizer),
        "max_length": max_length,
        "pairs": [list(pair) for pair in both_ways(pairs)],
        "sources": [[source.name, source.digest] for source in sources],
        "records_per_block": records_per_block,
    }
    if (folder / INDEX).is_file():
        index = read_index(folder)
        check_fresh(index, made_of, folder)
        return index
    if (folder / CLAIM).is_file():
        check_fresh({"made_of": json.loads((folder / CLAIM).read_text())}, made_of, folder)
    elif ranks.rank == 0:
        write_atomically(folder / CLAIM, json.dumps(made_of))
    blocks, counts = [], Counter()
    for source in sources:
        own = [pair for pair in both_ways(pairs) if set(pair) <= set(source.languages)]
        seen: Counter[str] = Counter()
        for records in chunks(_counted(source.records(), seen), records_per_block):
            name = f"block-{len(blocks):05d}.safetensors"
            if len(blocks) % ranks.world_size == ranks.rank and not (folder / name).exists():
                write_block(folder / name, records, own, tokenizer, max_length)
            blocks.append({"name": name, "source": source.name})
        counts.update(count_records(source, seen))
    torch.distributed.barrier()
    if ranks.rank == 0:
        _finish(folder, made_of, blocks, counts)
    torch.distributed.barrier()
    return read_index(folder)


def read_index(folder: str | Path) -> dict[str, Any]:
    """Reads `index.json`: `made_of`, `blocks` (name, source, `num_rows` by pair) and `counts`.

    Raises:
        FileNotFoundError: the folder holds no complete tokens.
        ValueError: they are of another version.
    """
    path = Path(folder) / INDEX
    if not is_tokens(folder):
        raise FileNotFoundError(f"no complete tokens in {folder}: run `mclip tokenize` (again)")
    index = json.loads(path.read_text())
    if index["version"] != VERSION:
        raise ValueError(f"the tokens in {folder} are of another version: make them anew")
    return index


def is_tokens(folder: str | Path) -> bool:
    """Whether a folder holds complete tokens."""
    path = Path(folder) / INDEX
    return path.is_file() and "tokenizer" in json.loads(path.read_text()).get("made_of", {})


def check_fresh(index: dict[str, Any], made_of: dict[str, Any], folder: str | Path) -> None:
    """Refuses tokens that were made of other text or by another tokenizer.

    Raises:
        ValueError: naming the first difference.
    """
    for name, wanted in made_of.items():
        found = index["made_of"].get(name)
        if found != wanted:
            raise ValueError(
                f"the tokens in {folder} are stale: {name} was {str(found):.80} and is "
                f"{str(wanted):.80}; remove the folder or change the setting"
            )


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
    write_atomically(folder / INDEX, json.dumps({**index, "blocks": blocks}, indent=1))


def describe(index: dict[str, Any]) -> str:
    """One line on what a folder of tokens holds and what was left out or cut."""
    rows = ", ".join(f"{name} {count:,}" for name, count in sorted(index["num_rows"].items()))
    lost = ", ".join(
        f"{name.removeprefix('num_').replace('_', ' ')} {count:,}"
        for name, count in index["counts"].items()
        if count
    )
    return f"sentence pairs: {rows}; {lost}"


def tokenize(settings: TokenizeSettings) -> Path:
    """Writes the tokens of `train_data` to `tokens_dir`."""
    if not settings.tokens_dir:
        raise ValueError("`mclip tokenize` needs --tokens_dir, where the token arrays go")
    ranks = start_processes()
    sources = open_sources(settings.train_data)
    pairs = expand_pairs(settings.pairs, [source.languages for source in sources])
    tokenizer, max_length = load_tokenizer(
        settings.text_encoder, settings.text_encoder_revision, settings.max_length
    )
    index = write_tokens(sources, pairs, settings.tokens_dir, tokenizer, max_length, ranks)
    if ranks.rank == 0:
        print(f"{settings.tokens_dir}: {describe(index)}")
    return Path(settings.tokens_dir)


def main(argv: list[str] | None = None) -> int:
    """Command line of `mclip tokenize` and `python -m mclip.tokens`."""
    return run_verb("mclip tokenize", TokenizeSettings, tokenize, argv)


if __name__ == "__main__":
    sys.exit(main())
