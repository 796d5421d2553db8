"""The judge: reads a picture of the world exactly, without a neural network.

It finds the connected components of the foreground. For each it takes the nearest palette colour,
the shape by overlap with the drawn outlines, and the size by the longer side; the centres give the
relation. Any other picture is unreadable.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from crosslingual_worlds.drawn.motifs import MOTIFS
from crosslingual_worlds.drawn.world import (
    COLORS,
    MOTIF_SIZES,
    RESOLUTION,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    all_things,
    render,
)

GRID = 24  # shapes are compared on a square of this many cells
INK_THRESHOLD = 0.35  # a pixel with a larger share of ink belongs to a thing
MIN_PIXELS = 24  # smaller specks are not things
MIN_OVERLAP = 0.62  # intersection over union with the best template; less is unreadable
MIN_MARGIN = 0.02  # the best template must beat the second one by this overlap
MAX_COLOR_DISTANCE = 90.0  # from the nearest palette colour, in RGB units
MOTIF_GRID = 32
MAX_MOTIF_DISTANCE = 0.20  # root mean square difference over the motif's square, full range 1
MAX_PLAIN_RATIO = 0.75  # distance to a plain shape / to a motif; a small blurred pizza has 0.85

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """The judge's result for a picture.

    Attributes:
        scene: the canonical scene, or None if the picture is unreadable.
        reason: why the picture is unreadable, or empty.
    """

    scene: Scene | None
    reason: str = ""


def _as_array(picture: Image.Image) -> Picture:
    if picture.size != (RESOLUTION, RESOLUTION):
        raise ValueError(
            f"the judge reads pictures of {RESOLUTION} x {RESOLUTION} pixels, not {picture.size}"
        )
    return np.asarray(picture.convert("RGB"), dtype=np.float32)


def _palette() -> NDArray[np.float32]:
    return np.array(list(COLORS.values()), dtype=np.float32)


def _normalised(mask: NDArray[np.float32], grid: int = GRID) -> NDArray[np.float32]:
    """Stretches the longer side of a mask's box over a square grid, centred."""
    height, width = mask.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, *mask.shape[2:]), dtype=np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = mask
    if mask.ndim == 2:
        return np.asarray(Image.fromarray(square).resize((grid, grid), Image.Resampling.BILINEAR))
    channels = [
        Image.fromarray(square[..., c]).resize((grid, grid), Image.Resampling.BILINEAR)
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _ink(array: Picture, color: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share of ink of a colour in each pixel: 0 on white paper, 1 on the full colour."""
    direction = color - 255.0
    return np.clip(((array - 255.0) @ direction) / float(direction @ direction), 0.0, 1.0)


@functools.cache
def _shape_templates() -> dict[str, NDArray[np.float32]]:
    """Views (views, grid, grid) by shape, at both sizes and several sub-pixel positions."""
    rng = np.random.default_rng(0)
    templates = {}
    for shape in SHAPES:
        views = []
        for size in SIZES:
            for _ in range(6):
                array = _as_array(render(Scene(Thing(shape, "black", size)), rng))
                ink = _ink(array, np.array(COLORS["black"], dtype=np.float32))
                views.append(_normalised(_crop(ink, ink > INK_THRESHOLD)))
        templates[shape] = np.stack(views)
    return templates


def _crop(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _soft_overlap(ink: NDArray[np.float32], templates: NDArray[np.float32]) -> float:
    """The best intersection over union of a soft mask with any of the templates."""
    shared = np.minimum(ink, templates).sum(axis=(1, 2))
    either = np.maximum(ink, templates).sum(axis=(1, 2))
    return float((shared / either).max())


def _read_thing(
    array: Picture, mask: NDArray[np.bool_]
) -> tuple[Thing | None, tuple[float, float], str]:
    """Reads one component: (thing or None, centre (x, y), reason)."""
    depth = ndimage.distance_transform_edt(mask)
    core = array[depth >= min(2.0, depth.max())]
    distances = np.linalg.norm(np.median(core, axis=0) - _palette(), axis=1)
    if distances.min() > MAX_COLOR_DISTANCE:
        return None, (0.0, 0.0), "a colour that is not in the palette"
    color = list(COLORS)[int(distances.argmin())]
    ink = np.where(
        ndimage.binary_dilation(mask, iterations=1),
        _ink(array, _palette()[int(distances.argmin())]),
        0.0,
    )
    solid = ink > INK_THRESHOLD
    if solid.sum() < MIN_PIXELS:
        return None, (0.0, 0.0), "a colour that is not in the palette"
    rows, columns = np.nonzero(solid)
    crop = _crop(ink.astype(np.float32), solid)
    overlaps = {
        name: _soft_overlap(_normalised(crop), views) for name, views in _shape_templates().items()
    }
    best, second = sorted(overlaps.values(), reverse=True)[:2]
    if best < MIN_OVERLAP or best - second < MIN_MARGIN:
        return (
            None,
            (0.0, 0.0),
            f"a shape that is none of ours (best overlap {best:.2f}, next {second:.2f})",
        )
    shape = max(overlaps, key=lambda name: overlaps[name])
    side = max(crop.shape)
    size = "small" if side < (SIZES["small"] * SIZES["big"]) ** 0.5 else "big"
    return Thing(shape, color, size), (float(np.mean(columns)), float(np.mean(rows))), ""


def read_scene(picture: Image.Image) -> Reading:
    """Reads a picture of one or two coloured shapes.

    Args:
        picture: RGB, 64 x 64 pixels.

    Returns:
        The canonical scene, or the reason why the picture is unreadable.
    """
    array = _as_array(picture)
    # Ink of any colour: the largest drop below white over the channels, so that yellow counts as
    # much as black.
    drop = (255.0 - array).max(axis=2) / 255.0
    labels, _ = ndimage.label(drop > INK_THRESHOLD, structure=np.ones((3, 3)))
    masks = [labels == k for k in range(1, labels.max() + 1)]
    masks = [mask for mask in masks if mask.sum() >= MIN_PIXELS]
    if len(masks) not in (1, 2):
        return Reading(None, f"{len(masks)} things")
    things, centres = [], []
    for mask in masks:
        thing, centre, reason = _read_thing(array, mask)
        if thing is None:
            return Reading(None, reason)
        things.append(thing)
        centres.append(centre)
    if len(things) == 1:
        return Reading(Scene(things[0]))
    (x0, y0), (x1, y1) = centres
    if abs(x1 - x0) >= abs(y1 - y0):
        relation = "left_of" if x0 < x1 else "right_of"
    else:
        relation = "above" if y0 < y1 else "below"
    return Reading(Scene(things[0], relation, things[1]).canonical)


@functools.cache
def _motif_templates() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    templates = {}
    for motif in MOTIFS:
        views = []
        for size in MOTIF_SIZES:
            for _ in range(3):
                array = _as_array(render(Scene(Thing(motif, None, size)), rng))
                views.append(_motif_view(array))
        templates[motif] = np.stack(views)
    return templates


def _motif_view(array: Picture) -> NDArray[np.float32]:
    """The drawing, cropped and stretched to a square grid, as the drop below white in [0, 1]."""
    drop = (255.0 - array) / 255.0
    mask = drop.max(axis=2) > 0.2
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
    mask = np.isin(labels, 1 + np.flatnonzero(areas >= 8))
    if not mask.any():
        return np.zeros((MOTIF_GRID, MOTIF_GRID, 3), dtype=np.float32)
    return _normalised(_crop(drop, mask), MOTIF_GRID)


@functools.cache
def _plain_views() -> NDArray[np.float32]:
    """Views of every coloured shape, which a motif's picture must not be nearer to."""
    rng = np.random.default_rng(0)
    pictures = [render(Scene(thing), rng) for thing in all_things() for _ in range(3)]
    return np.stack([_motif_view(_as_array(picture)) for picture in pictures])


def _distance(view: NDArray[np.float32], views: NDArray[np.float32]) -> float:
    """The root mean square difference from the nearest of several views."""
    return float(np.sqrt(((view - views) ** 2).mean(axis=(1, 2, 3))).min())


def read_motif(picture: Image.Image) -> str | None:
    """Returns the motif that a picture shows, at any size and position, or None.

    A picture clearly nearer to a plain shape shows no motif: an orange circle is not a pizza.
    """
    view = _motif_view(_as_array(picture))
    distances = {name: _distance(view, views) for name, views in _motif_templates().items()}
    best = min(distances, key=lambda name: distances[name])
    is_plain = _distance(view, _plain_views()) < MAX_PLAIN_RATIO * distances[best]
    return None if is_plain or distances[best] > MAX_MOTIF_DISTANCE else best


def shows(picture: Image.Image, scene: Scene) -> bool:
    """Whether a picture shows the whole scene: text accuracy is the mean of this over prompts.

    For a motif, the size does not count.
    """
    if scene.motif:
        return read_motif(picture) == scene.motif
    return read_scene(picture).scene == scene.canonical
