"""How a world asks pipelines for pictures and judges them; a world fills in one `Evaluation`.

Text accuracy is the share of pictures that show all that their prompt says. Methods reach it
through `crosslingual.evaluation.generation`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from crosslingual.evaluation.generation import AS_IS, Arm
from crosslingual.evaluation.settings import EvaluateSettings
from crosslingual.folders import check_results, hold_results, write_results
from crosslingual.frozen.families import call_options
from crosslingual.frozen.tokens import report_cut
from crosslingual.training.folder import on_first_rank
from crosslingual.training.processes import start_processes
from crosslingual_worlds.accuracy_table import render_table
from crosslingual_worlds.drawn.contact_sheet import Cell, contact_sheet
from crosslingual_worlds.drawn.typesetting import has_glyphs

ACCURACY, FILES = "accuracy.json", ("table.md", "grid.png", "motifs.png")
KNOWN_BY = ("num_prompts", "split", "seed")
NEAR = 5  # a judge that ranks scenes also says whether the right one is among so many


@dataclass(frozen=True)
class JudgedPicture:
    """One prompt's picture.

    Attributes:
        scene: what the prompt says.
        prompt: what the pipeline read.
        picture: what it drew.
        is_right: whether the picture shows all that the prompt says.
        is_near: whether the scene is among the judge's first `NEAR`; None if the judge ranks none.
    """

    scene: Any
    prompt: str
    picture: Image.Image
    is_right: bool
    is_near: bool | None = None


Judged = dict[tuple[str, str], list[JudgedPicture]]
"""Pictures by the language of their prompts and by whose they are: `AS_IS`, or a method's name."""


def text_accuracy(judged: Sequence[JudgedPicture], near: bool = False) -> float:
    """The share of pictures that show all that their prompt says; with `near`, the share of those
    whose scene is among the judge's first `NEAR`.
    """
    return sum(bool(item.is_near if near else item.is_right) for item in judged) / len(judged)


def trained_and_zero_shot(languages: Sequence[str], trained: Sequence[str]) -> dict[str, list[str]]:
    """Foreign languages whose captions trained, and the others."""
    foreign = [language for language in languages if language != "en"]
    return {
        "trained": [name for name in foreign if name in trained],
        "zero-shot": [name for name in foreign if name not in trained],
    }


@dataclass(frozen=True)
class Judgement:
    """What was judged.

    Attributes:
        general: the same scenes in every language.
        culture: scenes of each language's own culture; without the languages that have none, and
            empty if none were asked for.
        is_main: whether this process is the one that writes.
        world: the world's evaluation, which also draws contact sheets.
        lock: of the folder of results, to close.
    """

    general: Judged
    culture: Judged
    is_main: bool
    world: "Evaluation"
    lock: Any = None

    def accuracy(self, judged: Judged, arm: str, near: bool = False) -> dict[str, float]:
        """The share of right pictures of one arm, by language; with `near`, as `text_accuracy`."""
        return {
            language: text_accuracy(items, near)
            for (language, name), items in judged.items()
            if name == arm
        }

    def write(
        self,
        settings: EvaluateSettings,
        result: dict[str, Any],
        table: str,
        draw: Mapping[str, Callable[[], Image.Image]],
    ) -> None:
        """Writes accuracy.json, table.md and the pictures that `draw` names, and prints the table,
        in the main process.
        """
        if self.is_main:
            writers: dict[str, Any] = dict.fromkeys(FILES)
            writers["table.md"] = lambda path: path.write_text(table, encoding="utf-8")
            for name, picture in draw.items():
                writers[name] = functools.partial(picture().save, format="png")
            write_results(settings.output_dir, ACCURACY, result, writers, KNOWN_BY)
            print(table)
            if self.lock is not None:
                self.lock.close()


@dataclass(frozen=True)
class Evaluation:
    """A world's prompts and its judge. A scene is what a prompt says; its type is the world's own.

    Attributes:
        resolution: of the pictures, in pixels.
        scenes: (split, count, seed) to scenes of a balanced mix.
        distinct_scenes: (split, count, seed) to scenes that all differ, as retrieval needs them.
        culture_scenes: (language, count) to scenes of that language's own culture.
        draw: (scene, numpy generator) to a true picture of a scene.
        caption: (scene, language) to the prompt, or None where the language has no words for it.
        shows: (picture, scene) to whether the picture shows all that the scene says.
        is_shown: scenes that contact sheets prefer, such as those of two things.
        place: (picture, scene) to how many other scenes fit the picture better; None where the
            judge reads pictures and ranks nothing.
        galleries: names to distinct scenes, for retrieval; the first is searched if none is named,
            and those within the searched one are reported by themselves as well.
        pair_scenes: (split, count, seed) to scenes of two things; None where scenes have one.
        mixed_caption: (scene of two things, language, second language) to a prompt that names the
            second thing in the second language; None where scenes have one thing.
        groups: (languages, trained languages) to the groups whose means tables show.
        further_groups: the same, of groups whose means are only written down.
        num_inference_steps: of the sampler.
        guidance_scale: of classifier-free guidance.
    """

    resolution: int
    scenes: Callable[[str, int, int], list[Any]]
    distinct_scenes: Callable[[str, int, int], list[Any]]
    culture_scenes: Callable[[str, int], list[Any]]
    draw: Callable[[Any, Any], Image.Image]
    caption: Callable[[Any, str], str | None]
    shows: Callable[[Image.Image, Any], bool]
    is_shown: Callable[[Any], bool]
    place: Callable[[Image.Image, Any], int] | None = None
    galleries: Callable[[], dict[str, list[Any]]] | None = None
    pair_scenes: Callable[[str, int, int], list[Any]] | None = None
    mixed_caption: Callable[[Any, str, str], str] | None = None
    groups: Callable[..., dict[str, list[str]]] = trained_and_zero_shot
    further_groups: Callable[..., dict[str, list[str]]] | None = None
    num_inference_steps: int = 20
    guidance_scale: float = 3.0

    def judge_prompts(
        self,
        pipe: Any,
        scenes: Sequence[Any],
        language: str,
        *,
        seed: int = 0,
        batch_size: int = 48,
    ) -> list[JudgedPicture]:
        """Asks a pipeline on this world's base for every scene by its caption in a language and
        judges the picture; a scene's noise depends on `seed` and its number, not on the language.
        Scenes that the language has no words for are left out.
        """
        options = call_options(pipe)
        judged = []
        captions = [self.caption(scene, language) for scene in scenes]
        numbers = [number for number, text in enumerate(captions) if text is not None]
        for start in range(0, len(numbers), batch_size):
            part = numbers[start : start + batch_size]
            with report_cut(pipe):
                pictures = pipe(
                    [captions[number] for number in part],
                    height=self.resolution,
                    width=self.resolution,
                    num_inference_steps=self.num_inference_steps,
                    guidance_scale=self.guidance_scale,
                    generator=[
                        torch.Generator().manual_seed(seed * 1_000_003 + number) for number in part
                    ],
                    **options,
                ).images
            judged += [
                self._judged(scenes[number], captions[number], picture)
                for number, picture in zip(part, pictures, strict=True)
            ]
        return judged

    def _judged(self, scene: Any, prompt: str, picture: Image.Image) -> JudgedPicture:
        if self.place is None:
            return JudgedPicture(scene, prompt, picture, self.shows(picture, scene))
        place = self.place(picture, scene)
        return JudgedPicture(scene, prompt, picture, place == 0, place < NEAR)

    def judge_pipelines(
        self,
        settings: EvaluateSettings,
        arms: Mapping[str, Arm],
        languages: Sequence[str],
        as_is: Sequence[str],
        num_culture_prompts: int = 0,
    ) -> Judgement:
        """Generates and judges the pictures of every arm; ranks share the arms.

        Args:
            settings: the number, split and seed of the prompts.
            arms: pipelines by name: the bare base as `AS_IS`, and the method's.
            languages: of the prompts.
            as_is: the languages that the bare base is asked in, `en` for the upper bound.
            num_culture_prompts: prompts of each language's own culture, for the method's arms.
        """
        check_results(settings.output_dir, ACCURACY, FILES, KNOWN_BY)
        ranks = start_processes()
        lock = on_first_rank(ranks, lambda: hold_results(settings.output_dir, ACCURACY))

        @functools.cache
        def load(name: str, language: str | None) -> Any:
            return arms[name].load(language or languages[0])

        @torch.no_grad()
        def judge(asked: Sequence[tuple[str, str]], scenes: Callable[[str], list[Any]]) -> Judged:
            share: Judged = {}
            for language, name in asked[ranks.rank :: ranks.world_size]:
                pipe = load(name, language if arms[name].by_language else None)
                share[language, name] = self.judge_prompts(
                    pipe, scenes(language), language, seed=settings.seed
                )
            shares: list[Judged] = [{} for _ in range(ranks.world_size)]
            dist.all_gather_object(shares, share)
            judged = {arm: items for part in shares for arm, items in part.items()}
            return {arm: judged[arm] for arm in asked}

        own = [(language, name) for name in arms if name != AS_IS for language in languages]
        scenes = self.scenes(settings.split, settings.num_prompts, settings.seed + 1)
        general = judge([*((language, AS_IS) for language in as_is), *own], lambda _: scenes)
        culture: Judged = {}
        if num_culture_prompts:
            own = [(name, arm) for name, arm in own if self.culture_scenes(name, 1)]
            culture = judge(own, lambda name: self.culture_scenes(name, num_culture_prompts))
        return Judgement(general, culture, ranks.rank == 0, self, lock)

    def evaluate_pipelines(
        self,
        settings: EvaluateSettings,
        arms: Mapping[str, Arm],
        *,
        trained: Sequence[str],
        kind: str | None,
        note: str,
        baselines: bool = True,
        further: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Writes accuracy.json, table.md and grid.png; prints the table.

        Args:
            settings: of the verb.
            arms: pipelines by name: the bare base as `AS_IS`, and the method's.
            trained: the languages that trained.
            kind: what the trained languages were trained with, for the table; None leaves the
                column and the means out.
            note: the line under the table, such as the number of trainable parameters.
            baselines: judges the bare base too, in English (the upper bound) and every language.
            further: more to write into accuracy.json.

        Returns:
            What accuracy.json says: `english` and, by language, the accuracy of each arm; if the
            judge ranks scenes, the same at 5 under `at_5`; `means` of groups of languages.
        """
        languages = settings.languages or list(trained)
        as_is = list(dict.fromkeys(["en", *languages])) if baselines else []
        judged = self.judge_pipelines(settings, arms, languages, as_is)
        accuracy = {name: judged.accuracy(judged.general, name) for name in arms}
        result: dict[str, Any] = {
            "english": accuracy[AS_IS].get("en"),
            "languages": {
                language: {name: row[language] for name, row in accuracy.items() if language in row}
                for language in languages
            },
            "trained": list(trained),
            **(self._near_and_means(judged, accuracy, languages, trained)),
            **(further or {}),
            "num_prompts": settings.num_prompts,
            "split": settings.split,
            "seed": settings.seed,
        }
        heads = {name: arm.head for name, arm in arms.items() if name != AS_IS}
        groups = self.groups(languages, trained)
        columns = {AS_IS: "as-is", **{name: f"with {head}" for name, head in heads.items()}}
        grid = functools.partial(self.draw_arms, judged.general, languages, columns)
        table = render_table(result, heads, kind, note, groups)
        judged.write(settings, result, table, {"grid.png": grid} if baselines else {})
        return result

    def _near_and_means(
        self,
        judged: Judgement,
        accuracy: Mapping[str, Mapping[str, float]],
        languages: Sequence[str],
        trained: Sequence[str],
    ) -> dict[str, Any]:
        """`at_5` by language and arm, and `means` by group and arm; empty for a judge that only
        reads, whose table has all that there is to say.
        """
        if self.place is None:
            return {}
        near = {arm: judged.accuracy(judged.general, arm, near=True) for arm in accuracy}
        groups = dict(self.groups(languages, trained))
        if self.further_groups is not None:
            groups |= self.further_groups(languages, trained)
        means: dict[str, Any] = {}
        for group, members in groups.items():
            for arm in accuracy if members else ():
                shares = [
                    (accuracy[arm][name], near[arm][name])
                    for name in members
                    if name in accuracy[arm]
                ]
                if shares:
                    at_1, at_5 = (sum(column) / len(shares) for column in zip(*shares, strict=True))
                    row = {"num_languages": len(shares), "at_1": at_1, "at_5": at_5}
                    means.setdefault(group, {})[arm] = row
        by_language = {
            language: {arm: near[arm][language] for arm in near if language in near[arm]}
            for language in languages
        }
        return {"at_5": {"en": near[AS_IS].get("en"), **by_language}, "means": means}

    def draw_arms(
        self,
        judged: Judged,
        languages: Sequence[str],
        columns: Mapping[str, str],
        num_scenes: int = 3,
    ) -> Image.Image:
        """A contact sheet, a row a language: the same scenes by each arm, above their prompts.

        `columns` maps arms to their columns' heads, in order. The scenes are among those that the
        English base drew rightly (arm `("en", AS_IS)`) and that all languages have words for.
        """
        by_scene = {arm: {item.scene: item for item in items} for arm, items in judged.items()}
        arms = [(language, name) for language in languages for name in columns]
        shown = [
            item.scene
            for item in judged["en", AS_IS]
            if item.is_right
            and self.is_shown(item.scene)
            and all(item.scene in by_scene[arm] for arm in arms)
        ][:num_scenes]
        rows = [
            [
                _cell(by_scene[language, name][scene], language)
                for scene in shown
                for name in columns
            ]
            for language in languages
        ]
        return contact_sheet(
            rows, column_heads=[*columns.values()] * len(shown), row_heads=list(languages)
        )

    def draw_culture(self, judged: Judged, columns: Mapping[str, str], num: int = 3) -> Image.Image:
        """A contact sheet, a row a language: the first pictures of its own culture by each arm."""
        languages = list(dict.fromkeys(language for language, _ in judged))
        num = min([num, *(len(items) for items in judged.values())])
        rows = [
            [_cell(item, language) for name in columns for item in judged[language, name][:num]]
            for language in languages
        ]
        num_shown = len(rows[0]) // len(columns)
        heads = [head for head in columns.values() for _ in range(num_shown)]
        return contact_sheet(rows, column_heads=heads, row_heads=languages)

    @staticmethod
    def can_write(text: str) -> bool:
        """Whether the contact sheet's fonts have every character of a text."""
        return has_glyphs(text)

    @staticmethod
    def contact_sheet(cells: Sequence[Sequence[tuple]], **options: Any) -> Image.Image:
        """Draws rows of (picture, text, language[, mark]); see `contact_sheet` for the options.
        A text with a character that the fonts lack is left out.
        """
        rows = [[Cell(cell[0], printable(cell[1]), *cell[2:]) for cell in row] for row in cells]
        return contact_sheet(rows, **options)


def _cell(item: JudgedPicture, language: str) -> Cell:
    return Cell(item.picture, printable(item.prompt), language, item.is_right)


def printable(text: str) -> str:
    """A prompt, or nothing where the sheet's fonts lack one of its characters."""
    return text if has_glyphs(text) else ""
