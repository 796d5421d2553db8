"""Text accuracy and culture score: the share of pictures that show all that their prompt says.

A world's judge decides what a picture shows; one that ranks all scenes also says whether the right
one is among its first five. Elsewhere a CLIP chooses among English captions: a
general picture's own and the `NUM_NEGATIVES` nearest to it in that CLIP's space; a culture
picture's own and those of the same aspect in all other cultures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, tensor

from crosslingual.frozen.clip import FrozenCLIP
from crosslingual_benchmarks.generation.prompts import Prompt
from crosslingual_benchmarks.metrics import Metric, Score
from crosslingual_benchmarks.metrics.clip_embedding import embed_captions, embed_pictures
from crosslingual_benchmarks.metrics.intervals import interval_of_mean
from crosslingual_benchmarks.metrics.pictures import FIT, Pictures
from crosslingual_benchmarks.metrics.sample import Pairs, Sample, paths_of

# N pictures, T captions of all of them, right ones and wrong ones

NEAR = 5  # of a judge's first answers, for text accuracy at 5
NUM_NEGATIVES = 9  # wrong captions of a picture, of which a CLIP chooses the right one
ROUNDING = 1e-6  # cosines in fp32 that lie closer are equal


@dataclass(frozen=True)
class TextChoice:
    """The result of `text_choice`.

    `num_ties` counts pictures whose right caption scores as high as the best wrong one; they count
    as wrong. `chance` is the accuracy of a random choice, the mean of 1 / (1 + wrong captions).
    """

    is_right_N: Tensor
    num_ties: int
    num_cut: int
    chance: float
    protocol: dict[str, str | int]

    @property
    def text_accuracy(self) -> float:
        """The share of pictures whose right caption is chosen, between 0 and 1."""
        return self.is_right_N.double().mean().item()


def text_choice(
    clip: FrozenCLIP,
    pictures: Pictures,
    right_captions: Sequence[str],
    wrong_captions: Sequence[Sequence[str]],
    batch_size: int = 64,
) -> TextChoice:
    """Text accuracy by a zero-shot choice: `cos(I(picture), T(right)) > max cos(I(picture),
    T(wrong))`, strictly, so that a collapsed encoder scores 0.

    CLIP's zero-shot classification (Radford et al. 2021, arXiv 2103.00020, section 3.1) with the
    negatives of each picture its own: captions with attributes swapped, relations mirrored or
    counts changed, as in ARO (Yuksekgonul et al. 2023, arXiv 2210.01936). A CLIP that confuses
    these itself bounds the number: score real pictures beside the generated ones.

    Captions are English: a right one a picture, in their order, and one or more wrong ones.

    Raises:
        FileNotFoundError: pictures are missing.
        ValueError: captions do not fit the pictures, a picture has no wrong caption or its right
            one among them, a broken picture, an embedding that is not finite or zero.
    """
    if len(right_captions) != len(wrong_captions):
        raise ValueError(
            f"{len(right_captions)} right captions and {len(wrong_captions)} lists of wrong ones: "
            "give one list a picture"
        )
    rows = [[right, *wrong] for right, wrong in zip(right_captions, wrong_captions, strict=True)]
    for place, (right, *wrong) in enumerate(rows):
        if not wrong:
            raise ValueError(f"picture {place} has no wrong caption: there is nothing to choose")
        if right.strip() in (caption.strip() for caption in wrong):
            raise ValueError(
                f"picture {place} has its right caption {right!r} among the wrong ones"
            )
    images_NP = embed_pictures(clip, pictures, batch_size, num_expected=len(rows))
    embeds = embed_captions(clip, [caption for row in rows for caption in row])
    numbers_T = tensor([place for place, row in enumerate(rows) for _ in row])
    scores_T = (images_NP[numbers_T.to(images_NP.device)] * embeds.rows_TP).sum(dim=1).cpu()
    parts = scores_T.split([len(row) for row in rows])
    leads_N = tensor([(part[0] - part[1:].max()).item() for part in parts])
    is_right_N = leads_N > ROUNDING
    protocol = {"clip": clip.name, "resize": f"{FIT} to {clip.image_size}"}
    return TextChoice(
        is_right_N,
        int((leads_N.abs() <= ROUNDING).sum()),
        embeds.num_cut,
        sum(1 / len(row) for row in rows) / len(rows),
        protocol | {"max_length": clip.max_length, "ties": "pessimistic"},
    )


def hard_negatives(clip: FrozenCLIP, captions: Sequence[str], count: int) -> list[list[str]]:
    """For each caption, the `count` different ones nearest to it in a CLIP's space, or all where
    there are fewer.
    """
    distinct = list(dict.fromkeys(caption.strip() for caption in captions))
    rows_TP = embed_captions(clip, distinct).rows_TP
    nearest = {}
    for place, caption in enumerate(distinct):
        cosines_T = rows_TP @ rows_TP[place]
        cosines_T[place] = -2.0  # below any cosine: itself comes last
        order = cosines_T.argsort(descending=True, stable=True)[: min(count, len(distinct) - 1)]
        nearest[caption] = [distinct[i] for i in order.tolist()]
    return [nearest[caption.strip()] for caption in captions]


def other_cultures(prompts: Sequence[Prompt], all_prompts: Sequence[Prompt]) -> list[list[str]]:
    """For each culture prompt the English of those of the same aspect in other cultures."""
    return [
        list(
            dict.fromkeys(
                other.english
                for other in all_prompts
                if other.culture not in (None, prompt.culture)
                and other.aspect == prompt.aspect
                and other.english.strip() != prompt.english.strip()
            )
        )
        for prompt in prompts
    ]


def _measure_text_accuracy(sample: Sample) -> Score | None:
    return _measure(sample, "text_accuracy", sample.general)


def _measure_culture_score(sample: Sample) -> Score | None:
    return _measure(sample, "culture_score", sample.culture)


def _measure_text_accuracy_at_5(sample: Sample) -> Score | None:
    """None where no judge ranks scenes."""
    place = sample.yardstick.place
    if place is None or not sample.general:
        return None
    marks = [d.is_finite and place(d.open(), p.scene) < NEAR for p, d in sample.general]
    column, interval = torch.tensor(marks).double(), None
    if sample.num_bootstrap:
        interval = interval_of_mean(column, sample.num_bootstrap, sample.seed)
    words = f"judge, among its first {NEAR}"
    return Score(column.mean().item(), interval, {"text_accuracy_at_5": words})


def _measure(sample: Sample, name: str, pairs: Pairs) -> Score | None:
    """The share of right pictures; None without pictures, or with nothing to choose from."""
    prompts = [prompt for prompt, _ in pairs]
    if not pairs:
        return None
    further = {}
    if sample.yardstick.shows and all(prompt.scene for prompt in prompts):
        words = "judge"
        marks = [d.is_finite and sample.yardstick.shows(d.open(), p.scene) for p, d in pairs]
    else:
        captions, clip = [prompt.english for prompt in prompts], sample.yardstick.clip
        words = "choice by the clip among English captions, "
        if name == "culture_score":
            wrong = other_cultures(prompts, sample.all_prompts)
            words += "same aspect, other cultures"
        else:
            wrong = hard_negatives(clip, captions, NUM_NEGATIVES)
            words += f"{NUM_NEGATIVES} nearest"
        if not all(wrong):
            return None
        choice = text_choice(clip, paths_of(pairs), captions, wrong)
        further = {"chance": {name: choice.chance}, "n_ties": choice.num_ties}
        is_right = choice.is_right_N.tolist()
        marks = [right and d.is_finite for right, (_, d) in zip(is_right, pairs, strict=True)]
    column, interval = torch.tensor(marks).double(), None
    if sample.num_bootstrap:
        interval = interval_of_mean(column, sample.num_bootstrap, sample.seed)
    return Score(column.mean().item(), interval, {name: words}, further, marks=marks)


_SHARE = {"scale": 100, "decimals": 1, "better": "high", "is_share": True}
METRICS = (
    Metric("text_accuracy", "text accuracy, %", _measure_text_accuracy, **_SHARE, place=1),
    Metric(
        "text_accuracy_at_5",
        "text accuracy at 5, %",
        _measure_text_accuracy_at_5,
        **_SHARE,
        place=3,
    ),
    Metric("culture_score", "culture score, %", _measure_culture_score, **_SHARE, place=2),
)
