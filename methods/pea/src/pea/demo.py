"""`pea demo`: the whole method on the embedded models, as a user would run it, verb by verb.

raw pairs -> shards -> frozen features -> adapter -> loss -> checkpoint -> export -> pictures,
judged.
"""

import json
import time
from pathlib import Path

from crosslingual.cli.stages import Stages, make_demo_folder
from crosslingual.cli.verbs import run_verb
from pea.config import DemoSettings

RECIPE = {
    "hidden_width": 512,
    "train_batch_size": 16,
    "learning_rate": 4e-3,
    "adam_beta2": 0.98,
    "lr_warmup_steps": 20,
    "adam_weight_decay": 0.01,
}


def demo(settings: DemoSettings) -> Path:
    """Runs every stage, prints the table and returns the adapter's folder."""
    output_dir = make_demo_folder(settings.output_dir)
    stages = Stages("pea", settings.num_processes)
    languages = [*settings.languages, *settings.zero_shot_languages]

    stages.say(
        f"shards: {settings.num_samples} pictures, captions in en, {', '.join(settings.languages)}",
    )
    from crosslingual.data.shards import write_shards
    from crosslingual.data.sources import SOURCES

    records = SOURCES["world"](
        split="train",
        num_samples=settings.num_samples,
        languages=["en", *settings.languages],
        seed=settings.seed,
    )
    write_shards(records, output_dir / "shards")

    stages.say("features: VAE latents, English and multilingual text states, once")
    common = {"languages": settings.languages, "seed": settings.seed}
    places = {"shards": output_dir / "shards", "features_dir": output_dir / "features"}
    stages.run("features", **common, **places)

    stages.say(
        f"training: {settings.max_train_steps} steps, {stages.num_processes} processes, "
        "one frozen UNet"
    )
    train = {
        **common,
        **RECIPE,
        "train_data": output_dir / "features",
        "output_dir": output_dir / "run",
        "max_train_steps": settings.max_train_steps,
        "checkpointing_steps": settings.max_train_steps,
    }
    train_s = stages.run("train", **train)

    stages.say(
        f"pictures: {settings.num_prompts} held-out prompts in {len(languages) + 1} languages",
    )
    adapter = output_dir / "run" / "adapter"
    evaluation = {"adapter": adapter, "output_dir": output_dir, "num_prompts": settings.num_prompts}
    evaluation |= {"languages": languages, "seed": settings.seed}
    stages.run("evaluate", **evaluation)
    stages.say("done")
    result = json.loads((output_dir / "accuracy.json").read_text())
    seconds = time.monotonic() - stages.started
    table = render_table(result, settings, train_s, seconds)
    print(table)
    (output_dir / "table.md").write_text(table, encoding="utf-8")
    (output_dir / "demo.json").write_text(
        json.dumps({**result, "train_s": train_s, "seconds": seconds}, indent=1)
    )
    print(f"pictures: {output_dir / 'grid.png'}\nadapter:  {adapter}")
    return adapter


def render_table(result: dict, settings: DemoSettings, train_s: float, seconds: float) -> str:
    """The demo's table in Markdown: text accuracy by language."""
    english = result["english"]
    lines = [
        "",
        "Text accuracy: share of pictures that show all the prompt says, read by the judge",
        "",
    ]
    lines += ["| language | training | as-is | PEA | of English |", "|---|---|---:|---:|---:|"]
    lines.append(f"| en (upper bound) | | {english:.2f} | | |")
    for language, row in result["languages"].items():
        kind = "parallel captions" if language in settings.languages else "none (zero-shot)"
        share = row["pea"] / english if english else 0.0
        lines.append(
            f"| {language} | {kind} | {row['as_is']:.2f} | {row['pea']:.2f} | {share:.0%} |"
        )
    for name, chosen in (
        ("trained", settings.languages),
        ("zero-shot", settings.zero_shot_languages),
    ):
        if chosen:
            mean = sum(result["languages"][language]["pea"] for language in chosen) / len(chosen)
            share = mean / english if english else 0.0
            lines.append(f"| mean of {name} | | | {mean:.2f} | {share:.0%} |")
    lines += [
        "",
        f"{result['trainable']:,} trainable parameters; trained in {train_s:.0f} s, "
        f"all in {seconds:.0f} s.",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line of `pea demo`."""
    return run_verb("pea demo", DemoSettings, demo, argv)
