"""The scores of one language's pictures, by every metric."""

from dataclasses import dataclass, field
from typing import Any

from crosslingual_benchmarks.metrics import find_metrics
from crosslingual_benchmarks.metrics.sample import Sample


@dataclass
class Scores:
    """The parts of one language's result line, by metric; `marks` say which of the judged pictures
    are right.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    interval95: dict[str, list[float]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    marks: dict[str, list[bool]] = field(default_factory=dict)


def score_pictures(sample: Sample) -> Scores:
    """Scores one language by every metric that finds something to measure."""
    pictures = [drawn for _, drawn in (*sample.general, *sample.culture)]
    num_invalid = sum(not drawn.is_finite for drawn in pictures)
    scores = Scores(further={"n_images": len(pictures), "num_invalid": num_invalid})
    if num_invalid:
        scores.warnings.append(
            f"{num_invalid} of {len(pictures)} pictures are not finite, black, and counted as wrong"
        )
    if num_cut := sum(drawn.is_cut for drawn in pictures):
        scores.further["num_cut_prompts"] = num_cut
        scores.warnings.append(
            f"{num_cut} of {len(pictures)} prompts are longer than the text encoder reads: their "
            "ends are not drawn"
        )
    for metric in find_metrics():
        score = metric.measure(sample)
        if score is None:
            continue
        scores.metrics[metric.name] = score.value
        if score.interval95 is not None:
            scores.interval95[metric.name] = score.interval95
        if score.marks is not None:
            scores.marks[metric.name] = list(score.marks)
        scores.protocol |= score.protocol
        scores.warnings += score.warnings
        for name, value in score.further.items():
            known = scores.further.get(name)
            if known is not None:
                value = known | value if isinstance(value, dict) else known + value
            scores.further[name] = value
    return scores
