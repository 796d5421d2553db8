"""Batches of sentences with their targets, in an order that depends only on (seed, epoch).

The global batch of a step is a slice of the epoch's permutation, and each rank takes its part.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altdiffusion.text.encoder import TextEncoder
from altdiffusion.text.parallel_text import open_sources
from altdiffusion.text.sentences import (
    BLOCK_ROWS,
    INDEX,
    SentencePass,
    block_names,
    read_index,
    write_sentences,
)
from altdiffusion.text.settings import TrainTextSettings
from crosslingual.folders import check_folder
from crosslingual.frozen.clip import FrozenCLIP
from crosslingual.frozen.weights import weights_hash
from crosslingual.training.processes import Ranks

# B sentences of a rank and micro-step, L tokens of the longest, P width of the targets


class SentenceBatches:
    """One rank's batches from a folder of sentences.

    Attributes:
        num_rows: sentences per epoch; pictures for the contrastive stage.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int,
        seed: int,
        ranks: Ranks,
        pad: int,
        by_target: bool,
        verify: bool = True,
        rehearsed: Sequence[bool] | None = None,
        share: float = 0.0,
    ):
        """Opens the folder.

        Args:
            folder: folder of sentences.
            batch_size: rows per rank and micro-step.
            seed: seed of the order.
            ranks: this process among the others.
            pad: id of the padding token.
            by_target: an epoch goes over targets, with one sentence drawn for each: two captions
                of one picture in a batch would be negatives of each other.
            verify: compares the folder's files with their SHA-256.
            rehearsed: which of the index's languages are rehearsed: an epoch then has all sentences
                in the others, and so many in these, drawn anew, that they are the `share`.

        Raises:
            ValueError: the folder has fewer rows than one global batch, or a file is damaged.
        """
        self.folder, self.batch_size, self.seed = folder, batch_size, seed
        self.ranks, self.pad, self.by_target = ranks, pad, by_target
        self.index = read_index(folder / INDEX)
        if verify:
            check_folder(folder)
        self._ids, self._ends, self._language, self._target_of = (
            np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("ids", "ends", "language", "target_of")
        )
        paths = [folder / name for name in block_names(self.index)]
        self._targets = [np.load(path, mmap_mode="r") for path in paths]
        self.num_rows = self.index["num_targets"] if by_target else len(self._ends)
        self._others = self._again = None
        if rehearsed is not None:
            is_again = np.array(rehearsed)[self._language]
            self._others, self._again = np.flatnonzero(~is_again), np.flatnonzero(is_again)
            self.num_rows = round(len(self._others) / (1 - share))
        self._global = batch_size * ranks.world_size
        if self.num_rows < self._global:
            raise ValueError(
                f"{self.num_rows} rows in {folder} do not fill one batch of {ranks.world_size} "
                f"ranks x {batch_size}: lower train_batch_size or add text"
            )
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def rows(self, micro_step: int) -> np.ndarray:
        """The sentence indices of this rank's batch: (B,)."""
        epoch, position = divmod(micro_step, self.num_rows // self._global)
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.num_rows, generator=generator).numpy()
            if self._others is not None:
                num_again = self.num_rows - len(self._others)
                drawn = torch.randint(len(self._again), (num_again,), generator=generator)
                order = np.concatenate([self._others, self._again[drawn.numpy()]])[order]
            self._order = (epoch, order)
            random = np.random.default_rng([self.seed, epoch])
            self._draws = random.integers(2**31, size=self.num_rows if self.by_target else 0)
        start = position * self._global + self.ranks.rank * self.batch_size
        chosen = self._order[1][start : start + self.batch_size]
        if not self.by_target:
            return chosen
        # the sentences of a picture are contiguous
        first = np.searchsorted(self._target_of, chosen)
        counts = np.searchsorted(self._target_of, chosen, side="right") - first
        return first + self._draws[chosen] % counts

    def batches(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yields endless batches, starting at a micro-step.

        Yields:
            `ids`, `mask` (B, L) int64; `target` (B, P) fp16; `rows` (B,), the sentences' indices.
        """
        while True:
            yield self.batch(self.rows(start))
            start += 1

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """The arrays of the given sentences."""
        ends = self._ends[rows]
        starts = np.where(rows > 0, self._ends[rows - 1], 0)
        lengths = ends - starts
        columns = np.arange(lengths.max())
        mask = columns < lengths[:, None]
        places = np.minimum(starts[:, None] + columns, len(self._ids) - 1)
        ids = np.where(mask, self._ids[places], self.pad)
        return {
            "ids": torch.from_numpy(ids.astype(np.int64)),
            "mask": torch.from_numpy(mask.astype(np.int64)),
            "target": torch.from_numpy(self._target_rows(self._target_of[rows])),
            "rows": rows,
        }

    def keys(self, batch: dict[str, Any]) -> list[str]:
        """Language and index of each sentence of a batch, for messages."""
        names = self.index["languages"]
        return [f"{names[self._language[row]]} sentence {row}" for row in batch["rows"]]

    def _target_rows(self, targets: np.ndarray) -> np.ndarray:
        blocks, places = np.divmod(targets, BLOCK_ROWS)
        result = np.empty((len(targets), self._targets[0].shape[1]), np.float16)
        for number in np.unique(blocks):
            result[blocks == number] = self._targets[number][places[blocks == number]]
        return result


def open_sentences(
    settings: TrainTextSettings, teacher: FrozenCLIP, student: TextEncoder, ranks: Ranks
) -> SentenceBatches:
    """Opens the tokens and targets of `train_data`, made once in `output_dir/sentences`."""
    by_target = settings.stage == "contrastive"
    if settings.rehearsal is not None and (by_target or settings.rehearsal == 1):
        raise ValueError(
            "rehearsal is a share of the sentences of teacher_learning, below 1: leave it out"
        )
    sources = open_sources(settings.train_data)
    passing = SentencePass(
        sources=sources,
        clip=teacher,
        tokenizer=student.tokenizer,
        max_length=student.max_length,
        languages=settings.languages,
        keep_english=settings.keep_english,
        pictures=by_target,
    )
    made_of = {
        "stage": settings.stage,
        "train_data": [[source.name, source.digest()] for source in sources],
        "teacher": settings.teacher,
        "teacher_revision": settings.teacher_revision,
        "teacher_weights": weights_hash(settings.teacher),
        "text_encoder": settings.text_encoder,
        "max_length": student.max_length,
        "languages": settings.languages,
        "keep_english": settings.keep_english,
        **({} if settings.init_from is None else {"init_from": settings.init_from}),
    }
    folder = Path(settings.output_dir) / "sentences"
    write_sentences(folder, passing, made_of, ranks)
    rehearsed = settings.rehearsed(read_index(folder / INDEX)["languages"])
    return SentenceBatches(
        folder,
        batch_size=settings.train_batch_size,
        seed=settings.seed,
        ranks=ranks,
        pad=student.tokenizer.pad_token_id,
        by_target=by_target,
        verify=settings.verify_data,
        rehearsed=rehearsed,
        share=settings.rehearsal or 0.0,
    )
