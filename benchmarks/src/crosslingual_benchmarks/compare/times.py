"""How the wall time of a comparison divides between kinds of work."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

KINDS = ("data", "calibration", "training", "judging", "report")
ELSE = "else"

Span = tuple[str, float, float]


class Times:
    """The spans of a comparison's work, from any thread."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._started = time.monotonic()
        self._spans: list[Span] = []

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Counts what runs inside as one of `KINDS`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._spans.append((kind, started, time.monotonic()))

    def divided(self) -> dict[str, float]:
        """Seconds until now by kind, and under `ELSE` those in which none ran."""
        return divide(self._spans, self._started, time.monotonic())


def divide(spans: Sequence[Span], start: float, end: float) -> dict[str, float]:
    """Seconds by kind; a moment in which several spans run is split among them.

    The sum of all kinds and `ELSE` is `end - start`.
    """
    seconds = dict.fromkeys((*KINDS, ELSE), 0.0)
    changes = sorted(
        [(a, 1, kind) for kind, a, _ in spans] + [(b, -1, kind) for kind, _, b in spans]
    )
    running = dict.fromkeys(KINDS, 0)
    now = start
    for moment, change, kind in [*changes, (end, 0, KINDS[0])]:
        num = sum(running.values())
        for name, count in running.items():
            seconds[name] += (moment - now) * count / num if num else 0.0
        seconds[ELSE] += 0.0 if num else moment - now
        running[kind] += change
        now = moment
    return seconds
