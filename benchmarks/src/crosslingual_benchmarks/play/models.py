"""The models behind the page: each is loaded once, and one of them works at a time.

A model that cannot be loaded is a sentence in its place, and on the terminal; the others work.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from crosslingual.frozen.base import Base
from crosslingual.frozen.families import call_options
from crosslingual.frozen.tokens import Cut, on_cut, report_cut
from crosslingual.worlds import model_folder
from crosslingual_benchmarks.baselines.translate_test import Translator, load_translator
from crosslingual_benchmarks.methods import find_method
from crosslingual_benchmarks.play.cards import Card
from crosslingual_benchmarks.play.exports import Export
from crosslingual_benchmarks.play.plan import AS_IS, TRANSLATED, Plan, locate
from crosslingual_benchmarks.play.prompts import scenes_by_caption
from crosslingual_benchmarks.play.settings import PlaySettings
from crosslingual_benchmarks.play.turns import Ask, Turns
from crosslingual_benchmarks.retrieval.embedders import CLIP, load_embedder

NUM_FOUND = 8
BATCH = 50  # pictures that an embedder reads at once
WORLD_BATCH = 10  # prompts that a world's small base draws at once
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
        is_small = model_folder(plan.base) is not None
        self._turns = Turns(self._draw, settings.max_batch_size or (WORLD_BATCH if is_small else 1))
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
        """Loads everything, in the order in which a page needs it. Whoever asks goes in between."""
        with self._turns.turn():
            self._scenes_of("")
        for name in self.names:
            with self._turns.turn():
                self._load_drawing(name)
        for name in self.search_names:
            with self._turns.turn():
                self._attempt("search", name, self._load_search)

    def draw(self, prompt: str, seed: int) -> Iterator[Card]:
        """A card of each name for a prompt, from the same noise. Prompts that several people wait
        for are drawn together; their pictures are the same as if each was drawn alone.
        """
        return self._turns.cards([Ask(place, prompt, seed) for place in range(len(self.names))])

    def search(self, query: str) -> Iterator[tuple[str, list[Card]]]:
        """A heading and the nearest test pictures of each name that searches."""
        for name in self.search_names:
            with self._turns.turn():
                found = self._search(name, query)
            yield found

    def _draw(self, asks: list[Ask]) -> list[Card]:
        """Cards of asks of the same place; a sentence where there is no picture."""
        name = self.names[asks[0].place]
        pipe, translate = self._load_drawing(name)
        for found in (pipe, translate):
            if isinstance(found, str):
                return [Card(name, fault=found) for _ in asks]
        try:
            return self._draw_together(name, pipe, translate, asks)
        except (ValueError, RuntimeError) as error:  # such as too little memory
            fault = _say(name, error)
        if len(asks) > 1:
            return [card for ask in asks for card in self._draw([ask])]
        return [Card(name, fault=fault)]

    @torch.no_grad()
    def _draw_together(
        self, name: str, pipe: Any, translate: Translator | None, asks: list[Ask]
    ) -> list[Card]:
        cuts: list[Cut] = []
        started = time.perf_counter()
        with on_cut(cuts.append):
            # one by one: a batch's padding could change a translation
            texts = [translate([ask.prompt])[0] if translate else ask.prompt for ask in asks]
            with report_cut(pipe):
                pixels_BHWC = self._sample(pipe, texts, [ask.seed for ask in asks])
        latency_ms = (time.perf_counter() - started) * 1e3
        lengths = {_bare(cut.text): cut.max_length for cut in cuts}
        cards = []
        for ask, text, pixels in zip(asks, texts, pixels_BHWC, strict=True):
            notes = [f"Read as: {text}"] if translate else []
            if length := lengths.get(_bare(text)) or lengths.get(_bare(ask.prompt)):
                notes.append(f"Cut: the model reads {length} tokens of it.")
            if len(asks) > 1:
                notes.append(f"One of {len(asks)} pictures that were drawn together.")
            cards.append(self._card(name, pixels, ask.prompt, latency_ms, notes))
        return cards

    def _card(
        self, name: str, pixels: np.ndarray, prompt: str, latency_ms: float, notes: list[str]
    ) -> Card:
        if not np.isfinite(pixels).all():
            return Card(name, fault="The picture is not finite: draw it with another seed.")
        picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
        return Card(name, picture, self._verdict(picture, prompt), latency_ms, notes)

    def _sample(self, pipe: Any, texts: list[str], seeds: list[int]) -> np.ndarray:
        """(B, H, W, 3) in [0, 1]. The noise of a picture depends on its seed alone."""
        options = dict(call_options(pipe))
        given = self.settings
        chosen = {
            "height": given.resolution,
            "width": given.resolution,
            "guidance_scale": given.guidance_scale,
            "num_inference_steps": given.num_inference_steps,
        }
        options |= self._defaults()
        options |= {key: value for key, value in chosen.items() if value is not None}
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipe(texts, generator=generators, output_type="np", **options).images

    def _defaults(self) -> dict[str, Any]:
        """How a world's base is sampled; without a world the number of steps alone."""
        if self.plan.world is None or not self.plan.is_judged:
            return {"num_inference_steps": 20}
        world = self.plan.world.evaluation
        return {
            "height": world.resolution,
            "width": world.resolution,
            "guidance_scale": world.guidance_scale,
            "num_inference_steps": world.num_inference_steps,
        }

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

    @torch.no_grad()
    def _search(self, name: str, query: str) -> tuple[str, list[Card]]:
        found = self._attempt("search", name, self._load_search)
        if isinstance(found, str):
            return name, [Card(name, fault=found)]
        embedder, rows_ID, pictures, captions = found
        cuts: list[Cut] = []
        with on_cut(cuts.append):
            cosines = (embedder.embed_text([query]) @ rows_ID.T)[0]
        best = cosines.topk(min(NUM_FOUND, len(pictures)))
        cards = [
            Card(f"{value:.2f}", pictures[place], notes=[captions[place]])
            for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        return (f"{name}, which reads {cuts[0].max_length} tokens of it" if cuts else name), cards

    def _attempt(self, kind: str, name: str, load: Callable[[str], Any]) -> Any:
        """What `load` gives for a name, or the sentence that says why it gives nothing; once."""
        if (kind, name) not in self._loaded:
            try:
                self._loaded[kind, name] = load(name)
            except (ValueError, OSError) as error:
                self._loaded[kind, name] = _say(name, error)
        return self._loaded[kind, name]

    def _load_drawing(self, name: str) -> tuple[Any, Any]:
        """A name's pipeline, and its translator or None; a sentence in place of what is missing."""
        if name != TRANSLATED:
            return self._attempt("draw", name, self._load_pipeline), None
        load = lambda _: load_translator(self.plan.translator)  # noqa: E731
        return self._attempt("draw", AS_IS, self._load_pipeline), self._attempt("draw", name, load)

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


def _bare(text: str) -> str:
    """A text as some pipelines hand it to their tokenizer."""
    return text.strip().lower()


def _say(name: str, error: Exception) -> str:
    """Prints an error in one line, and returns it for the page."""
    line = " ".join(str(error).split())
    print(f"{name}: {line}", file=sys.stderr, flush=True)
    return line
