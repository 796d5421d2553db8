"""`crosslingual-bench latency`: milliseconds a query, one at a time, on this machine.

crosslingual-bench latency --method mclip --embedder runs/mclip/model --language de
crosslingual-bench latency --method translate_test \
    --embedder mclip:runs/step-b/translation@testbed:clip
crosslingual-bench latency --method pea --pipeline runs/pea/adapter --language zh

A query is all that a user waits for: reading it, embedding it, and ranking it among a gallery that
was embedded before. Image to text and text to image are separate, as in table 6 of the survey that
this repository implements: only text has to be translated. A pipeline's query is a picture from a
prompt; a picture at a single step is measured as well, since methods differ in the prompt's
encoding.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosslingual.data.languages import LanguageCode
from crosslingual.worlds import find_world
from crosslingual_benchmarks.results import Result, command_of, make_result

RESULTS = "latency.json"
PROG = "crosslingual-bench latency"


@dataclass
class LatencySettings:
    """Settings of `crosslingual-bench latency`.

    Attributes:
        method: an installed method's name, clip, or base (the English pipeline as it is).
        embedder: path for the method's `load_embedder`; none leaves retrieval out.
        pipeline: path for the method's `load_pipeline`; none leaves generation out.
        base: base of the pipeline: hub id, folder or testbed:sd.
        world: an installed world, whose captions and pictures are the queries.
        arm: name of the arm in the results; the method's if not given.
        dataset: name of the data set in the results.
        language: language of the queries.
        output_dir: folder that gets latency.json.
        gallery: pictures and texts that a query is ranked among.
        num_queries: queries that are measured, after the first `num_warmup`.
        num_warmup: first queries, in which libraries load their last parts.
        num_pictures: pictures that a pipeline draws, fewer than queries since each takes long.
        num_inference_steps: steps of the sampler for each picture.
        guidance_scale: scale of classifier-free guidance.
        seed: seed of the scenes.
    """

    method: str
    embedder: str | None = None
    pipeline: str | None = None
    base: str = "testbed:sd"
    world: str = "testbed"
    arm: str | None = None
    dataset: str = "testbed"
    language: LanguageCode = "de"
    output_dir: str = "results"
    gallery: int = 500
    num_queries: int = 100
    num_warmup: int = 10
    num_pictures: int = 10
    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    seed: int = 0


def quartiles_of(milliseconds: list[float]) -> list[float]:
    """The first and the third quartile."""
    if len(milliseconds) < 2:
        return [milliseconds[0], milliseconds[0]]
    first, _, third = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return [first, third]


def time_queries(ask: Callable[[int], Any], num_queries: int, num_warmup: int) -> list[float]:
    """Milliseconds of `ask(i)` for one query after another; the first `num_warmup` do not count.

    Raises:
        ValueError: no query is asked for.
    """
    if num_queries < 1:
        raise ValueError("num_queries is below 1: nothing would be measured")
    milliseconds = []
    for number in range(num_warmup + num_queries):
        started = time.perf_counter()
        ask(number)
        if number >= num_warmup:
            milliseconds.append((time.perf_counter() - started) * 1e3)
    return milliseconds


def time_retrieval(embedder: Any, settings: LatencySettings) -> dict[str, list[float]]:
    """Milliseconds to find texts by a picture and pictures by a text."""
    import numpy as np
    import torch

    world = find_world(settings.world).evaluation
    scenes = world.scenes("test", settings.gallery, settings.seed + 1)
    texts = [world.caption(scene, settings.language) for scene in scenes]
    rng = np.random.default_rng(settings.seed)
    pictures = [world.draw(scene, rng) for scene in scenes]
    parts = range(0, len(scenes), 50)
    text_rows = torch.cat([embedder.embed_text(texts[i : i + 50]) for i in parts])
    picture_rows = torch.cat([embedder.embed_image(pictures[i : i + 50]) for i in parts])

    def find_texts(number: int) -> Any:
        asked = embedder.embed_image([pictures[number % len(pictures)]])
        return (asked @ text_rows.T).topk(min(10, len(texts)))

    def find_pictures(number: int) -> Any:
        asked = embedder.embed_text([texts[number % len(texts)]])
        return (asked @ picture_rows.T).topk(min(10, len(pictures)))

    counts = settings.num_queries, settings.num_warmup
    with torch.no_grad():
        return {
            "image_to_text_ms": time_queries(find_texts, *counts),
            "text_to_image_ms": time_queries(find_pictures, *counts),
        }


def time_generation(pipe: Any, settings: LatencySettings) -> dict[str, list[float]]:
    """Milliseconds to draw a picture from a prompt, and to draw one at a single step; the
    difference is sampling alone.
    """
    import torch

    from crosslingual.frozen.families import call_options

    world = find_world(settings.world).evaluation
    count = settings.num_queries + settings.num_warmup
    scenes = world.scenes("test", count, settings.seed + 1)
    prompts = [world.caption(scene, settings.language) for scene in scenes]
    options = call_options(pipe)

    def draw(number: int, num_steps: int) -> Any:
        return pipe(
            prompts[number % len(prompts)],
            num_inference_steps=num_steps,
            guidance_scale=settings.guidance_scale,
            generator=torch.Generator().manual_seed(number),
            output_type="latent",
            **options,
        )

    steps = settings.num_inference_steps
    with torch.no_grad():
        return {
            "prompt_to_picture_ms": time_queries(
                lambda number: draw(number, steps), settings.num_pictures, 2
            ),
            "prompt_to_one_step_ms": time_queries(
                lambda number: draw(number, 1), settings.num_queries, settings.num_warmup
            ),
        }


def latency(settings: LatencySettings) -> Result:
    """Prints medians and quartiles and appends a line to `output_dir/latency.json`.

    Raises:
        ValueError: neither an embedder nor a pipeline is given.
    """
    import torch

    from crosslingual.evaluation.retrieval import append_result
    from crosslingual_benchmarks.generation.pipeline import BASE, pipeline_of
    from crosslingual_benchmarks.retrieval.embedders import load_embedder

    timings: dict[str, list[float]] = {}
    if settings.embedder:
        embedder = load_embedder(settings.method, settings.embedder)
        timings |= time_retrieval(embedder, settings)
    if settings.pipeline:
        path = None if settings.method == BASE else settings.pipeline
        pipe = pipeline_of(settings.method, path, settings.base)()
        pipe.set_progress_bar_config(disable=True)
        timings |= time_generation(pipe, settings)
    if not timings:
        raise ValueError("nothing to measure: give --embedder, --pipeline or both")
    name = settings.arm or settings.method
    for key, timing in timings.items():
        low, high = quartiles_of(timing)
        print(
            f"{name:20} {key:24} {statistics.median(timing):9.2f} ms  "
            f"(quartiles {low:.2f} to {high:.2f}, {len(timing)} queries)"
        )
    result = make_result(
        "latency",
        dataset=settings.dataset,
        model=name,
        pretrained=settings.embedder or settings.pipeline,
        language=settings.language,
        metrics={key: statistics.median(timing) for key, timing in timings.items()},
        quartiles={key: quartiles_of(timing) for key, timing in timings.items()},
        protocol={
            "gallery": settings.gallery,
            "batch": 1,
            "threads": torch.get_num_threads(),
            "steps": settings.num_inference_steps,
        },
        n_queries=settings.num_queries,
        seed=settings.seed,
        command=command_of(PROG, settings),
    )
    append_result(Path(settings.output_dir) / RESULTS, result)
    return result
