"""Sentences to train the student on: tokenised once, with each target computed once.

A folder of sentences holds `ids.npy` (the tokens of all sentences, concatenated), `ends.npy`,
`language.npy` and `target_of.npy` (one entry per sentence), and `targets-00000.npy`, ... (fp16
rows that sentences point to): CLIP's state of each distinct English sentence, or its embedding of
each picture. `index.json`, written last, names all inputs; a folder that was made from any other
inputs is rejected.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from altdiffusion.text.parallel_text import Source, tags_of
from crosslingual.data.pictures import decode_picture
from crosslingual.data.records import Record
from crosslingual.files import (
    MARK,
    naming_full_disk,
    read_fields,
    remove_leftovers,
    replacing,
    write_json,
)
from crosslingual.folders import mark_folder
from crosslingual.frozen.clip import FrozenCLIP
from crosslingual.frozen.tokens import CutCounts, say_cut, tokenize
from crosslingual.training.folder import lock_folder, on_first_rank
from crosslingual.training.processes import Ranks

log = logging.getLogger(__name__)

BLOCK_ROWS = 4096
BATCH_ROWS = 256
VERSION = 1
INDEX, DRAFT, ENGLISH = "index.json", "draft.json", "english.json"
ARRAYS = ("ids.npy", "ends.npy", "language.npy", "target_of.npy")
KIND = "sentences"
_FIELDS = {"made_of": dict[str, Any], "languages": list[str], "counts": list[int]}
_FIELDS |= {"num_targets": int, "num_skipped": int}


@torch.no_grad()
def pooled_states(clip: FrozenCLIP, texts: Sequence[str]) -> Tensor:
    """CLIP's state at the end of each English text, before its text projection: (B, P), fp32."""
    rows = []
    for start in range(0, len(texts), BATCH_ROWS):
        batch = list(texts[start : start + BATCH_ROWS])
        tokens = tokenize(clip.tokenizer, batch, clip.max_length).to(clip.model.device)
        read = clip.model.text_model(tokens.input_ids, attention_mask=tokens.attention_mask)
        rows.append(read.pooler_output.float())
    return torch.cat(rows)


@dataclass
class SentencePass:
    """Tokenises sentences and computes their targets.

    Attributes:
        sources: sources to read.
        clip: the teacher, or, for pictures, the CLIP whose vision tower embeds them.
        tokenizer: the student's tokenizer.
        max_length: tokens per sentence.
        languages: languages to train on; all languages of the sources if empty.
        keep_english: whether to train on English sentences too.
        pictures: whether the targets are pictures rather than English sentences.
    """

    sources: Sequence[Source]
    clip: FrozenCLIP
    tokenizer: Any
    max_length: int
    languages: Sequence[str]
    keep_english: bool
    pictures: bool

    def rows(self, record: Record) -> list[tuple[str, str]]:
        """A record's training sentences, each with its language; none if the record has no
        target.
        """
        is_parallel = record.parallel and "en" in record.captions
        if not (record.image is not None if self.pictures else is_parallel):
            return []
        spoken = set(self.languages or record.captions) - (set() if self.keep_english else {"en"})
        return [
            (text, language)
            for language, texts in record.captions.items()
            if language in spoken
            for text in texts
        ]

    def read(self, folder: Path) -> dict[str, Any]:
        """Writes tokens and, for pictures, targets; returns their entries for the index.

        The first English caption is the target of a parallel record's translations; each English
        caption is its own target.
        """
        table, targets = _Table(self.tokenizer, self.max_length), _Targets(folder, self.clip)
        english: dict[str, int] = {}
        num_skipped = num_pictures = 0
        tags = tags_of(self.sources, self.languages)
        for record in (record for source in self.sources for record in source.records(tags)):
            rows = self.rows(record)
            if rows and self.pictures:
                try:
                    targets.add(decode_picture(record.image, self.clip.image_size))
                except ValueError as error:
                    log.warning("left out %s: %s", record.key, error)
                    rows = []
            num_skipped += not rows
            for text, language in rows:
                spoken = text if language == "en" else record.captions.get("en", [""])[0]
                target = num_pictures if self.pictures else english.setdefault(spoken, len(english))
                table.add(text, language, target)
            num_pictures += bool(rows)
        targets.close()
        (folder / ENGLISH).write_text(json.dumps([*english], ensure_ascii=False))
        num_targets = num_pictures if self.pictures else len(english)
        return {**table.save(folder), "num_targets": num_targets, "num_skipped": num_skipped}

    def encode_english(self, folder: Path, ranks: Ranks) -> None:
        """Writes this rank's share of the English sentences' blocks, except existing ones."""
        texts = json.loads((folder / ENGLISH).read_text())
        for number in range(ranks.rank, -(-len(texts) // BLOCK_ROWS), ranks.world_size):
            if not _block_path(folder, number).is_file():
                block = texts[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]
                _save_block(folder, number, pooled_states(self.clip, block))


def write_sentences(
    folder: Path, passing: SentencePass, made_of: dict[str, Any], ranks: Ranks
) -> dict[str, Any]:
    """Makes a folder of sentences, or reuses a complete one; every process must call it.

    Rank 0 tokenises; all ranks share the English sentences. An interrupted call can be resumed.

    Args:
        folder: folder of the sentences.
        passing: tokenises the sentences and computes their targets.
        made_of: everything that the result depends on.
        ranks: this process among the others.

    Returns:
        The content of the index.

    Raises:
        ValueError: the folder was made from other inputs or holds something else, another process
            writes into it, or there is no sentence to train on.
        OSError: the disk is full.
    """
    full = f"the sentences in {folder} are not complete; make room and resume the run"
    with lock_folder(folder, ranks), naming_full_disk(full):
        on_first_rank(ranks, lambda: _claim(folder))
        return _write(folder, passing, made_of, ranks)


def _claim(folder: Path) -> None:
    """Marks a folder as being filled with sentences, unless it holds something else."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if foreign := sorted(names - {MARK}) if names.isdisjoint({MARK, INDEX, DRAFT}) else []:
        raise ValueError(
            f"{folder} holds {foreign[0]}, which is not of these sentences; choose another "
            "--output_dir"
        )
    if MARK in names:
        remove_leftovers(folder)
    else:
        write_json(folder / MARK, {"format_version": 1, "kind": KIND})


def _write(
    folder: Path, passing: SentencePass, made_of: dict[str, Any], ranks: Ranks
) -> dict[str, Any]:
    for path in (folder / INDEX, folder / DRAFT):
        if path.is_file():
            found = read_index(path)["made_of"]
            if differ := [name for name, value in made_of.items() if found.get(name) != value]:
                raise ValueError(
                    f"the sentences in {folder} are stale: {', '.join(differ)} changed; choose "
                    "another --output_dir"
                )
    if (folder / INDEX).is_file():
        return read_index(folder / INDEX)
    torch.distributed.barrier()
    if ranks.rank == 0 and not (folder / DRAFT).is_file():
        index = {"version": VERSION, "made_of": made_of, **passing.read(folder)}
        write_json(folder / DRAFT, index)
    torch.distributed.barrier()
    with say_cut("English sentences"):
        passing.encode_english(folder, ranks)
    torch.distributed.barrier()
    index = read_index(folder / DRAFT)
    torch.distributed.barrier()
    if ranks.rank == 0:
        mark_folder(folder, KIND, {*ARRAYS, *block_names(index)})
        (folder / DRAFT).replace(folder / INDEX)
        counts = zip(index["languages"], index["counts"], strict=True)
        print(
            f"{folder}: {index['num_targets']} targets, {index['num_skipped']} records left out; "
            + ", ".join(f"{name} {count}" for name, count in counts)
        )
    torch.distributed.barrier()
    return index


def read_index(path: Path) -> dict[str, Any]:
    """The index of a folder of sentences, complete or not.

    Raises:
        ValueError: it is broken.
    """
    return read_fields(path, _FIELDS, "remove the folder, and its sentences are made anew")


def block_names(index: dict[str, Any]) -> list[str]:
    """The files of the targets, in order."""
    numbers = range(-(-index["num_targets"] // BLOCK_ROWS))
    return [_block_path(Path(), number).name for number in numbers]


class _Table:
    """Collects sentences as they are read, and tokenises them in blocks."""

    def __init__(self, tokenizer: Any, max_length: int):
        self.tokenizer, self.max_length = tokenizer, max_length
        self.ids: list[np.ndarray] = []
        self.lengths: list[np.ndarray] = []
        self.languages: list[str] = []
        self.target_of: list[int] = []
        self._waiting: list[str] = []
        self.cut = CutCounts()

    def add(self, text: str, language: str, target: int) -> None:
        self._waiting.append(text)
        self.languages.append(language)
        self.target_of.append(target)
        if len(self._waiting) == BLOCK_ROWS:
            self._tokenise()

    def _tokenise(self) -> None:
        spoken = self.languages[-len(self._waiting) :]
        with self.cut.counting(zip(spoken, self._waiting, strict=True)):
            rows = tokenize(self.tokenizer, self._waiting, self.max_length, False, None).input_ids
        self.lengths.append(np.array([len(row) for row in rows], dtype=np.int64))
        self.ids.append(np.concatenate(rows).astype(np.int32))
        self._waiting = []

    def save(self, folder: Path) -> dict[str, Any]:
        if not self.languages:
            raise ValueError(
                "train_data holds no sentence to train on: give parallel records with an English "
                "caption (for the contrastive stage, records with a picture) in one of the "
                "languages"
            )
        if self._waiting:
            self._tokenise()
        names = sorted(set(self.languages))
        numbers = {name: number for number, name in enumerate(names)}
        np.save(folder / "ids.npy", np.concatenate(self.ids))
        np.save(folder / "ends.npy", np.concatenate(self.lengths).cumsum())
        np.save(folder / "language.npy", np.array([numbers[n] for n in self.languages], np.uint8))
        np.save(folder / "target_of.npy", np.array(self.target_of, np.int64))
        counts = Counter(self.languages)
        if cut := str(self.cut):
            print(cut)
        return {"languages": names, "counts": [counts[name] for name in names]}


class _Targets:
    """Embeds pictures in batches as they come, and writes files of `BLOCK_ROWS`."""

    def __init__(self, folder: Path, clip: FrozenCLIP):
        self.folder, self.clip, self.number = folder, clip, 0
        self._pictures: list[Tensor] = []
        self._rows: list[Tensor] = []

    def add(self, picture: Tensor) -> None:
        self._pictures.append(picture)
        if len(self._pictures) == BATCH_ROWS:
            self._embed()

    def _embed(self) -> None:
        self._rows.append(self.clip.encode_images(torch.stack(self._pictures)))
        self._pictures = []
        if len(self._rows) * BATCH_ROWS == BLOCK_ROWS:
            self.close()

    def close(self) -> None:
        if self._pictures:
            self._embed()
        if self._rows:
            _save_block(self.folder, self.number, torch.cat(self._rows))
            self.number, self._rows = self.number + 1, []


def _block_path(folder: Path, number: int) -> Path:
    return folder / f"targets-{number:05d}.npy"


def _save_block(folder: Path, number: int, rows: Tensor) -> None:
    path = _block_path(folder, number)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows.half().cpu().numpy())
