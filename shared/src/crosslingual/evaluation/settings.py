"""The settings of a method's `evaluate`, which extends them; no torch is needed for `--help`."""

from dataclasses import dataclass, field
from typing import Literal

from crosslingual.data.languages import LanguageCode


@dataclass(kw_only=True)
class EvaluateSettings:
    """Settings of text accuracy.

    Attributes:
        output_dir: folder for accuracy.json, table.md and grid.png.
        languages: languages of the prompts; those that were trained if not given.
        num_prompts: held-out prompts in each language; the scenes are the same in all.
        split: which scenes are asked for: val or test, which are held out, or train.
        seed: seed of the scenes and of the noise.
    """

    output_dir: str
    languages: list[LanguageCode] = field(default_factory=list)
    num_prompts: int = 100
    split: str = "test"
    seed: int = 0


@dataclass
class EvaluateRetrievalSettings:
    """Settings of a method's retrieval verb: Recall@1/5/10 both ways, by language.

    Attributes:
        model: exported folder; or a CLIP's hub id or folder, or testbed:clip, measured as it is.
        dataset: shards with the pictures and captions, as `crosslingual shards` writes them.
        output_dir: folder that gets results.json, one line per language and run.
        languages: BCP-47 codes of the languages to test.
        captions: test the first caption of a picture, or all.
        batch_size: pictures or texts that are embedded at a time.
        num_bootstrap: resamplings of the queries for the 95 % interval; 0 for no interval.
        seed: seed of the resamplings.
    """

    model: str
    dataset: str
    output_dir: str
    languages: list[LanguageCode]
    captions: Literal["first", "all"] = "first"
    batch_size: int = 128
    num_bootstrap: int = 200
    seed: int = 0
