"""The scores of one language's pictures: what is measured of them, against what, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual_benchmarks.generation.pictures import Drawn
from crosslingual_benchmarks.generation.prompts import Prompt
from crosslingual_benchmarks.metrics.clip_embedding import embed_captions
from crosslingual_benchmarks.metrics.clip_score import clip_score
from crosslingual_benchmarks.metrics.features import (
    INCEPTION,
    Extractor,
    clip_extractor,
    image_features,
    load_extractor,
)
from crosslingual_benchmarks.metrics.frechet import frechet_distance, kernel_distance_of_all
from crosslingual_benchmarks.metrics.intervals import interval_of_mean, interval_of_statistic
from crosslingual_benchmarks.metrics.pictures import Pictures
from crosslingual_benchmarks.metrics.text_choice import text_choice
from crosslingual_worlds.drawn.judge import shows

# N pictures, M reference pictures, D width of the features

NUM_NEGATIVES = 9  # wrong captions of a picture, of which a CLIP chooses the right one
JUDGE = "judge"


@dataclass(frozen=True)
class Yardstick:
    """What pictures are measured with; one serves every arm and language.

    Attributes:
        clip: for the CLIP score and the choice among captions.
        extractor: of the features for FID and KID.
        references_MD: features of the true pictures, None where there are none.
        words: the references in a protocol's words.
    """

    clip: FrozenCLIP
    extractor: Extractor | None = None
    references_MD: Tensor | None = None
    words: dict[str, Any] = field(default_factory=dict)


@dataclass
class Scores:
    """What a result line says of one language.

    Attributes:
        metrics: name to number.
        interval95: of each, [low, high].
        protocol: what was measured how.
        further: top-level numbers.
        warnings: sentences on what a reader should know.
        marks: for each picture, general ones first, whether it is right, None where not judged.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    interval95: dict[str, list[float]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    marks: dict[str, list[bool | None]] = field(default_factory=dict)


def load_yardstick(
    clip: str, extractor: str, references: Pictures | None, resolution: int
) -> Yardstick:
    """Loads the networks and reads the true pictures.

    Args:
        clip: of `crosslingual.frozen.clip.load_clip`.
        extractor: of `metrics.features.load_extractor`.
        references: true pictures, a folder or a list; None leaves FID and KID out.
        resolution: that of the generated pictures, which Inception's true ones are brought to.

    Raises:
        FileNotFoundError: a network, or a picture, is not there.
        ValueError: a network is of another kind, a picture is broken, or there are fewer than 2.
    """
    loaded = load_clip(clip)
    loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
    if references is None:
        return Yardstick(loaded)
    reader = (
        clip_extractor(loaded)
        if extractor == clip
        else load_extractor(extractor, resolution=resolution if extractor == INCEPTION else None)
    )
    found = image_features(references, reader)
    told = found.protocol
    words = {"extractor": f"{told['extractor']} {told['layer']}, {told['resize']}"}
    words |= {"num_references": len(found.rows_ND), "kid": "unbiased, of all pictures"}
    return Yardstick(loaded, reader, found.rows_ND, words)


def score_pictures(
    yardstick: Yardstick,
    general: Sequence[tuple[Prompt, Drawn]],
    culture: Sequence[tuple[Prompt, Drawn]],
    all_prompts: Sequence[Prompt],
    *,
    num_bootstrap: int = 1000,
    num_fid_bootstrap: int = 100,
    seed: int = 0,
) -> Scores:
    """Scores one language.

    FID and KID are of the general pictures against the references; text accuracy is the share of
    general pictures that show all that their prompt says; culture score that of culture pictures.
    The CLIP score is of the general pictures, and of the culture ones where there are no others.
    On the testbed the judge decides what a picture shows; elsewhere a CLIP chooses among English
    captions: a general picture's own and the `NUM_NEGATIVES` nearest to it in that CLIP's space,
    a culture picture's own and those of the same aspect in all other cultures. A picture that is
    not finite is black, counts in every mean, and is never right.

    Args:
        yardstick: what they are measured with.
        general: prompts that are of no culture, with their pictures.
        culture: those of one.
        all_prompts: of the set, in all languages; the wrong captions are taken from it.
        num_bootstrap: resamplings for the intervals of means; 0 leaves them out.
        num_fid_bootstrap: of FID and KID, each a distance of its own.
        seed: of the resampling.
    """
    scores = Scores()
    told = general or culture
    found = clip_score(yardstick.clip, _paths(told), [prompt.english for prompt, _ in told])
    scores.protocol["clip"] = f"{found.protocol['clip']}, {found.protocol['resize']}"
    scores.metrics["clip_score"] = found.clip_score
    if num_bootstrap:
        column = found.cosine_N.double().mul(100).clamp(min=0)
        scores.interval95["clip_score"] = interval_of_mean(column, num_bootstrap, seed)
    scores.further["n_images"] = len(general) + len(culture)
    scores.further["num_invalid"] = sum(not d.is_finite for _, d in (*general, *culture))
    scores.further["num_cut_captions"] = found.num_cut
    if scores.further["num_invalid"]:
        scores.warnings.append(
            f"{scores.further['num_invalid']} of {scores.further['n_images']} pictures are not "
            "finite, black, and counted as wrong"
        )
    parts = {"text_accuracy": general, "culture_score": culture}
    for name, pairs in parts.items():
        marks = _judge(scores, name, yardstick.clip, pairs, all_prompts) if pairs else None
        scores.marks[name] = marks if marks else [None] * len(pairs)
        if marks:
            column = torch.tensor(marks).double()
            scores.metrics[name] = column.mean().item()
            if num_bootstrap:
                scores.interval95[name] = interval_of_mean(column, num_bootstrap, seed)
    if yardstick.references_MD is not None and general:
        _score_distances(scores, yardstick, general, num_fid_bootstrap, seed)
    return scores


def hard_negatives(clip: FrozenCLIP, captions: Sequence[str], count: int) -> list[list[str]]:
    """For each caption the `count` others nearest to it in a CLIP's space, equal ones passed over;
    fewer where there are fewer.
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


def _paths(pairs: Sequence[tuple[Prompt, Drawn]]) -> list[Any]:
    return [drawn.path for _, drawn in pairs]


def _judge(
    scores: Scores,
    name: str,
    clip: FrozenCLIP,
    pairs: Sequence[tuple[Prompt, Drawn]],
    all_prompts: Sequence[Prompt],
) -> list[bool] | None:
    """Whether each picture shows what it should; None where there is nothing to choose from."""
    prompts = [prompt for prompt, _ in pairs]
    if all(prompt.scene for prompt in prompts):
        scores.protocol[name] = JUDGE
        return [d.is_finite and shows(d.open(), p.scene) for p, d in pairs if p.scene]
    captions = [prompt.english for prompt in prompts]
    if name == "culture_score":
        wrong, words = other_cultures(prompts, all_prompts), "same aspect, other cultures"
    else:
        wrong, words = hard_negatives(clip, captions, NUM_NEGATIVES), f"{NUM_NEGATIVES} nearest"
    if not all(wrong):
        return None
    choice = text_choice(clip, _paths(pairs), captions, wrong)
    scores.protocol[name] = f"choice by the clip among English captions, {words}"
    scores.further.setdefault("chance", {})[name] = choice.chance
    scores.further["n_ties"] = scores.further.get("n_ties", 0) + choice.num_ties
    return [
        bool(right) and d.is_finite for right, (_, d) in zip(choice.is_right_N, pairs, strict=True)
    ]


def _score_distances(
    scores: Scores,
    yardstick: Yardstick,
    general: Sequence[tuple[Prompt, Drawn]],
    num_bootstrap: int,
    seed: int,
) -> None:
    """Adds FID and KID."""
    references_MD = yardstick.references_MD
    rows_ND = image_features(_paths(general), yardstick.extractor).rows_ND
    fid = frechet_distance(rows_ND, references_MD)
    scores.metrics |= {"fid": fid.value, "kid": kernel_distance_of_all(rows_ND, references_MD)}
    scores.protocol |= yardstick.words
    scores.warnings += [fid.warning] if fid.warning else []
    if num_bootstrap:
        statistics = {
            "fid": lambda rows: frechet_distance(rows, references_MD).value,
            "kid": lambda rows: kernel_distance_of_all(rows, references_MD),
        }
        for name, statistic in statistics.items():
            scores.interval95[name] = interval_of_statistic(
                statistic, rows_ND, num_samples=num_bootstrap, seed=seed, removes_bias=True
            )
