"""Sheets of sample pictures: those named in results, beside them, or given; and prompts as text."""

import io
from collections.abc import Sequence
from pathlib import Path

from crosslingual_benchmarks.report.arms import LABELS
from crosslingual_benchmarks.report.document import Cell, Figure, Section, Table
from crosslingual_benchmarks.report.languages import in_order
from crosslingual_benchmarks.report.tables import DASH
from crosslingual_benchmarks.results import Result

BESIDE = ("grid.png", "motifs.png")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGE_BYTES = 200_000  # a page with twenty sheets stays below what a browser opens at once
NUM_COLOURS = 256


def find_grids(
    result_paths: Sequence[str], results: Sequence[Result], grids: Sequence[str]
) -> list[Path]:
    """PNG files of samples, each once.

    They are `grid.png` and `motifs.png` in the results' folders and in the folders in these, files
    that a line's `grids` names from the folder of any result path, and those given.

    Raises:
        FileNotFoundError: a file that is given or that a line names is not there.
    """
    folders = [path if path.is_dir() else path.parent for path in map(Path, result_paths)]
    found = [Path(path) for path in grids]
    found += [_resolve(name, folders) for result in results for name in result.get("grids", ())]
    for folder in folders:
        for name in BESIDE:
            found += [*folder.glob(name), *sorted(folder.glob(f"*/{name}"))]
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"no picture {path}: give PNG files to --grids")
    return list({path.resolve(): path for path in found}.values())


def samples_section(paths: Sequence[Path], results: Sequence[Result]) -> Section | None:
    """The section of samples; None where there are none.

    Raises:
        ValueError: a file is no PNG.
    """
    figures = [_figure(number, path) for number, path in enumerate(paths, 1)]
    tables = [table for table in [_prompts(results)] if table]
    if not figures and not tables:
        return None
    note = (
        "Every picture stands above its prompt in the prompt's own script. A green frame: the "
        "picture was judged to show all that the prompt says; a red one: not; grey: not judged."
    )
    return Section("samples", "Samples", [note] * bool(figures), tables, figures)


def _resolve(name: str, folders: Sequence[Path]) -> Path:
    candidates = [folder / name for folder in folders]
    return next((path for path in candidates if path.is_file()), Path(name))


def _figure(number: int, path: Path) -> Figure:
    png = path.read_bytes()
    if not png.startswith(PNG_SIGNATURE):
        raise ValueError(f"{path} is no PNG: a report embeds PNG files only")
    is_large = len(png) > LARGE_BYTES
    name = "/".join(path.absolute().parts[-2:])
    kind = "motifs of the cultures" if path.stem == "motifs" else "pictures and their prompts"
    title = f"Samples: {kind} ({name}{f', here in {NUM_COLOURS} colours' if is_large else ''})"
    alt = f"Sheet of samples, {kind}, from {name}; the shares that it illustrates are in the tables"
    png = _with_fewer_colours(png) if is_large else png
    return Figure(f"samples_{number}", title, alt, png, is_folded=number > 1)


def _with_fewer_colours(png: bytes) -> bytes:
    """A third of the bytes, for a difference that pictures of the testbed hardly show."""
    from PIL import Image

    file = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(NUM_COLOURS).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _prompts(results: Sequence[Result]) -> Table | None:
    """Prompts in their scripts, and whether each arm's picture was right; arms that read English
    instead are left out.
    """
    told: dict[tuple[str, str], dict[str, str]] = {}
    arms: dict[str, None] = {}
    words = {None: "not judged", True: "right", False: "wrong"}
    for result in results:
        if result.get("prompt_language") == "english":
            continue
        for sample in result.get("samples", ()):
            arm = LABELS.get(result["model"], result["model"])
            arms[arm] = None
            key = (result.get("language", ""), sample["prompt"])
            told.setdefault(key, {})[arm] = words[sample.get("is_right")]
    if not told:
        return None
    order = in_order({language for language, _ in told})
    rows = [
        [
            Cell(language, names=language),
            Cell(prompt, language=language),
            *(Cell(marks.get(arm, DASH)) for arm in arms),
        ]
        for (language, prompt), marks in sorted(told.items(), key=lambda t: order.index(t[0][0]))
    ]
    title = "Prompts of the samples, and whether each arm's picture shows all that they say"
    heads = ["language", "prompt", *arms]
    return Table("samples", title, heads, rows, num_head_cells=2, is_folded=True)
