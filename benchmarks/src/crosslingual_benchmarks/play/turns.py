"""Turns at the models: one thread uses them at a time, and pictures that several people wait for
from one method are drawn together.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from crosslingual_benchmarks.play.cards import Card


@dataclass(eq=False)
class Ask:
    """A picture that somebody waits for.

    Attributes:
        place: of the method that draws it, in the page's order.
        prompt: what it should show.
        seed: of its noise.
        card: the picture, once it is there.
    """

    place: int
    prompt: str
    seed: int
    card: Card | None = None


class Turns:
    """Decides whose pictures are drawn next. Methods that come first in the page's order go first,
    so that whoever comes late catches up, and is drawn together with the others from then on.
    """

    def __init__(self, draw: Callable[[list[Ask]], list[Card]], max_batch: int):
        """`draw` gives the cards of up to `max_batch` asks of the same place."""
        self._draw, self._max_batch = draw, max_batch
        self._changed = threading.Condition()
        self._is_taken = False
        self._waiting: list[Ask] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The models are this thread's own within the block."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def cards(self, asks: Sequence[Ask]) -> Iterator[Card]:
        """The card of each ask, as soon as it is there. Whoever waits draws for all."""
        with self._changed:
            self._waiting.extend(asks)
        try:
            for ask in asks:
                while self._take(ask):
                    try:
                        self._draw_next()
                    finally:
                        self._give_back()
                yield ask.card
        finally:  # also where nobody takes the rest
            with self._changed:
                self._waiting[:] = [each for each in self._waiting if each not in asks]

    def _take(self, ask: Ask | None = None) -> bool:
        """Waits for a turn and takes it; without one, answers False once the ask has its card."""
        with self._changed:
            self._changed.wait_for(lambda: _is_drawn(ask) or not self._is_taken)
            if _is_drawn(ask):
                return False
            self._is_taken = True
            return True

    def _give_back(self) -> None:
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()

    def _draw_next(self) -> None:
        with self._changed:
            place = min(ask.place for ask in self._waiting)
            batch = [ask for ask in self._waiting if ask.place == place][: self._max_batch]
        for ask, card in zip(batch, self._draw(batch), strict=True):
            ask.card = card
        with self._changed:
            self._waiting[:] = [ask for ask in self._waiting if ask.card is None]


def _is_drawn(ask: Ask | None) -> bool:
    return ask is not None and ask.card is not None
