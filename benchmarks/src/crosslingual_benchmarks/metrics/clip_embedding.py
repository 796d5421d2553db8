"""Unit embeddings of pictures and English captions by a CLIP, in fp32, none of them zero or NaN."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crosslingual.evaluation.retrieval import unit_rows
from crosslingual.frozen.clip import FrozenCLIP
from crosslingual.frozen.tokens import on_cut
from crosslingual_benchmarks.metrics.pictures import Pictures, image_batches, list_pictures

# N pictures, T captions, P width of CLIP's joint space


@dataclass(frozen=True)
class CaptionEmbeds:
    """Captions in a CLIP's joint space.

    Attributes:
        rows_TP: unit rows, fp32; captions of equal tokens have equal rows.
        num_cut: captions longer than CLIP's context, cut with the end token kept.
    """

    rows_TP: Tensor
    num_cut: int


@torch.no_grad()
def embed_pictures(
    clip: FrozenCLIP,
    pictures: Pictures,
    batch_size: int = 64,
    num_expected: int | None = None,
) -> Tensor:
    """Unit embeddings (N, P) of pictures, fitted to CLIP's size (bicubic, centre crop).

    Raises:
        FileNotFoundError: pictures are missing.
        ValueError: there are not as many as expected, one is broken, or its embedding is not
            finite or zero.
    """
    found = list_pictures(pictures, num_expected)
    if not found:
        raise ValueError("no pictures are given")
    batches = image_batches(found, clip.image_size, batch_size)
    return unit_rows(torch.cat([clip.encode_images(batch) for batch in batches]), "picture")


@torch.no_grad()
def embed_captions(
    clip: FrozenCLIP, captions: Sequence[str], batch_size: int = 256
) -> CaptionEmbeds:
    """Unit embeddings (T, P) of captions.

    CLIP reads its sentence vector at the end token. A caption longer than its context therefore
    keeps that token, and loses the words before it. Captions that CLIP reads as equal are encoded
    once: their scores must tie exactly, and rounding differs between batches.

    Raises:
        ValueError: no captions, a blank one, or an embedding that is not finite or zero.
    """
    if not captions:
        raise ValueError("no captions are given")
    blank = [place for place, caption in enumerate(captions) if not caption.strip()]
    if blank:
        raise ValueError(
            f"caption {blank[0]} is blank ({len(blank)} of {len(captions)} are blank): leave such "
            "rows out, and say so"
        )
    whole = clip.tokenizer(list(captions), verbose=False).input_ids
    read = clip.tokenizer(list(captions), truncation=True, max_length=clip.max_length).input_ids
    text_of = {tuple(ids): text for ids, text in zip(read, captions, strict=True)}
    place_of = {ids: place for place, ids in enumerate(text_of)}
    places = torch.tensor([place_of[tuple(ids)] for ids in read])
    texts = list(text_of.values())
    starts = range(0, len(texts), batch_size)
    with on_cut(lambda cut: None):  # they are counted here
        rows = torch.cat([clip.encode_texts(texts[start : start + batch_size]) for start in starts])
    embeds = unit_rows(rows[places.to(rows.device)], "caption")
    return CaptionEmbeds(embeds, sum(len(ids) > clip.max_length for ids in whole))
