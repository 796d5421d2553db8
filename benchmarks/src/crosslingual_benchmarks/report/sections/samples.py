"""Sheets of sample pictures, from the results' folders or given, and the prompts as text."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crosslingual.data.pictures import open_picture
from crosslingual.data.text import find_inside
from crosslingual_benchmarks.report.arms import LABELS
from crosslingual_benchmarks.report.document import Cell, Figure, Section, Table
from crosslingual_benchmarks.report.languages import in_order
from crosslingual_benchmarks.report.tables import DASH
from crosslingual_benchmarks.results import Result

REMEDY = "give it to --grids"
BESIDE = ("grid.png", "motifs.png")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGE_BYTES = 200_000  # a page with twenty sheets stays below what a browser opens at once
NUM_COLOURS = 256


def find_grids(
    result_paths: Sequence[str], results: Sequence[Result], grids: Sequence[str]
) -> list[Path]:
    """PNG files of samples, each once.

    They are `grid.png` and `motifs.png` in the results' folders and in the folders in these, files
    that a line's `grids` names from the folder of any result path, and those given. Only given
    files may lie elsewhere: a page is shown to others, and results may come from others.

    Raises:
        FileNotFoundError: a file that is given or that a line names does not exist.
        ValueError: a name or a link leads out of the results' folder.
    """
    folders = [path if path.is_dir() else path.parent for path in map(Path, result_paths)]
    found = [Path(path) for path in grids]
    named = dict.fromkeys(name for result in results for name in result.get("grids", ()))
    for name in named:
        inside = [find_inside(folder, name, remedy=REMEDY) for folder in folders]
        found.append(next((path for path in inside if path.is_file()), inside[0]))
    for folder in folders:
        for name in BESIDE:
            sheets = [*folder.glob(name), *sorted(folder.glob(f"*/{name}"))]
            found += [
                find_inside(folder, str(s.relative_to(folder)), remedy=REMEDY) for s in sheets
            ]
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"no picture {path}: give PNG files to --grids")
    return list({path.resolve(): path for path in found}.values())


def samples_section(paths: Sequence[Path], results: Sequence[Result]) -> Section | None:
    """The section of samples; None where there are none.

    Raises:
        ValueError: a file is not a PNG, or a broken one.
    """
    figures = [_figure(number, path) for number, path in enumerate(paths, 1)]
    tables = [table for table in [_prompts(results)] if table]
    if not figures and not tables:
        return None
    note = (
        "Every picture is above its prompt, in the prompt's own script. A green frame: the picture "
        "was judged to show all that the prompt says. A red frame: it was not. Grey: not judged."
    )
    return Section("samples", "Samples", [note] * bool(figures), tables, figures)


def _figure(number: int, path: Path) -> Figure:
    png = path.read_bytes()
    if not png.startswith(PNG_SIGNATURE):
        raise ValueError(f"{path} is no PNG: a report embeds PNG files only")
    try:
        picture = open_picture(png)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    is_large = len(png) > LARGE_BYTES
    name = "/".join(path.absolute().parts[-2:])
    kind = "motifs of the cultures" if path.stem == "motifs" else "pictures and their prompts"
    title = f"Samples: {kind} ({name}{f', here in {NUM_COLOURS} colours' if is_large else ''})"
    alt = f"Sheet of samples, {kind}, from {name}; the shares that it illustrates are in the tables"
    png = _with_fewer_colours(picture) if is_large else png
    return Figure(f"samples_{number}", title, alt, png, is_folded=number > 1)


def _with_fewer_colours(picture: Any) -> bytes:
    """A third of the bytes, for a difference that pictures of the testbed hardly show."""
    file = io.BytesIO()
    picture.quantize(NUM_COLOURS).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _prompts(results: Sequence[Result]) -> Table | None:
    """Prompts in their scripts, and whether each arm's picture was right; arms that read English
    instead are not shown.
    """
    told: dict[tuple[str, str], dict[str, list[bool | None]]] = {}
    arms: dict[str, None] = {}
    for result in results:
        if result.get("prompt_language") == "english":
            continue
        for sample in result.get("samples", ()):
            arm = LABELS.get(result["model"], result["model"])
            arms[arm] = None
            key = (result.get("language") or "", sample["prompt"])
            told.setdefault(key, {}).setdefault(arm, []).append(sample.get("is_right"))
    if not told:
        return None
    order = in_order({language for language, _ in told})
    rows = [
        [
            Cell(language, names=language),
            Cell(prompt, language=language),
            *(Cell(_word(marks.get(arm, []))) for arm in arms),
        ]
        for (language, prompt), marks in sorted(told.items(), key=lambda t: order.index(t[0][0]))
    ]
    title = "Prompts of the samples, and whether each arm's picture shows all that they say"
    heads = ["language", "prompt", *arms]
    return Table("samples", title, heads, rows, num_head_cells=2, is_folded=True)


def _word(marks: Sequence[bool | None]) -> str:
    """Whether a picture is right, or how many of several seeds' are."""
    if len(marks) > 1:
        return f"{sum(map(bool, marks))} of {len(marks)} right"
    return {None: "not judged", True: "right", False: "wrong"}[marks[0]] if marks else DASH
