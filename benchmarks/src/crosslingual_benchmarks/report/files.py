"""A report as files: the page, Markdown, LaTeX tables, PNG plots."""

from pathlib import Path

from crosslingual_benchmarks.report.document import Document, Section, Table
from crosslingual_benchmarks.report.page import render_page
from crosslingual_benchmarks.report.tables import escape_markdown, render_latex, render_markdown

PAGE = "report.html"
MARKDOWN = "report.md"


def write_files(document: Document, output_dir: str | Path) -> list[Path]:
    """Writes `report.html`, `report.md`, `tables/*.tex` and `plots/*.png`; returns their paths."""
    output_dir = Path(output_dir)
    texts = {PAGE: render_page(document), MARKDOWN: render_report_markdown(document)}
    for section in document.sections:
        for table in section.tables:
            texts[f"tables/{table.key}.tex"] = render_booktabs(table)
    written = []
    for name, text in texts.items():
        written.append(_made(output_dir / name))
        written[-1].write_text(text, encoding="utf-8")
    for section in document.sections:
        for figure in section.figures:
            written.append(_made(output_dir / "plots" / f"{figure.key}.png"))
            written[-1].write_bytes(figure.png)
    return written


def render_booktabs(table: Table) -> str:
    r"""A table for LaTeX with the rules of booktabs: `\usepackage{booktabs}`."""
    rows = [[cell.plain() for cell in row] for row in table.rows]
    text = render_latex(table.heads, rows, caption=table.title, label=f"tab:{table.key}")
    for rule in ("toprule", "midrule", "bottomrule"):
        text = text.replace(r"\hline", rf"\{rule}", 1)  # cells hold none: they are escaped
    return text + "\n"


def render_report_markdown(document: Document) -> str:
    """The report for GitHub; its pictures are in `plots/`."""
    parts = [f"# {escape_markdown(document.title)}", *map(escape_markdown, document.paragraphs)]
    for section in document.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {escape_markdown(section.title)}", *map(escape_markdown, section.paragraphs)]
    for figure in section.figures:
        parts.append(f"**{escape_markdown(figure.title)}**")
        parts.append(f"![{escape_markdown(figure.alt)}](plots/{figure.key}.png)")
    for table in section.tables:
        parts.append(f"**{escape_markdown(table.title)}**")
        rows = [[cell.plain() for cell in row] for row in table.rows]
        parts.append(render_markdown(table.heads, rows))
        if table.has_best:
            parts.append(r"\* the best of its column, where no interval overlaps its own.")
        if table.note:
            parts.append(escape_markdown(table.note))
    for title, lines in (
        ("What cannot be compared", section.cautions),
        ("Sources", section.sources),
        ("On single numbers", section.notes),
    ):
        if lines:
            parts += [f"**{title}**", "\n".join(f"- {escape_markdown(line)}" for line in lines)]
    return parts


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
