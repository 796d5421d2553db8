"""Pictures with what is said about them, as HTML. All text that a person typed is escaped, and laid
out from right to left where its script is.
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from crosslingual.data.text import printable

SHOWN_EDGE = 192  # pixels that small pictures are enlarged to
PLAIN = {"$": "&#36;", "{": "&#123;", "}": "&#125;"}  # what a template could take for its own

CSS = """
.play-cards {display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start}
.play-card {width: 184px; font-size: 13px; line-height: 1.35; overflow-wrap: anywhere}
.play-card img {width: 176px; height: auto; margin: 4px 0; border-radius: 4px}
.play-card .right {color: #1a7f37} .play-card .wrong {color: #b3261e}
.play-small .play-card {width: 104px; font-size: 12px} .play-small .play-card img {width: 96px}
.play-prompt {margin: 4px 0 8px; font-size: 16px}
.play-fault {color: #b3261e}
textarea, input, .gallery-item, #pictures p, #found p {unicode-bidi: plaintext; text-align: start}
iframe.play-report {width: 100%; height: 80vh; border: 0; background: white}
"""


@dataclass(frozen=True)
class Card:
    """One picture.

    Attributes:
        name: whose it is.
        picture: None where there is none.
        is_right: the judge's verdict; None where it was not asked.
        latency_ms: from the prompt to the picture.
        notes: further sentences.
        fault: why there is no picture.
    """

    name: str
    picture: Image.Image | None = None
    is_right: bool | None = None
    latency_ms: float | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    fault: str = ""


def escape(text: object) -> str:
    """Text for a page: printable, and nothing in it is markup or part of a template."""
    safe = html.escape(printable(text), quote=True)
    return "".join(PLAIN.get(character, character) for character in safe)


def sentence(text: object) -> str:
    """A sentence that answers what cannot be drawn."""
    return f'<p class="play-fault" role="alert" dir="auto">{escape(text)}</p>'


def note(text: object) -> str:
    """A sentence below the pictures."""
    return f'<p dir="auto">{escape(text)}</p>'


def card_html(card: Card) -> str:
    """A card: whose picture, the picture, the verdict, milliseconds, notes."""
    lines = [f"<b>{escape(card.name)}</b>"]
    if card.picture is not None:
        alt = escape(f"picture by {card.name}")
        lines.append(f'<img alt="{alt}" src="{_data_uri(card.picture)}">')
    if card.is_right is not None:
        kind, said = ("right", "shows") if card.is_right else ("wrong", "does not show")
        lines.append(f'<div class="{kind}">Judge: {said} what the prompt says.</div>')
    if card.latency_ms is not None:
        lines.append(f"<div>{card.latency_ms:,.0f} ms</div>")
    lines += [f'<div dir="auto">{escape(note)}</div>' for note in card.notes]
    if card.fault:
        lines.append(sentence(card.fault))
    return f'<div class="play-card">{"".join(lines)}</div>'


def cards_html(
    heading: str, cards: Sequence[Card], num_left: int = 0, *, is_small: bool = False
) -> str:
    """Cards side by side below a heading; `num_left` are still being drawn."""
    waiting = f"<p>{num_left} more to come ...</p>" if num_left else ""
    kind = "play-small" if is_small else "play-large"
    return (
        f'<div class="{kind}"><p class="play-prompt" dir="auto">{escape(heading)}</p>'
        f'<div class="play-cards">{"".join(map(card_html, cards))}</div>{waiting}</div>'
    )


def report_html(page: str) -> str:
    """A comparison's page in a frame of its own, which runs no script."""
    framed = html.escape(page, quote=True)
    framed = "".join(PLAIN.get(character, character) for character in framed)
    return f'<iframe class="play-report" title="comparison" sandbox srcdoc="{framed}"></iframe>'


def _data_uri(picture: Image.Image) -> str:
    times = max(SHOWN_EDGE // max(picture.size), 1)
    shown = picture.resize((picture.width * times, picture.height * times), Image.NEAREST)
    buffer = io.BytesIO()
    is_large = max(shown.size) > 2 * SHOWN_EDGE
    shown.save(buffer, format="webp", quality=90, lossless=not is_large)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
