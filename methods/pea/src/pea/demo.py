"""`pea demo`: the whole method on the embedded models, as a user would run it, verb by verb.

raw pairs -> shards -> frozen features -> adapter -> loss -> checkpoint -> export -> pictures,
judged.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from crosslingual.verbs import run_verb
from pea.config import DemoSettings

RECIPE = {
    "hidden_width": 512,
    "train_batch_size": 16,
    "learning_rate": 4e-3,
    "adam_beta2": 0.98,
    "lr_warmup_steps": 20,
    "adam_weight_decay": 0.01,
}


def _say(started: float, text: str) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)


def _run(module: str, arguments: dict[str, object], num_processes: int) -> None:
    """Runs a verb in processes of its own, as the command line would."""
    launcher = [sys.executable, "-m"]
    if num_processes > 1:
        launcher += [
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(num_processes),
            "-m",
        ]
    words = []
    for name, value in arguments.items():
        words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, module, *words], env=environment, check=False)
    if done.returncode != 0:
        raise ValueError(f"{module} ended with code {done.returncode}; its message stands above")


def demo(settings: DemoSettings) -> Path:
    """Runs every stage, prints the table and returns the adapter's folder."""
    started = time.monotonic()
    output_dir = Path(settings.output_dir)
    if output_dir.exists():
        if not (output_dir / "demo.json").exists() and any(output_dir.iterdir()):
            raise ValueError(
                f"{output_dir} is not empty and no demo's: choose another --output_dir"
            )
        shutil.rmtree(output_dir)
    output_dir.mkdir(parents=True)
    (output_dir / "demo.json").write_text("{}")
    num_processes = settings.num_processes or min(2, os.cpu_count() or 1)
    languages = [*settings.languages, *settings.zero_shot_languages]

    _say(
        started,
        f"shards: {settings.num_samples} pictures, captions in en, {', '.join(settings.languages)}",
    )
    from crosslingual.shards import write_shards
    from crosslingual.sources import SOURCES

    records = SOURCES["world"](
        split="train",
        num_samples=settings.num_samples,
        languages=["en", *settings.languages],
        seed=settings.seed,
    )
    write_shards(records, output_dir / "shards")

    _say(started, "features: VAE latents, English and multilingual text states, once")
    common = {"languages": settings.languages, "seed": settings.seed}
    places = {"shards": output_dir / "shards", "features_dir": output_dir / "features"}
    _run("pea.features", {**common, **places}, num_processes)

    _say(
        started,
        f"training: {settings.max_train_steps} steps, {num_processes} processes, one frozen UNet",
    )
    train = {
        **common,
        **RECIPE,
        "train_data": output_dir / "features",
        "output_dir": output_dir / "run",
        "max_train_steps": settings.max_train_steps,
        "checkpointing_steps": settings.max_train_steps,
    }
    train_started = time.monotonic()
    _run("pea.train", train, num_processes)
    train_s = time.monotonic() - train_started

    _say(
        started,
        f"pictures: {settings.num_prompts} held-out prompts in {len(languages) + 1} languages",
    )
    adapter = output_dir / "run" / "adapter"
    evaluation = {"adapter": adapter, "output_dir": output_dir, "num_prompts": settings.num_prompts}
    evaluation |= {"languages": languages, "seed": settings.seed}
    _run("pea.evaluate", evaluation, num_processes)
    _say(started, "done")
    result = json.loads((output_dir / "accuracy.json").read_text())
    seconds = time.monotonic() - started
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
