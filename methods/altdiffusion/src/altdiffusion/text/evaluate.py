"""`altdiffusion evaluate-retrieval`: AltCLIP's Recall@1/5/10 in both directions, by language."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from altdiffusion.text.pipeline import Embedder, load_embedder
from altdiffusion.text.settings import EvaluateRetrievalSettings
from crosslingual.data.index import read_index
from crosslingual.data.loader import ShardLoader
from crosslingual.evaluation.retrieval import Recall, append_result, recall_at_k, result_json

RESULTS = "results.json"


def read_dataset(
    embedder: Embedder, settings: EvaluateRetrievalSettings
) -> tuple[Tensor, list[dict[str, list[str]]]]:
    """Returns embeddings (I, J) of a test set's pictures, and each picture's captions.

    Raises:
        FileNotFoundError: the dataset has no shards.
        ValueError: a picture is missing or broken, or captions are missing in a language.
    """
    loader = ShardLoader(
        settings.dataset,
        batch_size=settings.batch_size,
        seed=0,
        resolution=embedder.clip.image_size,
        languages=settings.languages,
        max_corrupt=1.0,  # counted, and rejected below
        shuffle=False,
    )
    rows: list[Tensor] = []
    captions: list[dict[str, list[str]]] = []
    batches = loader.batches()
    for _ in range(len(loader)):
        batch = next(batches)
        rows.append(embedder.embed_images(batch["images"]))
        captions += batch["captions"]
    if loader.num_skipped:
        raise ValueError(
            f"{loader.report()}; recall among fewer pictures would be higher: write the shards of "
            f"{settings.dataset} again with all of them"
        )
    return torch.cat(rows), captions


def measure(
    embedder: Embedder,
    images_IJ: Tensor,
    captions: list[dict[str, list[str]]],
    language: str,
    only_first: bool,
) -> Recall:
    """Measures the recall of one language."""
    used = [texts[language][:1] if only_first else texts[language] for texts in captions]
    places = [place for place, texts in enumerate(used) for _ in texts]
    rows = embedder.embed_text([text for texts in used for text in texts])
    return recall_at_k(images_IJ, rows, torch.tensor(places))


def render_table(results: dict[str, dict[str, Any]]) -> str:
    """Renders recall in %, one row per language."""
    heads = [f"{way} R@{k}" for way in ("T->I", "I->T") for k in (1, 5, 10)]
    lines = [f"{'':>8}" + "".join(f"{head:>10}" for head in [*heads, "mean"])]
    for language, result in results.items():
        shares = [*result["metrics"].values(), result["mean_recall"]]
        cells = "".join(f"{100 * share:>10.1f}" for share in shares)
        lines.append(f"{language:>8}{cells}")
    return "\n".join(lines)


def evaluate_retrieval(settings: EvaluateRetrievalSettings) -> dict[str, dict[str, Any]]:
    """Prints a table, appends one line of JSON per language to `output_dir/results.json`, and
    returns these results by language.

    Raises:
        ValueError: no language is named.
    """
    if not settings.languages:
        raise ValueError("languages is empty: name the ones to test, such as --languages en de")
    started = time.perf_counter()
    embedder = load_embedder(settings.model, settings.batch_size)
    images_IJ, captions = read_dataset(embedder, settings)
    index = Path(settings.dataset) / "index.json"
    results = {}
    for language in settings.languages:
        recall = measure(embedder, images_IJ, captions, language, settings.captions == "first")
        results[language] = result_json(
            recall,
            dataset=settings.dataset,
            model=embedder.clip.model.config.model_type,
            pretrained=settings.model,
            language=language,
            captions=settings.captions,
            precision="fp32",
            dataset_sha256=read_index(settings.dataset)["sha256"] if index.is_file() else None,
            seed=settings.seed,
            wall_s=time.perf_counter() - started,
            num_bootstrap=settings.num_bootstrap,
        )
        append_result(Path(settings.output_dir) / RESULTS, results[language])
    print(f"{settings.model}: {len(images_IJ)} pictures of {settings.dataset}, recall in %")
    print(render_table(results))
    return results
