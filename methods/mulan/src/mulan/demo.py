"""`mulan demo`: the whole method on the embedded models, as a user would run it, verb by verb.

raw pairs -> shards -> frozen features -> adapter -> loss -> checkpoint -> export -> pictures,
judged.

English alone trains. What other languages gain is the encoder's doing, so an encoder that
was never aligned across languages is compared with one that was.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from crosslingual.cli.stages import Stages, make_demo_folder
from crosslingual.cli.verbs import run_verb
from mulan.config import DemoSettings

ALIGNED_ENCODER = "testbed:xlm-r-aligned"
# Captions alone: a step through the UNet costs what four of these do, and English is learnt
# sooner.
RECIPE = {
    "alignment": "language",
    "num_queries": 32,
    "train_batch_size": 16,
    "learning_rate": 3e-3,
    "adam_beta2": 0.98,
    "lr_warmup_steps": 50,
    "adam_weight_decay": 0.01,
}


def train_and_judge(
    stages: Stages, settings: DemoSettings, name: str, encoder: str, output_dir: Path
) -> dict[str, Any]:
    """Features, training and evaluation of one encoder; what accuracy.json says, with `train_s`."""
    folder = output_dir / name
    common = {"text_encoder": encoder, "seed": settings.seed}
    stages.say(f"{name}: features of {encoder}: the states of both text encoders, once")
    places = {"shards": output_dir / "shards", "features_dir": folder / "features"}
    stages.run("features", **common, **places, alignment=RECIPE["alignment"])
    stages.say(
        f"{name}: training, {settings.max_train_steps} steps, {stages.num_processes} processes"
    )
    train_s = stages.run(
        "train",
        **common,
        **RECIPE,
        train_data=folder / "features",
        output_dir=folder / "run",
        max_train_steps=settings.max_train_steps,
        checkpointing_steps=settings.max_train_steps,
    )
    languages = ["en", *settings.languages]
    stages.say(
        f"{name}: pictures of {settings.num_prompts} held-out prompts in {len(languages)} languages"
    )
    stages.run(
        "evaluate",
        adapter=folder / "run" / "adapter",
        output_dir=folder,
        num_prompts=settings.num_prompts,
        languages=languages,
        seed=settings.seed,
    )
    return {**json.loads((folder / "accuracy.json").read_text()), "train_s": train_s}


def demo(settings: DemoSettings) -> Path:
    """Runs every stage, prints the table and returns the folder of the last adapter."""
    output_dir = make_demo_folder(settings.output_dir)
    stages = Stages("mulan", settings.num_processes)
    stages.say(f"shards: {settings.num_samples} English captions")
    from crosslingual.data.shards import write_shards
    from crosslingual.data.sources import SOURCES

    records = SOURCES["world"](
        split="train",
        num_samples=settings.num_samples,
        languages=["en"],
        seed=settings.seed,
        pictures=RECIPE["alignment"] != "language",
    )
    write_shards(records, output_dir / "shards")
    encoders = {
        "not_aligned": settings.text_encoder,
        "aligned": settings.aligned_encoder or str(ALIGNED_ENCODER),
    }
    results = {
        name: train_and_judge(stages, settings, name, encoder, output_dir)
        for name, encoder in encoders.items()
    }
    stages.say("done")
    seconds = time.monotonic() - stages.started
    table = render_table(results, settings.languages, seconds)
    print(table)
    (output_dir / "table.md").write_text(table, encoding="utf-8")
    (output_dir / "demo.json").write_text(json.dumps({**results, "seconds": seconds}, indent=1))
    last = output_dir / list(results)[-1]
    print(f"pictures: {last / 'grid.png'}\nadapter:  {last / 'run' / 'adapter'}")
    return last / "run" / "adapter"


def render_table(results: dict[str, dict], languages: list[str], seconds: float) -> str:
    """The demo's table in Markdown: text accuracy by language, a column an encoder.

    Args:
        results: of `train_and_judge`, by `not_aligned` and perhaps `aligned`.
        languages: the zero-shot ones.
        seconds: of the whole.
    """
    heads = {"not_aligned": "MuLan, encoder not aligned", "aligned": "MuLan, encoder aligned"}
    first = next(iter(results.values()))
    english = first["english"]

    def cells(row: dict[str, float]) -> str:
        return " | ".join(
            f"{value:.2f} | {value / english if english else 0.0:.0%}" for value in row.values()
        )

    columns = " | ".join(f"{heads[name]} | of English" for name in results)
    lines = [
        "",
        "Text accuracy: share of pictures that show all the prompt says, read by the judge",
        "",
        f"| language | training | as-is | {columns} |",
        "|---|---|---:|" + "---:|---:|" * len(results),
        f"| en (upper bound) | | {english:.2f} |" + " | |" * len(results),
    ]
    by_language = {
        language: {name: result["languages"][language]["mulan"] for name, result in results.items()}
        for language in ["en", *languages]
    }
    for language, row in by_language.items():
        kind = "captions" if language in first["trained"] else "none (zero-shot)"
        as_is = first["languages"][language]["as_is"]
        lines.append(f"| {language} | {kind} | {as_is:.2f} | {cells(row)} |")
    if languages:
        means = {
            name: sum(by_language[language][name] for language in languages) / len(languages)
            for name in results
        }
        lines.append(f"| mean of zero-shot | | | {cells(means)} |")
    train_s = ", ".join(f"{result['train_s']:.0f} s" for result in results.values())
    lines += [
        "",
        f"{first['trainable']:,} trainable parameters; trained in {train_s}, all in "
        f"{seconds:.0f} s.",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line of `mulan demo`."""
    return run_verb("mulan demo", DemoSettings, demo, argv)


if __name__ == "__main__":
    sys.exit(main())
