"""`mclip search`: the pictures that answer queries in any language, as ranks and as a sheet."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from crosslingual.data.text import printable
from crosslingual.files import refuse_input, replacing
from crosslingual.worlds import contact_sheet
from mclip.pipeline import load_embedder
from mclip.retrieval.embed import Index, embed_source, load_index, read_pictures
from mclip.settings import SearchSettings

PICTURE_SIZE = 160
SCRIPTS = {  # the language whose fonts a query is set in, by the first script found in it
    "ja": r"[\u3041-\u30ff]",
    "zh": r"[\u3400-\u9fff]",
    "ko": r"[\u1100-\u11ff\uac00-\ud7af]",
    "ar": r"[\u0600-\u06ff]",
    "hi": r"[\u0900-\u097f]",
    "th": r"[\u0e01-\u0e5b]",
}

Answers = list[list[tuple[str, float]]]  # for each query its pictures' names and cosines


def script_language(text: str) -> str:
    """A language that is written in a text's script, for the choice of fonts; en for Latin."""
    return next((name for name, signs in SCRIPTS.items() if re.search(signs, text)), "en")


def find(queries_QD: np.ndarray, index: Index, top: int) -> Answers:
    """The `top` pictures of each query by cosine, the best first; equal ones in their order."""
    answers = []
    for scores in queries_QD @ index.rows.T:
        order = np.argsort(-scores, kind="stable")[:top]
        answers.append([(index.names[place], float(scores[place])) for place in order])
    return answers


def draw_answers(queries: list[str], answers: Answers, index: Index) -> Image.Image:
    """One row per query: the query, and its pictures in order with their cosines.

    Raises:
        FileNotFoundError: a picture of the index is not there any more.
    """
    wanted = {name for found in answers for name, _ in found}
    pictures: dict[str, Image.Image] = {}
    for name, pixels in read_pictures(index.kind, index.source, PICTURE_SIZE, {}, wanted):
        pictures[name] = Image.fromarray(pixels)
    if gone := sorted(wanted - set(pictures)):
        raise FileNotFoundError(f"{index.source} no longer holds {gone[0]}: embed it again")
    rows = [
        [(pictures[name], f"{Path(name).name}  {score:.3f}", "en") for name, score in found]
        for found in answers
    ]
    return contact_sheet(
        rows,
        column_heads=[str(rank) for rank in range(1, len(rows[0]) + 1)],
        row_heads=queries,
        row_languages=[script_language(query) for query in queries],
        picture_size=PICTURE_SIZE,
    )


def search(settings: SearchSettings) -> Answers:
    """`mclip search`: prints each query's pictures, writes the contact sheet and returns the
    answers.
    """
    if bool(settings.images) == bool(settings.index):
        raise ValueError("give one of --images FOLDER and --index PREFIX (of `mclip embed`)")
    if not settings.query or settings.top < 1:
        raise ValueError("give at least one --query, and a --top of at least 1")
    form = Image.registered_extensions().get(Path(settings.output).suffix.lower())
    if form not in Image.SAVE:
        raise ValueError(f"no picture can be written as {settings.output}: end it in .png or .jpg")
    embedder = load_embedder(settings.model, batch_size=settings.batch_size)
    if settings.index:
        index = load_index(settings.index, settings.model)
    else:
        index = embed_source(embedder, "images", settings.images)
    if index.source is None:
        raise ValueError(f"{settings.index} holds texts: give an index of pictures")
    if index.kind == "images":
        refuse_input(Path(settings.output), *(Path(index.source) / name for name in index.names))
    answers = find(embedder.embed_text(settings.query).numpy(), index, settings.top)
    for query, found in zip(settings.query, answers, strict=True):
        print(printable(query))
        for rank, (name, score) in enumerate(found, 1):
            print(f"  {rank:2}. {score:6.3f}  {printable(name)}")
    output = Path(settings.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet = draw_answers(settings.query, answers, index)
    with replacing(output) as temporary:
        sheet.save(temporary, format=form)
    print(settings.output)
    return answers
