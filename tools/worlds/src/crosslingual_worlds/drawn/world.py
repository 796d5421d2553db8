"""The picture world: its scenes, their splits, and their drawing.

A scene holds one or two things; a thing is a shape with a colour and a size, or a cultural motif
with a size. "A left of B" and "B right of A" are the same scene: `Scene.canonical` picks one of the
two, which splits, retrieval and the judge use.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from crosslingual_worlds.drawn.motifs import MOTIFS

RESOLUTION = 64
OVERSAMPLING = (
    4  # shapes are drawn this much larger and reduced: smooth edges from a plain polygon fill
)
BACKGROUND = (255, 255, 255)

COLORS = {
    "red": (222, 32, 38),
    "orange": (255, 140, 0),
    "yellow": (250, 215, 30),
    "green": (24, 150, 60),
    "blue": (35, 75, 215),
    "purple": (125, 40, 165),
    "pink": (250, 130, 185),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "moon")
SIZES = {"small": 16.5, "big": 25.0}  # the longer side, in pixels
MOTIF_SIZES = {"small": 30.0, "big": 48.0}
RELATIONS = ("left_of", "right_of", "above", "below")
INVERSE = {"left_of": "right_of", "right_of": "left_of", "above": "below", "below": "above"}
SPLITS = {"train": 0.90, "val": 0.03, "test": 0.07}


@dataclass(frozen=True)
class Thing:
    """A shape (with a colour) or a motif (whose colours are its own: `color` is None)."""

    shape: str
    color: str | None
    size: str

    def __post_init__(self) -> None:
        """Checks the fields."""
        known = (
            self.shape in SHAPES
            and self.color in COLORS
            or self.shape in MOTIFS
            and self.color is None
        )
        if not known or self.size not in SIZES:
            raise ValueError(f"no such thing in the picture world: {self}")

    @property
    def name(self) -> str:
        """The thing as one word, such as `big-red-star`."""
        return "-".join(part for part in (self.size, self.color, self.shape) if part)


@dataclass(frozen=True)
class Scene:
    """One thing, or two with the relation of the first to the second."""

    first: Thing
    relation: str | None = None
    second: Thing | None = None

    def __post_init__(self) -> None:
        """Checks the fields."""
        if (self.relation is None) != (self.second is None) or self.relation not in (
            None,
            *RELATIONS,
        ):
            raise ValueError(f"a relation joins two things and is one of {RELATIONS}: {self}")

    @property
    def mirrored(self) -> "Scene":
        """The same scene with its things in the other order and the inverse relation."""
        if self.relation is None or self.second is None:
            return self
        return Scene(self.second, INVERSE[self.relation], self.first)

    @property
    def canonical(self) -> "Scene":
        """The one of the scene's two forms that splits, retrieval and the judge use."""
        return self.mirrored if self.relation in ("right_of", "below") else self

    @property
    def scene_id(self) -> str:
        """An id that a scene shares with its mirrored form."""
        scene = self.canonical
        second = f"_{scene.relation}_{scene.second.name}" if scene.second else ""
        return scene.first.name + second

    @property
    def motif(self) -> str | None:
        """The motif that the scene shows, or None."""
        return self.first.shape if self.first.shape in MOTIFS else None


def all_things() -> list[Thing]:
    """The 128 coloured shapes, in a fixed order."""
    return [Thing(*parts) for parts in itertools.product(SHAPES, COLORS, SIZES)]


def all_scenes() -> list[Scene]:
    """Every canonical scene of shapes, each once: 128 with one thing and 32,512 with two different
    things.
    """
    things = all_things()
    pairs = itertools.permutations(things, 2)
    joined = [Scene(a, relation, b) for a, b in pairs for relation in ("left_of", "above")]
    return [Scene(thing) for thing in things] + joined


def motif_scenes() -> list[Scene]:
    """Every motif in both sizes."""
    return [Scene(Thing(motif, None, size)) for motif in MOTIFS for size in SIZES]


def split_of(scene: Scene) -> str:
    """Returns a scene's split (`train`, `val` or `test`) by a hash of its content, so that no other
    wording of a scene leaks into another split.
    """
    digest = hashlib.sha256(scene.scene_id.encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in SPLITS.items():
        if draw < share:
            return split
        draw -= share
    return "test"


def sample_scenes(split: str, count: int, seed: int, singles: float = 0.4) -> list[Scene]:
    """Draws `count` scenes of a split, mirrored or not at random.

    Args:
        split: `train`, `val` or `test`.
        count: number of scenes; scenes repeat once the split is exhausted.
        seed: seed of the draw.
        singles: share of scenes with one thing, from 0 to 1.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    rng = np.random.default_rng(seed)
    members = [scene for scene in all_scenes() if split_of(scene) == split]
    one = [scene for scene in members if scene.second is None]
    two = [scene for scene in members if scene.second is not None]

    def stream(pool: list[Scene]) -> Iterator[Scene]:
        while True:
            for index in rng.permutation(len(pool)):
                yield pool[index]

    one_stream, two_stream = stream(one), stream(two)
    drawn = [next(one_stream if rng.random() < singles else two_stream) for _ in range(count)]
    return [scene.mirrored if rng.random() < 0.5 else scene for scene in drawn]


def distinct_scenes(split: str, count: int, seed: int) -> list[Scene]:
    """Draws `count` scenes of a split, each once, as retrieval needs them; nearly all show two
    things, since there are far more such scenes.

    Raises:
        ValueError: the split is unknown or has fewer scenes.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    members = [scene for scene in all_scenes() if split_of(scene) == split]
    if count > len(members):
        raise ValueError(f"the {split} split has {len(members)} distinct scenes, not {count}")
    return [members[i] for i in np.random.default_rng(seed).permutation(len(members))[:count]]


def shape_outline(shape: str) -> list[tuple[float, float]]:
    """The outline of a shape as a polygon in the square from -0.5 to 0.5, y downwards."""
    turn = [2 * pi * k / 96 for k in range(96)]
    if shape in ("circle", "ring"):
        return [(0.5 * cos(t), 0.5 * sin(t)) for t in turn]
    if shape == "square":
        return [(-0.45, -0.45), (0.45, -0.45), (0.45, 0.45), (-0.45, 0.45)]
    if shape == "triangle":
        return [(0.0, -0.48), (0.5, 0.44), (-0.5, 0.44)]
    if shape == "star":
        radii = [0.53, 0.215] * 5
        return [(r * sin(k * pi / 5), 0.03 - r * cos(k * pi / 5)) for k, r in enumerate(radii)]
    if shape == "cross":
        a, b = 0.17, 0.5
        right = [(a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b)]
        return right + [(-x, -y) for x, y in right]
    if shape == "heart":
        x = [16 * sin(t) ** 3 / 33 for t in turn]
        y = [
            -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) / 31 - 0.08 for t in turn
        ]
        return list(zip(x, y, strict=True))
    if shape == "moon":  # a disc less a disc of the same radius, shifted to the right
        shift, radius = 0.34, 0.5
        inner = np.arccos(shift / 2 / radius)
        outer_arc = np.linspace(inner, 2 * pi - inner, 64)
        inner_arc = np.linspace(pi + inner, pi - inner, 64)
        outer = [(radius * cos(t), radius * sin(t)) for t in outer_arc]
        hollow = [(shift + radius * cos(t), radius * sin(t)) for t in inner_arc]
        return [(x + 0.13, y) for x, y in outer + hollow]
    raise ValueError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")


RING_HOLE = 0.27  # the hole's radius for a ring of radius 0.5


def paint_thing(draw: ImageDraw.ImageDraw, thing: Thing, x: float, y: float, scale: float) -> None:
    """Paints a thing whose longer side is `scale` around the point (x, y), in the canvas's own
    pixels.
    """
    if thing.color is None:
        MOTIFS[thing.shape].paint(draw, x, y, scale)
        return
    draw.polygon(
        [(x + scale * u, y + scale * v) for u, v in shape_outline(thing.shape)],
        fill=COLORS[thing.color],
    )
    if thing.shape == "ring":
        hole = scale * RING_HOLE
        draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=BACKGROUND)


def layout(scene: Scene, rng: np.random.Generator) -> list[tuple[Thing, float, float, float]]:
    """Places a scene's things: (thing, centre x, centre y, longer side) in pixels, jittered."""
    centre = RESOLUTION / 2
    sizes = MOTIF_SIZES if scene.motif else SIZES
    if scene.second is None:
        side = sizes[scene.first.size] * rng.uniform(0.96, 1.04)
        room = min(centre - side / 2 - 2, 14.0)
        x, y = centre + rng.uniform(-room, room, 2)
        return [(scene.first, x, y, side)]
    canon = scene.canonical
    placed = []
    for thing, sign in ((canon.first, -1), (canon.second, 1)):
        side = SIZES[thing.size] * rng.uniform(0.96, 1.04)
        along = centre + sign * (16.3 + rng.uniform(-0.6, 0.6))
        across = centre + rng.uniform(-4.0, 4.0)
        x, y = (along, across) if canon.relation == "left_of" else (across, along)
        placed.append((thing, x, y, side))
    return placed


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draws a scene as an RGB picture, 64 x 64 pixels on white, with jittered places and sizes."""
    edge = RESOLUTION * OVERSAMPLING
    canvas = Image.new("RGB", (edge, edge), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for thing, x, y, side in layout(scene, rng):
        paint_thing(draw, thing, x * OVERSAMPLING, y * OVERSAMPLING, side * OVERSAMPLING)
    return canvas.resize((RESOLUTION, RESOLUTION), Image.Resampling.BOX)
