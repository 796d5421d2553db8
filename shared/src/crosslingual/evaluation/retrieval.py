"""Retrieval between pictures and texts: Recall@K by the standard definition, and its result line.

Scores are cosines in fp32, whatever the embeddings came in, since rounded scores make ties: bf16
turns two or three points of R@1 into them. Ties are pessimistic: a wrong candidate whose score
equals the right one's ranks ahead of it, so that an encoder which says the same of everything finds
nothing. Every text and every picture counts: what CLIP_benchmark and the COCO protocol do, and not
the ranking after removing a picture's other captions, which raises R@5 and R@10 with five captions.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crosslingual.files import append_line

# I pictures, T texts, Q queries, C candidates, R right pairs of them, D width, S resamplings,
# K numbers of first answers, both ways

TIES = "pessimistic"
TASK = "zeroshot_retrieval"  # as CLIP_benchmark names it


@dataclass(frozen=True)
class Recall:
    """What retrieval found, both ways; shares are fractions of the queries.

    Attributes:
        text_to_image: share of texts whose picture is among the first K, by K.
        image_to_text: share of pictures one of whose texts is among the first K, by K.
        num_images: pictures.
        num_texts: texts.
        num_ties: queries of both ways whose right answer ties with a wrong one.
        text_ranks: (T,) int64, wrong pictures ahead of each text's own.
        image_ranks: (I,) int64, wrong texts ahead of the best of each picture's own.
        image_of_text: (T,) int64, as given.
    """

    text_to_image: dict[int, float]
    image_to_text: dict[int, float]
    num_images: int
    num_texts: int
    num_ties: int
    text_ranks: Tensor
    image_ranks: Tensor
    image_of_text: Tensor

    @property
    def mean_recall(self) -> float:
        """The mean over both ways and all K: of K = 1, 5, 10, the field's mean recall."""
        shares = [*self.text_to_image.values(), *self.image_to_text.values()]
        return sum(shares) / len(shares)

    def metrics(self) -> dict[str, float]:
        """The shares by CLIP_benchmark's names, in which `image_retrieval` finds pictures."""
        found = {f"image_retrieval_recall@{k}": share for k, share in self.text_to_image.items()}
        return found | {f"text_retrieval_recall@{k}": v for k, v in self.image_to_text.items()}

    def intervals(self, num_samples: int = 1000, seed: int = 0) -> dict[str, list[float]]:
        """95 % bootstrap intervals [low, high] of `metrics` and `mean_recall`, by resamplings drawn
        from a seed.

        The queries are drawn again by picture, each with its texts: captions of one picture are not
        independent, and neither are the two ways.
        """
        owners, num_images, ks = self.image_of_text, self.num_images, list(self.text_to_image)
        hits = [torch.bincount(owners, (self.text_ranks < k).double(), num_images) for k in ks]
        hits += [(self.image_ranks < k).double() for k in ks]
        num_texts_I = torch.bincount(owners, minlength=num_images).double()
        num_images_I = torch.ones(num_images, dtype=torch.double)
        columns = torch.stack([*hits, num_texts_I, num_images_I], dim=1)
        generator = torch.Generator().manual_seed(seed)
        sums = []
        for _ in range(num_samples):
            drawn = torch.randint(num_images, (num_images,), generator=generator)
            sums.append(torch.bincount(drawn, minlength=num_images).double() @ columns)
        hits_SK, totals_S2 = torch.stack(sums).split([2 * len(ks), 2], dim=1)
        shares_SK = hits_SK / totals_S2.repeat_interleave(len(ks), dim=1)
        shares_SK = torch.cat([shares_SK, shares_SK.mean(dim=1, keepdim=True)], dim=1)
        bounds = shares_SK.quantile(torch.tensor([0.025, 0.975], dtype=torch.double), dim=0)
        names = [*self.metrics(), "mean_recall"]
        return {name: bounds[:, place].tolist() for place, name in enumerate(names)}


@torch.no_grad()
def recall_at_k(
    image_embeds_ID: Tensor,
    text_embeds_TD: Tensor,
    image_of_text_T: Tensor,
    ks: Sequence[int] = (1, 5, 10),
    chunk_rows: int = 1024,
) -> Recall:
    """Recall@K of pictures by texts and of texts by pictures; of texts by texts as well, with one
    language's as the pictures.

    Memory grows with `chunk_rows` x candidates, time with pictures x texts.

    Args:
        image_embeds_ID: embeddings of the pictures, of any length: they are normalised here.
        text_embeds_TD: embeddings of the texts, likewise.
        image_of_text_T: which picture each text describes, int64.
        ks: how many of the first answers count.
        chunk_rows: queries whose scores exist at a time.

    Raises:
        ValueError: shapes that do not fit; an embedding that is not finite or zero; a text without
            a picture or a picture without a text.
    """
    num_images, num_texts = len(image_embeds_ID), len(text_embeds_TD)
    if image_embeds_ID.shape[1:] != text_embeds_TD.shape[1:] or image_embeds_ID.ndim != 2:
        shapes = f"{(*image_embeds_ID.shape,)} and {(*text_embeds_TD.shape,)}"
        raise ValueError(f"pictures and texts of one space are needed, not of shapes {shapes}")
    images_ID = unit_rows(image_embeds_ID, "picture")
    texts_TD = unit_rows(text_embeds_TD, "text")
    places = image_of_text_T.to(images_ID.device, torch.int64)
    _check_pairs(places, num_images, num_texts)
    text_numbers = torch.arange(num_texts, device=places.device)
    by_image = places.argsort(stable=True)
    text_ranks, text_ties = _ranks(texts_TD, images_ID, text_numbers, places, chunk_rows)
    image_ranks, image_ties = _ranks(images_ID, texts_TD, places[by_image], by_image, chunk_rows)
    return Recall(
        text_to_image={k: (text_ranks < k).double().mean().item() for k in ks},
        image_to_text={k: (image_ranks < k).double().mean().item() for k in ks},
        num_images=num_images,
        num_texts=num_texts,
        num_ties=text_ties + image_ties,
        text_ranks=text_ranks.cpu(),
        image_ranks=image_ranks.cpu(),
        image_of_text=places.cpu(),
    )


def result_json(
    recall: Recall, *, captions: str, seed: int, num_bootstrap: int = 1000, **further: Any
) -> dict[str, Any]:
    """The result line of a run of retrieval, in CLIP_benchmark's keys and ours.

    Args:
        recall: what was found.
        captions: `first` (one a picture) or `all`.
        seed: of the bootstrap.
        num_bootstrap: resamplings for `interval95`; 0 leaves it out.
        further: what else the line says: dataset, model, pretrained (id or folder of its weights),
            language, precision, dataset_sha256, wall_s.
    """
    if num_bootstrap:
        further["interval95"] = recall.intervals(num_bootstrap, seed)
    return {
        "task": TASK,
        **further,
        "metrics": recall.metrics(),
        "protocol": {"captions": captions, "ties": TIES},
        "mean_recall": recall.mean_recall,
        "n_images": recall.num_images,
        "n_texts": recall.num_texts,
        "n_ties": recall.num_ties,
        "seed": seed,
        "versions": {name: version(name) for name in ("torch", "transformers", "diffusers")},
    }


def append_result(path: str | Path, result: dict[str, Any]) -> None:
    """Appends a result to a file as one line of JSON; lines that are there are never rewritten."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, json.dumps(result, ensure_ascii=False, allow_nan=False))


def _ranks(
    queries_QD: Tensor, candidates_CD: Tensor, query_R: Tensor, right_R: Tensor, chunk_rows: int
) -> tuple[Tensor, int]:
    """Wrong candidates ahead of each query's best right one (Q,), and how many queries have ties;
    `query_R`, the queries of the right pairs, is sorted.
    """
    unique_CD, group_C = _without_copies(candidates_CD)
    starts = range(0, len(queries_QD), chunk_rows)
    bounds = torch.searchsorted(query_R, torch.tensor([*starts, len(queries_QD)]).to(query_R))
    shape = (min(chunk_rows, len(queries_QD)), len(candidates_CD))
    scores_buffer, marks_buffer = (queries_QD.new_empty(shape) for _ in range(2))
    found, num_ties = [], 0
    for number, start in enumerate(starts):
        asked_QD = queries_QD[start : start + chunk_rows]
        scores_QC, marks_QC = scores_buffer[: len(asked_QD)], marks_buffer[: len(asked_QD)]
        if group_C is None:
            torch.mm(asked_QD, unique_CD.T, out=scores_QC)
        else:
            torch.index_select(asked_QD @ unique_CD.T, 1, group_C, out=scores_QC)
        pairs = slice(int(bounds[number]), int(bounds[number + 1]))
        rows, columns = query_R[pairs] - start, right_R[pairs]
        best_Q1 = scores_QC.new_full((len(asked_QD),), -torch.inf)
        best_Q1 = best_Q1.scatter_reduce_(0, rows, scores_QC[rows, columns], "amax")[:, None]
        scores_QC[rows, columns] = -torch.inf  # the other right ones are not ahead of it
        # marks in fp32 are counted six times as fast as bools, and exactly up to 2^24 candidates
        at_or_above_Q = torch.ge(scores_QC, best_Q1, out=marks_QC).sum(dim=1)
        above_Q = torch.gt(scores_QC, best_Q1, out=marks_QC).sum(dim=1)
        found.append(at_or_above_Q.long())
        num_ties += int((at_or_above_Q > above_Q).count_nonzero())
    return torch.cat(found), num_ties


def _without_copies(rows_CD: Tensor) -> tuple[Tensor, Tensor | None]:
    """The different rows, and of each row which of them it is (None if all differ).

    Equal candidates must have equal scores, which a matrix product does not promise: its edges are
    computed by other instructions.
    """
    first_of: dict[bytes, int] = {}
    group = [first_of.setdefault(row.tobytes(), len(first_of)) for row in rows_CD.cpu().numpy()]
    if len(first_of) == len(rows_CD):
        return rows_CD, None
    group_C = torch.tensor(group, device=rows_CD.device)
    chosen = torch.empty(len(first_of), dtype=torch.int64, device=rows_CD.device)
    chosen[group_C] = torch.arange(len(group), device=rows_CD.device)
    return rows_CD[chosen], group_C


def unit_rows(embeds: Tensor, what: str) -> Tensor:
    """Rows of length 1 in fp32; `what` names a row in the error.

    Raises:
        ValueError: a row is not finite, or zero.
    """
    rows = embeds.float()
    lengths = rows.norm(dim=1)
    wrong = ~(lengths.isfinite() & (lengths > 0))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        kind = "zero" if lengths[first] == 0 else "not finite"
        raise ValueError(
            f"the embedding of {what} {first} is {kind} ({int(wrong.sum())} of {len(rows)} are "
            "such): its cosines mean nothing; look for a NaN in the model or an empty input"
        )
    return F.normalize(rows, dim=1)


def _check_pairs(places: Tensor, num_images: int, num_texts: int) -> None:
    if places.shape != (num_texts,):
        raise ValueError(f"{num_texts} texts name {(*places.shape,)} pictures; give one each")
    outside = (places < 0) | (places >= num_images)
    if outside.any():
        first = int(outside.nonzero()[0])
        raise ValueError(
            f"text {first} belongs to picture {int(places[first])}, and there are {num_images}: "
            "leave texts without a picture out"
        )
    untold = torch.bincount(places, minlength=num_images) == 0
    if untold.any():
        raise ValueError(
            f"picture {int(untold.nonzero()[0])} has no text ({int(untold.sum())} of {num_images} "
            "have none): leave such pictures out, and say so"
        )
