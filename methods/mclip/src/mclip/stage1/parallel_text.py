"""Parallel text, from Moses files and folders of shards, as numbered records of sentences by
language.

A source is named as it lies on disk: `opus/Tatoeba.de-en` for `opus/Tatoeba.de-en.de` and
`opus/Tatoeba.de-en.en` (plain or .gz), or a folder of shards. Captions of one record translate one
another: the first caption in one language is the translation of the first in the other. Records
that are not parallel give nothing.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, permutations
from pathlib import Path

from crosslingual.data.index import count_languages, shards_hash
from crosslingual.data.languages import find_tags, match_language, rename_captions
from crosslingual.data.shards import iter_usable
from crosslingual.data.sources.moses import moses, moses_files
from crosslingual.data.tars import expand_shards
from crosslingual.data.text import iter_lines

Pair = tuple[str, str]
"""Source and target language. A sorted pair stands for both directions."""

Record = tuple[int, dict[str, list[str]]]
"""A record's number in its source, and its sentences by language."""

CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class ParallelText:
    """One source of translations.

    Attributes:
        name: the source as the settings name it.
        is_moses: whether the source is two Moses files; otherwise it is shards.
    """

    name: str
    is_moses: bool

    @cached_property
    def languages(self) -> list[str]:
        """The languages of its sentences, sorted.

        Raises:
            ValueError: it holds sentences in fewer than two languages.
        """
        names = {tag: name for name, tags in self._tags.items() for tag in tags}
        found = {names.get(tag, tag) for tag in self._counts}
        if len(found) < 2:
            raise ValueError(
                f"{self.name} holds no translations: languages found: "
                f"{', '.join(sorted(found)) or 'none'}"
            )
        return sorted(found)

    @cached_property
    def _counts(self) -> Counter[str]:
        if self.is_moses:
            return Counter(tag for record in islice(moses(self.name), 1) for tag in record.captions)
        return count_languages(expand_shards(self.name))[0]

    @cached_property
    def _tags(self) -> dict[str, list[str]]:
        """The tags that English has here, such as `en-US`."""
        return find_tags((), self._counts)

    @cached_property
    def digest(self) -> str:
        """A hash of the content: of the Moses files' bytes, of the shards' index, or of the names
        and sizes of shards without an index.
        """
        if self.is_moses:
            digest = hashlib.sha256()
            for path in self._files():
                with path.open("rb") as file:
                    for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):  # noqa: B023
                        digest.update(chunk)
            return digest.hexdigest()
        if found := shards_hash(self.name):
            return found
        urls = [url for url in expand_shards(self.name) if "://" not in url]
        sizes = [(url, Path(url).stat().st_size) for url in urls]
        return hashlib.sha256(repr((self.name, sizes)).encode()).hexdigest()

    def records(self) -> Iterator[Record]:
        """Numbers, from 1, and sentences by language. A Moses record's number is its line; empty
        lines are passed over.

        Raises:
            ValueError: line counts differ (both are named).
        """
        if self.is_moses:
            for record in moses(self.name):
                rename_captions(record.captions, self._tags)
                yield int(record.key.rpartition("-")[2]), record.captions
        else:
            for number, record in enumerate(iter_usable(self.name), 1):
                rename_captions(record.captions, self._tags)
                yield number, record.captions if record.parallel else {}

    def count(self, seen: Counter[str]) -> dict[str, int]:
        """Counts of the whole source: `num_records`, and the `num_empty` lines or the
        `num_not_parallel` records among them.

        Args:
            seen: `records`, and the `bare` ones among them, as a reader of all records counted.
        """
        if not self.is_moses:
            return {"num_records": seen["records"], "num_not_parallel": seen["bare"]}
        num_lines = sum(1 for _ in iter_lines(self._files()[0]))
        return {"num_records": num_lines, "num_empty": num_lines - seen["records"]}

    def _files(self) -> list[Path]:
        return sorted(moses_files(self.name))


def open_sources(names: Iterable[str]) -> list[ParallelText]:
    """The sources of the given names.

    Raises:
        FileNotFoundError: a name is neither that of Moses files nor of shards.
        ValueError: no name is given.
    """
    sources = []
    for name in names:
        path = Path(name)
        is_moses = any(path.parent.glob(f"{path.name}.*")) and not path.exists()
        if not is_moses:
            try:
                expand_shards(name)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"no parallel text {name}: neither Moses files {name}.xx nor shards; give a "
                    "prefix such as opus/Tatoeba.de-en, or a folder of shards"
                ) from error
        sources.append(ParallelText(name, is_moses))
    if not sources:
        raise ValueError(
            "no parallel text is named: give Moses prefixes, folders of shards, or the folder that "
            "`mclip tokenize` wrote"
        )
    return sources


def expand_pairs(pairs: Iterable[str], languages: Iterable[Iterable[str]]) -> list[Pair]:
    """The directions to translate in, sorted.

    Args:
        pairs: `en-centric` (English with each other language, both ways), `all`, or directions such
            as `en-de`.
        languages: the languages of each source; a pair exists where one source has both.

    Raises:
        ValueError: an unknown language code, or no source has both languages.
    """
    there = {pair for group in languages for pair in permutations(sorted(set(group)), 2)}
    codes = sorted({language for pair in there for language in pair})
    chosen: set[Pair] = set()
    for text in pairs:
        if text in ("all", "en-centric"):
            chosen |= {pair for pair in there if text == "all" or "en" in pair}
        else:
            chosen.add(_parse_pair(text, codes))
    if lacking := sorted(chosen - there):
        source, target = lacking[0]
        raise ValueError(f"no source translates {source} into {target}; there are {_named(there)}")
    if not chosen:
        raise ValueError(f"pairs names none of what there is: {_named(there)}")
    return sorted(chosen)


def sentence_pairs(sources: Iterable[ParallelText], pair: Pair) -> Iterator[Pair]:
    """The sentences of two languages that translate one another, in stored order."""
    for source in sources:
        if set(pair) <= set(source.languages):
            for _, texts in source.records():
                yield from zip(*(texts.get(language, []) for language in pair), strict=False)


def both_ways(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs without their direction: languages sorted, each pair once."""
    return sorted({(min(pair), max(pair)) for pair in pairs})


def _parse_pair(text: str, codes: list[str]) -> Pair:
    """Codes may hold hyphens themselves, as zh-Hans does."""
    parts = text.split("-")
    cuts = [("-".join(parts[:n]), "-".join(parts[n:])) for n in range(1, len(parts))]
    for cut in cuts:
        with contextlib.suppress(ValueError):  # of a part that is no code
            source, target = (match_language(part, codes) for part in cut)
            if source and target and source != target:
                return source, target
    unknown = [code for code in (cuts or [(text,)])[0] if code not in codes] or [text]
    raise ValueError(
        f"pair {text!r}: {unknown[0]!r} is no language of this text; there are {', '.join(codes)}"
    )


def _named(pairs: Iterable[Pair]) -> str:
    names = ["-".join(pair) for pair in sorted(pairs)]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
