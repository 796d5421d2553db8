"""Translation by stage 1's model, with beam search, and BLEU: `mclip translate`."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, M2M100ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from crosslingual.data.text import iter_lines
from crosslingual.files import refuse_input, write_text
from crosslingual.frozen.tokens import tokenize
from mclip.stage1.artifact import load_translation
from mclip.stage1.method import TranslationModel, decoder_config
from mclip.stage1.settings import TranslateSettings

BLEU_TOKENS = {"ja": "char", "th": "char", "zh": "zh"}
"""sacrebleu's tokenizer where words have no spaces between them; its default elsewhere."""


def _generator(model: TranslationModel) -> M2M100ForConditionalGeneration:
    """The decoder's own layers and the output matrix as transformers' class with `generate`, whose
    tokens are rows of that matrix.
    """
    weight = model.output_weight
    config = decoder_config(model.encoder.config, model.config)
    config.vocab_size = len(weight)
    with torch.device("meta"):
        generator = M2M100ForConditionalGeneration(config)
    decoder = generator.model.decoder
    for name in ("layers", "layer_norm", "embed_positions"):
        setattr(decoder, name, getattr(model.decoder, name))
    for embedding in (generator.model.shared, decoder.embed_tokens, generator.lm_head):
        embedding.weight = torch.nn.Parameter(weight, requires_grad=False)
    return generator.eval()


def _search(model: TranslationModel, num_beams: int, max_length: int) -> GenerationConfig:
    special = model.encoder.config
    return GenerationConfig(
        num_beams=num_beams,
        max_length=max_length,
        do_sample=False,
        decoder_start_token_id=special.bos_token_id,
        bos_token_id=special.bos_token_id,
        eos_token_id=special.eos_token_id,
        pad_token_id=special.pad_token_id,
    )


@torch.no_grad()
def translate_texts(
    model: TranslationModel,
    tokenizer: Any,
    texts: list[str],
    target_language: str,
    num_beams: int = 5,
    max_length: int | None = None,
    batch_size: int = 32,
) -> list[str]:
    """Translates sentences of any of the encoder's languages.

    Args:
        model: on any device; it is in evaluation mode only while it translates.
        tokenizer: XLM-R's.
        texts: those longer than the encoder's limit are cut; an empty one stays empty.
        target_language: a language that the model translates into.
        num_beams: 1 is greedy.
        max_length: tokens of a translation, start and end included; the encoder's limit if None.
        batch_size: sentences at a time, each with others of its length.

    Returns:
        The translations, in the order of `texts`.

    Raises:
        ValueError: the model does not translate into the language; its languages are named.
    """
    index = model.language_index(target_language)
    limit = int(tokenizer.model_max_length)
    ids = tokenize(tokenizer, texts, limit, False, None).input_ids if texts else []
    order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(ids[i]))
    was_training = model.training
    model.eval()
    generator, search = _generator(model), _search(model, num_beams, max_length or limit)
    translations = [""] * len(texts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
        batch = batch.to(model.embedding_weight.device)
        states_BLD: Tensor = model.encode(batch.input_ids, batch.attention_mask)
        states_BLD = model.language_maps(states_BLD, index)
        found = generator.generate(
            encoder_outputs=BaseModelOutput(states_BLD),
            attention_mask=batch.attention_mask,
            generation_config=search,
        )
        found = found if model.output_ids is None else model.output_ids[found]
        decoded = tokenizer.batch_decode(found, skip_special_tokens=True)
        for row, translation in zip(rows, decoded, strict=True):
            translations[row] = translation.strip()
    model.train(was_training)
    return translations


def load_translator(folder: str, target_language: str = "en") -> Callable[[list[str]], list[str]]:
    """A function that translates sentences of any of the model's languages into one.

    Args:
        folder: the folder `translation` of a run of `train-encoder`.
        target_language: a language that the model translates into.

    Raises:
        FileNotFoundError: no model there.
        ValueError: the model does not translate into the language.
    """
    model, tokenizer = load_translation(folder)
    model.to("cuda" if torch.cuda.is_available() else "cpu").language_index(target_language)
    return functools.partial(translate_texts, model, tokenizer, target_language=target_language)


def bleu_and_signature(
    hypotheses: list[str], references: list[str], language: str = "en"
) -> tuple[float, str]:
    """sacrebleu's BLEU of a corpus, 0 to 100, and its signature, which says how it was measured.

    Args:
        hypotheses: translations.
        references: one correct translation for each.
        language: the language of both, which decides how they are split into words.

    Raises:
        ValueError: the numbers of lines differ, or there are none.
    """
    from sacrebleu.metrics import BLEU

    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"{len(hypotheses)} translations and {len(references)} references: BLEU needs a line "
            "for a line"
        )
    metric = BLEU(tokenize=BLEU_TOKENS.get(language, "13a"))
    return metric.corpus_score(hypotheses, [references]).score, str(metric.get_signature())


def corpus_bleu(hypotheses: list[str], references: list[str], language: str = "en") -> float:
    """The score of `bleu_and_signature` alone."""
    return bleu_and_signature(hypotheses, references, language)[0]


def _read_lines(name: str) -> list[str]:
    """The lines of a file, or of standard input for `-`."""
    if name == "-":
        return [line.removesuffix("\n") for line in sys.stdin]
    if not Path(name).is_file():
        raise FileNotFoundError(f"no file {name}; give one with a sentence a line, or -")
    return list(iter_lines(Path(name)))


def translate(settings: TranslateSettings) -> list[str]:
    """`mclip translate`: translates a file, writes or prints the translations, and prints BLEU to
    the error stream.
    """
    if settings.output:
        inputs = filter(None, (settings.input, settings.references))
        refuse_input(Path(settings.output), *map(Path, inputs))
    texts = _read_lines(settings.input)
    references = _read_lines(settings.references) if settings.references else None
    if references is not None and len(references) != len(texts):
        raise ValueError(
            f"{settings.input} has {len(texts)} lines, {settings.references} {len(references)}; "
            "give references line for line"
        )
    translations = load_translator(settings.model, settings.target_language)(
        texts,
        num_beams=settings.num_beams,
        max_length=settings.max_length,
        batch_size=settings.batch_size,
    )
    lines = "".join(f"{translation}\n" for translation in translations)
    if settings.output:
        write_text(Path(settings.output), lines)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(lines.encode())  # data, which no escapes may change
        sys.stdout.buffer.flush()
    if references is not None:
        score, signature = bleu_and_signature(translations, references, settings.target_language)
        print(f"BLEU {score:.2f} ({signature})", file=sys.stderr)
    return translations
