"""Stage 1's validation: the translation loss, retrieval of translations, BLEU, on held-out text."""

from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist

from crosslingual.evaluation.retrieval import recall_at_k
from crosslingual.frozen.tokens import tokenize
from mclip.stage1.method import TranslationModel
from mclip.stage1.parallel_text import Pair, both_ways, open_sources, sentence_pairs
from mclip.stage1.settings import TrainEncoderSettings
from mclip.stage1.step import nmt_loss
from mclip.stage1.translate import corpus_bleu, translate_texts


def open_validation(
    settings: TrainEncoderSettings, pairs: Sequence[Pair]
) -> dict[Pair, list[tuple[str, str]]]:
    """The first `validation_rows` sentences and translations of each pair that trains, by pair of
    languages, sorted; none where the run does not validate.

    Raises:
        FileNotFoundError: there is no such text.
        ValueError: the text is in other languages.
    """
    if not settings.validation_steps:
        return {}
    sources = open_sources(settings.validation_data)
    found = {
        pair: list(islice(sentence_pairs(sources, pair), settings.validation_rows))
        for pair in both_ways(pairs)
    }
    held_out = {pair: rows for pair, rows in found.items() if rows}
    if not held_out:
        names = ", ".join("-".join(pair) for pair in found)
        raise ValueError(f"{', '.join(settings.validation_data)} holds no sentences of {names}")
    return held_out


@torch.no_grad()
def validate(
    settings: TrainEncoderSettings,
    model: TranslationModel,
    tokenizer: Any,
    held_out: Mapping[Pair, Sequence[tuple[str, str]]],
    pairs: Sequence[Pair],
) -> dict[str, float]:
    """Measures the model in evaluation mode and sets it back to training mode.

    Every process must call it; they share the translations.

    Args:
        settings: the run's.
        model: on this process's device.
        tokenizer: the encoder's.
        held_out: sentences of `open_validation`.
        pairs: the directions that train.

    Returns:
        `validation_loss` (NMT), `validation_recall@1` between translations (means over pairs and
        both ways) and `validation_bleu` (greedy; the mean over directions); recall and BLEU by pair
        and direction too, such as `validation_bleu_de-en`.
    """
    model.eval()
    losses, unknown, recalls, bleus = [], [], {}, {}
    for pair, rows in held_out.items():
        directions = {
            way: [row if way == pair else row[::-1] for row in rows]
            for way in (pair, pair[::-1])
            if way in pairs
        }
        loss, unknown_share, recalls["-".join(pair)] = _read(settings, model, tokenizer, directions)
        losses.append(loss)
        unknown.append(unknown_share)
        for way, texts in directions.items():
            if chosen := texts[: settings.num_translated]:
                bleus["-".join(way)] = _bleu(settings, model, tokenizer, chosen, way[1])
    model.train()
    values = {"validation_loss": fmean(losses), "validation_recall@1": fmean(recalls.values())}
    if model.output_ids is not None:
        values["validation_unknown_tokens"] = fmean(unknown)
    values |= {f"validation_recall@1_{name}": value for name, value in recalls.items()}
    if bleus:
        values["validation_bleu"] = fmean(bleus.values())
        values |= {f"validation_bleu_{name}": value for name, value in bleus.items()}
    return values


def _read(
    settings: TrainEncoderSettings,
    model: TranslationModel,
    tokenizer: Any,
    directions: Mapping[Pair, Sequence[tuple[str, str]]],
) -> tuple[float, float, float]:
    """The translation loss in the directions that train, one or both of a pair, the share of tokens
    that the decoder does not predict and the loss leaves out, and R@1.
    """
    (source, target), rows = next(iter(directions.items()))
    ordered = sorted(rows, key=lambda row: max(map(len, row)))
    loss, num_tokens, num_asked, vectors = 0.0, 0, 0, ([], [])
    for start in range(0, len(ordered), settings.train_batch_size):
        texts = ordered[start : start + settings.train_batch_size]
        batch = {"source_language": source, "target_language": target}
        for side, sentences in zip(("source", "target"), zip(*texts, strict=True), strict=True):
            length = settings.max_length or min(int(tokenizer.model_max_length), 256)
            tokens = tokenize(tokenizer, list(sentences), length)
            tokens = tokens.to(model.embedding_weight.device)
            batch |= {f"{side}_ids": tokens.input_ids, f"{side}_mask": tokens.attention_mask}
        output = model(batch, contrast=True, both_ways=len(directions) == 2)
        mean, _ = nmt_loss(
            output.states_TD,
            output.labels_T,
            model.output_weight,
            label_smoothing=settings.label_smoothing,
            chunk_tokens=settings.chunk_tokens,
        )
        loss += mean.item() * len(output.labels_T)
        num_tokens += len(output.labels_T)
        asked = ("target", "source")[: len(directions)]
        num_asked += sum(int((batch[f"{side}_mask"].sum(dim=1) - 1).sum()) for side in asked)
        vectors[0].append(output.source_BD)
        vectors[1].append(output.target_BD)
    sides = [torch.cat(parts) for parts in vectors]
    recall = recall_at_k(*sides, torch.arange(len(rows)), ks=(1,))
    return loss / num_tokens, 1 - num_tokens / num_asked, recall.mean_recall


def _bleu(
    settings: TrainEncoderSettings,
    model: TranslationModel,
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    target_language: str,
) -> float:
    """BLEU of greedy translations, which the processes share among them."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    own = texts[rank::world_size]
    options = {"num_beams": 1, "batch_size": settings.train_batch_size}
    translated = translate_texts(
        model, tokenizer, [source for source, _ in own], target_language, **options
    )
    shares: list[Any] = [None] * world_size
    dist.all_gather_object(shares, (translated, [target for _, target in own]))
    hypotheses, references = ([t for share in shares for t in share[side]] for side in (0, 1))
    return corpus_bleu(hypotheses, references, target_language)
