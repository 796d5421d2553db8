"""`crosslingual-bench cost`: device-hours, price and cost per point, measured and published.

crosslingual-bench cost                                            # the published ones alone
crosslingual-bench cost --results results --price_per_hour 0.35 --metric mean_recall
crosslingual-bench cost --price_per_hour 2.5 --hours 24 --num_devices 8    # a planned run

Measured and published costs are separate tables. Users give the price of an hour, since no source
here knows what their machine costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from crosslingual.data.languages import LanguageCode
from crosslingual_benchmarks.cost.measured import PointCost, point_costs
from crosslingual_benchmarks.published.checks import arithmetic_checks
from crosslingual_benchmarks.published.entries import Row
from crosslingual_benchmarks.published.spans import Span, divide, multiply, span_text
from crosslingual_benchmarks.published.tables import load_published
from crosslingual_benchmarks.report.tables import DASH, render_latex, render_markdown, render_plain
from crosslingual_benchmarks.results import read_results

Rendered = tuple[str, list[str], list[list[str]], list[str]]  # title, heads, rows, notes

HOURS_TABLES = ("1", "efficiency")
RENDER = {"plain": render_plain, "markdown": render_markdown, "latex": render_latex}


@dataclass
class CostSettings:
    """Settings of `crosslingual-bench cost`.

    Attributes:
        results: result files, or folders of them; without any, only published costs are shown.
        price_per_hour: dollars for an hour of one device (a GPU, or the machine of one process).
            Results need it; there is no default, since no source knows what yours costs.
        metric: metric whose points are paid for.
        languages: languages to average the points over; the foreign ones of each arm's lines if
            none are given.
        hours: wall-clock hours of a planned run, whose cost is printed too.
        num_devices: devices of the planned run.
        format: how tables are printed.
    """

    results: list[str] = field(default_factory=list)
    price_per_hour: float | None = None
    metric: Literal["text_accuracy", "mean_recall"] = "text_accuracy"
    languages: list[LanguageCode] = field(default_factory=list)
    hours: float | None = None
    num_devices: int = 1
    format: Literal["plain", "markdown", "latex"] = "plain"


@dataclass(frozen=True)
class PublishedCost:
    """A published cost, and the same derived from its hours.

    The row holds `gpu_hours` and `cost_usd`. The implied price is dollars a GPU-hour; the cost
    derived again is hours times a price.
    """

    row: Row
    implied_price: Span
    rederived: Span


def published_costs(price_per_hour: float | None = None) -> list[PublishedCost]:
    """The published hours and costs, and each cost derived again as hours x price.

    The default price of a GPU-hour is the one that Table 1's first row implies.
    """
    price = price_per_hour or reference_price()
    costs = []
    for table in HOURS_TABLES:
        for row in load_published().tables[table].rows:
            hours, paid = row.cells["gpu_hours"].span, row.cells["cost_usd"].span
            costs.append(PublishedCost(row, divide(paid, hours), multiply(hours, (price, price))))
    return costs


def reference_price() -> float:
    """Dollars an A100-hour by Table 1's first row: $320,000 over 150,000 hours."""
    row = load_published().tables["1"].rows[0]
    return row.cells["cost_usd"].point() / row.cells["gpu_hours"].point()


def planned_costs(
    hours: float, num_devices: int, price_per_hour: float | None = None
) -> list[tuple[str, float]]:
    """The cost of a planned run at the user's price, and at each price that a published row
    implies.

    Raises:
        ValueError: hours or devices are not above 0.
    """
    if not hours > 0 or num_devices < 1:
        raise ValueError(f"a run of {hours} hours on {num_devices} devices: both must be above 0")
    prices = [("yours", price_per_hour)] if price_per_hour is not None else []
    for cost in published_costs():
        low, high = cost.implied_price
        origin = f"Table {cost.row.table}" if cost.row.table.isdigit() else "README"
        whose = f"{cost.row.method} ({origin})"
        if low is not None and low == high:
            prices.append((whose, low))
        elif low is not None and high is not None:
            prices += [(f"{whose}, least", low), (f"{whose}, most", high)]
    return [(whose, hours * num_devices * price) for whose, price in prices if price is not None]


def cost(settings: CostSettings) -> None:
    """Prints the measured table (with results), the published ones, and the plan (with hours).

    Raises:
        ValueError: results without a price, or values that make no sense.
        FileNotFoundError: no result files there.
    """
    price = settings.price_per_hour
    if price is not None and not 0 < price < float("inf"):
        raise ValueError(f"price_per_hour is {price}: give what a device-hour costs you")
    tables: list[Rendered] = []
    if settings.results:
        if price is None:
            raise ValueError(
                "results need --price_per_hour: what an hour of one process's device costs you "
                "(no source here knows it, so there is no default)"
            )
        results = read_results(settings.results)
        groups = point_costs(results, price, settings.metric, settings.languages)
        tables += [_measured(group, rows, settings) for group, rows in groups.items()]
    tables += [_published(price), _per_point()]
    if settings.hours is not None:
        planned = planned_costs(settings.hours, settings.num_devices, price)
        title = f"Planned: {settings.hours:g} hours x {settings.num_devices} devices"
        rows = [[whose, span_text((usd, usd), sign="$")] for whose, usd in planned]
        tables.append((title, ["price of", "cost"], rows, []))
    for title, heads, cells, notes in tables:
        print(f"{title}\n\n{RENDER[settings.format](heads, cells)}\n")
        print("".join(f"- {note}\n" for note in notes))


def _measured(group: str, costs: Sequence[PointCost], settings: CostSettings) -> Rendered:
    heads = "arm|runs|devices|device-hours|in steps|price|trained|of all|peak GB|points|$/point"
    heads += "|over as-is|$/point gained|languages"
    rows = []
    for told in costs:
        paid = told.training
        share = _ratio(paid.trainable_parameters, paid.total_parameters)
        row = [paid.arm, str(paid.num_runs), str(paid.num_processes)]
        row += [_cell(paid.device_hours, 3), _cell(paid.step_hours, 3), _cell(paid.price, 4)]
        row += [_cell(paid.trainable_parameters, 0), _cell(share, 1, "%"), _cell(paid.peak_gb, 2)]
        row += [_cell(told.points, 1), _cell(told.price_per_point, 5), _cell(told.gained, 1)]
        row += [_cell(told.price_per_gained, 5), " ".join(told.languages) or DASH]
        rows.append(row)
    title = f"Measured at ${settings.price_per_hour:g} a device-hour"
    title += f", points are 100 x {settings.metric} on {group}" if group else ""
    notes = [reason for told in costs for reason in told.reasons]
    if len({told.languages for told in costs if told.languages}) > 1:
        notes.append("the arms' languages differ, so their points do not compare: name --languages")
    return title, heads.split("|"), rows, list(dict.fromkeys(notes))


def _published(price: float | None) -> Rendered:
    used = price or reference_price()
    heads = [
        "method",
        "GPU-hours",
        "cost",
        "$/GPU-hour implied",
        f"hours x ${used:.2f}",
        "strength of cost",
    ]
    rows, notes = [], []
    for told in published_costs(price):
        cells = told.row.cells
        hours, paid = cells["gpu_hours"].text, cells["cost_usd"]
        implied, derived = (
            span_text(told.implied_price, sign="$"),
            span_text(told.rederived, digits=0, sign="$"),
        )
        rows.append([told.row.method, hours, paid.text, implied, derived, paid.strength])
        if implied == DASH:
            notes.append(f"{told.row.method}: two bounds of one kind imply no price")
        if told.row.note:
            notes.append(f"{told.row.method}: {told.row.note}")
    if price is None:
        notes.append(f"${used:.2f} is what Stable Diffusion v1.5's row implies, not a price list's")
    return "Published (survey's Table 1 and README), nothing measured here", heads, rows, notes


def _per_point() -> Rendered:
    heads = ["method", "cost", "points", "$/point", "recomputed", "comes out", "strength of points"]
    rows, notes = [], list(load_published().tables["5"].what_cannot_be_compared)
    checks = [check for check in arithmetic_checks() if check.table == "5"]
    divided = {check.row: check for check in checks if check.what == "cost / points"}
    for row in load_published().tables["5"].rows:
        cells, check = row.cells, divided[row.method]
        texts = [cells[n].text for n in ("cost_usd", "zero_shot_average", "cost_per_point")]
        is_right = "yes" if check.comes_out else "no"
        strength = cells["zero_shot_average"].strength
        rows.append([row.method, *texts, check.recomputed, is_right, strength])
    for check in checks:
        if not check.comes_out:
            told = (
                check.recomputed if check.comes_out is None else f"{check.what}: {check.recomputed}"
            )
            notes.append(f"{check.row}: {check.stated} does not come out; {told}")
    return "Published cost per point (survey's Table 5), nothing measured here", heads, rows, notes


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else 100 * part / whole


def _cell(value: float | None, digits: int, unit: str = "") -> str:
    return DASH if value is None else f"{value:,.{digits}f}{unit}"
