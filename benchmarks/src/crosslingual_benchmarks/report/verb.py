"""`crosslingual-bench report`: one page from any set of result files.

crosslingual-bench report --results results --output_dir report --price_per_hour 2.5
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crosslingual.cli.settings import write_settings
from crosslingual_benchmarks.report.document import Document, Section
from crosslingual_benchmarks.results import TASKS, Result, command_of, read_results

PROG = "crosslingual-bench report"
SETTINGS = "report.yaml"


@dataclass
class ReportSettings:
    """Settings of `crosslingual-bench report`.

    Attributes:
        results: folders of result files (*.json), or files.
        output_dir: folder that gets report.html, report.md, tables/*.tex and plots/*.png.
        grids: PNG files of samples, shown with those that results name and with grid.png and
            motifs.png beside the results.
        price_per_hour: price of an hour of one device; without it, costs are device-hours.
        currency: currency of the price.
        published: show the published tables beside the measured ones.
        title: title of the page.
    """

    results: list[str]
    output_dir: str
    grids: list[str] = field(default_factory=list)
    price_per_hour: float | None = None
    currency: str = "USD"
    published: bool = True
    title: str = "Cross-lingual methods on one yardstick"


def make_document(settings: ReportSettings) -> Document:
    """Reads the results and builds the report.

    Raises:
        FileNotFoundError: no result files, or no picture where one is named.
        ValueError: a line is not a result, or there is no line; the price is not above 0; a picture
            is not a PNG, or lies outside of the results' folders.
    """
    if not settings.results:
        raise ValueError(
            "results is empty: name folders or *.json files, such as --results results"
        )
    price = settings.price_per_hour
    if price is not None and not 0 < price < float("inf"):
        raise ValueError(f"price_per_hour is {settings.price_per_hour}: give a price above 0")
    results = read_results(settings.results)
    if not results:
        raise ValueError(
            f"no result line in {', '.join(settings.results)}: measure something first"
        )
    from crosslingual_benchmarks.report.sections.repeating import repeating_section
    from crosslingual_benchmarks.report.sections.samples import find_grids, samples_section

    grids = find_grids(settings.results, results, settings.grids)
    sections = [
        *_measured_and_published(results, settings),
        samples_section(grids, results),
        repeating_section(results, command_of(PROG, settings)),
    ]
    return Document(
        settings.title,
        _opening(results, settings.published),
        [part for part in sections if part is not None],
    )


def report(settings: ReportSettings) -> Path:
    """Writes the report, prints where its page is, and returns that path."""
    from crosslingual.folders import publish_folder
    from crosslingual_benchmarks.report.files import PAGE, write_files

    document = make_document(settings)

    def fill(folder: Path) -> None:
        write_files(document, folder)
        write_settings(settings, folder / SETTINGS)

    publish_folder(settings.output_dir, fill, kind="report", earlier=_written_before)
    page = Path(settings.output_dir) / PAGE
    print(f"the report is written; open {page}")
    return page


def _written_before(folder: Path) -> list[str]:
    """The files of a report of an earlier version, which left no mark but its settings."""
    patterns = ("report.*", "tables/*.tex", "plots/*.png") if (folder / SETTINGS).is_file() else ()
    return [str(p.relative_to(folder)) for pattern in patterns for p in folder.glob(pattern)]


def _measured_and_published(
    results: Sequence[Result], settings: ReportSettings
) -> list[Section | None]:
    from crosslingual_benchmarks.report.sections.code_mixing import code_mixing_section
    from crosslingual_benchmarks.report.sections.efficiency import latency_section, training_section
    from crosslingual_benchmarks.report.sections.fairness import fairness_section
    from crosslingual_benchmarks.report.sections.few_shot import few_shot_section
    from crosslingual_benchmarks.report.sections.generation import generation_section
    from crosslingual_benchmarks.report.sections.published import published_section
    from crosslingual_benchmarks.report.sections.questions import question_sections
    from crosslingual_benchmarks.report.sections.retrieval import retrieval_section
    from crosslingual_benchmarks.report.sections.speed import speed_section
    from crosslingual_benchmarks.report.sections.trade_off import trade_off_section

    parts: list[tuple[Section | None, list[str], str]] = [
        *((section, [], "") for section in question_sections(results)),
        (speed_section(results), [], ""),
        (trade_off_section(results, settings.price_per_hour, settings.currency), [], ""),
        (few_shot_section(results), [], ""),
        (fairness_section(results), [], ""),
        (generation_section(results), ["4"], "generation"),
        (code_mixing_section(results), [], ""),
        (retrieval_section(results), ["2", "3"], "retrieval"),
        (training_section(results), ["1", "5"], "training and cost"),
        (latency_section(results), ["6"], "latency"),
    ]
    sections: list[Section | None] = []
    for section, names, beside in parts:
        sections.append(section)
        if settings.published and names:
            sections.append(published_section(names, beside))
    return sections


def _opening(results: Sequence[Result], has_published: bool) -> list[str]:
    counts = {task: sum(result["task"] == task for result in results) for task in TASKS}
    told = ", ".join(f"{task} {count}" for task, count in counts.items() if count)
    numbers = "Numbers under a plain heading were" if has_published else "All numbers were"
    others = (
        " Published numbers are in framed sections of their own and never mixed in."
        if has_published
        else ""
    )
    return [
        f"Made from {len(results)} result lines ({told}). {numbers} measured by the commands that "
        f"the last section lists.{others}",
        "A dash: not measured. A number is marked as the best of its column only where its "
        "interval shares no point with another's. An English upper bound (in italics) is never "
        "marked.",
    ]
