r"""Tables as Markdown, LaTeX and plain text; the same heads and rows go to each.

    render_markdown(["arm", "price"], [["pea", "$12.00"], ["as_is", "-"]])

A column whose cells all start as numbers do is set to the right. Texts are escaped: `~65*`, `<$1k`
and `a|b` are shown as they are written, and `$...$` starts no formula.
"""

import re
import unicodedata
from collections.abc import Sequence

from crosslingual.data.text import printable

DASH = "-"
"""A cell without a number; the reason stands below the table."""

_NUMBER = re.compile(r"[<>~≈≤≥±+−-]?\s*\$?[+−-]?\d")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|$~])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    **{"→": r"$\rightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$"},
    **{"≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$", "±": r"$\pm$", "−": "$-$"},
    "α": r"$\alpha$",
}

Rows = Sequence[Sequence[object]]


def render_markdown(heads: Sequence[str], rows: Rows) -> str:
    """A table of GitHub's Markdown, without a final newline.

    Cells are anything that `str` writes.

    Raises:
        ValueError: there are no heads, or a row is longer or shorter than they are.
    """
    cells = _check(heads, rows)
    rules = ["---:" if right else "---" for right in _aligned_right(cells, len(heads))]
    lines = [[escape_markdown(head) for head in heads], rules]
    lines += [[escape_markdown(cell) for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render_latex(heads: Sequence[str], rows: Rows, *, caption: str = "", label: str = "") -> str:
    r"""A `tabular`, or with a caption a `table` around it; it needs no package.

    Letters beyond Latin-1 are left as they are: prompts in their scripts need XeLaTeX or LuaLaTeX.

    A label, for `\ref`, needs a caption.

    Raises:
        ValueError: there are no heads, a row is longer or shorter than they are, or there is a
            label and no caption that would carry it.
    """
    cells = _check(heads, rows)
    if label and not caption:
        raise ValueError(f"label {label!r} needs a caption: LaTeX numbers captions, not tables")
    columns = "".join("r" if right else "l" for right in _aligned_right(cells, len(heads)))
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\hline", _latex_line(heads), r"\hline"]
    lines += [*map(_latex_line, cells), r"\hline", r"\end{tabular}"]
    if caption:
        named = [rf"\caption{{{escape_latex(caption)}}}", *[rf"\label{{{label}}}"] * bool(label)]
        lines = [r"\begin{table}", r"\centering", *named, *lines, r"\end{table}"]
    return "\n".join(lines)


def render_plain(heads: Sequence[str], rows: Rows) -> str:
    """A table for a terminal: columns of spaces, a rule under the heads, no escapes.

    Raises:
        ValueError: there are no heads, or a row is longer or shorter than they are.
    """
    cells = _check(heads, rows)
    right = _aligned_right(cells, len(heads))
    lines = [[printable(" ".join(cell.split())) for cell in line] for line in [heads, *cells]]
    widths = [max(_width(line[place]) for line in lines) for place in range(len(heads))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(map(_padded, line, widths, right)).rstrip() for line in lines)


def escape_latex(text: object) -> str:
    """A text for LaTeX, in which no sign starts a command and every character can be seen."""
    shown = printable(str(text).replace("\n", " "))
    return "".join(_LATEX.get(sign, sign) for sign in shown)


def _check(heads: Sequence[str], rows: Rows) -> list[list[str]]:
    if not heads:
        raise ValueError("a table needs heads: name its columns")
    cells = [[str(cell) for cell in row] for row in rows]
    for number, row in enumerate(cells, 1):
        if len(row) != len(heads):
            raise ValueError(
                f"row {number} has {len(row)} cells and the table {len(heads)} columns: {row}"
            )
    return cells


def _aligned_right(cells: list[list[str]], num_columns: int) -> list[bool]:
    """Which columns hold numbers: every cell starts as one, dashes and blanks aside."""
    places = range(num_columns)
    told = [[row[p] for row in cells if row[p].strip() not in ("", DASH)] for p in places]
    return [bool(column) and all(map(_NUMBER.match, column)) for column in told]


def escape_markdown(text: object) -> str:
    """A text for Markdown, in which no sign starts a format and every character can be seen."""
    return _MARKDOWN.sub(r"\\\1", printable(" ".join(str(text).split())))


def _latex_line(cells: Sequence[object]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


def _width(text: str) -> int:
    """Columns of a terminal: Chinese and kin take two, marks that combine none."""
    return sum(
        0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF")
        for sign in text
    )


def _padded(text: str, width: int, is_right: bool) -> str:
    blank = " " * (width - _width(text))
    return blank + text if is_right else text + blank
