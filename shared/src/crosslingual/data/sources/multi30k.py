"""Multi30K as its repository holds it: translated captions (task 1), independent ones (task 2)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from crosslingual.data.languages import match_languages
from crosslingual.data.records import Record, make_key
from crosslingual.data.text import fault_of, find_inside, iter_lines


def multi30k(
    input: str,
    *,
    split: str = "train",
    languages: Sequence[str] | None = None,
    image_dir: str | None = None,
    task: Literal[1, 2] = 1,
    allow_outside: bool = False,
) -> Iterator[Record]:
    """Reads `data/task{1,2}/raw` with the picture names of `image_splits`.

    Args:
        input: the repository's folder, which holds `data/`.
        split: `train`, `val`, `test_2016_flickr`, ... (task 2: `test_2016`).
        languages: languages to read; all that the split has if None.
        image_dir: folder of the Flickr30k (or COCO) pictures; records of text alone if None.
        task: 1 for one caption a language, each a translation; 2 for five, written independently.
        allow_outside: reads pictures outside of image_dir, to which `..` or links lead.

    Raises:
        FileNotFoundError: the split, or a language of it, is not there.
        ValueError: line counts differ.
    """
    root = Path(input) / "data" / f"task{task}"
    suffix = "" if task == 1 else "_images"
    names_path = root / "image_splits" / f"{split}{suffix}.txt"
    raw: dict[str, list[Path]] = {}
    for path in sorted((root / "raw").glob("*.*.gz")):
        if path.name.split(".")[0] == split:
            raw.setdefault(path.name.split(".")[-2], []).append(path)
    if not raw or not names_path.is_file():
        splits = sorted(path.stem.removesuffix(suffix) for path in names_path.parent.glob("*.txt"))
        raise FileNotFoundError(
            f"no Multi30K split {split!r} in {root}; there are: {', '.join(splits) or 'none'}"
        )
    with fault_of(f"Multi30K's {split}"):
        columns_of = match_languages(languages or raw, raw)
    names = list(iter_lines(names_path))
    columns = {
        language: [_read_column(path, len(names), names_path) for path in raw[column]]
        for language, column in columns_of.items()
    }
    folder = Path(image_dir) if image_dir else None
    for row, name in enumerate(names):
        captions = {
            language: [lines[row] for lines in files] for language, files in columns.items()
        }
        image = folder and find_inside(folder, name.split("#")[0], allow_outside)
        yield Record(make_key(name), image, captions, parallel=task == 1)


def _read_column(path: Path, num_images: int, names_path: Path) -> list[str]:
    lines = [line.strip() for line in iter_lines(path)]
    if len(lines) != num_images:
        raise ValueError(
            f"{path} has {len(lines)} lines, {names_path} has {num_images}; fetch both again"
        )
    if "" in lines:
        raise ValueError(f"{path} line {lines.index('') + 1} is empty")
    return lines
