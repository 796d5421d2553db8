"""`mclip train-encoder`: step a trains a decoder on the frozen encoder, step b encoder and decoder,
so that sentences come to lie where their translations do.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from crosslingual.training.processes import Ranks
from crosslingual.training.run import Run
from mclip.stage1.artifact import (
    ENCODER_FOLDER,
    build_translation,
    load_translation,
    save_translation,
)
from mclip.stage1.data import TokenBatches
from mclip.stage1.method import TranslationModel, set_encoder_dropout, set_trainable
from mclip.stage1.parallel_text import Pair, expand_pairs
from mclip.stage1.settings import TrainEncoderSettings
from mclip.stage1.step import encoder_step
from mclip.stage1.tokens import (
    check_fresh,
    is_tokens,
    load_tokenizer,
    read_index,
    seen_ids,
    tokenize_text,
    tokenizer_hash,
)
from mclip.stage1.validation import open_validation, validate


def train_encoder(settings: TrainEncoderSettings) -> Path:
    """Trains a step of stage 1 and writes the translation model to `output_dir/translation`."""
    run = Run(settings)
    if run.zero_stage == 3:
        raise ValueError("train-encoder works at ZeRO stages 0 to 2; use ds/zero2.json")
    folder, pairs = open_tokens(settings, run.ranks)
    held_out = open_validation(settings, pairs)
    model, tokenizer = open_model(settings, pairs)
    limited = settings.output_vocabulary == "text"
    model.limit_output(seen_ids(folder, pairs) if limited else None)
    data = TokenBatches(folder, pairs, settings, run.ranks, pad=model.pad)
    engine = run.prepare(model)
    output_weight = model.output_weight  # frozen
    batches = data.batches(run.first_micro_step)
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = next(batches)
            torch.manual_seed((settings.seed * 0x9E3779B1 + draws.place) % 2**63)  # dropout
            loss, parts = encoder_step(engine, output_weight, batch, settings)
            run.backward(loss, parts, keys=partial(data.keys, batch))
        run.end_step()
        if run.validates(step):
            run.log(validate(settings, model, tokenizer, held_out, pairs), step)
    destination = run.output_dir / "translation"
    return run.finish(lambda state: save_translation(destination, model, tokenizer, state))


def open_tokens(settings: TrainEncoderSettings, ranks: Ranks) -> tuple[Path, list[Pair]]:
    """The folder of tokens and the directions that train. Text is tokenised first, into
    `output_dir/tokens`, where it stays.

    Raises:
        FileNotFoundError: there is no such text.
        ValueError: the tokens are another tokenizer's, or the text lacks the language of a pair.
    """
    if settings.translation_model is not None:
        encoder, revision = f"{settings.translation_model}/{ENCODER_FOLDER}", None
    else:
        encoder, revision = settings.text_encoder, settings.text_encoder_revision
    tokenizer, max_length = load_tokenizer(encoder, revision, settings.max_length)
    names = settings.train_data
    if len(names) == 1 and is_tokens(names[0]):
        folder, index = Path(names[0]), read_index(names[0])
        made_of = {"tokenizer": tokenizer_hash(tokenizer)}
        if settings.max_length is not None:
            made_of["max_length"] = max_length
        check_fresh(index, made_of, folder)
        return folder, expand_pairs(settings.pairs, index["made_of"]["pairs"])
    folder = Path(settings.output_dir) / "tokens"
    return folder, tokenize_text(names, settings.pairs, folder, tokenizer, max_length, ranks)


def open_model(settings: TrainEncoderSettings, pairs: list[Pair]) -> tuple[TranslationModel, Any]:
    """The model of an earlier step, or a new decoder on a pretrained encoder; and the tokenizer.

    Raises:
        ValueError: the earlier step's model does not translate into a language that trains.
    """
    languages = {target for _, target in pairs}
    if settings.both_ways:
        languages |= {source for source, _ in pairs}
    if settings.translation_model is not None:
        model, tokenizer = load_translation(settings.translation_model)
        for language in sorted(languages):
            model.language_index(language)
    else:
        torch.manual_seed(settings.seed)
        model, tokenizer = build_translation(settings, languages)
    if settings.encoder_dropout is not None:
        set_encoder_dropout(model, settings.encoder_dropout)
    set_trainable(model, settings.step)
    return model, tokenizer
