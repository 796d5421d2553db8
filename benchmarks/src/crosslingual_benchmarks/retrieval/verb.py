"""`crosslingual-bench retrieval`: Recall@1/5/10 both ways by language, on a user's own copy of a
published benchmark.

crosslingual-bench retrieval --method clip --path testbed:clip --dataset shards --root test
crosslingual-bench retrieval --method mclip --path runs/mclip/model --dataset xtd10 \
    --root Cross-lingual-Test-Dataset-XTD10 --image_dir coco --languages de ja zh

Each language appends a line to `output_dir/retrieval.json`, whose protocol says what must be equal
before two lines may be compared: captions, ties, split, subset, and the pictures of the gallery.
"""

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from crosslingual.cli.settings import nearest_name
from crosslingual.data.languages import LanguageCode
from crosslingual.worlds import find_worlds
from crosslingual_benchmarks.datasets import DATASETS, RetrievalSet
from crosslingual_benchmarks.datasets.world import world_set
from crosslingual_benchmarks.report.tables import render_plain
from crosslingual_benchmarks.results import Result, command_of, facts_of
from crosslingual_benchmarks.retrieval.trials import find_missing, make_trial

RESULTS = "retrieval.json"
ALL = "all"
PROG = "crosslingual-bench retrieval"
OF_READERS = ("split", "languages", "image_dir", "task", "caption_language")


@dataclass
class RetrievalSettings:
    """Settings of `crosslingual-bench retrieval`.

    Attributes:
        method: an installed method's name, clip (a CLIP as it is) or random (chance).
        dataset: multi30k, coco, xflickrco, xtd10, xm3600, clip_benchmark_wds or shards; or a world
            that has galleries, such as emoji.
        root: folder of the dataset, in its published layout; a world needs none.
        path: folder that the method exported; a CLIP's hub id, folder or testbed:clip.
        arm: name of the arm in the results; the method's if not given.
        languages: languages to test; all that the dataset has if none are given.
        output_dir: folder that gets retrieval.json.
        image_dir: folders of pictures (multi30k, coco, xflickrco, xtd10, xm3600); root/images if
            not given.
        split: split of the dataset (multi30k, coco, xflickrco, clip_benchmark_wds), the published
            test if not given; or gallery of a world, its first if not given.
        task: Multi30K's task: 1 (one caption, translated) or 2 (five, independent).
        caption_language: language of captions that name none (clip_benchmark_wds, shards).
        captions: captions of a picture that count: the first one, or all.
        allow_missing: leave out pictures that are missing, broken or have no caption in a language;
            their number is recorded. Recall among fewer pictures is higher.
        batch_size: pictures or texts at a time.
        num_bootstrap: resamplings of the pictures for the 95 % interval; 0 for none.
        seed: seed of the resamplings, and of random.
    """

    method: str
    dataset: str
    root: str | None = None
    path: str | None = None
    arm: str | None = None
    languages: list[LanguageCode] = field(default_factory=list)
    output_dir: str = "results"
    image_dir: list[str] = field(default_factory=list)
    split: str | None = None
    task: Literal[1, 2] | None = None
    caption_language: LanguageCode | None = None
    captions: Literal["first", "all"] = "first"
    allow_missing: bool = False
    batch_size: int = 64
    num_bootstrap: int = 1000
    seed: int = 0


def read_dataset(settings: RetrievalSettings) -> RetrievalSet:
    """Reads the dataset's captions and finds its pictures, without opening any.

    Raises:
        FileNotFoundError: the layout is not there.
        ValueError: no such dataset, a setting that it does not take, a language that it lacks.
    """
    known = (*DATASETS, *find_worlds())
    if settings.dataset not in known:
        near = nearest_name(settings.dataset, list(known)) or ";"
        raise ValueError(f"no dataset {settings.dataset!r}{near} there are {', '.join(known)}")
    is_world = settings.dataset not in DATASETS
    if is_world == (settings.root is not None):
        takes = "takes no" if is_world else "needs"
        raise ValueError(f"dataset {settings.dataset} {takes} --root")
    reader = world_set if is_world else DATASETS[settings.dataset]
    given = {name: getattr(settings, name) for name in OF_READERS}
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if odd := sorted(set(given) - set(inspect.signature(reader).parameters)):
        raise ValueError(f"dataset {settings.dataset} takes no --{odd[0]}")
    return reader(settings.root or settings.dataset, **given)


def retrieval(settings: RetrievalSettings) -> list[Result]:
    """Prints a table, appends a line of JSON a language and subset to `output_dir/retrieval.json`,
    and returns these results.
    """
    started = time.perf_counter()
    data = read_dataset(settings)
    missing = find_missing(data, settings.allow_missing)
    trial_of = partial(
        make_trial, data, captions=settings.captions, allow_missing=settings.allow_missing
    )
    for language in data.galleries:  # faults of captions are errors before anything is loaded
        trial_of(language, missing=missing)
    from crosslingual.evaluation.retrieval import append_result
    from crosslingual_benchmarks.retrieval.embedders import load_embedder
    from crosslingual_benchmarks.retrieval.scoring import embed_pictures, score_trial

    embedder = load_embedder(settings.method, settings.path, settings.seed)
    there = [place for place in range(len(data.pictures)) if place not in missing]
    pictures = [data.pictures[place] for place in there]
    rows_ID, kept = embed_pictures(
        embedder, pictures, settings.batch_size, allow_broken=settings.allow_missing
    )
    row_of = {there[place]: row for row, place in enumerate(kept)}
    missing = set(range(len(data.pictures))) - set(row_of)
    subsets = {ALL: None} | {name: part for name, part in data.subsets.items() if part - missing}
    results = []
    for subset, places in subsets.items():
        for language in data.galleries:
            trial = trial_of(language, missing=missing, subset=places)
            result = score_trial(
                embedder,
                rows_ID[[row_of[place] for place in trial.places]],
                trial,
                data,
                language=language,
                subset=subset,
                batch_size=settings.batch_size,
                model=settings.arm or settings.method,
                pretrained=settings.path or "",
                captions=settings.captions,
                seed=settings.seed,
                wall_s=time.perf_counter() - started,
                num_bootstrap=settings.num_bootstrap,
                command=command_of(PROG, settings),
                **facts_of(data.name, language),
            )
            append_result(Path(settings.output_dir) / RESULTS, result)
            results.append(result)
    print_tables(results)
    return results


def print_tables(results: Sequence[Result]) -> None:
    """A table for each protocol, with recall in %; below it the counts of pictures and texts that
    are left out or ambiguous, and the warnings.
    """
    tables: dict[str, list[Result]] = {}
    for result in results:
        words = ", ".join(f"{name} {value}" for name, value in result["protocol"].items())
        tables.setdefault(words, []).append(result)
    shares = [f"{way} R@{k}" for way in ("T->I", "I->T") for k in (1, 5, 10)]
    heads = ["language", "pictures", "texts", *shares, "mean", "95 %"]
    for words, lines in tables.items():
        rows = []
        for line in lines:
            values = [*line["metrics"].values(), line["mean_recall"]]
            bounds = line.get("interval95", {}).get("mean_recall", [])
            interval = "-".join(f"{100 * bound:.1f}" for bound in bounds)
            row = [line["language"], line["n_images"], line["n_texts"]]
            rows.append([*row, *(f"{100 * value:.1f}" for value in values), interval])
        print(f"{lines[0]['model']} on {lines[0]['dataset']} ({words}), recall in %")
        print(render_plain(heads, rows))
        for line in lines:
            counts = {
                "pictures are missing or broken and left out": line["n_missing_images"],
                "pictures have no caption and are left out": line["n_untold_images"],
                "texts belong to several pictures, and tie": line["n_duplicate_texts"],
            }
            notes = [f"{count} {what}" for what, count in counts.items() if count]
            notes += [f"warning: {warning}" for warning in line["warnings"]]
            print("".join(f"{line['language']}: {note}\n" for note in notes), end="")
