"""`mclip demo`: both stages on the embedded models, as a user would run them, verb by verb.

parallel text -> tokens -> step a -> step b -> enhanced XLM-R; pictures and captions -> shards ->
features -> TriKD -> model -> Recall@K by language, and queries answered with pictures.
"""

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

from crosslingual.cli.stages import Stages, make_demo_folder
from crosslingual.cli.verbs import run_verb
from mclip.config import DemoSettings, EmbedSettings, EvaluateSettings, SearchSettings

DECODER = {"num_decoder_layers": 1, "decoder_ffn_width": 384}
STEP_A = {
    **DECODER,
    "step": "a",
    "train_batch_size": 64,
    "max_train_steps": 60,
    "learning_rate": 2e-3,
}
STEP_B = {
    "step": "b",
    "encoder_dropout": 0.0,
    "train_batch_size": 32,
    "max_train_steps": 250,
    "learning_rate": 1e-3,
}
SCHEDULE = {"lr_scheduler": "polynomial", "lr_warmup_steps": 20}
TRIKD = {
    **SCHEDULE,
    "num_heads": 4,
    "dropout": 0.1,
    "train_batch_size": 128,
    "max_train_steps": 90,
    "learning_rate": 1e-3,
    "adam_beta2": 0.98,
}


def write_data(settings: DemoSettings, folder: Path) -> None:
    """Writes three sets of shards: pictures to train on, parallel text, pictures to find."""
    from crosslingual.data.shards import write_shards
    from crosslingual.data.sources import SOURCES

    with_pictures = ["en", *settings.languages]
    with_text = [*with_pictures, *settings.text_languages]
    sets = {
        "pictures": {"num_samples": settings.num_samples, "languages": with_pictures},
        "text": {"num_samples": settings.num_texts, "languages": with_text, "pictures": False},
        "test": {
            "num_samples": settings.num_test,
            "languages": [*with_text, *settings.zero_shot_languages],
            "split": "test",
        },
    }
    for number, (name, options) in enumerate(sets.items()):
        records = SOURCES["world"](distinct=True, seed=settings.seed + number, **options)
        write_shards(records, folder / f"{name}-shards")


def enhance_encoder(stages: Stages, settings: DemoSettings, folder: Path) -> Path:
    """Stage 1: returns the enhanced encoder's folder."""
    common = {**SCHEDULE, "seed": settings.seed}
    stages.say(f"stage 1: {settings.num_texts} sentences in each language, no pictures")
    stages.say(f"step a: a decoder on the frozen XLM-R, {STEP_A['max_train_steps']} steps")
    place = {"train_data": folder / "text-shards", "output_dir": folder / "step-a"}
    stages.run("train_encoder", **STEP_A, **common, **place)
    stages.say(f"step b: XLM-R too, NMT + 2 CTL, {STEP_B['max_train_steps']} steps")
    place = {"train_data": folder / "step-a" / "tokens", "output_dir": folder / "step-b"}
    start = folder / "step-a" / "translation"
    stages.run("train_encoder", **STEP_B, **common, **place, translation_model=start)
    return folder / "step-b" / "translation" / "encoder"


def teach(stages: Stages, settings: DemoSettings, folder: Path, name: str, encoder: str) -> float:
    """Stage 2 after an encoder: writes `NAME/model`; returns the seconds of its training."""
    common = {"text_encoder": encoder, "languages": ["en", *settings.languages]}
    common |= {"seed": settings.seed}
    features = folder / f"{name}-features"
    shards = folder / "pictures-shards"
    stages.run("features", **common, shards=shards, features_dir=features)
    run = {"train_data": features, "output_dir": folder / name}
    return stages.run("train", **TRIKD, **common, **run)


def measure(
    settings: DemoSettings, folder: Path, arms: dict[str, Path | str]
) -> dict[str, dict[str, Any]]:
    """Recall of each arm's model on the held-out pictures, by arm and language."""
    from mclip.evaluate import evaluate

    languages = ["en", *settings.languages, *settings.text_languages]
    languages += settings.zero_shot_languages
    dataset, results = str(folder / "test-shards"), {}
    for arm, model in arms.items():
        with contextlib.redirect_stdout(io.StringIO()):  # its table is one arm's
            results[arm] = evaluate(
                EvaluateSettings(str(model), dataset, str(folder), languages, num_bootstrap=0)
            )
    return results


def render_table(results: dict[str, dict[str, Any]], settings: DemoSettings) -> str:
    """The demo's table in Markdown: mean recall by language and arm."""
    english = results["clip"]["en"]["mean_recall"]
    kinds = {
        "pictures": ["en", *settings.languages],
        "parallel text alone": settings.text_languages,
        "none": settings.zero_shot_languages,
    }
    lines = [
        "",
        f"Mean recall (R@1, 5, 10, both ways) among {settings.num_test} held-out pictures; English "
        f"CLIP on English captions {english:.3f}",
        "",
        "| language | trained with | as-is | mCLIP without stage 1 | mCLIP | of English CLIP |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for kind, languages in kinds.items():
        for language in languages:
            recalls = [results[arm][language]["mean_recall"] for arm in ("clip", "plain", "mclip")]
            cells = " | ".join(f"{recall:.3f}" for recall in recalls)
            lines.append(f"| {language} | {kind} | {cells} | {recalls[-1] / english:.0%} |")
    return "\n".join([*lines, ""])


def demo(settings: DemoSettings) -> Path:
    """Runs every stage, prints the table and returns the model's folder."""
    folder = make_demo_folder(settings.output_dir)
    stages = Stages("mclip", settings.num_processes)
    stages.say(f"shards: {settings.num_samples} pictures to train on, {settings.num_test} to find")
    write_data(settings, folder)
    encoder = enhance_encoder(stages, settings, folder)
    stages.say(f"stage 2 after stage 1: features, then {TRIKD['max_train_steps']} steps of TriKD")
    teach(stages, settings, folder, "mclip", str(encoder))
    stages.say("stage 2 without stage 1, for comparison")
    teach(stages, settings, folder, "plain", "testbed:xlm-r")
    stages.say("retrieval")
    model = folder / "mclip" / "model"
    arms = {"clip": "testbed:clip", "plain": folder / "plain" / "model", "mclip": model}
    results = measure(settings, folder, arms)
    answer_queries(settings, folder, model)
    stages.say("done")
    table = render_table(results, settings)
    print(table)
    (folder / "table.md").write_text(table, encoding="utf-8")
    seconds = time.monotonic() - stages.started
    (folder / "demo.json").write_text(json.dumps({"recall": results, "seconds": seconds}, indent=1))
    print(f"all in {seconds:.0f} s\nqueries: {folder / 'search.png'}\nmodel:   {model}")
    return model


def answer_queries(settings: DemoSettings, folder: Path, model: Path) -> None:
    """Writes the contact sheet: a held-out scene asked for in each language, its first five
    pictures.
    """
    from crosslingual_worlds.drawn.captions import caption
    from crosslingual_worlds.drawn.world import distinct_scenes
    from mclip.embed import embed
    from mclip.search import search

    languages = [*settings.languages, *settings.text_languages, *settings.zero_shot_languages]
    scenes = distinct_scenes("test", settings.num_test, settings.seed + 2)
    queries = [caption(scene, name) for scene, name in zip(scenes, languages, strict=False)]
    index, sheet = str(folder / "test-pictures"), str(folder / "search.png")
    with contextlib.redirect_stdout(io.StringIO()):
        embed(EmbedSettings(str(model), index, shards=str(folder / "test-shards")))
        search(SearchSettings(str(model), queries, index=index, output=sheet))


def main(argv: list[str] | None = None) -> int:
    """Command line of `mclip demo`."""
    return run_verb("mclip demo", DemoSettings, demo, argv)
