"""`crosslingual-bench sheet`: one prompt in every language, from a finished run's pictures.

crosslingual-bench sheet --results runs/emoji/seed-0/results --arm mulan --output shark.png
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from crosslingual.data.pictures import open_picture
from crosslingual.files import read_fields, replacing
from crosslingual.worlds import can_write, contact_sheet
from crosslingual_benchmarks.generation.pictures import METADATA, SAMPLE
from crosslingual_benchmarks.results import Result, read_results

TYPE_SIZE = 0.165  # of a picture's width: it can be read where pictures are small

Shown = tuple[Image.Image, str, str, bool | None]
"""A picture, its prompt, the prompt's language, and whether the picture was judged to be right."""


@dataclass
class SheetSettings:
    """Settings of `crosslingual-bench sheet`.

    Attributes:
        results: folder of a finished run, with generation.json and the arm's pictures.
        arm: arm whose pictures are shown.
        dataset: data set of the prompts.
        number: number of the prompt, from 0; only those on a run's sheets (--num_shown) are marked
            as right or wrong.
        output: PNG to write.
        num_columns: pictures in a row.
        picture_size: edge of a picture on the sheet, in pixels.
    """

    results: str
    arm: str
    dataset: str = "emoji"
    number: int = 0
    output: str = "sheet.png"
    num_columns: int = 12
    picture_size: int = 72


def sheet(settings: SheetSettings) -> Path:
    """Draws the sheet, says which languages its fonts cannot write, and returns its path.

    Raises:
        FileNotFoundError: there are no results, or none of the prompt's pictures.
        ValueError: the results have no such arm.
    """
    folder = Path(settings.results)
    results = read_results([folder / "generation.json"])
    own = [r for r in results if (r["model"], r["dataset"]) == (settings.arm, settings.dataset)]
    if not own:
        found = ", ".join(sorted({f"{r['model']} on {r['dataset']}" for r in results}))
        raise ValueError(f"no arm {settings.arm} on {settings.dataset}; there are {found}")
    pictures = folder / f"{settings.arm}-{settings.dataset}"
    shown = pictures_of(pictures, own, settings.number)
    if not shown:
        raise FileNotFoundError(f"no picture of prompt {settings.number} in {pictures}")
    written = [each for each in shown if can_write(each[1])]
    if not written:
        raise ValueError("the sheet's fonts can write the prompt in none of its languages")
    drawn = in_rows(written, settings.num_columns)
    with replacing(Path(settings.output)) as partial:
        options = {"picture_size": settings.picture_size, "type_size": TYPE_SIZE}
        contact_sheet(drawn, **options).save(partial, "png")
    print(told_of(shown, written, own))
    return Path(settings.output)


def pictures_of(folder: Path, lines: Sequence[Result], number: int) -> list[Shown]:
    """The pictures of a prompt in the languages of the lines, in their order."""
    shown = []
    for line in lines:
        language = str(line["language"])
        place = folder / language / "general" / f"{number:05d}"
        if not (place / SAMPLE).is_file():
            continue
        prompt = read_fields(place / METADATA, {"prompt": str}, "draw it again")["prompt"]
        marks = {s["prompt"]: s.get("is_right") for s in line.get("samples", ())}
        picture = open_picture((place / SAMPLE).read_bytes())
        shown.append((picture, prompt, language, marks.get(prompt)))
    return shown


def in_rows(shown: Sequence[Shown], num_columns: int) -> list[list[Shown]]:
    """Rows of equal length, the last one filled up with white; a prompt's language is before it."""
    cells = [(picture, f"{name}: {text}", name, mark) for picture, text, name, mark in shown]
    width = min(num_columns, len(cells))
    blank = Image.new("RGB", cells[0][0].size, "white")
    cells += [(blank, "", "en", None)] * (-len(cells) % width)
    return [cells[start : start + width] for start in range(0, len(cells), width)]


def told_of(shown: Sequence[Shown], written: Sequence[Shown], lines: Sequence[Result]) -> str:
    """What the sheet shows, and what it leaves out, by script where the lines say it."""
    facts = {line["language"]: line.get("language_facts", {}) for line in lines}
    held = {language for _, _, language, _ in written}
    left: dict[str, list[str]] = {}
    for _, _, language, _ in shown:
        if language not in held:
            left.setdefault(facts[language].get("script", "script not told"), []).append(language)
    judged = [mark for _, _, _, mark in written if mark is not None]
    text = f"{len(written)} languages, {sum(judged)} of {len(judged)} judged pictures are right"
    if left:
        scripts = "; ".join(f"{script} ({' '.join(names)})" for script, names in left.items())
        text += f"\nleft out, since the fonts lack a letter of the name: {scripts}"
    return text
