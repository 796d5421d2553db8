"""Measures the embedded models on held-out captions and draws the pictures of the README.

    python tools/worlds/pretrain/measure.py
    torchrun --standalone --nproc_per_node 2 tools/worlds/pretrain/measure.py

Prints a table in Markdown, writes the figures to tools/worlds/testbed_figures.json and the pictures
to tools/worlds/pictures/.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch.distributed as dist
from transformers import CLIPModel, CLIPTokenizerFast

from clip import recall_at_1
from crosslingual.frozen.base import Base
from crosslingual.frozen.weights import load_frozen, resolve
from crosslingual.training.processes import start_processes
from crosslingual_worlds.drawn.captions import caption
from crosslingual_worlds.drawn.contact_sheet import Cell, contact_sheet
from crosslingual_worlds.drawn.evaluation import EVALUATION
from crosslingual_worlds.drawn.judge import shows
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.motifs import MOTIFS
from crosslingual_worlds.drawn.world import Scene, motif_scenes, render, sample_scenes
from crosslingual_worlds.evaluation import JudgedPicture, text_accuracy
from export import size_of
from vae import round_trip

WORLDS = Path(__file__).resolve().parents[1]
BASES = ("testbed:sd", "testbed:sd3")
PROMPTS = {
    "English prompts": ">= 0.90",
    "one thing": "",
    "two things": "",
    "as-is foreign prompts": "<= 0.15",
    "motif prompts": "<= 0.10",
}
TARGETS = {
    "judge on true renderings": ">= 0.995",
    **{f"{base}, {name}": wanted for base in BASES for name, wanted in PROMPTS.items()},
    "VAE round trip, scenes read": "",
    "VAE round trip, motifs read": "",
    "testbed:clip, text->image R@1 of 1,000": ">= 0.60",
    "testbed:clip, image->text R@1 of 1,000": ">= 0.60",
    "size of sd, clip and xlm-r, MiB": "<= 25",
    "size of sd3, MB": "<= 11",
}


def judge_truth() -> dict[str, float]:
    """The judge on 2,000 true renderings of held-out scenes and on every motif."""
    rng = np.random.default_rng(100)
    scenes = sample_scenes("test", 2000, seed=101) + 5 * motif_scenes()
    right = [shows(render(scene, rng), scene) for scene in scenes]
    return {"judge on true renderings": float(np.mean(right))}


def vae_reads() -> dict[str, float]:
    """What the judge still reads after the VAE's encoder and decoder."""
    vae, rng = Base.open("testbed:sd").load_pipeline().vae, np.random.default_rng(102)
    sets = {"scenes": sample_scenes("test", 300, 103), "motifs": 3 * motif_scenes()}
    return {
        f"VAE round trip, {name} read": round_trip(vae, scenes, rng)[1]
        for name, scenes in sets.items()
    }


def retrieval() -> dict[str, float]:
    """R@1 both ways among 1,000 distinct held-out scenes."""
    clip = load_frozen(CLIPModel, "testbed:clip")
    tokenizer = CLIPTokenizerFast.from_pretrained(resolve("testbed:clip"), trust_remote_code=False)
    ways = ("text->image", "image->text")
    recalls = zip(ways, recall_at_1(clip, tokenizer, seed=104), strict=True)
    return {f"testbed:clip, {way} R@1 of 1,000": recall for way, recall in recalls}


def generation_jobs(num_english: int, num_foreign: int) -> list[tuple[str, str, list[Scene]]]:
    """(kind, language, scenes) for every batch of prompts."""
    english = sample_scenes("test", num_english, seed=106)
    jobs = [("english", "en", english[i : i + 50]) for i in range(0, num_english, 50)]
    foreign = sample_scenes("test", num_foreign, seed=107)
    jobs += [("foreign", language, foreign) for language in LANGUAGES if language != "en"]
    return [*jobs, ("motif", "en", motif_scenes()), ("motif", "en", motif_scenes())]


def accuracies(base: str, judged: dict[str, list[JudgedPicture]]) -> dict[str, float]:
    """Text accuracy of a base by kind of prompt."""
    english = judged["english"]
    parts = {
        "English prompts": english,
        "one thing": [item for item in english if item.scene.second is None],
        "two things": [item for item in english if item.scene.second is not None],
        "as-is foreign prompts": judged["foreign"],
        "motif prompts": judged["motif"],
    }
    return {f"{base}, {name}": text_accuracy(items) for name, items in parts.items()}


def draw_sheets(english: dict[str, list[JudgedPicture]], folder: Path) -> None:
    """The grids of the page: world samples, motifs, and pictures of unseen prompts by each base."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(108)

    def sheet(items: list[tuple[object, str, str, bool | None]], width: int, name: str) -> None:
        cells = [Cell(*item) for item in items]
        rows = [cells[i : i + width] for i in range(0, len(cells), width)]
        contact_sheet(rows, column_heads=[], row_heads=[]).save(folder / name)

    scenes = sample_scenes("test", len(LANGUAGES), seed=109, singles=0.25)
    world = [
        (render(scene, rng), caption(scene, language), language, None)
        for scene, language in zip(scenes, LANGUAGES, strict=True)
    ]
    sheet(world, 6, "world.png")
    motifs = [scene for scene in motif_scenes() if scene.first.size == "big"]
    sheet(
        [
            (render(s, rng), caption(s, MOTIFS[s.motif].language), MOTIFS[s.motif].language, None)
            for s in motifs
        ],
        6,
        "motifs.png",
    )
    for base, items in english.items():
        name = base.removeprefix("testbed:")
        drawn = [(j.picture, j.prompt, "en", j.is_right) for j in items[:24]]
        sheet(drawn, 6, f"{name}_samples.png")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_english", type=int, default=500)
    parser.add_argument("--num_foreign", type=int, default=40)
    options = parser.parse_args()
    ranks = start_processes()
    pipes = {base: Base.open(base).load_pipeline() for base in BASES}
    each = list(enumerate(generation_jobs(options.num_english, options.num_foreign)))
    jobs = [(base, number, *job) for base in BASES for number, job in each]
    mine = [
        (base, kind, EVALUATION.judge_prompts(pipes[base], scenes, language, seed=number))
        for base, number, kind, language, scenes in jobs[ranks.rank :: ranks.world_size]
    ]
    shares: list = [None] * ranks.world_size
    dist.all_gather_object(shares, mine)
    if ranks.rank != 0:
        return
    judged: dict[str, dict[str, list[JudgedPicture]]] = {base: {} for base in BASES}
    for base, kind, items in (part for share in shares for part in share):
        judged[base].setdefault(kind, []).extend(items)
    figures = {
        **judge_truth(),
        **{name: value for base in BASES for name, value in accuracies(base, judged[base]).items()},
        **vae_reads(),
        **retrieval(),
        "size of sd, clip and xlm-r, MiB": size_of(("sd", "clip", "xlm-r")) / 2**20,
        "size of sd3, MB": size_of(("sd3",)) / 1e6,
    }
    lines = ["| figure | measured | wanted |", "|---|---:|---:|"]
    lines += [f"| {name} | {figures[name]:.3f} | {wanted} |" for name, wanted in TARGETS.items()]
    print("\n".join(lines))
    (WORLDS / "testbed_figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw_sheets({base: kinds["english"] for base, kinds in judged.items()}, WORLDS / "pictures")


if __name__ == "__main__":
    main()
