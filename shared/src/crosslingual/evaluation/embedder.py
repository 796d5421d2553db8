"""A model that embeds texts and pictures in one space, and its recall by language on shards.

A method's `load_embedder` returns one, and its retrieval verb is `evaluate_retrieval`.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from crosslingual.data.index import shards_hash
from crosslingual.data.loader import ShardLoader
from crosslingual.data.pictures import fit_picture, pixels_to_images
from crosslingual.evaluation.retrieval import append_result, recall_at_k, result_json
from crosslingual.evaluation.settings import EvaluateRetrievalSettings
from crosslingual.frozen.clip import FrozenCLIP

# N rows in all, B rows at a time, I pictures, D width of the space

RESULTS = "results.json"
Captions = dict[str, tuple[list[str], list[int]]]  # texts by language, and each one's picture


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Embeds pictures and texts as L2-normalised fp32 rows on the CPU, by a CLIP as it is; a method
    that has more to it overrides `width`, `encode_texts` and `encode_images`.

    Attributes:
        clip: a CLIP, or a model of its form.
        resolution: edge of the pictures in pixels, before CLIP's centre crop.
        batch_size: pictures or texts at a time.
    """

    clip: FrozenCLIP
    resolution: int
    batch_size: int = 128

    @property
    def width(self) -> int:
        """D."""
        return self.clip.width

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Rows (B, D) of texts, not normalised."""
        return self.clip.encode_texts(texts)

    def encode_images(self, images: Tensor) -> Tensor:
        """Rows (B, D) of pictures (B, 3, H, W) in [-1, 1], not normalised."""
        return self.clip.encode_images(images)

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> Tensor:
        """Texts in any language as rows (N, D), in their order. Texts above the encoder's limit are
        cut with their end token kept, and reported.

        Texts of similar length share a batch, since its longest text decides what it costs.
        """
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows_ND = torch.empty(len(texts), self.width)
        for start in range(0, len(texts), self.batch_size):
            chosen = order[start : start + self.batch_size]
            rows_ND[chosen] = _unit(self.encode_texts([texts[place] for place in chosen]))
        return rows_ND

    def embed_image(self, pictures: Iterable[Image.Image]) -> Tensor:
        """Pictures of any size as rows (N, D)."""
        return self.embed_pixels(fit_picture(picture, self.resolution) for picture in pictures)

    def embed_pixels(self, pictures: Iterable[np.ndarray]) -> Tensor:
        """Pictures (resolution, resolution, 3) in bytes as rows (N, D), one batch in memory at a
        time.
        """
        pictures = iter(pictures)
        rows = [
            self.embed_images(pixels_to_images(np.stack(batch)))
            for batch in iter(lambda: list(islice(pictures, self.batch_size)), [])
        ]
        return torch.cat(rows) if rows else torch.empty(0, self.width)

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], as the loader gives them, as rows (B, D)."""
        return _unit(self.encode_images(images))


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1).cpu()


def read_dataset(
    embedder: Embedder, settings: EvaluateRetrievalSettings
) -> tuple[Tensor, Captions]:
    """The embeddings (I, D) of a test set's pictures, and its captions by language.

    Raises:
        FileNotFoundError: no shards there.
        ValueError: a picture is missing or broken, or captions are missing in a language.
    """
    loader = ShardLoader(
        settings.dataset,
        batch_size=settings.batch_size,
        seed=0,
        resolution=embedder.resolution,
        languages=settings.languages,
        max_corrupt=1.0,  # counted, and refused below
        shuffle=False,
    )
    rows: list[Tensor] = []
    captions: Captions = {language: ([], []) for language in settings.languages}
    num_images = 0
    for batch in islice(loader.batches(), len(loader)):
        rows.append(embedder.embed_images(batch["images"]))
        for place, texts_of in enumerate(batch["captions"], num_images):
            for language, (texts, places) in captions.items():
                own = texts_of[language]
                own = own[:1] if settings.captions == "first" else own
                texts += own
                places += [place] * len(own)
        num_images += len(batch["keys"])
    if loader.num_skipped:
        raise ValueError(
            f"{loader.report()}; recall among fewer pictures would be higher: write the shards of "
            f"{settings.dataset} again with all of them"
        )
    return torch.cat(rows), captions


def render_table(results: dict[str, dict[str, Any]]) -> str:
    """One row per language: recall of pictures by texts and of texts by pictures, and the mean."""
    columns = [f"{way} R@{k}" for way in ("T->I", "I->T") for k in (1, 5, 10)]
    lines = [f"{'':>8}" + "".join(f"{name:>10}" for name in [*columns, "mean", "95 %"])]
    for language, result in results.items():
        shares = [*result["metrics"].values(), result["mean_recall"]]
        cells = "".join(f"{100 * share:>10.1f}" for share in shares)
        bounds = result.get("interval95", {}).get("mean_recall")
        interval = f"  {100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}" if bounds else ""
        lines.append(f"{language:>8}{cells}{interval}")
    return "\n".join(lines)


def evaluate_retrieval(
    settings: EvaluateRetrievalSettings, embedder: Embedder, model: str
) -> dict[str, dict[str, Any]]:
    """Prints a table, appends one line of JSON per language to `output_dir/results.json`, and
    returns these results by language. The embedder is what `settings.model` names, and `model` what
    a result line calls its kind, such as `clip`.
    """
    if not settings.languages:
        raise ValueError("languages is empty: name those to test, such as --languages en de")
    started = time.perf_counter()
    images_ID, captions = read_dataset(embedder, settings)
    common = {
        "dataset": settings.dataset,
        "model": model,
        "pretrained": settings.model,
        "captions": settings.captions,
        "precision": "fp32",
        "dataset_sha256": shards_hash(settings.dataset),
        "seed": settings.seed,
        "num_bootstrap": settings.num_bootstrap,
        "resolution": embedder.resolution,
    }
    results = {}
    for language, (texts, places) in captions.items():
        recall = recall_at_k(images_ID, embedder.embed_text(texts), torch.tensor(places))
        wall_s = time.perf_counter() - started
        results[language] = result_json(recall, language=language, wall_s=wall_s, **common)
        append_result(Path(settings.output_dir) / RESULTS, results[language])
    print(
        f"{settings.model}: {len(images_ID)} pictures of {settings.dataset}, captions "
        f"{settings.captions}, recall in %"
    )
    print(render_table(results))
    return results
