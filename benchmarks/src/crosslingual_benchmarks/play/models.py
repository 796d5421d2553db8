"""The models behind the page: each is loaded once, and one of them works at a time.

A model that cannot be loaded is a sentence in its place, and on the terminal; the others work.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from crosslingual.frozen.base import Base
from crosslingual.frozen.families import call_options
from crosslingual.frozen.tokens import Cut, on_cut, report_cut
from crosslingual_benchmarks.baselines.translate_test import load_translator
from crosslingual_benchmarks.methods import find_method
from crosslingual_benchmarks.play.cards import Card
from crosslingual_benchmarks.play.exports import AS_IS, TRANSLATED, Export, Plan, locate
from crosslingual_benchmarks.play.prompts import scenes_by_caption
from crosslingual_benchmarks.play.settings import PlaySettings
from crosslingual_benchmarks.retrieval.embedders import CLIP, load_embedder

NUM_FOUND = 8
BATCH = 50
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Studio:
    """Draws with every export of a plan, and searches a world's pictures."""

    def __init__(self, plan: Plan, settings: PlaySettings):
        """Opens the base's configs; weights are loaded when they are first needed.

        Raises:
            FileNotFoundError, ValueError: there is no such base.
        """
        Base.open(plan.base)
        self.plan, self.settings = plan, settings
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str, str], Any] = {}
        self._exports = {each.name: each for each in plan.draws}
        self._searches = {each.name: each for each in plan.searches}

    @property
    def names(self) -> list[str]:
        """Whose pictures a prompt gets, in order."""
        return [AS_IS, *([TRANSLATED] if self.plan.translator else []), *self._exports]

    @property
    def search_names(self) -> list[str]:
        """Who searches, in order; a world's CLIP as it is comes first."""
        world = self.plan.world
        if world is None:
            return []
        return [*([AS_IS] if CLIP in world.models else []), *self._searches]

    def warm_up(self) -> None:
        """Loads everything, in the order in which a page needs it, and draws a first picture."""
        self.is_unjudged("")
        for _ in self.draw("a", 0):
            pass
        for name in self.search_names:
            with self._lock:
                self._attempt("search", name, self._load_search)

    def draw(self, prompt: str, seed: int) -> Iterator[Card]:
        """A card of each name for a prompt, from the same noise."""
        for name in self.names:
            with self._lock:  # not while whoever asked takes the card
                card = self._draw(name, prompt, seed)
            yield card

    def search(self, query: str) -> Iterator[tuple[str, list[Card]]]:
        """The nearest test pictures of each name that searches."""
        for name in self.search_names:
            with self._lock:
                cards = self._search(name, query)
            yield name, cards

    @torch.no_grad()
    def _draw(self, name: str, prompt: str, seed: int) -> Card:
        whose = AS_IS if name == TRANSLATED else name
        pipe = self._attempt("draw", whose, self._load_pipeline)
        translate = None
        if name == TRANSLATED:
            translate = self._attempt("draw", name, lambda _: load_translator(self.plan.translator))
        for found in (pipe, translate):
            if isinstance(found, str):
                return Card(name, fault=found)
        cuts: list[Cut] = []
        started = time.perf_counter()
        with on_cut(cuts.append):
            text = translate([prompt])[0] if translate else prompt
            with report_cut(pipe):
                pixels = self._sample(pipe, text, seed)
        latency_ms = (time.perf_counter() - started) * 1e3
        notes = [f"Read as: {text}"] if translate else []
        if cuts:
            notes.append(f"Cut: the model reads {cuts[0].max_length} tokens of it.")
        if not np.isfinite(pixels).all():
            return Card(name, fault="The picture is not finite: draw it with another seed.")
        picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
        return Card(name, picture, self._verdict(picture, prompt), latency_ms, notes)

    def _sample(self, pipe: Any, text: str, seed: int) -> np.ndarray:
        """(H, W, 3) in [0, 1]. The noise depends on the seed alone."""
        options = dict(call_options(pipe)) if isinstance(pipe, DiffusionPipeline) else {}
        world = self.plan.world.evaluation if self.plan.is_judged and self.plan.world else None
        edge = self.settings.resolution or (world and world.resolution)
        chosen = {
            "height": edge,
            "width": edge,
            "guidance_scale": self.settings.guidance_scale or (world and world.guidance_scale),
            "num_inference_steps": self.settings.num_inference_steps
            or (world.num_inference_steps if world else 20),
        }
        options |= {key: value for key, value in chosen.items() if value is not None}
        generator = torch.Generator().manual_seed(seed)
        return pipe(text, generator=generator, output_type="np", **options).images[0]

    def _verdict(self, picture: Image.Image, prompt: str) -> bool | None:
        scenes = self._scenes_of(prompt)
        if not scenes or self.plan.world is None:
            return None
        shows = self.plan.world.evaluation.shows
        return any(shows(picture, scene) for scene in scenes)

    def _scenes_of(self, prompt: str) -> list[Any]:
        """What a prompt asks for, where the judge knows it."""
        world = self.plan.world
        if world is None or not self.plan.is_judged:
            return []
        known = self._attempt("scenes", world.name, lambda _: scenes_by_caption(world))
        return known.get(prompt, [])

    def is_unjudged(self, prompt: str) -> bool:
        """Whether there is a judge, and it does not know what the prompt asks for."""
        with self._lock:
            return self.plan.is_judged and not self._scenes_of(prompt)

    @torch.no_grad()
    def _search(self, name: str, query: str) -> list[Card]:
        found = self._attempt("search", name, self._load_search)
        if isinstance(found, str):
            return [Card(name, fault=found)]
        embedder, rows_ID, pictures, captions = found
        cuts: list[Cut] = []
        with on_cut(cuts.append):
            cosines = (embedder.embed_text([query]) @ rows_ID.T)[0]
        best = cosines.topk(min(NUM_FOUND, len(pictures)))
        return [
            Card(f"{value:.2f}", pictures[place], notes=[captions[place]])
            for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _attempt(self, kind: str, name: str, load: Callable[[str], Any]) -> Any:
        """What `load` gives for a name, or the sentence that says why it gives nothing; once."""
        if (kind, name) not in self._loaded:
            try:
                self._loaded[kind, name] = load(name)
            except (ValueError, OSError) as error:
                line = " ".join(str(error).split())
                print(f"{name}: {line}", file=sys.stderr, flush=True)
                self._loaded[kind, name] = line
        return self._loaded[kind, name]

    def _load_pipeline(self, name: str) -> Any:
        base = self.plan.base
        if name == AS_IS:
            pipe = Base.open(base).load_pipeline()
        else:
            export = self._exports[name]
            is_own = locate(export.base) == locate(base)
            load = find_method(export.method).load_pipeline
            pipe = load(str(export.folder), None if is_own else base)
        pipe.to("cuda" if torch.cuda.is_available() else "cpu")
        if self.settings.mixed_precision in DTYPES:
            pipe.to(DTYPES[self.settings.mixed_precision])
        return pipe

    @torch.no_grad()
    def _load_search(self, name: str) -> tuple[Any, torch.Tensor, list[Image.Image], list[str]]:
        """An embedder, the rows (I, D) of the test pictures, the pictures, their captions."""
        world = self.plan.world
        export: Export | None = self._searches.get(name)
        path = str(export.folder) if export else f"{world.name}:{CLIP}"
        embedder = load_embedder(export.method if export else CLIP, path)
        pictures, captions = self._attempt("pictures", world.name, self._load_pictures)
        parts = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
        rows_ID = torch.cat([embedder.embed_image(part) for part in parts])
        return embedder, rows_ID, pictures, captions

    def _load_pictures(self, name: str) -> tuple[list[Image.Image], list[str]]:
        evaluation = self.plan.world.evaluation
        galleries = evaluation.galleries() if evaluation.galleries else {}
        scenes = galleries.get("test") or evaluation.distinct_scenes(
            "test", self.settings.num_pictures, 0
        )
        rng = np.random.default_rng(0)
        pictures = [evaluation.draw(scene, rng) for scene in scenes]
        return pictures, [evaluation.caption(scene, "en") or "" for scene in scenes]
