"""XTD10 (arXiv 2012.05107): a thousand pictures of COCO 2014 with a caption in eleven languages."""

from collections.abc import Sequence
from pathlib import Path

from crosslingual.data.text import iter_lines
from crosslingual_benchmarks.datasets.retrieval_set import (
    Gallery,
    RetrievalSet,
    choose_languages,
    find_picture,
    picture_folders,
    read_captions,
)

NAMES = "XTD10/test_image_names.txt"
FOLDERS = ("XTD10", "MIC", "STAIR")  # MIC has de and fr, STAIR ja; each its authors' translations
CODES = {"jp": "ja"}  # the files' code to BCP-47
UNTRAINED = "not_train2014"


def xtd10(
    root: str, *, languages: Sequence[str] = (), image_dir: Sequence[str] = ()
) -> RetrievalSet:
    """Reads XTD10's repository.

    800 of its pictures are from COCO's train2014, which many models were trained on. The subset
    `not_train2014` holds the others, and both are reported.

    `image_dir` names folders of COCO 2014's pictures, or of its `train2014` and `val2014`. Japanese
    is `ja`, its file's code `jp`.

    Raises:
        FileNotFoundError: the list of pictures is not there.
        ValueError: a language is not there, or line counts differ.
    """
    names_path = Path(root) / NAMES
    if not names_path.is_file():
        raise FileNotFoundError(f"no {names_path}; --root is the folder of XTD10's repository")
    names = [line.strip() for line in iter_lines(names_path)]
    paths: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted((Path(root) / folder).glob("test_1kcaptions_*.txt")):
            code = path.stem.rpartition("_")[2]
            paths.setdefault(CODES.get(code, code), path)
    folders = picture_folders(root, image_dir)
    galleries = {
        language: Gallery("test_1k", dict(enumerate(read_captions(paths[language], len(names)))))
        for language in choose_languages(languages, paths, f"XTD10 in {root}")
    }
    others = frozenset(
        place for place, name in enumerate(names) if not name.startswith("COCO_train2014_")
    )
    pictures = [find_picture(name, folders) for name in names]
    return RetrievalSet("xtd10", pictures, galleries, {UNTRAINED: others})
