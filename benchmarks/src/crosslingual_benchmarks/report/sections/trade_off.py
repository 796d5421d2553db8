"""Quality against cost: the cost and the quality of each arm's training, in a table and a plot."""

from collections.abc import Sequence
from dataclasses import dataclass

from crosslingual_benchmarks.cost.measured import AS_IS, TASK_OF, PointCost, point_costs
from crosslingual_benchmarks.report.arms import LABELS, Arm, style_of
from crosslingual_benchmarks.report.document import Cell, Figure, Section, Table
from crosslingual_benchmarks.report.groups import Group, groups_of
from crosslingual_benchmarks.report.measures import Measure, Number, mean_number
from crosslingual_benchmarks.report.plots import Point, quality_against_cost
from crosslingual_benchmarks.report.tables import DASH
from crosslingual_benchmarks.results import Result

NAMES = {"text_accuracy": "text accuracy", "mean_recall": "recall"}  # a mean of either is shown
HEADS = ["arm", "runs", "processes", "device-hours"]


@dataclass(frozen=True)
class Price:
    """The price of a device-hour; without it, costs are device-hours."""

    per_hour: float | None
    currency: str

    @property
    def unit(self) -> str:
        """Of a cost."""
        return "device-hours" if self.per_hour is None else self.currency


def trade_off_section(
    results: Sequence[Result], price_per_hour: float | None, currency: str
) -> Section | None:
    """The section on quality against cost; None where nothing was trained or measured.

    Without a price of a device-hour, costs are device-hours.
    """
    price = Price(price_per_hour, currency)
    training = [result for result in results if result["task"] == "training"]
    if not training:
        return None
    tables, figures = [], []
    for metric, task in TASK_OF.items():
        for group in groups_of(results, task):
            foreign = [language for language in group.languages if language != "en"]
            found = _costs(group, training, metric, foreign, price)
            if not any(cost.points is not None for cost in found):
                continue
            key = f"trade_off_{group.key}_{metric}"
            title = f"Mean {NAMES[metric]} against cost, {group.name}"
            tables.append(_table(key, title, group, found, metric, price))
            if any(cost.points is not None and cost.training.price > 0 for cost in found):
                figures.append(_figure(key, title, group, found, metric, price))
    if not tables:
        return None
    at = f" at {price_per_hour:g} {currency} a device-hour" if price_per_hour is not None else ""
    text = (
        "Quality is the mean over foreign languages. Cost is training alone: seconds x processes, "
        f"as device-hours{at}; features and encoders that were made before are not in it. Cost per "
        "point is cost over 100 x quality, cost per point gained that over the points above the "
        "as-is arm."
    )
    return Section("trade_off", "Quality against cost", [text], tables, figures)


def _costs(
    group: Group, training: Sequence[Result], metric: str, foreign: list[str], price: Price
) -> list[PointCost]:
    if not foreign:
        return []
    lines = [*training, *group.results]
    (found,) = point_costs(lines, price.per_hour or 1.0, metric, foreign).values()
    order = [arm.model for arm in group.arms]
    measured = [cost for cost in found if cost.training.arm in order]
    return sorted(measured, key=lambda cost: order.index(cost.training.arm))


def _quality(arms: Sequence[Arm], metric: str, languages: Sequence[str]) -> Number | None:
    """The mean over languages, and over seeds where there are several."""
    means = [arm.mean(metric, languages) for arm in arms]
    return mean_number([mean for mean, count in means if mean and count == len(languages)])


def _table(
    key: str, title: str, group: Group, found: Sequence[PointCost], metric: str, price: Price
) -> Table:
    share = Measure(metric, f"mean {NAMES[metric]}, %", 100, 1, "high")
    numbers = [
        _quality(_arms(group, cost), metric, cost.languages) if cost.points is not None else None
        for cost in found
    ]
    qualities = share.column(numbers, [True] * len(found))
    heads = [*HEADS, *([] if price.per_hour is None else [f"cost, {price.unit}"]), share.head]
    heads += [f"{price.unit} per point", "points over as-is", f"{price.unit} per point gained"]
    rows = []
    for cost, quality in zip(found, qualities, strict=True):
        training = cost.training
        rows.append(
            [
                Cell(_label(cost)),
                Cell(str(training.num_runs)),
                Cell(str(training.num_processes)),
                Cell(f"{training.device_hours:,.3f}"),
                *([] if price.per_hour is None else [Cell(_amount(training.price))]),
                quality,
                Cell(_amount(cost.price_per_point)),
                Cell(DASH if cost.gained is None else f"{cost.gained:+.1f}"),
                Cell(_amount(cost.price_per_gained)),
            ]
        )
    reasons = dict.fromkeys(reason for cost in found for reason in cost.reasons)
    languages = next((cost.languages for cost in found if cost.languages), ())
    notes = [f"Mean over {', '.join(languages)}.", *(f"A dash: {text}." for text in reasons)]
    return Table(key, title, heads, rows, note=" ".join(notes))


def _figure(
    key: str, title: str, group: Group, found: Sequence[PointCost], metric: str, price: Price
) -> Figure:
    languages = next(cost.languages for cost in found if cost.languages)
    points = [
        Point(_label(cost), cost.training.price, quality, style_of(cost.training.arm))
        for cost in found
        if cost.points is not None
        and cost.training.price > 0
        and (quality := _quality(_arms(group, cost), metric, cost.languages))
    ]
    lines = _lines(group, {cost.training.arm for cost in found}, metric, languages)
    png = quality_against_cost(
        points,
        lines,
        cost_label=f"cost of training, {price.unit} (logarithmic)",
        quality_label=f"mean {NAMES[metric]} in %, {len(languages)} foreign languages",
    )
    arms = ", ".join(point.label for point in points)
    drawn = f"; horizontal lines for {', '.join(lines)}" if lines else ""
    alt = (
        f"Scatter plot of mean {NAMES[metric]} over cost for {arms}{drawn}. The numbers stand in "
        "the table of the same title."
    )
    return Figure(key, title, alt, png)


def _lines(
    group: Group, trained: set[str], metric: str, languages: Sequence[str]
) -> dict[str, Number]:
    """The qualities without a cost: untrained arms, and the bound. Without an arm that always reads
    English, the as-is arm's English is the bound.
    """
    lines = {}
    for arm in group.arms:
        number = _quality([arm], metric, languages)
        if number is not None and (arm.is_bound or arm.model not in trained):
            lines[arm.label] = number
    if not any(arm.is_bound for arm in group.arms):
        english = [n for a in group.arms if a.model in AS_IS and (n := a.number(metric, "en"))]
        if english:
            lines["as-is, English prompts"] = english[0]
    return lines


def _arms(group: Group, cost: PointCost) -> list[Arm]:
    return [arm for arm in group.arms if arm.model == cost.training.arm]


def _label(cost: PointCost) -> str:
    return LABELS.get(cost.training.arm, cost.training.arm)


def _amount(value: float | None) -> str:
    """Three significant digits below 1,000: a run on the testbed costs cents, others thousands."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")
