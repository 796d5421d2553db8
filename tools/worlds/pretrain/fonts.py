"""Writes the fonts of the contact sheet: subsets of Noto, small enough to travel with the package.

    sudo apt-get install fonts-noto-core fonts-noto-cjk     # Debian 12's
    pip install fonttools
    python tools/worlds/pretrain/fonts.py

The alphabets are whole (Latin with Vietnamese, Cyrillic, Arabic, Devanagari, Thai, kana), with
every ligature and conjunct that they form; of Han and hangul, the characters of the lexicons and of
the benchmarks' culture prompts. Run it again when either gains a word.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

from crosslingual_worlds.drawn.captions import LEXICON_FOLDER
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.typesetting import FONT_FOLDER

SYSTEM_FONTS = Path("/usr/share/fonts")
CULTURE_PROMPTS = (
    Path(__file__).parents[2] / "benchmarks/src/crosslingual_benchmarks/prompts/mc18.jsonl"
)
MAX_BYTES = 600_000

LATIN = [
    (0x20, 0x7E),
    (0xA0, 0x17F),
    (0x1A0, 0x1B0),
    (0x218, 0x21B),
    (0x300, 0x323),
    (0x1EA0, 0x1EF9),
]
CYRILLIC = [(0x400, 0x45F), (0x490, 0x491)]
SIGNS = [
    (0x2010, 0x2026),
    (0x2030, 0x2030),
    (0x2039, 0x203A),
    (0x20AC, 0x20AC),
    (0x2122, 0x2122),
    (0x2190, 0x2193),
    (0x2212, 0x2212),
]
ARABIC = [(0x20, 0x20), (0x600, 0x6FF)]
DEVANAGARI = [(0x20, 0x20), (0x900, 0x97F), (0x200C, 0x200D)]
THAI = [(0x20, 0x20), (0xE01, 0xE3A), (0xE3F, 0xE5B)]
CJK_SIGNS = [
    (0x20, 0x20),
    (0x3000, 0x3002),
    (0x3005, 0x3005),
    (0x3008, 0x3011),
    (0xFF01, 0xFF0F),
    (0xFF1A, 0xFF1F),
]
KANA = [(0x3041, 0x3096), (0x30A0, 0x30FF)]


@dataclass(frozen=True)
class Subset:
    """One font file: where its original lies, the code points it keeps, and for whose texts."""

    name: str
    source: str
    ranges: list[tuple[int, int]]
    languages: tuple[str, ...] = ()
    collection_index: int = -1


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


def texts_of(language: str) -> str:
    """A lexicon's file, comments included, and the language's culture prompts."""
    lines = CULTURE_PROMPTS.read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompts"].get(language, "") for line in lines]
    lexicon = (LEXICON_FOLDER / f"{language}.yaml").read_text(encoding="utf-8")
    return "\n".join([lexicon, *prompts])


def cjk_characters(language: str) -> set[int]:
    """The code points of a language's texts, past Latin and the other alphabets."""
    return {ord(character) for character in texts_of(language) if ord(character) >= 0x2E80}


def write_subset(subset: Subset, folder: Path) -> str:
    """Writes NAME.ttf or NAME.otf and returns the row about it."""
    font = TTFont(
        SYSTEM_FONTS / subset.source, fontNumber=subset.collection_index, recalcTimestamp=False
    )
    wanted = {point for low, high in subset.ranges for point in range(low, high + 1)}
    wanted |= {point for language in subset.languages for point in cjk_characters(language)}
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
    parser.add_argument("--output_dir", type=Path, default=FONT_FOLDER)
    folder = parser.parse_args().output_dir
    rows = [write_subset(subset, folder) for subset in SUBSETS]
    check_coverage(folder)
    total = sum(path.stat().st_size for path in folder.glob("Noto*"))
    if total > MAX_BYTES:
        raise RuntimeError(
            f"the fonts take {total:,} bytes, more than {MAX_BYTES:,}: take fewer characters"
        )
    page = [
        "# Fonts of the contact sheet",
        "",
        "Subsets of Noto under the SIL Open Font License (`OFL.txt`), without hinting, cut by",
        "`tools/worlds/pretrain/fonts.py` from Debian 12's fonts-noto-core (20201225-1) and",
        "fonts-noto-cjk (1:20220127+repack1-1).",
        "",
        "| file | original | version | characters | size |",
        "|---|---|---|---|---|",
        *rows,
    ]
    (folder / "README.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    print("\n".join(rows), f"\n{total:,} bytes in {folder}")


if __name__ == "__main__":
    main()
