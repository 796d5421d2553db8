"""The settings of a method's `evaluate`, which extends them; no torch is needed for `--help`."""

from dataclasses import dataclass, field

from crosslingual.data.languages import LanguageCode


@dataclass(kw_only=True)
class EvaluateSettings:
    """Settings of text accuracy.

    Attributes:
        output_dir: folder for accuracy.json, table.md and grid.png.
        languages: languages of the prompts; those that were trained if not given.
        num_prompts: held-out prompts in each language; the scenes are the same in all.
        split: which held-out scenes are asked for, val or test.
        seed: seed of the scenes and of the noise.
    """

    output_dir: str
    languages: list[LanguageCode] = field(default_factory=list)
    num_prompts: int = 100
    split: str = "test"
    seed: int = 0
