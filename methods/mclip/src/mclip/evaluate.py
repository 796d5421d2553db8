"""`mclip evaluate`: Recall@1/5/10 both ways and their mean, by language.

mclip evaluate --model runs/mclip/model --dataset shards --languages en de --output_dir runs/mclip
mclip evaluate --model openai/clip-vit-base-patch32 ...      # a CLIP as it is, for comparison
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.cli.verbs import run_verb
from crosslingual.data.loader import ShardLoader
from crosslingual.data.shards import read_index
from crosslingual.evaluation.retrieval import append_result, recall_at_k, result_json
from mclip.config import EvaluateSettings
from mclip.embedder import Embedder, load_embedder

RESULTS = "results.json"

Captions = dict[str, tuple[list[str], list[int]]]  # texts by language, and each one's picture


def read_dataset(embedder: Embedder, settings: EvaluateSettings) -> tuple[Tensor, Captions]:
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
    batches = loader.batches()
    num_images = 0
    for _ in range(len(loader)):
        batch = next(batches)
        rows.append(embedder.embed_images(batch["images"]))
        for place, texts_of in enumerate(batch["captions"], num_images):
            for language, (texts, places) in captions.items():
                told = texts_of[language]
                told = told[:1] if settings.captions == "first" else told
                texts += told
                places += [place] * len(told)
        num_images += len(batch["keys"])
    if loader.num_skipped:
        raise ValueError(
            f"{loader.report()}; recall among fewer pictures would be higher: write the shards of "
            f"{settings.dataset} again with all of them"
        )
    return torch.cat(rows), captions


def render_table(results: dict[str, dict[str, Any]]) -> str:
    """A row a language: recall of pictures by texts, of texts by pictures, and the mean, in %."""
    columns = [f"{way} R@{k}" for way in ("T->I", "I->T") for k in (1, 5, 10)]
    lines = [f"{'':>8}" + "".join(f"{name:>10}" for name in [*columns, "mean", "95 %"])]
    for language, result in results.items():
        shares = [*result["metrics"].values(), result["mean_recall"]]
        cells = "".join(f"{100 * share:>10.1f}" for share in shares)
        bounds = result.get("interval95", {}).get("mean_recall")
        interval = f"  {100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}" if bounds else ""
        lines.append(f"{language:>8}{cells}{interval}")
    return "\n".join(lines)


def evaluate(settings: EvaluateSettings) -> dict[str, dict[str, Any]]:
    """Prints a table, appends a line of JSON a language to `output_dir/results.json`, and returns
    these results by language.
    """
    if not settings.languages:
        raise ValueError("languages is empty: name those to test, such as --languages en de")
    started = time.perf_counter()
    embedder = load_embedder(settings.model, settings.resolution, settings.batch_size)
    images_ID, captions = read_dataset(embedder, settings)
    index = Path(settings.dataset) / "index.json"
    common = {
        "dataset": settings.dataset,
        "model": "clip" if embedder.projectors is None else "mclip",
        "pretrained": settings.model,
        "captions": settings.captions,
        "precision": "fp32",
        "dataset_sha256": read_index(settings.dataset)["sha256"] if index.is_file() else None,
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
    first = next(iter(results.values()))
    print(
        f"{settings.model}: {first['n_images']} pictures of {settings.dataset}, captions "
        f"{settings.captions}, recall in %"
    )
    print(render_table(results))
    return results


def main(argv: list[str] | None = None) -> int:
    """Command line of `mclip evaluate` and `python -m mclip.evaluate`."""
    return run_verb("mclip evaluate", EvaluateSettings, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
