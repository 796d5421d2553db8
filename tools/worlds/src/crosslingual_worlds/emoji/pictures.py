"""The four emoji sets as 64-pixel pictures on white: rasterised once into the cache."""

import io
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from crosslingual_worlds.emoji.names import Emoji, all_emoji
from crosslingual_worlds.emoji.packages import FETCH, cache_folder, read_json

SETS = ("noto", "fluent", "twemoji", "openmoji")
RESOLUTION = 64


def svg_of(icons: dict, chars: dict[str, str], text: str) -> str | None:
    """An emoji of an Iconify set (`icons.json`, `chars.json`) as an SVG document, or None."""
    key = "-".join(f"{ord(c):x}" for c in text if c != "\ufe0f")
    # Sets spell some keys with U+FE0F, most without.
    name = chars.get(key) or chars.get(f"{key}-fe0f")
    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    if name is None or name not in icons["icons"]:
        return None
    icon = icons["icons"][name]
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {head} viewBox="0 0 {width} {height}">{icon["body"]}</svg>'


def rasterise(svg: str, resolution: int = RESOLUTION, margin: int = 0) -> np.ndarray:
    """An SVG on white, with `margin` blank pixels around it: uint8 (resolution, resolution, 3)."""
    import resvg_py

    edge = resolution - 2 * margin
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=edge, height=edge)
    picture = Image.open(io.BytesIO(bytes(drawn))).convert("RGBA")
    canvas = Image.new("RGBA", (resolution, resolution), "white")
    canvas.alpha_composite(picture, ((resolution - picture.width) // 2, margin))
    return np.asarray(canvas.convert("RGB"))


def rasterise_set(name: str, emoji: Sequence[Emoji], margin: int = 0) -> dict[str, np.ndarray]:
    """Every emoji that the set has: keys to uint8 (64, 64, 3)."""
    icons, chars = read_json(name, "icons.json"), read_json(name, "chars.json")
    # Keys are normalised once: some sets have U+FE0F inside a sequence.
    chars = {key.replace("-fe0f", ""): icon for key, icon in chars.items()}
    found = {}
    for one in tqdm(emoji, desc=f"pictures of {name}", unit="picture"):
        if (svg := svg_of(icons, chars, one.text)) is not None:
            found[one.key] = rasterise(svg, margin=margin)
    return found


def make_pictures() -> None:
    """Rasterises the sets that the cache does not hold yet."""
    for name in SETS:
        path = _path(name)
        if not path.exists():
            pictures = rasterise_set(name, all_emoji())
            temporary = path.with_suffix(".tmp.npz")
            np.savez(
                temporary,
                keys=json.dumps(list(pictures)),
                pictures=np.stack(list(pictures.values())),
            )
            temporary.replace(path)


def load_pictures(name: str) -> dict[str, np.ndarray]:
    """A set's pictures: keys such as `1f988` to uint8 (64, 64, 3) RGB.

    Raises:
        FileNotFoundError: the set has not been rasterised.
        ValueError: an unknown set.
    """
    if name not in SETS:
        raise ValueError(f"no emoji set {name!r}; there are {', '.join(SETS)}")
    if not _path(name).exists():
        raise FileNotFoundError(f"the emoji sets are not in {cache_folder()}: {FETCH}")
    with np.load(_path(name)) as stored:
        return dict(zip(json.loads(str(stored["keys"])), stored["pictures"], strict=True))


def _path(name: str):
    return cache_folder() / f"{name}-{RESOLUTION}.npz"
