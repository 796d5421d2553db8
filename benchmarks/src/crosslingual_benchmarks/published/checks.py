"""Computes the averages, quotients and ratios of the published tables again.

A number comes out where it is within one unit of its own last digit: 28.53 is a published $28.5.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from crosslingual_benchmarks.published.entries import Quantity, Row
from crosslingual_benchmarks.published.spans import Span, divide, span_text
from crosslingual_benchmarks.published.tables import Published, load_published

NOT_FULL = "Full Fine-tune"


@dataclass(frozen=True)
class Check:
    """A published number and the same computed from others.

    `comes_out` is None where the number cannot be computed, and `recomputed` then says why.
    """

    table: str
    row: str
    what: str
    stated: str
    recomputed: str
    comes_out: bool | None


def arithmetic_checks(published: Published | None = None) -> list[Check]:
    """Every average, quotient and ratio of the published tables, computed again."""
    published = published or load_published()
    return [
        *_averages(published),
        *_costs_per_point(published),
        *_zero_shot_averages(published),
        *_latency(published),
        *_speed_ups(published),
    ]


def agrees(stated: Quantity, recomputed: Span) -> bool:
    """Whether each bound is within one unit of the published text's last digit."""
    found = re.search(r"\d[\d,]*(?:\.(\d+))?", stated.text)
    unit = 10.0 ** -len(found[1] or "") if found else 0.0
    for told, computed in zip((stated.low, stated.high), recomputed, strict=True):
        if (told is None) != (computed is None):
            return False
        if told is not None and computed is not None and abs(told - computed) >= unit:
            return False
    return True


def _averages(published: Published) -> Iterator[Check]:
    for table in ("2", "3"):
        for row in published.tables[table].rows:
            average = row.cells["average"]
            if average.low is not None:
                columns = [name for name in row.cells if name != "average"]
                mean = _mean(row, columns)
                yield _check(row, f"mean of {len(columns)} columns", average, (mean, mean))


def _costs_per_point(published: Published) -> Iterator[Check]:
    for row in published.tables["5"].rows:
        cost, points = row.cells["cost_usd"], row.cells["zero_shot_average"]
        quotient = divide(cost.span, points.span)
        yield _check(row, "cost / points", row.cells["cost_per_point"], quotient)


def _zero_shot_averages(published: Published) -> Iterator[Check]:
    """Table 5's averages from the columns of Tables 2 and 3 that hold the method."""
    for row in published.tables["5"].rows:
        columns = [
            cell.low
            for table in ("2", "3")
            for found in published.tables[table].rows
            if found.method == row.method
            for name, cell in found.cells.items()
            if name != "average" and cell.low is not None
        ]
        stated = row.cells["zero_shot_average"]
        if columns:
            mean = sum(columns) / len(columns)
            what = f"mean of the {len(columns)} columns of Tables 2 and 3 that hold it"
            yield _check(row, what, stated, (mean, mean))
        else:
            reason = "no column of Tables 2 and 3 holds it"
            yield Check("5", row.method, "mean of Tables 2 and 3", stated.text, reason, None)


def _latency(published: Published) -> Iterator[Check]:
    rows = {row.method: row for row in published.tables["6"].rows}
    translated, direct = (
        rows[name].cells["text_to_image_ms"].point() for name in ("CLIP + Translate", "mCLIP")
    )
    ratio = translated / direct
    stated = Quantity(25, 25, "25×", "estimated")
    yield _check(rows["CLIP + Translate"], "text → image over mCLIP's", stated, (ratio, ratio))


def _speed_ups(published: Published) -> Iterator[Check]:
    """The README's speed-ups. It does not say whether they are of hours or of costs: either may
    agree.
    """
    rows = published.tables["efficiency"].rows
    (full,) = [row for row in rows if row.method == NOT_FULL]
    for row in rows:
        ratios = [_ratio(full, row, name) for name in ("gpu_hours", "cost_usd")]
        stated = row.cells["speed_up"]
        by_hours, by_cost = (span_text(ratio) for ratio in ratios)
        text = f"{by_hours} by hours, {by_cost} by cost"
        comes_out = any(agrees(stated, ratio) for ratio in ratios)
        what = f"{NOT_FULL} over it"
        yield Check(row.table, row.method, what, stated.text, text, comes_out)


def _ratio(over: Row, under: Row, name: str) -> Span:
    return divide(over.cells[name].span, under.cells[name].span)


def _mean(row: Row, columns: list[str]) -> float:
    return sum(row.cells[name].point() for name in columns) / len(columns)


def _check(row: Row, what: str, stated: Quantity, recomputed: Span) -> Check:
    comes_out = agrees(stated, recomputed)
    return Check(row.table, row.method, what, stated.text, span_text(recomputed), comes_out)
