"""A small XLM-R for Multi30K: its own vocabulary, random weights, then masked language modelling.

torchrun --standalone --nproc_per_node 2 multi30k/make_encoder.py \
    --train_data runs/multi30k/shards/train --output_dir runs/multi30k/encoder

    OUTPUT/untrained    random weights and the vocabulary, in transformers' format
    OUTPUT/mlm          checkpoints and metrics.jsonl of the pretraining
    OUTPUT/pretrained   the encoder that stage 1 starts from

Sentences of all languages are shuffled into one corpus and masked one by one, as XLM-R's are: the
model never reads a translation next to its original. The same command resumes an interrupted run.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.distributed as dist
from masked_model import MaskedLanguageModel, encoder_config, untrained_model
from transformers import DataCollatorForLanguageModeling, XLMRobertaModel, XLMRobertaTokenizer
from transformers.utils.logging import disable_progress_bar

from crosslingual.cli.verbs import run_verb
from crosslingual.data.shards import iter_shards
from crosslingual.data.tars import expand_shards
from crosslingual.files import MARK
from crosslingual.folders import publish_folder
from crosslingual.training.processes import start_processes
from crosslingual.training.run import Run
from crosslingual.training.settings import LrScheduler, RunSettings

WINDOW = 100  # batches among which sentences are sorted by length
SENTENCEPIECE = "sentencepiece.bpe.model"


@dataclass
class MakeEncoderSettings(RunSettings):
    """Settings of `make_encoder.py`.

    Attributes:
        train_data: shards with captions in the languages.
        output_dir: folder that gets the encoders and the checkpoints.
        languages: BCP-47 codes of the captions.
        vocabulary_size: entries of the tokenizer, special tokens included.
        width: width of the encoder.
        num_layers: layers of the encoder.
        num_heads: attention heads of the encoder.
        max_length: tokens per sentence, start and end included; longer sentences are cut.
        masked_share: share of the tokens that are predicted.
    """

    output_dir: str = "runs/multi30k/encoder"
    languages: list[str] = field(default_factory=lambda: ["cs", "de", "en", "fr"])
    vocabulary_size: int = 8000
    width: int = 256
    num_layers: int = 4
    num_heads: int = 4
    max_length: int = 64
    masked_share: float = 0.2
    train_batch_size: int = 64
    max_train_steps: int = 1600
    lr_scheduler: LrScheduler = "cosine"
    lr_warmup_steps: int = 100
    adam_beta2: float = 0.98
    checkpointing_steps: int = 200
    checkpoints_total_limit: int = 1


def read_texts(shards: str, languages: list[str]) -> list[str]:
    """The captions of shards, one language after another.

    Raises:
        ValueError: a record lacks one of the languages.
    """
    texts: dict[str, list[str]] = {language: [] for language in languages}
    for record in iter_shards(expand_shards(shards)):
        if absent := sorted(set(languages) - set(record.captions)):
            found = ", ".join(sorted(record.captions))
            raise ValueError(f"{record.key} has no captions in {', '.join(absent)}; it has {found}")
        for language in languages:
            texts[language] += record.captions[language]
    return [text for part in texts.values() for text in part]


def train_vocabulary(texts: list[str], size: int, folder: Path) -> None:
    """Trains a sentencepiece unigram model and saves it as XLM-R's tokenizer into `folder`.

    XLM-R's four special tokens stand for sentencepiece's three, and `<mask>` comes last: so the
    model holds two pieces fewer than the tokenizer has entries.
    """
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str((folder / SENTENCEPIECE).with_suffix("")),
        vocab_size=size - 2,
        model_type="unigram",
        character_coverage=1.0,
        num_threads=2,
        minloglevel=2,
    )
    XLMRobertaTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(folder)
    (folder / SENTENCEPIECE).with_suffix(".vocab").unlink()


def make_untrained(settings: MakeEncoderSettings, texts: list[str], folder: Path) -> None:
    """Writes `OUTPUT/untrained`, complete or not at all."""

    def fill(partial: Path) -> None:
        train_vocabulary(texts, settings.vocabulary_size, partial)
        length = settings.max_length
        tokenizer = XLMRobertaTokenizer.from_pretrained(
            partial, model_max_length=length, trust_remote_code=False
        )
        assert len(tokenizer) == settings.vocabulary_size, "train the vocabulary of another size"
        tokenizer.save_pretrained(partial)
        config = encoder_config(
            len(tokenizer),
            width=settings.width,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            max_length=length,
        )
        untrained_model(config, settings.seed).save_pretrained(partial)

    publish_folder(folder, fill, kind="encoder")


def iter_batches(
    lengths_N: np.ndarray, global_batch_size: int, seed: int, first_step: int
) -> Iterator[np.ndarray]:
    """Rows of each step's global batch, shortest first, from `first_step` on, without end.

    An epoch is shuffled, sorted by length within windows, and its batches shuffled again: little
    padding is computed, and a step's rows are a function of (seed, step).
    """
    num_batches = len(lengths_N) // global_batch_size
    for epoch in range(first_step // num_batches, sys.maxsize):
        rng = np.random.default_rng((seed, epoch))
        rows = rng.permutation(len(lengths_N))[: num_batches * global_batch_size]
        window = np.arange(len(rows)) // (WINDOW * global_batch_size)
        rows = rows[np.lexsort((lengths_N[rows], window))]
        batches = rng.permutation(rows.reshape(num_batches, global_batch_size))
        start = first_step % num_batches if epoch == first_step // num_batches else 0
        yield from batches[start:]


def pretrain(settings: MakeEncoderSettings, texts: list[str]) -> None:
    """Trains `OUTPUT/untrained` by masked language modelling and writes `OUTPUT/pretrained`, unless
    the run was asked to stop.
    """
    output_dir = Path(settings.output_dir)
    untrained, mlm = output_dir / "untrained", output_dir / "mlm"
    resume = "latest" if (mlm / "latest").is_file() else None
    run = Run(replace(settings, output_dir=str(mlm), resume_from_checkpoint=resume))
    tokenizer = XLMRobertaTokenizer.from_pretrained(untrained, trust_remote_code=False)
    sentences = tokenizer(texts, truncation=True, max_length=settings.max_length).input_ids
    mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=settings.masked_share)
    torch.manual_seed(settings.seed)
    encoder = XLMRobertaModel.from_pretrained(
        untrained, add_pooling_layer=False, trust_remote_code=False
    )
    engine = run.prepare(MaskedLanguageModel(encoder).train())
    lengths_N = np.array([len(ids) for ids in sentences])
    rank, world_size = run.ranks.rank, run.ranks.world_size
    global_batch_size = settings.train_batch_size * world_size
    batches = iter_batches(lengths_N, global_batch_size, settings.seed, run.first_micro_step)
    for step in run.steps():
        for draws in run.micro_steps(step):
            rows = next(batches)[rank::world_size]
            seeds = np.random.SeedSequence((settings.seed, draws.micro_step, rank))
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            batch = mask([{"input_ids": sentences[row]} for row in rows])
            loss, parts = engine(**{name: t.to(run.ranks.device) for name, t in batch.items()})
            run.backward(loss, parts, keys=partial(map, str, rows))
        run.end_step()

    def fill(partial: Path) -> None:
        ignored = shutil.ignore_patterns(MARK)
        shutil.copytree(untrained, partial, dirs_exist_ok=True, ignore=ignored)
        encoder.save_pretrained(partial)

    run.finish(lambda state: publish_folder(output_dir / "pretrained", fill, kind="encoder"))


def make_encoder(settings: MakeEncoderSettings) -> None:
    """Writes `OUTPUT/untrained` and `OUTPUT/pretrained`, each unless it is there."""
    ranks = start_processes()
    disable_progress_bar()
    output_dir = Path(settings.output_dir)
    if (output_dir / "pretrained").exists():
        return
    texts = read_texts(settings.train_data, settings.languages)
    if ranks.rank == 0 and not (output_dir / "untrained").exists():
        make_untrained(settings, texts, output_dir / "untrained")
    dist.barrier()
    pretrain(settings, texts)


if __name__ == "__main__":
    sys.exit(run_verb("make_encoder.py", MakeEncoderSettings, make_encoder))
