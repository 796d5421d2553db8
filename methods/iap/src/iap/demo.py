"""`iap demo`: the whole method on the embedded models, as a user would run it, verb by verb.

raw pairs -> shards -> frozen features -> encoder -> loss -> checkpoint -> export -> pictures,
judged.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from crosslingual.cli.stages import Stages, make_demo_folder
from crosslingual.cli.verbs import run_verb
from iap.config import DemoSettings

BASE_PICTURES = 48_000  # what testbed:sd was trained on
RECIPE: dict[str, Any] = {
    "train_batch_size": 16,
    "learning_rate": 1e-3,
    "lr_warmup_steps": 50,
}


def demo(settings: DemoSettings) -> Path:
    """Runs every stage, prints the table and returns the encoder's folder."""
    from crosslingual.data.shards import write_shards
    from crosslingual.data.sources import SOURCES

    output_dir = make_demo_folder(settings.output_dir)
    stages = Stages("iap", settings.num_processes)
    languages = settings.target_language
    stages.say(
        f"shards: {settings.num_samples} pictures ({settings.num_samples / BASE_PICTURES:.0%} of "
        f"what the base was trained on), captions in en, {', '.join(languages)}"
    )
    records = SOURCES["world"](
        split="train",
        num_samples=settings.num_samples,
        languages=["en", *languages],
        seed=settings.seed,
    )
    write_shards(records, output_dir / "shards")
    stages.say(
        "features: VAE latents, English states, queries of the English pass, token ids, once"
    )
    common = {"target_language": languages, "seed": settings.seed, "english_draws": 1}
    places = {"shards": output_dir / "shards", "features_dir": output_dir / "features"}
    stages.run("features", **common, **places)
    stages.say(
        f"training: {settings.max_train_steps} steps, {stages.num_processes} processes; of the "
        "UNet, the cross-attentions"
    )
    train_s = stages.run(
        "train",
        **common,
        **RECIPE,
        train_data=output_dir / "features",
        output_dir=output_dir / "run",
        max_train_steps=settings.max_train_steps,
        checkpointing_steps=settings.max_train_steps,
    )
    stages.say(f"pictures: {settings.num_prompts} held-out prompts a language")
    encoder = output_dir / "run" / "encoder"
    stages.run(
        "evaluate",
        adapter=encoder,
        output_dir=output_dir,
        num_prompts=settings.num_prompts,
        seed=settings.seed,
    )
    stages.say("done")
    result = json.loads((output_dir / "accuracy.json").read_text())
    table = render_table(result, settings, train_s, time.monotonic() - stages.started)
    (output_dir / "table.md").write_text(table)
    print(table)
    print(f"pictures: {output_dir / 'grid.png'}\nencoder:  {encoder}")
    return encoder


def render_table(
    result: dict[str, Any], settings: DemoSettings, train_s: float, seconds: float
) -> str:
    """The demo's table in Markdown: text accuracy by language."""
    english = result["english"]
    lines = [
        "",
        "Text accuracy: share of pictures that show all the prompt says, read by the judge",
        "",
        "| language | as-is | IAP | of English |",
        "|---|---:|---:|---:|",
        f"| en (upper bound) | {english:.2f} | | |",
    ]
    for language, row in result["languages"].items():
        share = row["iap"] / english if english else 0.0
        lines.append(f"| {language} | {row['as_is']:.2f} | {row['iap']:.2f} | {share:.0%} |")
    lines += [
        "",
        f"{settings.num_samples:,} pictures, "
        f"{settings.num_samples / BASE_PICTURES:.1%} of the base's; an encoder of "
        f"{result['parameters']:,} parameters; trained in {train_s:.0f} s, all in {seconds:.0f} s.",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line of `iap demo`."""
    return run_verb("iap demo", DemoSettings, demo, argv)


if __name__ == "__main__":
    sys.exit(main())
