"""Writes the fonts of the contact sheet: subsets of Noto, small enough to travel with the package.

    sudo apt-get install fonts-noto-core fonts-noto-cjk     # Debian 12's
    pip install fonttools
    python tools/worlds/pretrain/fonts.py
    python tools/worlds/pretrain/fonts.py --names    # the emoji world's, once it is fetched

The alphabets are whole (Latin with Vietnamese, Cyrillic, Arabic, Devanagari, Thai, kana), with
every ligature and conjunct that they form; of Han and hangul, the characters of the lexicons and of
the benchmarks' culture prompts. Run it again when either gains a word.

`--names` writes what these lack for the emoji world: no whole alphabets, but the letters of those
names of the split `test` that all 120 languages have, which is what `compare --suite emoji` draws.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

from crosslingual_worlds.drawn.captions import LEXICON_FOLDER
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.typesetting import FONT_FOLDER, NAMES_FOLDER

SYSTEM_FONTS = Path("/usr/share/fonts")
CULTURE_PROMPTS = (
    Path(__file__).parents[2] / "benchmarks/src/crosslingual_benchmarks/prompts/mc18.jsonl"
)
MAX_BYTES, MAX_NAMES_BYTES = 600_000, 1_200_000

LATIN = (
    (0x20, 0x7E),
    (0xA0, 0x17F),
    (0x1A0, 0x1B0),
    (0x218, 0x21B),
    (0x300, 0x323),
    (0x1EA0, 0x1EF9),
)
CYRILLIC = ((0x400, 0x45F), (0x490, 0x491))
SIGNS = (
    (0x2010, 0x2026),
    (0x2030, 0x2030),
    (0x2039, 0x203A),
    (0x20AC, 0x20AC),
    (0x2122, 0x2122),
    (0x2190, 0x2193),
    (0x2212, 0x2212),
)
ARABIC = ((0x20, 0x20), (0x600, 0x6FF))
DEVANAGARI = ((0x20, 0x20), (0x900, 0x97F), (0x200C, 0x200D))
THAI = ((0x20, 0x20), (0xE01, 0xE3A), (0xE3F, 0xE5B))
CJK_SIGNS = (
    (0x20, 0x20),
    (0x3000, 0x3002),
    (0x3005, 0x3005),
    (0x3008, 0x3011),
    (0xFF01, 0xFF0F),
    (0xFF1A, 0xFF1F),
)
JOINERS = {0x20, 0x200C, 0x200D}  # a run of letters that they join needs them in its own font
KANA = ((0x3041, 0x3096), (0x30A0, 0x30FF))


@dataclass(frozen=True)
class Subset:
    """One font file: where its original lies, the code points it keeps, and for whose texts."""

    name: str
    source: str
    ranges: tuple[tuple[int, int], ...] = ()
    languages: tuple[str, ...] = ()
    collection_index: int = -1

    @property
    def path(self) -> Path:
        """Where its original lies."""
        return SYSTEM_FONTS / self.source


TRUETYPE, COLLECTION = "truetype/noto", "opentype/noto/NotoSansCJK-Regular.ttc"
SUBSETS = (
    Subset("NotoSans", f"{TRUETYPE}/NotoSans-Regular.ttf", LATIN + CYRILLIC + SIGNS),
    Subset("NotoSansArabic", f"{TRUETYPE}/NotoSansArabic-Regular.ttf", ARABIC),
    Subset("NotoSansDevanagari", f"{TRUETYPE}/NotoSansDevanagari-Regular.ttf", DEVANAGARI),
    Subset("NotoSansThai", f"{TRUETYPE}/NotoSansThai-Regular.ttf", THAI),
    Subset("NotoSansJP", COLLECTION, CJK_SIGNS + KANA, ("ja",), 0),
    Subset("NotoSansKR", COLLECTION, CJK_SIGNS, ("ko",), 1),
    Subset("NotoSansSC", COLLECTION, CJK_SIGNS, ("zh",), 2),
)
SCRIPTS = (
    *("Armenian", "Bengali", "Cherokee", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Hebrew"),
    *("Kannada", "Khmer", "Lao", "Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu"),
)
NAMES = (
    Subset("Names", f"{TRUETYPE}/NotoSans-Regular.ttf"),
    *(Subset(f"Names{name}", f"{TRUETYPE}/NotoSans{name}-Regular.ttf") for name in SCRIPTS),
    Subset("NamesArabic", f"{TRUETYPE}/NotoSansArabic-Regular.ttf"),
    Subset("NamesJP", COLLECTION, (), ("ja",), 0),
    Subset("NamesKR", COLLECTION, (), ("ko",), 1),
    Subset("NamesSC", COLLECTION, (), ("zh", "yue-Hans"), 2),
    Subset("NamesTC", COLLECTION, (), ("zh-Hant", "yue"), 3),
)


def texts_of(language: str) -> str:
    """A lexicon's file, comments included, and the language's culture prompts."""
    lines = CULTURE_PROMPTS.read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompts"].get(language, "") for line in lines]
    lexicon = (LEXICON_FOLDER / f"{language}.yaml").read_text(encoding="utf-8")
    return "\n".join([lexicon, *prompts])


def cjk_characters(language: str) -> set[int]:
    """The code points of a language's texts, past Latin and the other alphabets."""
    return {ord(character) for character in texts_of(language) if ord(character) >= 0x2E80}


def letters_of_names() -> dict[str, set[int]]:
    """By language, the code points of the names of `test` emoji that all languages name."""
    from crosslingual_worlds.emoji import LANGUAGES, names

    said = {language: names.names(language) for language in LANGUAGES}
    emoji = [one.text for one in names.taught_emoji() if one.split == "test"]
    emoji = [text for text in emoji if all(text in own for own in said.values())]
    return {x: {ord(c) for text in emoji for c in own[text]} for x, own in said.items()}


def wanted_of_lexicons(subset: Subset) -> set[int]:
    """The code points of one of the lexicons' fonts."""
    wanted = {point for low, high in subset.ranges for point in range(low, high + 1)}
    return wanted | {point for language in subset.languages for point in cjk_characters(language)}


def wanted_of_names() -> dict[Subset, set[int]]:
    """The code points of the names' fonts: what those before them lack. A font of Han letters,
    whose shapes differ by language, makes up for its own language's font alone.
    """
    said, covered = letters_of_names(), set().union(*map(points_of, FONT_FOLDER.glob("Noto*")))
    wanted = {}
    for subset in NAMES:
        if subset.languages:
            own = FONT_FOLDER / f"NotoSans{subset.name.removeprefix('Names')}.otf"
            lacking = {p for x in subset.languages for p in said[x] if p >= 0x2E80}
            lacking -= points_of(own) if own.is_file() else set()
        else:
            lacking = set().union(*said.values()) - covered
            covered |= points_of(subset.path, subset.collection_index)
        if lacking := lacking & points_of(subset.path, subset.collection_index):
            wanted[subset] = lacking | JOINERS
    return wanted


def points_of(path: Path, number: int = -1) -> set[int]:
    """The code points that a font has."""
    return set(TTFont(path, fontNumber=number).getBestCmap())


def write_subset(subset: Subset, folder: Path, wanted: set[int]) -> str:
    """Writes NAME.ttf or NAME.otf with the wanted code points and returns the row about it."""
    font = TTFont(subset.path, fontNumber=subset.collection_index, recalcTimestamp=False)
    options = Options(
        hinting=False, desubroutinize=True, notdef_outline=True, name_languages=[0x409]
    )
    options.layout_features = (
        ["*"]
        if subset.collection_index < 0
        else ["ccmp", "kern", "locl", "mark", "ljmo", "vjmo", "tjmo"]
    )
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=wanted)
    subsetter.subset(font)
    version = font["name"].getDebugName(5).split(";")[0]
    original = font["name"].getDebugName(4)
    path = folder / f"{subset.name}.{'otf' if 'CFF ' in font else 'ttf'}"
    font.save(path)
    num_characters, size = len(font.getBestCmap()), path.stat().st_size
    return f"| `{path.name}` | {original} | {version} | {num_characters} | {size / 1000:.0f} kB |"


def check_coverage(folder: Path) -> None:
    """Every character of every lexicon and culture prompt is in some font."""
    covered = {point for path in folder.glob("Noto*") for point in TTFont(path).getBestCmap()}
    for language in LANGUAGES:
        missing = {
            character
            for character in texts_of(language)
            if ord(character) not in covered and not character.isspace()
        }
        if missing:
            raise RuntimeError(
                f"no font has {''.join(sorted(missing))!r} of {language}: widen the ranges above"
            )


def main() -> None:
    """Writes the fonts and the page that names their versions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", action="store_true", help="the emoji world's names")
    parser.add_argument("--output_dir", type=Path)
    given = parser.parse_args()
    folder = given.output_dir or (NAMES_FOLDER if given.names else FONT_FOLDER)
    wanted = wanted_of_names() if given.names else {s: wanted_of_lexicons(s) for s in SUBSETS}
    folder.mkdir(parents=True, exist_ok=True)
    rows = [write_subset(subset, folder, points) for subset, points in wanted.items()]
    if not given.names:
        check_coverage(folder)
    total = sum(path.stat().st_size for path in folder.glob("*.?tf"))
    if total > (most := MAX_NAMES_BYTES if given.names else MAX_BYTES):
        raise RuntimeError(
            f"the fonts take {total:,} bytes, more than {most:,}: take fewer letters"
        )
    licence = "../../drawn/fonts/OFL.txt" if given.names else "OFL.txt"
    page = [
        "# Fonts of the contact sheet" + ": letters of the emoji's names" * given.names,
        "",
        f"Subsets of Noto under the SIL Open Font License (`{licence}`), without hinting, cut by",
        f"`tools/worlds/pretrain/fonts.py{' --names' * given.names}` from Debian 12's",
        "fonts-noto-core (20201225-1) and fonts-noto-cjk (1:20220127+repack1-1).",
        "",
        "| file | original | version | characters | size |",
        "|---|---|---|---|---|",
        *rows,
    ]
    (folder / "README.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    print("\n".join(rows), f"\n{total:,} bytes in {folder}")


if __name__ == "__main__":
    main()
