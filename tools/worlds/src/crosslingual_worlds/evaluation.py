"""How a world asks a pipeline for pictures and judges them; a world fills in one `Evaluation`.

Text accuracy is the share of pictures that show all that their prompt says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from crosslingual.training.processes import Ranks
from crosslingual_worlds.drawn.contact_sheet import Cell, contact_sheet

AS_IS = "as_is"

Arm = tuple[str, str]  # language of the prompts, and whose pictures: AS_IS, or a method's name
Scenes = Callable[[str], list[Any]]  # the scenes that are asked for in a language


@dataclass(frozen=True)
class Judged:
    """One prompt's picture and whether it shows all that the prompt says."""

    scene: Any
    prompt: str
    picture: Image.Image
    is_right: bool


def text_accuracy(judged: Sequence[Judged]) -> float:
    """The share of pictures that show all that their prompt says."""
    return sum(item.is_right for item in judged) / len(judged)


@dataclass(frozen=True)
class Evaluation:
    """A world's prompts and its judge. A scene is what a prompt says; its type is the world's own.

    Attributes:
        resolution: of the pictures, in pixels.
        scenes: (split, count, seed) to scenes of a balanced mix.
        distinct_scenes: (split, count, seed) to scenes that all differ, as retrieval needs them.
        culture_scenes: (language, count) to scenes of that language's own culture.
        draw: (scene, numpy generator) to a true picture of a scene.
        caption: (scene, language) to the prompt.
        shows: (picture, scene) to whether the picture shows all that the scene says.
        is_shown: scenes that contact sheets prefer, such as those of two things.
        num_inference_steps: of the sampler.
        guidance_scale: of classifier-free guidance.
    """

    resolution: int
    scenes: Callable[[str, int, int], list[Any]]
    distinct_scenes: Callable[[str, int, int], list[Any]]
    culture_scenes: Callable[[str, int], list[Any]]
    draw: Callable[[Any, Any], Image.Image]
    caption: Callable[[Any, str], str]
    shows: Callable[[Image.Image, Any], bool]
    is_shown: Callable[[Any], bool]
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
    ) -> list[Judged]:
        """Asks for every scene by its caption in a language and judges the picture.

        Args:
            pipe: a pipeline on this world's base.
            scenes: what the prompts say; the noise of a scene depends on `seed` and its place
                alone, not on the language.
            language: of the prompts.
            seed: of the noise.
            batch_size: prompts at a time.
        """
        judged = []
        for start in range(0, len(scenes), batch_size):
            part = scenes[start : start + batch_size]
            prompts = [self.caption(scene, language) for scene in part]
            pictures = pipe(
                prompts,
                height=self.resolution,
                width=self.resolution,
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                generator=[
                    torch.Generator().manual_seed(seed * 1_000_003 + start + i)
                    for i in range(len(part))
                ],
            ).images
            judged += [
                Judged(scene, prompt, picture, self.shows(picture, scene))
                for scene, prompt, picture in zip(part, prompts, pictures, strict=True)
            ]
        return judged

    def judge_arms(
        self,
        load: Callable[[str, str], Any],
        arms: Sequence[Arm],
        scenes: Scenes,
        *,
        seed: int,
        ranks: Ranks,
    ) -> dict[Arm, list[Judged]]:
        """Judges every arm; ranks share the arms, and every rank gets all results.

        Args:
            load: (name, language) to the pipeline of an arm; it keeps what is asked for again.
            arms: language and name of each.
            scenes: what the prompts in a language say.
            seed: of the noise.
            ranks: this process among the others.
        """
        share = {}
        with torch.no_grad():
            for language, name in arms[ranks.rank :: ranks.world_size]:
                pipe = load(name, language)
                share[language, name] = self.judge_prompts(
                    pipe, scenes(language), language, seed=seed
                )
        shares: list[dict[Arm, list[Judged]]] = [{} for _ in range(ranks.world_size)]
        dist.all_gather_object(shares, share)
        judged = {arm: items for part in shares for arm, items in part.items()}
        return {arm: judged[arm] for arm in arms}

    def draw_arms(
        self,
        judged: Mapping[Arm, Sequence[Judged]],
        languages: Sequence[str],
        columns: Mapping[str, str],
        num_scenes: int = 3,
    ) -> Image.Image:
        """A contact sheet, a row a language: the same scenes by each arm, above their prompts.

        The scenes are among those that the English base drew rightly (arm `("en", AS_IS)`).

        Args:
            judged: of `judge_arms`.
            languages: the rows.
            columns: arm to its column's head, in order.
            num_scenes: how many scenes are shown.
        """
        english = enumerate(judged["en", AS_IS])
        shown = [i for i, item in english if item.is_right and self.is_shown(item.scene)]
        shown = shown[:num_scenes]
        rows = [
            [_cell(judged[language, name][i], language) for i in shown for name in columns]
            for language in languages
        ]
        return contact_sheet(
            rows, column_heads=[*columns.values()] * len(shown), row_heads=list(languages)
        )

    def draw_culture(
        self, judged: Mapping[Arm, Sequence[Judged]], columns: Mapping[str, str], num: int = 3
    ) -> Image.Image:
        """A contact sheet, a row a language: the first pictures of its own culture by each arm."""
        languages = list(dict.fromkeys(language for language, _ in judged))
        rows = [
            [_cell(item, language) for name in columns for item in judged[language, name][:num]]
            for language in languages
        ]
        num_shown = len(rows[0]) // len(columns)
        heads = [head for head in columns.values() for _ in range(num_shown)]
        return contact_sheet(rows, column_heads=heads, row_heads=languages)

    @staticmethod
    def contact_sheet(cells: Sequence[Sequence[tuple]], **options: Any) -> Image.Image:
        """Draws rows of (picture, text, language[, mark]); see `contact_sheet` for the options."""
        return contact_sheet([[Cell(*cell) for cell in row] for row in cells], **options)


def _cell(item: Judged, language: str) -> Cell:
    return Cell(item.picture, item.prompt, language, item.is_right)
