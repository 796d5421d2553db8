"""A report as one HTML page: no script, no external resource, for light and dark."""

import base64
import re
from importlib import resources

import jinja2
from markupsafe import Markup

from crosslingual.data.text import printable
from crosslingual_benchmarks.report.document import Document, Figure, Table
from crosslingual_benchmarks.report.languages import NAMES, direction

_QUANTITY = re.compile(r"[<>~≈≤≥±+−-]?\s*\$?[+−-]?\d.{,23}")  # a hash is longer


def render_page(document: Document) -> str:
    """The page; markup and hidden characters in the texts of result files are escaped."""
    template = resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    return environment.from_string(template).render(
        document=document,
        names=NAMES,
        direction=direction,
        data_uri=_data_uri,
        texts=_text_columns,
    )


def _shown(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data_uri(figure: Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(figure.png).decode("ascii")


def _text_columns(table: Table) -> set[int]:
    """Columns of words, which are set to the left and may break."""
    places = range(len(table.heads))
    return {p for p in places if not any(_QUANTITY.fullmatch(row[p].text) for row in table.rows)}
