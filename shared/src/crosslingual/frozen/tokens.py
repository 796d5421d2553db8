"""Texts to token ids: the one place where texts above an encoder's limit are cut, and reported.

In a library call, each cut text is a warning. Commands say how many were cut, by `on_cut`.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from crosslingual.data.text import printable


class Cut(NamedTuple):
    """A text that was cut.

    Attributes:
        text: the whole text.
        max_length: tokens that the encoder reads, start and end included.
        num_lost: tokens that it does not read.
        lost: the part of the text that they spell.
    """

    text: str
    max_length: int
    num_lost: int
    lost: str

    def __str__(self) -> str:
        """The text's first words, and the first words lost."""
        start, lost = (printable(" ".join(t.split()[:6])[:60]) for t in (self.text, self.lost))
        return (
            f'"{start} ..." is longer than the {self.max_length} tokens that are read: '
            f'the last {self.num_lost} are cut, from "{lost}" on'
        )


def _warn(cut: Cut) -> None:
    warnings.warn(str(cut), stacklevel=2)


_handler: ContextVar[Callable[[Cut], object]] = ContextVar("on_cut", default=_warn)


@contextmanager
def on_cut(handle: Callable[[Cut], object]) -> Iterator[None]:
    """Within the block, `handle` is given each text that is cut, in place of a warning."""
    token = _handler.set(handle)
    try:
        yield
    finally:
        _handler.reset(token)


@contextmanager
def cut_as(originals: Mapping[str, str]) -> Iterator[None]:
    """Within the block, a text that is cut is reported as the one that it was made from, such as a
    translation's source.
    """
    handle = _handler.get()
    with on_cut(lambda cut: handle(cut._replace(text=originals.get(cut.text, cut.text)))):
        yield


@contextmanager
def say_cut(what: str = "texts") -> Iterator[None]:
    """For commands: says in one line how many texts were cut in the block, and shows one."""
    seen: set[int] = set()  # hashes, which are small: a long run may cut millions
    first: list[Cut] = []

    def note(cut: Cut) -> None:
        if not seen:
            first.append(cut)
        seen.add(hash(cut.text))

    with on_cut(note):
        yield
    if seen:
        print(f"{what} that were cut: {len(seen)}, such as {first[0]}", file=sys.stderr)


class CutCounts:
    """Counts captions that were cut, and their lost tokens, by language."""

    def __init__(self) -> None:
        """Starts with none."""
        self.captions: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()

    @contextmanager
    def counting(self, captions: Iterable[tuple[str, str]]) -> Iterator[None]:
        """Counts those of the captions, each given with its language first, that are cut in the
        block. A caption that two encoders cut counts once.
        """
        lost: dict[str, int] = {}
        with on_cut(lambda cut: lost.update({cut.text: max(cut.num_lost, lost.get(cut.text, 0))})):
            yield
        for language, text in captions if lost else ():
            self.captions[language] += text in lost
            self.tokens[language] += lost.get(text, 0)

    def as_json(self) -> dict[str, dict[str, int]]:
        """The counts of languages in which a caption was cut."""
        return {name: dict(+counts) for name, counts in vars(self).items() if +counts}

    def add(self, counts: Mapping[str, Mapping[str, int]]) -> "CutCounts":
        """Adds another's `as_json`."""
        for name, added in counts.items():
            vars(self)[name].update(added)
        return self

    def __str__(self) -> str:
        """One line, empty where nothing was cut."""
        counts = sorted((+self.captions).items())
        cut = ", ".join(f"{name} {num} ({self.tokens[name]} tokens)" for name, num in counts)
        return f"captions longer than the encoder reads were cut: {cut}" if cut else ""


def tokenize(
    tokenizer: Any,
    texts: list[str],
    max_length: int,
    padding: str | bool = "longest",
    return_tensors: str | None = "pt",
) -> Any:
    """What a tokenizer answers for texts, padded to `max_length` or to the `longest`; longer ones
    are cut to `max_length` with their end token kept, and reported.
    """
    return _Reporting(tokenizer)(
        texts,
        padding=padding,
        max_length=max_length,
        truncation=True,
        return_tensors=return_tensors,
    )


@contextmanager
def report_cut(pipe: Any) -> Iterator[None]:
    """Within the block, a diffusers pipeline reports the prompts that it cuts as `tokenize` does,
    negative ones too, and not in the libraries' logs.
    """
    from crosslingual.frozen.weights import quiet_libraries  # torch; commands import this module

    parts = pipe.components.items()
    own = {name: part for name, part in parts if name.startswith("tokenizer") and part is not None}
    vars(pipe).update({name: _Reporting(tokenizer) for name, tokenizer in own.items()})
    try:
        with quiet_libraries():
            yield
    finally:
        vars(pipe).update(own)


class _Reporting:
    """A tokenizer that reports what it cuts."""

    def __init__(self, tokenizer: Any):
        vars(self)["_tokenizer"] = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tokenizer, name, value)  # Sana's pipeline sets the side of the padding

    def __call__(self, texts: str | list[str], **options: Any) -> Any:
        tokens = self._tokenizer(texts, **options)
        if options.get("truncation"):
            length = int(options.get("max_length") or self._tokenizer.model_max_length)
            listed = [texts] if isinstance(texts, str) else list(texts)
            for text, num_lost, lost in self._lost(listed, tokens.encodings, length):
                _handler.get()(Cut(text, length, num_lost, lost))
        return tokens

    def _lost(
        self, texts: list[str], encodings: list[Any] | None, length: int
    ) -> Iterator[tuple[str, int, str]]:
        """Of each text that was cut, the tokens and the words lost."""
        if encodings is None:  # a tokenizer in Python does not keep what it cuts
            whole = self._tokenizer(texts, verbose=False).input_ids
            for text, ids in zip(texts, whole, strict=True):
                if len(ids) > length:
                    yield text, len(ids) - length, self._tokenizer.decode(ids[length - 1 : -1])
            return
        for text, encoding in zip(texts, encodings, strict=True):
            if rest := encoding.overflowing:
                num_lost = sum(part.special_tokens_mask.count(0) for part in rest)
                start = rest[0].offsets[rest[0].special_tokens_mask.index(0)][0]
                yield text, num_lost, text[start:]
