"""Text accuracy without a judge: does a CLIP choose the right caption of a picture among hard
negatives?
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, tensor

from crosslingual.frozen.clip import FrozenCLIP
from crosslingual_benchmarks.metrics.clip_embedding import embed_captions, embed_pictures
from crosslingual_benchmarks.metrics.pictures import FIT, Pictures

# N pictures, T captions of all of them, right ones and wrong ones

ROUNDING = 1e-6  # cosines in fp32 that lie closer are equal


@dataclass(frozen=True)
class TextChoice:
    """What `text_choice` found.

    Attributes:
        is_right_N: whether a picture's right caption scores above all its wrong ones, bool.
        num_ties: pictures whose right caption's score equals the best wrong one's: not right.
        num_cut: captions longer than CLIP's context, cut with the end token kept.
        chance: the accuracy of a random choice, the mean of 1 / (1 + wrong captions).
        protocol: the CLIP, the resize and the ties.
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

    Args:
        clip: of `crosslingual.frozen.clip.load_clip`.
        pictures: a folder, or Pillow's pictures and paths.
        right_captions: English, one a picture, in their order.
        wrong_captions: English, one or more a picture.
        batch_size: pictures at a time.

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
