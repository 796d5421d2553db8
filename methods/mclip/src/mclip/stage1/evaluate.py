"""How well sentences find their translations, between every two languages: `mclip evaluate-text`.

A sentence's vector is the mean of its token states, as in CTL. Its translation is the sentence of
the same record. Where a test set says a sentence twice, the other one is a wrong candidate with an
equal score, which ranks ahead (the standard definition, ties pessimistic, their number reported).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import transformers
from torch import Tensor

from crosslingual.data.index import count_languages, shards_hash
from crosslingual.data.languages import find_tags, rename_captions
from crosslingual.data.shards import iter_shards
from crosslingual.data.tars import expand_shards
from crosslingual.evaluation.retrieval import TIES, append_result, recall_at_k
from crosslingual.frozen.encoders import MultilingualEncoder, load_multilingual_encoder
from mclip.stage1.artifact import ENCODER_FOLDER
from mclip.stage1.settings import EvaluateTextSettings
from mclip.stage1.step import sentence_vectors
from mclip.stage1.translate import corpus_bleu, load_translator

Texts = Mapping[str, list[str]]
"""Sentences by language; those at the same place translate one another."""


def read_parallel_texts(shards: str, languages: Iterable[str]) -> dict[str, list[str]]:
    """The first caption of each record in each language.

    Args:
        shards: a folder of shards, or their names.
        languages: two or more.

    Raises:
        ValueError: fewer languages than two, a record lacks one, or it is not parallel.
    """
    texts: dict[str, list[str]] = {language: [] for language in languages}
    if len(texts) < 2:
        raise ValueError("translations are sought between languages; give two or more --languages")
    urls = expand_shards(shards)
    tags = find_tags(texts, count_languages(urls, texts)[0])
    for record in iter_shards(urls):
        rename_captions(record.captions, tags)
        if absent := [language for language in texts if language not in record.captions]:
            raise ValueError(
                f"{record.key} has no caption in {', '.join(absent)}; it has "
                f"{', '.join(sorted(record.captions))}: change --languages"
            )
        if not record.parallel:
            raise ValueError(f"the captions of {record.key} do not translate one another")
        for language, part in texts.items():
            part.append(record.captions[language][0])
    return texts


@torch.no_grad()
def encode_sentences(encoder: MultilingualEncoder, texts: list[str], batch_size: int) -> Tensor:
    """Means of token states, L2-normalised, fp32 (N, D) in the order of `texts`.

    Sentences of similar length are encoded together; those above `encoder.max_length` are cut.
    """
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    vectors = []
    for start in range(0, len(order), batch_size):
        chosen = [texts[place] for place in order[start : start + batch_size]]
        ids, mask = encoder.tokenize(chosen, padding="longest")
        states_BLD = encoder.model(ids, attention_mask=mask).last_hidden_state
        vectors.append(sentence_vectors(states_BLD, mask))
    sorted_ND = torch.cat(vectors)
    return sorted_ND[torch.tensor(order).argsort()]


def recall_of_pairs(
    languages: Iterable[str], vectors_of_pair: Callable[[str, str], tuple[Tensor, Tensor]]
) -> tuple[dict[str, float], int]:
    """Recall@1 between every two languages, both ways.

    Args:
        languages: to test.
        vectors_of_pair: for two languages, their sentences' vectors (N, D), row by row.

    Returns:
        Fractions by direction (`en-de`: English sentences seek German ones), and the number of
        ties.
    """
    recalls, num_ties = {}, 0
    for one, other in combinations(languages, 2):
        one_ND, other_ND = vectors_of_pair(one, other)
        found = recall_at_k(other_ND, one_ND, torch.arange(len(one_ND)), ks=(1,))
        recalls[f"{one}-{other}"] = found.text_to_image[1]
        recalls[f"{other}-{one}"] = found.image_to_text[1]
        num_ties += found.num_ties
    return recalls, num_ties


def format_table(
    recalls: Mapping[str, float], languages: list[str], bleu: Mapping[str, float] | None = None
) -> str:
    """Recall@1 in percent as a Markdown matrix, a row a language that seeks, and BLEU by source
    language as a further column.
    """
    heads = ["R@1 from \\ to", *languages, "mean", *(["BLEU"] if bleu else [])]
    lines = [heads, ["---"] * len(heads)]
    for one in languages:
        row = [recalls[f"{one}-{other}"] for other in languages if other != one]
        cells = [f"{100 * recalls[f'{one}-{x}']:.1f}" if x != one else "" for x in languages]
        of_bleu = [f"{bleu[one]:.1f}" if one in bleu else ""] if bleu else []
        lines.append([one, *cells, f"{100 * sum(row) / len(row):.1f}", *of_bleu])
    total = f"mean of {len(recalls)} directions: {100 * fmean(recalls.values()):.1f}"
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{total}"


def measure_bleu(settings: EvaluateTextSettings, texts: Texts) -> dict[str, float]:
    """BLEU of the translations of each other language into `into`.

    Raises:
        ValueError: `into` is not among the languages.
    """
    if settings.into not in texts:
        raise ValueError(
            f"no references: --into {settings.into} is not among --languages {' '.join(texts)}"
        )
    translate = load_translator(settings.translation_model, settings.into)
    options = {"num_beams": settings.num_beams, "max_length": settings.max_length}
    options["batch_size"] = settings.batch_size
    return {
        language: corpus_bleu(translate(sentences, **options), texts[settings.into])
        for language, sentences in texts.items()
        if language != settings.into
    }


def report(
    settings: Any,
    model: str,
    texts: Texts,
    vectors_of_pair: Callable[[str, str], tuple[Tensor, Tensor]],
    started: float,
    bleu: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Measures recall, prints the table and appends a line to `output_dir/text_retrieval.jsonl`,
    which is returned.

    Args:
        settings: `output_dir`, and `data`, the name of the shards.
        model: name of the encoder, or of the baseline.
        texts: the test's sentences.
        vectors_of_pair: as `recall_of_pairs` takes it.
        started: what `time.perf_counter` said at the start.
        bleu: by source language.
    """
    recalls, num_ties = recall_of_pairs(texts, vectors_of_pair)
    print(format_table(recalls, list(texts), bleu))
    metrics = {"recall@1": recalls, "mean_recall@1": fmean(recalls.values())}
    result = {
        "dataset": settings.data,
        "model": model,
        "pretrained": "",
        "task": "text_to_text_retrieval",
        "language": list(texts),
        "metrics": metrics | ({"bleu": dict(bleu)} if bleu else {}),
        "protocol": {"captions": "first", "ties": TIES},
        "n_texts": len(next(iter(texts.values()))),
        "n_ties": num_ties,
        "precision": "fp32",
        "dataset_sha256": shards_hash(settings.data),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "wall_s": round(time.perf_counter() - started, 2),
    }
    append_result(Path(settings.output_dir) / "text_retrieval.jsonl", result)
    return result


def evaluate_text(settings: EvaluateTextSettings) -> dict[str, Any]:
    """`mclip evaluate-text`: prints the table, appends a line to
    `output_dir/text_retrieval.jsonl` and returns it.

    Raises:
        ValueError: neither an encoder nor a translation model is given, or the texts do not fit.
    """
    started, name = time.perf_counter(), settings.encoder
    if name is None:
        if settings.translation_model is None:
            raise ValueError("evaluate-text needs --encoder or --translation_model")
        name = str(Path(settings.translation_model) / ENCODER_FOLDER)
    texts = read_parallel_texts(settings.data, settings.languages)
    encoder = load_multilingual_encoder(name, max_length=settings.max_length)
    encoder.model.to("cuda" if torch.cuda.is_available() else "cpu")
    vectors = {
        language: encode_sentences(encoder, sentences, settings.batch_size).cpu()
        for language, sentences in texts.items()
    }
    bleu = measure_bleu(settings, texts) if settings.translation_model else None
    return report(
        settings, name, texts, lambda one, other: (vectors[one], vectors[other]), started, bleu
    )
