"""Parallel text on disk: Moses' pairs of files, and shards with or without pictures."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from crosslingual.data.index import count_languages, shards_hash
from crosslingual.data.languages import find_tags, rename_captions
from crosslingual.data.records import Record
from crosslingual.data.shards import iter_usable
from crosslingual.data.sources.moses import moses
from crosslingual.data.tars import expand_shards


@dataclass(frozen=True)
class Source:
    """One source of sentences.

    Attributes:
        name: its name in the settings: a Moses prefix such as `opus/Tatoeba.de-en`, or shards.
        is_moses: whether it is two aligned files rather than shards.
    """

    name: str
    is_moses: bool

    def records(self, tags: Mapping[str, list[str]]) -> Iterator[Record]:
        """The records, in stored order, with the captions in the languages that `tags` names."""
        records = moses(self.name) if self.is_moses else iter_usable(self.name)
        for record in records:
            rename_captions(record.captions, tags)
            yield record

    @cached_property
    def counts(self) -> Counter[str]:
        """Languages, with the numbers of records that have them (1 for Moses' two)."""
        if self.is_moses:
            return Counter(language for r in islice(moses(self.name), 1) for language in r.captions)
        return count_languages(expand_shards(self.name))[0]

    def digest(self) -> str:
        """A hash of the content, or of names and sizes if shards have no index."""
        total = hashlib.sha256()
        if self.is_moses:
            for path in sorted(Path(self.name).parent.glob(f"{Path(self.name).name}.*")):
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
            return total.hexdigest()
        index = shards_hash(self.name) or self.name
        urls = expand_shards(self.name) if index == self.name else []
        sizes = [(url, os.path.getsize(url)) for url in urls if "://" not in url]
        total.update(repr((index, sizes)).encode())
        return total.hexdigest()


def tags_of(sources: Iterable[Source], languages: Iterable[str]) -> dict[str, list[str]]:
    """The tags that the sources have for the languages and for English; see `find_tags`.

    Raises:
        ValueError: a language is in no source.
    """
    return find_tags(languages, sum((source.counts for source in sources), Counter()))


def open_sources(names: Iterable[str]) -> list[Source]:
    """Opens the sources of the given names.

    Raises:
        FileNotFoundError: a name has neither Moses files nor shards.
        ValueError: no name is given.
    """
    sources = []
    for name in names:
        path = Path(name)
        is_moses = not path.exists() and any(path.parent.glob(f"{path.name}.*"))
        if not is_moses:
            try:
                expand_shards(name)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"no parallel text {name}: neither files {name}.xx nor shards; give a prefix "
                    "such as opus/Tatoeba.de-en, or a folder of shards"
                ) from error
        sources.append(Source(name, is_moses))
    if not sources:
        raise ValueError(
            "train_data is not set: give prefixes of parallel text or folders of shards"
        )
    return sources
