"""`mclip evaluate`: Recall@1/5/10 both ways and their mean, by language; and a table of several
models' results.
"""

from pathlib import Path
from typing import Any

from crosslingual.data.text import iter_json_lines
from crosslingual.evaluation.embedder import evaluate_retrieval
from crosslingual.files import refuse_input, write_text
from mclip.pipeline import load_embedder
from mclip.settings import EvaluateSettings, TableSettings


def evaluate(settings: EvaluateSettings) -> dict[str, dict[str, Any]]:
    """`mclip evaluate`: prints a table, appends one line of JSON per language to
    `output_dir/results.json`, and returns these results by language.
    """
    embedder = load_embedder(settings.model, settings.resolution, settings.batch_size)
    return evaluate_retrieval(settings, embedder, "mclip" if embedder.projectors else "clip")


def table(settings: TableSettings) -> str:
    """`mclip table`: prints the mean recall of several models by language, and writes it.

    Raises:
        FileNotFoundError: there is no file of results.
        ValueError: `results` has no line for one of the models and languages, or a broken line.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    if not Path(settings.results).is_file():
        raise FileNotFoundError(f"no file {settings.results}; give --results what evaluate wrote")
    for number, result in iter_json_lines(Path(settings.results)):
        if not {"pretrained", "language", "n_images", "mean_recall"} <= result.keys():
            raise ValueError(f"{settings.results} line {number} is no result of `mclip evaluate`")
        found[str(result["pretrained"]), str(result["language"])] = result
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
    refuse_input(Path(settings.output), Path(settings.results))
    write_text(Path(settings.output), text)
    return text
