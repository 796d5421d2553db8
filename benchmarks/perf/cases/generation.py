"""Generation for evaluation against the bare pipeline in a loop, of one language's prompts.

- bare: a stock pipeline of diffusers on the same prompts, in the same batches; nothing is kept.
- drawn: `draw_pictures`, which writes each picture with its metadata.
- judged: all that `crosslingual-bench generation` does for a language: it draws, judges, measures
  FID and KID with their intervals, and draws a sheet.

A step is as many pictures as the batch size says. Networks and true pictures are loaded before.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cases import Arm, Case, Ratio, Setup, Step
from crosslingual.frozen.base import Base
from crosslingual_benchmarks.generation.parts import parts_of
from crosslingual_benchmarks.generation.pictures import Sampling, draw_pictures
from crosslingual_benchmarks.generation.pipeline import prepare_pipeline
from crosslingual_benchmarks.generation.settings import (
    GenerationSettings,
    load_prompt_set,
    with_defaults,
)
from crosslingual_benchmarks.generation.verb import evaluate_generation, yardstick_of


def prepare(setup: Setup) -> Mapping[str, Arm]:
    """Nothing is written before."""
    return {"bare": bare, "drawn": drawn, "judged": judged}


def _open(setup: Setup) -> tuple[GenerationSettings, Any, Any]:
    settings = with_defaults(
        GenerationSettings(
            method="base",
            base=setup.base,
            dataset=setup.base.partition(":")[0],
            languages=["en"],
            num_prompts=setup.batch_size,
            num_motif_prompts=0,
        )
    )
    pipe = prepare_pipeline(Base.open(setup.base).load_pipeline(), settings)
    return settings, load_prompt_set(settings), pipe


def bare(setup: Setup) -> Step:
    """The pipeline's own call."""
    settings, prompts, pipe = _open(setup)
    texts = [prompt.english for prompt in prompts.prompts]
    names = ("num_inference_steps", "guidance_scale")
    options = {name: getattr(settings, name) for name in names}
    options |= dict.fromkeys(("height", "width"), settings.resolution)
    size = settings.batch_size
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]

    def step() -> None:
        for batch in batches:
            noise = [torch.Generator().manual_seed(row) for row in range(len(batch))]
            pipe(batch, generator=noise, output_type="np", **options)

    return step


def drawn(setup: Setup) -> Step:
    """Pictures on disk."""
    settings, prompts, pipe = _open(setup)
    part, _ = parts_of(prompts, "en", "native")
    names = ("num_inference_steps", "guidance_scale", "resolution", "seed")
    sampling = Sampling(*(getattr(settings, name) for name in names))

    def draw(folder: Path) -> None:
        draw_pictures(folder / "out", part.requests, lambda: pipe, sampling, made_with={})

    return _in_a_new_folder(draw)


def judged(setup: Setup) -> Step:
    """A result line, its table kept from the screen."""
    settings, prompts, pipe = _open(setup)
    yardstick = yardstick_of(settings, prompts)

    def evaluate(folder: Path) -> None:
        told = replace(settings, output_dir=str(folder))
        with contextlib.redirect_stdout(io.StringIO()):
            evaluate_generation(lambda: pipe, told, prompts, yardstick)

    return _in_a_new_folder(evaluate)


def _in_a_new_folder(make: Callable[[Path], None]) -> Step:
    def step() -> None:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))

    return step


CASE = Case(
    prepare,
    [
        Ratio("pictures/s, drawn / bare", "bare", "drawn", ">= 0.9"),
        Ratio("pictures/s, drawn and judged / bare", "bare", "judged"),
    ],
    batch_size=48,
    num_steps=4,
)
