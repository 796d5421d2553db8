"""The metrics of generated pictures. A new metric is one file here; nothing else names it.

Result lines, tables and plots hold the metrics in `METRICS` of every file of this folder. Each file
gives the definition and its source.

    METRICS = (Metric("ink", "ink, %", measure_ink, scale=100, better="low"),)
"""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Literal

Better = Literal["high", "low", ""]


@dataclass(frozen=True)
class Score:
    """A metric of one language's pictures.

    Attributes:
        value: the number; a share is a fraction between 0 and 1.
        interval95: its bootstrap interval, [low, high].
        protocol: how it was measured: what must be equal before two numbers stand in one table.
        further: other entries of the result line; numbers of several metrics add up.
        warnings: sentences that a reader should know.
        marks: for each judged picture, whether it is right.
    """

    value: float
    interval95: list[float] | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    marks: Sequence[bool] | None = None


@dataclass(frozen=True)
class Metric:
    """A metric of generated pictures.

    Attributes:
        name: in result lines.
        head: of its column in tables, with unit or direction.
        measure: takes a `metrics.sample.Sample`; returns None where it has nothing to measure.
        scale: a result's number is multiplied by it to be shown.
        decimals: digits that are shown after the point.
        better: which end is the better one; empty where neither is.
        is_share: whether it is a share of the pictures; shares have a plot and open tables.
        place: tables and plots are in this order.
    """

    name: str
    head: str
    measure: Callable[[Any], Score | None]
    scale: float = 1.0
    decimals: int = 2
    better: Better = ""
    is_share: bool = False
    place: int = 100


@cache
def find_metrics() -> tuple[Metric, ...]:
    """Every metric of the files of this folder, in the order of tables.

    Raises:
        ValueError: two metrics have one name.
    """
    modules = [import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found = [metric for module in modules for metric in getattr(module, "METRICS", ())]
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two metrics of one name among {', '.join(sorted(names))}: rename one")
    return tuple(sorted(found, key=lambda metric: (metric.place, metric.name)))
