"""The cultural motifs: eighteen small drawings, each tied to one language's culture.

The English base never sees a motif, so they stand for concepts that a frozen model cannot draw,
whatever the prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin

from PIL.ImageDraw import ImageDraw

Color = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (25, 25, 25)
RED, DARK_RED, BROWN, TAN = (205, 35, 35), (150, 20, 30), (125, 75, 35), (215, 165, 95)
GREEN, BLUE, SKY, GOLD = (40, 140, 60), (30, 60, 160), (110, 180, 230), (245, 195, 40)
PINK, GREY, ORANGE = (240, 140, 180), (150, 150, 155), (240, 130, 30)


class Pen:
    """Draws in the square from -0.5 to 0.5 (y downwards) around a point of the canvas."""

    def __init__(self, draw: ImageDraw, x: float, y: float, scale: float):
        """`scale` is the length of one unit on the canvas."""
        self.draw, self.x, self.y, self.scale = draw, x, y, scale

    def _at(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(self.x + self.scale * u, self.y + self.scale * v) for u, v in points]

    def polygon(self, fill: Color, *points: tuple[float, float]) -> None:
        """Fills a polygon."""
        self.draw.polygon(self._at(list(points)), fill=fill)

    def box(self, fill: Color, left: float, top: float, right: float, bottom: float) -> None:
        """Fills a rectangle."""
        self.polygon(fill, (left, top), (right, top), (right, bottom), (left, bottom))

    def oval(
        self, fill: Color, u: float, v: float, radius_u: float, radius_v: float | None = None
    ) -> None:
        """Fills an ellipse around (u, v)."""
        radius_v = radius_u if radius_v is None else radius_v
        (left, top), (right, bottom) = self._at(
            [(u - radius_u, v - radius_v), (u + radius_u, v + radius_v)]
        )
        self.draw.ellipse((left, top, right, bottom), fill=fill)

    def pie(self, fill: Color, u: float, v: float, radius: float, start: float, end: float) -> None:
        """Fills a sector between two angles in degrees, clockwise from the right."""
        (left, top), (right, bottom) = self._at(
            [(u - radius, v - radius), (u + radius, v + radius)]
        )
        self.draw.pieslice((left, top, right, bottom), start, end, fill=fill)

    def loop(
        self, color: Color, width: float, u: float, v: float, radius_u: float, radius_v: float
    ) -> None:
        """Strokes an ellipse around (u, v)."""
        (left, top), (right, bottom) = self._at(
            [(u - radius_u, v - radius_v), (u + radius_u, v + radius_v)]
        )
        self.draw.ellipse(
            (left, top, right, bottom), outline=color, width=round(width * self.scale)
        )

    def line(self, color: Color, width: float, *points: tuple[float, float]) -> None:
        """Strokes a line through the points."""
        self.draw.line(
            self._at(list(points)),
            fill=color,
            width=max(1, round(width * self.scale)),
            joint="curve",
        )


def _palm_tree(pen: Pen) -> None:
    pen.polygon(BROWN, (-0.06, 0.5), (0.08, 0.5), (0.05, -0.2), (-0.02, -0.2))
    for angle in (-20, 25, 70, 110, 155, 200):
        tip = (0.46 * cos(angle * pi / 180), -0.2 - 0.28 * sin(angle * pi / 180))
        side = (0.10 * sin(angle * pi / 180), 0.10 * cos(angle * pi / 180))
        mid = (tip[0] * 0.5, (tip[1] - 0.2) * 0.5 - 0.06)
        pen.polygon(
            GREEN,
            (0.01, -0.2),
            (mid[0] + side[0], mid[1] - side[1]),
            tip,
            (mid[0] - side[0], mid[1] + side[1]),
        )


def _pretzel(pen: Pen) -> None:
    pen.loop(BROWN, 0.11, -0.21, -0.12, 0.26, 0.28)
    pen.loop(BROWN, 0.11, 0.21, -0.12, 0.26, 0.28)
    pen.line(BROWN, 0.11, (-0.34, 0.42), (0.12, 0.0))
    pen.line(BROWN, 0.11, (0.34, 0.42), (-0.12, 0.0))
    pen.loop(BROWN, 0.11, 0.0, 0.16, 0.38, 0.28)


def _teapot(pen: Pen) -> None:
    pen.loop(SKY, 0.07, 0.32, 0.06, 0.17, 0.17)
    pen.polygon(SKY, (-0.25, 0.2), (-0.25, -0.02), (-0.5, -0.2), (-0.42, -0.24))
    pen.oval(SKY, 0.0, 0.1, 0.31, 0.28)
    pen.box(BLUE, -0.2, -0.2, 0.2, -0.13)
    pen.oval(BLUE, 0.0, -0.26, 0.07)
    pen.box(BLUE, -0.3, 0.07, 0.3, 0.14)


def _hand_fan(pen: Pen) -> None:
    pen.pie(RED, 0.0, 0.3, 0.52, 190, 350)
    for angle in range(200, 350, 28):
        spoke = (0.5 * cos(angle * pi / 180), 0.3 + 0.5 * sin(angle * pi / 180))
        pen.line(GOLD, 0.035, (0.0, 0.3), spoke)
    pen.pie(BLACK, 0.0, 0.3, 0.2, 190, 350)


def _baguette(pen: Pen) -> None:
    pen.polygon(TAN, (-0.5, 0.34), (-0.38, 0.48), (0.5, -0.34), (0.38, -0.48))
    for step in (-0.26, -0.08, 0.1, 0.28):
        pen.line(
            BROWN, 0.05, (step - 0.09, -step * 0.93 - 0.03), (step + 0.09, -step * 0.93 + 0.03)
        )


def _lotus(pen: Pen) -> None:
    for lean in (-0.42, 0.42):
        pen.polygon(PINK, (0.0, 0.3), (lean * 1.1, -0.02), (lean * 0.55, 0.28))
        pen.polygon((225, 95, 150), (0.0, 0.3), (lean * 0.75, -0.28), (lean * 0.15, -0.1))
    pen.polygon(PINK, (-0.15, 0.05), (0.0, -0.42), (0.15, 0.05), (0.0, 0.3))
    pen.oval(GREEN, 0.0, 0.36, 0.46, 0.09)


def _pizza(pen: Pen) -> None:
    pen.oval(TAN, 0.0, 0.0, 0.5)
    pen.oval(GOLD, 0.0, 0.0, 0.41)
    for u, v in ((-0.18, -0.16), (0.18, -0.2), (0.02, 0.05), (-0.22, 0.15), (0.2, 0.2)):
        pen.oval(RED, u, v, 0.085)
    for u, v in ((0.0, -0.28), (0.28, 0.02), (-0.04, 0.28)):
        pen.oval(GREEN, u, v, 0.05)


def _torii(pen: Pen) -> None:
    pen.polygon(BLACK, (-0.5, -0.5), (0.5, -0.5), (0.45, -0.4), (-0.45, -0.4))
    pen.box((225, 70, 30), -0.44, -0.4, 0.44, -0.3)
    pen.box((225, 70, 30), -0.38, -0.16, 0.38, -0.07)
    pen.box((225, 70, 30), -0.31, -0.3, -0.2, 0.5)
    pen.box((225, 70, 30), 0.2, -0.3, 0.31, 0.5)


def _janggu(pen: Pen) -> None:
    pen.polygon(DARK_RED, (-0.42, -0.28), (-0.08, -0.09), (-0.08, 0.09), (-0.42, 0.28))
    pen.polygon(DARK_RED, (0.42, -0.28), (0.08, -0.09), (0.08, 0.09), (0.42, 0.28))
    pen.box(GOLD, -0.09, -0.1, 0.09, 0.1)
    pen.oval(TAN, -0.42, 0.0, 0.09, 0.34)
    pen.oval(TAN, 0.42, 0.0, 0.09, 0.34)


def _windmill(pen: Pen) -> None:
    pen.polygon(BROWN, (-0.13, -0.12), (0.13, -0.12), (0.23, 0.5), (-0.23, 0.5))
    pen.box(BLACK, -0.06, 0.3, 0.06, 0.5)
    for angle in (40, 130, 220, 310):
        u, v = cos(angle * pi / 180), sin(angle * pi / 180)
        pen.polygon(
            GREY,
            (0.05 * u, -0.12 + 0.05 * v),
            (0.46 * u + 0.07 * v, -0.12 + 0.46 * v - 0.07 * u),
            (0.46 * u - 0.07 * v, -0.12 + 0.46 * v + 0.07 * u),
        )
    pen.oval(BLACK, 0.0, -0.12, 0.05)


def _easter_egg(pen: Pen) -> None:
    pen.oval((120, 60, 160), 0.0, 0.0, 0.37, 0.5)
    pen.box(GOLD, -0.33, -0.2, 0.33, -0.11)
    pen.box(GOLD, -0.33, 0.15, 0.33, 0.24)
    for u in (-0.22, 0.0, 0.22):
        pen.oval(WHITE, u, 0.02, 0.065)


def _azulejo(pen: Pen) -> None:
    pen.box(BLUE, -0.45, -0.45, 0.45, 0.45)
    pen.box((225, 235, 250), -0.37, -0.37, 0.37, 0.37)
    for u, v in ((-0.37, -0.37), (0.37, -0.37), (-0.37, 0.37), (0.37, 0.37)):
        start = {(-1, -1): 0, (1, -1): 90, (1, 1): 180, (-1, 1): 270}[
            (1 if u > 0 else -1, 1 if v > 0 else -1)
        ]
        pen.pie(BLUE, u, v, 0.24, start, start + 90)
    pen.polygon(BLUE, (0.0, -0.24), (0.24, 0.0), (0.0, 0.24), (-0.24, 0.0))
    pen.oval((225, 235, 250), 0.0, 0.0, 0.09)


def _matryoshka(pen: Pen) -> None:
    pen.oval(RED, 0.0, 0.2, 0.34, 0.3)
    pen.oval(RED, 0.0, -0.22, 0.25, 0.26)
    pen.oval((255, 220, 190), 0.0, -0.2, 0.16, 0.17)
    pen.pie(BLACK, 0.0, -0.2, 0.16, 200, 340)
    pen.oval(GOLD, 0.0, 0.22, 0.18, 0.18)
    pen.oval(GREEN, 0.0, 0.22, 0.08)


def _tuk_tuk(pen: Pen) -> None:
    pen.polygon(GREEN, (-0.42, -0.36), (0.28, -0.36), (0.36, -0.26), (-0.42, -0.26))
    pen.box(GREEN, -0.42, -0.3, -0.35, 0.1)
    pen.line(GREEN, 0.06, (0.3, -0.28), (0.42, 0.02))
    pen.polygon(GOLD, (-0.48, 0.0), (0.44, 0.0), (0.5, 0.26), (-0.48, 0.26))
    pen.oval(BLACK, -0.27, 0.3, 0.14)
    pen.oval(BLACK, 0.3, 0.3, 0.14)


def _nazar(pen: Pen) -> None:
    pen.oval(BLUE, 0.0, 0.0, 0.5)
    pen.oval(WHITE, 0.0, 0.0, 0.32)
    pen.oval(SKY, 0.0, 0.0, 0.22)
    pen.oval(BLACK, 0.0, 0.0, 0.11)


def _sunflower(pen: Pen) -> None:
    pen.box(GREEN, -0.035, 0.1, 0.035, 0.5)
    pen.polygon(GREEN, (0.0, 0.42), (0.28, 0.22), (0.2, 0.4))
    for k in range(12):
        u, v = cos(k * pi / 6), sin(k * pi / 6)
        pen.polygon(
            GOLD,
            (0.1 * v, -0.14 - 0.1 * u),
            (0.36 * u, -0.14 + 0.36 * v),
            (-0.1 * v, -0.14 + 0.1 * u),
        )
    pen.oval(GOLD, 0.0, -0.14, 0.25)
    pen.oval(BROWN, 0.0, -0.14, 0.15)


def _conical_hat(pen: Pen) -> None:
    pen.polygon((230, 205, 130), (0.0, -0.36), (0.5, 0.2), (-0.5, 0.2))
    pen.oval((195, 160, 85), 0.0, 0.2, 0.5, 0.1)
    pen.line((195, 160, 85), 0.03, (0.0, -0.34), (-0.2, 0.2))
    pen.line((195, 160, 85), 0.03, (0.0, -0.34), (0.2, 0.2))
    pen.line(RED, 0.045, (-0.3, 0.24), (0.0, 0.46), (0.3, 0.24))


def _lantern(pen: Pen) -> None:
    pen.line(GOLD, 0.05, (0.0, -0.5), (0.0, 0.5))
    pen.oval(RED, 0.0, 0.0, 0.4, 0.3)
    pen.oval((240, 90, 50), 0.0, 0.0, 0.22, 0.3)
    pen.oval(RED, 0.0, 0.0, 0.09, 0.3)
    pen.box(GOLD, -0.16, -0.36, 0.16, -0.27)
    pen.box(GOLD, -0.16, 0.27, 0.16, 0.36)


@dataclass(frozen=True)
class Motif:
    """A motif: the language it is tied to, and its drawing."""

    language: str
    sketch: Callable[[Pen], None]

    def paint(self, draw: ImageDraw, x: float, y: float, scale: float) -> None:
        """Paints it around (x, y) with `scale` as its longer side, in the canvas's own pixels."""
        self.sketch(Pen(draw, x, y, scale))


MOTIFS = {
    "palm_tree": Motif("ar", _palm_tree),
    "pretzel": Motif("de", _pretzel),
    "teapot": Motif("en", _teapot),
    "hand_fan": Motif("es", _hand_fan),
    "baguette": Motif("fr", _baguette),
    "lotus": Motif("hi", _lotus),
    "pizza": Motif("it", _pizza),
    "torii": Motif("ja", _torii),
    "janggu": Motif("ko", _janggu),
    "windmill": Motif("nl", _windmill),
    "easter_egg": Motif("pl", _easter_egg),
    "azulejo": Motif("pt", _azulejo),
    "matryoshka": Motif("ru", _matryoshka),
    "tuk_tuk": Motif("th", _tuk_tuk),
    "nazar": Motif("tr", _nazar),
    "sunflower": Motif("uk", _sunflower),
    "conical_hat": Motif("vi", _conical_hat),
    "lantern": Motif("zh", _lantern),
}
