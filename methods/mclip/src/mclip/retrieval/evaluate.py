"""`mclip evaluate`: Recall@1/5/10 both ways and their mean, by language; and a table of several
models' results.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.data.index import read_index
from crosslingual.data.loader import ShardLoader
from crosslingual.evaluation.retrieval import append_result, recall_at_k, result_json
from mclip.pipeline import Embedder, load_embedder
from mclip.settings import EvaluateSettings, TableSettings

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


def evaluate(settings: EvaluateSettings) -> dict[str, dict[str, Any]]:
    """`mclip evaluate`: prints a table, appends one line of JSON per language to
    `output_dir/results.json`, and returns these results by language.
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


def table(settings: TableSettings) -> str:
    """`mclip table`: prints the mean recall of several models by language, and writes it.

    Raises:
        ValueError: `results` has no line for one of the models and languages.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in Path(settings.results).read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        found[result["pretrained"], result["language"]] = result
    models = dict(name.split("=", 1) for name in settings.models)
    groups = dict(name.split("=", 1) for name in settings.groups)
    spoken = ["en", *",".join(groups.values()).split(",")]
    wanted = {(model, language) for model in models.values() for language in spoken}
    if lacking := sorted(wanted - found.keys()):
        model, language = lacking[0]
        raise ValueError(f"{settings.results} has no result of {model} in {language}")
    first = found[next(iter(models.values())), "en"]
    lines = [
        "",
        f"Mean recall (R@1, 5, 10, both ways) among {first['n_images']} held-out pictures; English "
        f"CLIP on English captions {first['mean_recall']:.3f}",
        "",
        f"| language | trained with | {' | '.join(models)} | of English CLIP |",
        f"|---|---|{'---:|' * (len(models) + 1)}",
    ]
    for kind, languages in groups.items():
        for language in languages.split(","):
            recalls = [found[model, language]["mean_recall"] for model in models.values()]
            cells = " | ".join(f"{recall:.3f}" for recall in recalls)
            share = recalls[-1] / first["mean_recall"]
            lines.append(f"| {language} | {kind} | {cells} | {share:.0%} |")
    text = "\n".join([*lines, ""])
    print(text)
    Path(settings.output).write_text(text, encoding="utf-8")
    return text
