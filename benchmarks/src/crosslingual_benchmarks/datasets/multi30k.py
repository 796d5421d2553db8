"""Multi30K: Flickr30k's pictures with captions in English, German, French and Czech."""

from collections.abc import Sequence

from crosslingual.data.sources.multi30k import multi30k as records_of
from crosslingual_benchmarks.datasets.retrieval_set import (
    Gallery,
    RetrievalSet,
    find_picture,
    picture_folders,
)

DEFAULT_SPLIT = {1: "test_2016_flickr", 2: "test_2016"}


def multi30k(
    root: str,
    *,
    split: str | None = None,
    languages: Sequence[str] = (),
    image_dir: Sequence[str] = (),
    task: int = 1,
) -> RetrievalSet:
    """Reads a split of Multi30K's repository (`data/task1`, `data/task2`); the pictures are
    Flickr30k's (COCO's in `test_2017_mscoco`).

    Papers test on task 1, one caption a picture. With task 2's five, recall is some seven points
    higher, so task and split are part of the protocol.

    Task 1 has one caption a language, a translation; task 2 has five, written independently. The
    split is `test_2016_flickr` of task 1 and `test_2016` of task 2 if None.

    Raises:
        FileNotFoundError: the split, or a language of it, is not there.
        ValueError: line counts differ.
    """
    split = split or DEFAULT_SPLIT[task]
    folders = picture_folders(root, image_dir)
    records = list(
        records_of(
            root,
            split=split,
            languages=list(languages) or None,
            image_dir=".",
            task=task,
            allow_outside=True,  # the names alone are read
        )
    )
    if not records:
        raise ValueError(f"Multi30K's split {split} in {root} is empty; fetch it again")
    pictures = [find_picture(record.image.name, folders) for record in records]
    galleries = {
        language: Gallery(
            f"task{task}/{split}",
            {place: record.captions[language] for place, record in enumerate(records)},
        )
        for language in records[0].captions
    }
    return RetrievalSet("multi30k", pictures, galleries)
