"""Quality per second: when each arm's pictures are right, in a table and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crosslingual_benchmarks.report.arms import LABELS, style_of
from crosslingual_benchmarks.report.curves import Line, quality_curves
from crosslingual_benchmarks.report.document import Cell, Figure, Section, Table
from crosslingual_benchmarks.report.measures import Measure, Number, over_seeds
from crosslingual_benchmarks.results import Result, by_protocol

TASK = "training_curve"
AS_IS = "as_is"
FOREIGN, ENGLISH = "text_accuracy", "text_accuracy_en"
TARGET = 0.75  # of the English bound
TARGET_WORDS = f"{100 * TARGET:.0f} %"
ROUNDING = 1e-9  # 0.75 x 0.8 is above 0.6
SHARE = Measure(FOREIGN, "trained foreign languages, %", 100, 1)
SECONDS = Measure("seconds", "s", 1, 0)

Curve = list[tuple[float, float]]
"""Seconds and quality, in the order of the seconds."""


@dataclass(frozen=True)
class Run:
    """An arm's training under one seed: its curve, and its English at the end."""

    curve: Curve
    english: float


def speed_section(results: Sequence[Result]) -> Section | None:
    """The section on quality per second; None where no line is on it."""
    tables, figures = [], []
    for number, (words, lines) in enumerate(by_protocol(results, TASK).items(), 1):
        start = next((line for line in lines if line["model"] == AS_IS), None)
        if start is None or len(lines) == 1:
            continue
        bound = start["metrics"][ENGLISH]
        runs = runs_of(lines, start["metrics"][FOREIGN])
        key = f"speed_{number}"
        title = f"Text accuracy on the validation split over seconds, {lines[0]['dataset']}"
        tables.append(_table(key, title, runs, bound, f"Protocol: {words}."))
        figures.append(_figure(key, title, runs, bound))
    if not tables:
        return None
    text = (
        "Text accuracy over the trained foreign languages, on few prompts of the validation "
        "split, after all the seconds that a user waits for: starts, features, training steps and "
        "saving, also of other arms whose outputs an arm builds on. Checkpoints are judged "
        "afterwards, and that time is not counted. A curve starts with the English model as it "
        "is, at 0 s, and is straight between points. The first moment counts at which it is at "
        f"{TARGET_WORDS} of what the English model has on English prompts. A point on the way is "
        "not what a training that is planned to end there has: its learning rate has not fallen."
    )
    return Section("speed", "Quality per second", [text], tables, figures)


def runs_of(lines: Sequence[Result], start: float) -> dict[str, list[Run]]:
    """The runs of each arm that trained, one a seed; `start` is the quality at 0 s."""
    found: dict[str, dict[int | None, list[Result]]] = {}
    for line in lines:
        if line["model"] != AS_IS:
            found.setdefault(line["model"], {}).setdefault(line.get("seed"), []).append(line)
    order = [*LABELS, *found]
    runs: dict[str, list[Run]] = {}
    for arm in sorted(found, key=order.index):
        for points in found[arm].values():
            metrics = sorted((p["metrics"] for p in points), key=lambda m: m["seconds"])
            curve = [(0.0, start), *((m["seconds"], m[FOREIGN]) for m in metrics)]
            runs.setdefault(arm, []).append(Run(curve, metrics[-1].get(ENGLISH, 0.0)))
    return runs


def seconds_to(curve: Curve, target: float) -> float | None:
    """The first moment at which a curve has a quality; None where it never has."""
    before_s, before = curve[0]
    for seconds, quality in curve:
        if quality >= target - ROUNDING:
            part = (target - before) / (quality - before) if quality > before else 1.0
            return before_s + min(part, 1.0) * (seconds - before_s)
        before_s, before = seconds, quality
    return None


def quality_at(curve: Curve, seconds: float) -> float:
    """A curve's quality at a moment, on the straight line between its points."""
    before_s, before = curve[0]
    for after_s, after in curve:
        if after_s >= seconds:
            part = (seconds - before_s) / (after_s - before_s) if after_s > before_s else 1.0
            return before + part * (after - before)
        before_s, before = after_s, after
    return before


def _table(key: str, title: str, runs: Mapping[str, list[Run]], bound: float, note: str) -> Table:
    heads = ["arm", "seeds", f"seconds to {TARGET_WORDS} of English", "seconds at the end"]
    heads += [f"at the end: {SHARE.head}", "at the end: English, %"]
    rows = [
        [
            Cell(LABELS.get(arm, arm)),
            Cell(str(len(each))),
            _reached([seconds_to(run.curve, TARGET * bound) for run in each]),
            SECONDS.cell(over_seeds([run.curve[-1][0] for run in each])),
            SHARE.cell(over_seeds([run.curve[-1][1] for run in each])),
            SHARE.cell(over_seeds([run.english for run in each])),
        ]
        for arm, each in runs.items()
    ]
    dash = Cell("-")
    rows.append([Cell("English upper bound"), dash, dash, dash, dash, SHARE.cell(Number(bound))])
    told = "Of several seeds: their mean and, in brackets, the lowest and the highest. "
    return Table(key, title, heads, rows, reference_rows=frozenset([len(runs)]), note=told + note)


def _reached(seconds: Sequence[float | None]) -> Cell:
    """The seconds of those seeds that reach the target, and how many do."""
    reached = [value for value in seconds if value is not None]
    if not reached:
        return Cell("not reached")
    cell = SECONDS.cell(over_seeds(reached))
    if len(reached) == len(seconds):
        return cell
    return Cell(f"{cell.text} ({len(reached)} of {len(seconds)} seeds)", cell.aside)


def _figure(key: str, title: str, runs: Mapping[str, list[Run]], bound: float) -> Figure:
    lines = [_line(arm, each) for arm, each in runs.items()]
    levels = {"English upper bound": bound, f"{TARGET_WORDS} of it": TARGET * bound}
    png = quality_curves(
        lines,
        levels,
        place_label="seconds since the arm's first command",
        quality_label="mean text accuracy in %",
    )
    alt = (
        f"Lines of mean text accuracy over seconds for {', '.join(line.label for line in lines)}. "
        "The seconds and the values at the end stand in the table of the same title."
    )
    return Figure(key, title, alt, png)


def _line(arm: str, runs: Sequence[Run]) -> Line:
    """The means over seeds of each point's moment and quality, with the seeds' ends; where seeds
    have different numbers of points, their qualities at every moment of one that all come to.
    """
    if len({len(run.curve) for run in runs}) == 1:
        points = [
            list(zip(*each, strict=True)) for each in zip(*(r.curve for r in runs), strict=True)
        ]
        moments = [sum(seconds) / len(seconds) for seconds, _ in points]
        values = [list(qualities) for _, qualities in points]
    else:
        last = min(run.curve[-1][0] for run in runs)
        moments = sorted({s for run in runs for s, _ in run.curve if s <= last})
        values = [[quality_at(run.curve, s) for run in runs] for s in moments]
    numbers = [number for each in values if (number := over_seeds(each))]
    return Line(LABELS.get(arm, arm), moments, numbers, style_of(arm))
