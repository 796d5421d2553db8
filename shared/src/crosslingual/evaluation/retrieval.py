"""Retrieval between pictures and texts: Recall@K by the standard definition, and its result line.

Scores are cosines in fp32, whatever the embeddings came in, since rounded scores make ties: bf16
turns two or three points of R@1 into them. Ties are pessimistic: a wrong candidate whose score
equals the right one's ranks ahead of it, so that an encoder which says the same of everything finds
nothing. Every text and every picture counts: what CLIP_benchmark and the COCO protocol do, and not
the ranking after removing a picture's other captions, which raises R@5 and R@10 with five captions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crosslingual.evaluation.ranking import ranks
from crosslingual.evaluation.results import TASKS, Result, append_result, make_result

__all__ = ["TASK", "TIES", "Recall", "append_result", "recall_at_k", "result_json"]

# I pictures, T texts, D width, S resamplings, K numbers of first answers

TIES = "pessimistic"
TASK = TASKS[0]


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
        """95 % bootstrap intervals [low, high] of `metrics` and `mean_recall`.

        The queries are drawn again by picture, each with its texts: captions of one picture are not
        independent, and neither are the two ways.

        Args:
            num_samples: resamplings.
            seed: of the drawing.
        """
        ks = list(self.text_to_image)
        num_texts_I = torch.bincount(self.image_of_text, minlength=self.num_images)
        text_hits_IK = torch.stack(
            [
                torch.bincount(self.image_of_text, (self.text_ranks < k).double(), self.num_images)
                for k in ks
            ],
            dim=1,
        )
        image_hits_IK = torch.stack([(self.image_ranks < k).double() for k in ks], dim=1)
        columns = torch.cat([text_hits_IK, image_hits_IK, num_texts_I[:, None].double()], dim=1)
        generator = torch.Generator().manual_seed(seed)
        sums = []
        for _ in range(num_samples):
            drawn = torch.randint(self.num_images, (self.num_images,), generator=generator)
            times_I = torch.bincount(drawn, minlength=self.num_images).double()
            sums.append(times_I @ columns)
        sums_SK = torch.stack(sums)
        shares_SK = torch.cat(
            [sums_SK[:, : len(ks)] / sums_SK[:, -1:], sums_SK[:, len(ks) : -1] / self.num_images],
            dim=1,
        )
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
    images_ID = _unit_rows(image_embeds_ID, "picture")
    texts_TD = _unit_rows(text_embeds_TD, "text")
    places = image_of_text_T.to(images_ID.device, torch.int64)
    _check_pairs(places, num_images, num_texts)
    text_numbers = torch.arange(num_texts, device=places.device)
    by_image = places.argsort(stable=True)
    text_ranks, text_ties = ranks(texts_TD, images_ID, text_numbers, places, chunk_rows)
    image_ranks, image_ties = ranks(images_ID, texts_TD, places[by_image], by_image, chunk_rows)
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


def _unit_rows(embeds: Tensor, what: str) -> Tensor:
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


def result_json(
    recall: Recall,
    *,
    dataset: str,
    model: str,
    pretrained: str,
    language: str,
    captions: str,
    precision: str,
    dataset_sha256: str | None,
    seed: int,
    wall_s: float,
    num_bootstrap: int = 1000,
    **further: Any,
) -> Result:
    """The result line of a run of retrieval.

    Args:
        recall: what was found.
        dataset: its name or folder.
        model: the architecture or method.
        pretrained: its weights: an id or a folder.
        language: of the texts, BCP-47.
        captions: `first` (one a picture) or `all`.
        precision: of the encoders' weights, such as fp32.
        dataset_sha256: of the shards, where they have an index.
        seed: of the bootstrap.
        wall_s: seconds of the run.
        num_bootstrap: resamplings for `interval95`; 0 leaves it out.
        further: other keys, in JSON values.
    """
    interval = {"interval95": recall.intervals(num_bootstrap, seed)} if num_bootstrap else {}
    return make_result(
        TASK,
        dataset=dataset,
        model=model,
        metrics=recall.metrics(),
        protocol={"captions": captions, "ties": TIES},
        pretrained=pretrained,
        language=language,
        mean_recall=recall.mean_recall,
        n_images=recall.num_images,
        n_texts=recall.num_texts,
        n_ties=recall.num_ties,
        precision=precision,
        dataset_sha256=dataset_sha256,
        seed=seed,
        wall_s=wall_s,
        **interval,
        **further,
    )
