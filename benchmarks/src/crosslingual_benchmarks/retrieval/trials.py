"""A trial: the pictures and texts of one language as they are scored, and counts of those that are
left out or ambiguous.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

from crosslingual_benchmarks.datasets import RetrievalSet


@dataclass(frozen=True)
class Trial:
    """The pictures and texts of one recall.

    `picture_of_text` holds places in `places`. `num_missing` pictures are left out because they are
    missing or broken, and `num_untold` because they have no caption in the language.
    """

    places: list[int]
    texts: list[str]
    picture_of_text: list[int]
    num_missing: int
    num_untold: int

    @property
    def num_duplicate_texts(self) -> int:
        """Texts that another picture has as well, letter for letter. They tie, and each counts as a
        wrong answer ahead of the other.
        """
        pictures: dict[str, set[int]] = {}
        for text, picture in zip(self.texts, self.picture_of_text, strict=True):
            pictures.setdefault(text, set()).add(picture)
        return sum(len(pictures[text]) > 1 for text in self.texts)


def find_missing(data: RetrievalSet, allow_missing: bool) -> set[int]:
    """The places of the pictures that are not there.

    Raises:
        FileNotFoundError: some are missing and may not be, or all are.
    """
    missing = {place for place, picture in enumerate(data.pictures) if not picture.is_there}
    num_pictures = len(data.pictures)
    if missing and (not allow_missing or len(missing) == num_pictures):
        first = data.pictures[min(missing)]
        remedy = "add them, or leave them out with --allow_missing true, which raises recall"
        if first.source is None:
            remedy = "write the data again with them"
        elif len(missing) == num_pictures:
            remedy = "give --image_dir the folder that holds them"
        raise FileNotFoundError(
            f"{len(missing)} of {num_pictures} pictures of {data.name} are missing, the first "
            f"{first.source or first.name}; {remedy}"
        )
    return missing


def make_trial(
    data: RetrievalSet,
    language: str,
    *,
    captions: Literal["first", "all"],
    missing: Container[int],
    allow_missing: bool,
    subset: Container[int] | None = None,
) -> Trial:
    """The trial of a language on all of its gallery, or on a subset.

    `captions` takes the first one of a picture, or all. `missing` and `subset` hold places of
    pictures. `allow_missing` leaves out pictures without a caption.

    Raises:
        ValueError: a picture has no caption and may not lack one, or none has.
    """
    texts_of = data.galleries[language].texts
    wanted = [place for place in sorted(texts_of) if subset is None or place in subset]
    there = [place for place in wanted if place not in missing]
    told = [place for place in there if texts_of[place]]
    if not told:
        full = [name for name, other in data.galleries.items() if any(other.texts.values())]
        raise ValueError(
            f"{data.name} has no picture with a caption in {language!r}; of the languages asked "
            f"for it has captions in {', '.join(full) or 'none'}"
        )
    if len(told) < len(there) and not allow_missing:
        first = next(place for place in there if not texts_of[place])
        raise ValueError(
            f"picture {data.pictures[first].name} of {data.name} has no caption in {language!r} "
            f"({len(there) - len(told)} of {len(there)} have none); leave such pictures out with "
            "--allow_missing true, which raises recall"
        )
    num_captions = 1 if captions == "first" else None
    pairs = [
        (text, number)
        for number, place in enumerate(told)
        for text in texts_of[place][:num_captions]
    ]
    texts, pictures = zip(*pairs, strict=True)
    num_missing, num_untold = len(wanted) - len(there), len(there) - len(told)
    return Trial(told, list(texts), list(pictures), num_missing, num_untold)
