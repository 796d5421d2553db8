"""A trial's result line: embeds pictures and texts in batches, and measures recall of the rows."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from crosslingual.data.pictures import open_picture
from crosslingual.evaluation.retrieval import recall_at_k, result_json
from crosslingual.frozen.tokens import on_cut
from crosslingual_benchmarks.datasets import Picture, RetrievalSet
from crosslingual_benchmarks.results import Result, check_result
from crosslingual_benchmarks.retrieval.embedders import Embedder
from crosslingual_benchmarks.retrieval.trials import Trial

# N rows, I pictures, T texts, D width of the space

ROUNDING = 1e-5  # unit rows that differ by less in every number are one: fp32 sums in other orders


def embed_pictures(
    embedder: Embedder, pictures: Sequence[Picture], batch_size: int, allow_broken: bool
) -> tuple[Tensor, list[int]]:
    """Pictures as rows, of which no more than a batch is in memory.

    `allow_broken` leaves out those that cannot be decoded.

    Returns:
        Rows (N, D), and the places of the pictures that they are of.

    Raises:
        ValueError: a picture cannot be decoded, or its row is no finite vector (it is named); no
            picture can be decoded.
    """
    rows: list[Tensor] = []
    places: list[int] = []
    starts = range(0, len(pictures), batch_size)
    for start in tqdm(starts, desc="pictures", unit=" batches", disable=None, leave=False):
        images: list[Image.Image] = []
        names: list[str] = []
        for place in range(start, min(start + batch_size, len(pictures))):
            try:
                image = read_picture(pictures[place])
            except ValueError:
                if not allow_broken:
                    raise
                continue
            images.append(image)
            names.append(f"picture {pictures[place].name}")
            places.append(place)
        if images:
            rows.append(_checked(embedder.embed_image, images, names))
    if not rows:
        raise ValueError(f"none of {len(pictures)} pictures can be decoded; fetch them again")
    return torch.cat(rows), places


def embed_texts(embedder: Embedder, texts: Sequence[str], batch_size: int) -> Tensor:
    """Texts as rows (N, D). Each different text is embedded once, so that equal texts tie: no
    encoder promises equal rows from different batches. Texts of similar length share a batch, since
    its longest text decides what it costs.

    Raises:
        ValueError: a row is no finite vector; its text is named.
    """
    different = sorted(dict.fromkeys(texts), key=len)
    places = {text: place for place, text in enumerate(different)}
    rows = []
    for start in range(0, len(different), batch_size):
        batch = different[start : start + batch_size]
        names = [f"text {text[:80]!r}" for text in batch]
        rows.append(_checked(embedder.embed_text, batch, names))
    return torch.cat(rows)[[places[text] for text in texts]]


def read_picture(picture: Picture) -> Image.Image:
    """A picture, decoded as `crosslingual.data.pictures` decodes all.

    Raises:
        ValueError: it is broken; it is named.
    """
    try:
        return open_picture(picture.read())
    except ValueError as error:
        raise ValueError(
            f"picture {picture.name} is broken ({error}); repair it, or leave such pictures out "
            "with --allow_missing true"
        ) from error


def collapse(rows: Tensor, what: str) -> list[str]:
    """A warning where all rows (N, D) are one vector up to rounding. Recall is then 0 by
    pessimistic ties, or chance where rounding orders the rows.
    """
    if len(rows) < 2 or (rows - rows[0]).abs().max() > ROUNDING:
        return []
    return [f"collapsed: the embeddings of all {len(rows)} {what} are the same vector"]


def _checked(embed: Callable[[Any], Tensor], batch: Sequence[Any], names: Iterable[str]) -> Tensor:
    """An encoder's rows of a batch, (N, D) fp32 on the CPU, each finite and not zero."""
    with torch.no_grad():
        rows = embed(batch)
    if rows.ndim != 2 or len(rows) != len(batch):
        raise ValueError(f"an embedder made {(*rows.shape,)} of {len(batch)} inputs, not rows")
    rows = rows.float().cpu()
    for name, row, length in zip(names, rows, rows.norm(dim=1).tolist(), strict=True):
        if not row.isfinite().all():
            raise ValueError(
                f"the embedding of {name} is not finite; look for a NaN in the model's weights"
            )
        if length == 0:
            raise ValueError(f"the embedding of {name} is zero: its cosines mean nothing")
    return rows


def score_trial(
    embedder: Embedder,
    images_ID: Tensor,
    trial: Trial,
    data: RetrievalSet,
    *,
    language: str,
    subset: str,
    batch_size: int,
    **common: Any,
) -> Result:
    """Recall@1/5/10 both ways of a trial, by `crosslingual.evaluation.retrieval.recall_at_k`.

    `subset` is `all`, or a name of `data.subsets`; `common` holds further keywords of
    `crosslingual.evaluation.retrieval.result_json`.

    Raises:
        ValueError: a text's row is no finite vector, or pictures and texts differ in width.
    """
    cut: set[str] = set()
    with on_cut(lambda each: cut.add(each.text)):
        texts_TD = embed_texts(embedder, trial.texts, batch_size)
    warnings = [*collapse(images_ID, "pictures"), *collapse(texts_TD, f"texts in {language}")]
    if num_cut := sum(text in cut for text in trial.texts):
        warnings.append(
            f"{num_cut} of {len(trial.texts)} texts are longer than the encoder reads: their ends "
            "are not searched by"
        )
    recall = recall_at_k(images_ID, texts_TD, torch.tensor(trial.picture_of_text))
    names = [data.pictures[place].name for place in trial.places]
    content = json.dumps([names, trial.picture_of_text, trial.texts])
    result = result_json(
        recall,
        dataset=data.name,
        language=language,
        precision="fp32",
        dataset_sha256=data.sha256,
        captions_sha256=hashlib.sha256(content.encode()).hexdigest(),
        n_missing_images=trial.num_missing,
        n_untold_images=trial.num_untold,
        n_duplicate_texts=trial.num_duplicate_texts,
        n_cut_texts=num_cut,
        warnings=warnings,
        **common,
    )
    result["protocol"] |= {
        "split": data.galleries[language].split,
        "subset": subset,
        "gallery": len(trial.places),
    }
    check_result(result, "this result")
    return result
