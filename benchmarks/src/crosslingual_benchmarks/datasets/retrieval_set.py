"""A retrieval benchmark as a reader returns it: pictures to be read later, and the captions of each
language's gallery.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crosslingual.data.languages import match_language
from crosslingual.data.text import find_file, is_inside, iter_lines

logger = logging.getLogger(__name__)

_COCO_2014 = re.compile(r"COCO_((?:train|val|test)2014)_")


@dataclass(frozen=True)
class Picture:
    """A picture that is read when its turn comes.

    `source` is its path, a function that returns its bytes, or None where the data hold no picture.
    """

    name: str
    source: Path | Callable[[], bytes] | None

    @property
    def is_there(self) -> bool:
        """Whether it can be read."""
        return self.source.is_file() if isinstance(self.source, Path) else self.source is not None

    def read(self) -> bytes:
        """Its bytes, encoded.

        Raises:
            FileNotFoundError: there is no such file.
        """
        assert self.source is not None, self.name
        return self.source.read_bytes() if isinstance(self.source, Path) else self.source()


@dataclass(frozen=True)
class Gallery:
    """The pictures of one language's test and their captions.

    `split` says which test it is, as in a result's protocol. `texts` maps a picture's place in
    `RetrievalSet.pictures` to its captions in stored order, which may be none.
    """

    split: str
    texts: dict[int, list[str]]


@dataclass(frozen=True)
class RetrievalSet:
    """A retrieval benchmark as it lies on disk.

    `galleries` are by language (BCP-47). `subsets` maps names to the places of pictures that are
    reported by themselves as well. Shards with an index have a `sha256`.

    Raises:
        ValueError: a picture comes twice: it would be a wrong answer to its own captions.
    """

    name: str
    pictures: list[Picture]
    galleries: dict[str, Gallery]
    subsets: dict[str, frozenset[int]] = field(default_factory=dict)
    sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuses pictures that come twice."""
        seen: set[str] = set()
        for picture in self.pictures:
            if picture.name in seen:
                raise ValueError(f"{self.name}: picture {picture.name} comes twice; keep one")
            seen.add(picture.name)


def choose_languages(wanted: Sequence[str], found: Iterable[str], where: str) -> list[str]:
    """The languages to read: those wanted, or all that were found.

    `where` names the data in the error.

    Raises:
        ValueError: one is missing; the message names the others.
    """
    there = sorted(set(found))
    matched = {language: match_language(language, there) for language in wanted}
    if missing := [language for language, name in matched.items() if name is None]:
        raise ValueError(
            f"{where} has no captions in {', '.join(map(repr, missing))}; "
            f"it has {', '.join(there) or 'none at all'}"
        )
    for language, name in matched.items():
        if name != language:
            logger.warning("%s: captions in %s are read for %s", where, name, language)
    return list(dict.fromkeys(matched.values())) or there


def picture_folders(root: str, image_dir: Sequence[str]) -> list[Path]:
    """Where pictures are looked for: the folders given, or `images` below the root."""
    return [Path(folder) for folder in image_dir] or [Path(root) / "images"]


def find_picture(name: str, folders: Sequence[Path]) -> Picture:
    """A picture by its file's name in the first folder that holds it; those of COCO 2014 also in
    `train2014` and `val2014` below it, as COCO's archives unpack.

    A picture that lies nowhere has its path in the first folder, for the message.

    Raises:
        ValueError: `..` or a link leads out of the folders.
    """
    found = _COCO_2014.match(name)
    below = ("", found[1]) if found else ("",)
    places = [folder / part for folder in folders for part in below]
    paths = [find_file(place / name) for place in places]
    path = next((path for path in paths if path.is_file()), paths[0])
    if not any(is_inside(path, place) for place in places):
        raise ValueError(
            f"picture {name!r} lies outside of {', '.join(map(str, folders))}: name its folder too "
            "with --image_dir"
        )
    return Picture(name, path)


def read_captions(path: Path, num_pictures: int) -> list[list[str]]:
    r"""A caption a line, aligned with the pictures; lines end at "\n" or "\r\n" alone, and the last
    one may lack its end.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the number of lines differs, or one is empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; check --root")
    lines = [line.strip() for line in iter_lines(path)]
    if len(lines) != num_pictures:
        raise ValueError(f"{path} has {len(lines)} lines for {num_pictures} pictures; fetch both")
    if "" in lines:
        raise ValueError(f"{path} line {lines.index('') + 1} is empty; fetch it again")
    return [[line] for line in lines]
