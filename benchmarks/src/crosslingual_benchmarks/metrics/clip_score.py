"""CLIP score: how well pictures fit their English captions, in a CLIP's joint space."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from crosslingual.frozen.clip import FrozenCLIP
from crosslingual_benchmarks.metrics import Metric, Score
from crosslingual_benchmarks.metrics.clip_embedding import embed_captions, embed_pictures
from crosslingual_benchmarks.metrics.intervals import interval_of_mean
from crosslingual_benchmarks.metrics.pictures import FIT, Pictures
from crosslingual_benchmarks.metrics.sample import Sample, paths_of

# N pairs of a picture and its caption


@dataclass(frozen=True)
class ClipScore:
    """The result of `clip_score`.

    Attributes:
        cosine_N: of each pair, between -1 and 1, fp32 on the CPU.
        num_cut: captions longer than CLIP's context, cut with the end token kept.
        protocol: the CLIP, the resize and the context, on which the number depends.
    """

    cosine_N: Tensor
    num_cut: int
    protocol: dict[str, str | int]

    @property
    def cosine(self) -> float:
        """The mean cosine: the CLIP-sim of AltDiffusion (arXiv 2308.09991)."""
        return self.cosine_N.double().mean().item()

    @property
    def clip_score(self) -> float:
        """The mean of `max(100 cosine, 0)`: CLIPScore with a weight of 1, in per cent.

        Hessel et al. 2021 (arXiv 2104.08718, section 3) define `w max(cosine, 0)` with w = 2.5,
        and put "A photo depicts" before the caption. Text-to-image papers do neither, and neither
        does this.
        """
        return self.cosine_N.double().mul(100).clamp(min=0).mean().item()


def clip_score(
    clip: FrozenCLIP, pictures: Pictures, captions: Sequence[str], batch_size: int = 64
) -> ClipScore:
    """Scores every picture against its English caption.

    A picture from a prompt in another language is scored against the English caption of the same
    content, since the CLIP reads English alone: AltDiffusion's protocol (arXiv 2308.09991; there
    with OpenCLIP's ViT-B/32). `cosine(I(picture), T(caption))` of the projected embeddings. A
    caption longer than the CLIP's context is cut before its end token, and counted: a cut through
    that token leaves CLIP no sentence vector, and the score falls from 26 to 17.

    Raises:
        FileNotFoundError: pictures are missing.
        ValueError: not one caption a picture, a blank caption, a broken picture, an embedding that
            is not finite or zero.
    """
    images_NP = embed_pictures(clip, pictures, batch_size, num_expected=len(captions))
    embeds = embed_captions(clip, captions)
    protocol = {"clip": clip.name, "resize": f"{FIT} to {clip.image_size}"}
    return ClipScore(
        (images_NP * embeds.rows_TP).sum(dim=1).cpu(),
        embeds.num_cut,
        protocol | {"max_length": clip.max_length, "caption_language": "en"},
    )


def _measure(sample: Sample) -> Score:
    """Of the general pictures, and of the culture ones where there are no others."""
    pairs = sample.general or sample.culture
    captions = [prompt.english for prompt, _ in pairs]
    found = clip_score(sample.yardstick.clip, paths_of(pairs), captions)
    interval, warnings = None, []
    if found.num_cut:
        warnings.append(
            f"{found.num_cut} of {len(captions)} English captions are longer than the CLIP reads: "
            "their ends are not scored"
        )
    if sample.num_bootstrap:
        column = found.cosine_N.double().mul(100).clamp(min=0)
        interval = interval_of_mean(column, sample.num_bootstrap, sample.seed)
    return Score(
        found.clip_score,
        interval,
        protocol={"clip": f"{found.protocol['clip']}, {found.protocol['resize']}"},
        further={"num_cut_captions": found.num_cut},
        warnings=warnings,
    )


METRICS = (Metric("clip_score", "CLIP score ↑", _measure, better="high", place=3),)
