"""A language's part of a prompt set: its prompts, the texts that the pipeline reads, and the folder
of the pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from crosslingual.data.text import printable
from crosslingual.worlds import contact_sheet
from crosslingual_benchmarks.generation.pictures import Drawn, Request
from crosslingual_benchmarks.generation.prompts import Prompt, PromptSet

ENGLISH = "en"


@dataclass(frozen=True)
class Part:
    """One language's prompts of one kind.

    `kind` is `general`, or `culture` for prompts that ask for a culture's own. The pipeline reads
    their English where `is_english`, as the upper bound does. A prompt's number decides its noise.
    """

    kind: str
    language: str
    is_english: bool
    numbered: list[tuple[int, Prompt]]

    @property
    def spoken(self) -> str:
        """The language of the texts that the pipeline reads."""
        return ENGLISH if self.is_english else self.language

    @property
    def place(self) -> str:
        """Its folder below the arm's. General prompts are the same in English whatever the
        language, and drawn once; a culture's are not.
        """
        return f"{self.spoken if self.kind == 'general' else self.language}/{self.kind}"

    @property
    def score(self) -> str:
        """The name of the share of its pictures that are right."""
        return "text_accuracy" if self.kind == "general" else "culture_score"

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts, in order."""
        return [prompt for _, prompt in self.numbered]

    @property
    def requests(self) -> list[Request]:
        """The pictures to draw."""
        return [Request(i, prompt.id, self.text(prompt)) for i, prompt in self.numbered]

    def text(self, prompt: Prompt) -> str:
        """The text that the pipeline reads for a prompt."""
        return prompt.english if self.is_english else prompt.prompts[self.language]


def parts_of(prompt_set: PromptSet, language: str, prompt_language: str) -> tuple[Part, Part]:
    """A language's general and its culture prompts, either of which may be empty. A general
    prompt has the same place in every language.

    Raises:
        ValueError: the language has none of either kind.
    """
    chosen = prompt_set.of(language)
    is_english = prompt_language == "english"
    everywhere = [prompt for prompt in prompt_set.prompts if prompt.culture is None]
    general = [(i, prompt) for i, prompt in enumerate(everywhere) if language in prompt.prompts]
    culture = list(enumerate(prompt for prompt in chosen if prompt.culture is not None))
    return (
        Part("general", language, is_english, general),
        Part("culture", language, is_english, culture),
    )


@dataclass(frozen=True)
class DrawnPart:
    """A part with its pictures.

    A mark says whether a prompt's picture is right; None where that is not judged.
    """

    part: Part
    drawn: list[Drawn]
    marks: Sequence[bool | None]


def draw_sheet(parts: Sequence[DrawnPart], num_shown: int) -> Image.Image | None:
    """A contact sheet, a row a language that has pictures: its first ones above their prompts.

    It is None where there is nothing to show.
    """
    full = [each for each in parts if each.drawn]
    num_columns = min([num_shown, *(len(each.drawn) for each in full)])
    if not full or num_columns < 1:
        return None
    rows = [
        [
            (
                each.drawn[i].open(),
                printable(each.drawn[i].request.prompt),
                each.part.spoken,
                each.marks[i],
            )
            for i in range(num_columns)
        ]
        for each in full
    ]
    aspects = {tuple(p.aspect for p in each.part.prompts[:num_columns]) for each in full}
    heads = next(iter(aspects)) if len(aspects) == 1 else ()
    return contact_sheet(
        rows,
        column_heads=[head or "" for head in heads] if any(heads) else (),
        row_heads=[each.part.language for each in full],
    )
