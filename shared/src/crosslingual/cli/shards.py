"""The verbs `shards`, `inspect` and `url-table` of the command `crosslingual`."""

import dataclasses
import inspect
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crosslingual.cli.settings import parse_settings
from crosslingual.data.records import Record, names_found, parse_key_map, sample_to_record
from crosslingual.data.shards import (
    Tally,
    check_sizes,
    expand_shards,
    iter_samples,
    read_index,
    write_shards,
)
from crosslingual.data.sources import SOURCES
from crosslingual.data.sources.conceptual import write_url_table
from crosslingual.data.tars import INDEX


@dataclass
class ShardsSettings:
    """Settings of `crosslingual shards`.

    Attributes:
        source: the form of the input: folder (pictures with metadata.jsonl), webdataset
            (img2dataset's and open_clip's shards), json_keys (PEA's and AltDiffusion's shards),
            karpathy and coco (JSON), multi30k (its repository), moses (PREFIX.de and PREFIX.en),
            world (the testbed's picture world).
        output_dir: the folder of shards to write; new or empty.
        input: the folder, file, prefix or address to read; none for the world.
        image_dir: where the pictures lie (karpathy, coco, multi30k).
        split: which split (karpathy, multi30k, world).
        languages: which languages (multi30k, moses, world).
        caption_language: the language of captions that do not name one (folder, webdataset,
            karpathy, coco); en if not given.
        key_map: JSON keys and their languages, as caption_en=en caption_zh=zh (folder, json_keys).
        task: which task of multi30k: 1 (translations) or 2 (independent captions).
        num_samples: how many at most.
        num_motif_samples: culture-specific pictures beside them (world).
        num_captions: wordings a language at most (world).
        seed: of what is drawn (world).
        distinct: each scene once, as retrieval needs them (world).
        pictures: false writes captions alone (world).
        parallel: whether the captions of a sample translate one another, instead of what the
            source says.
        culture: the language of the culture that the samples are specific to, instead of what the
            source says.
        samples_per_shard: samples a shard holds.
        overwrite: whether to replace the shards in output_dir.
        allow_missing: whether to leave out samples whose picture is missing or no picture.
    """

    source: Literal[
        "folder", "webdataset", "json_keys", "karpathy", "coco", "multi30k", "moses", "world"
    ]
    output_dir: str
    input: str | None = None
    image_dir: str | None = None
    split: str | None = None
    languages: list[str] | None = None
    caption_language: str | None = None
    key_map: list[str] | None = None
    task: Literal[1, 2] | None = None
    num_samples: int | None = None
    num_motif_samples: int | None = None
    num_captions: int | None = None
    seed: int | None = None
    distinct: bool | None = None
    pictures: bool | None = None
    parallel: bool | None = None
    culture: str | None = None
    samples_per_shard: int = 10_000
    overwrite: bool = False
    allow_missing: bool = False


@dataclass
class InspectSettings:
    """Settings of `crosslingual inspect`.

    Attributes:
        shards: a folder, a tar file, a brace range, an fsspec address, or several joined by '::'.
        key_map: JSON keys and their languages, as caption_en=en caption_zh=zh.
        caption_language: the language of KEY.txt where the JSON names none.
    """

    shards: str
    key_map: list[str] | None = None
    caption_language: str = "en"


@dataclass
class UrlTableSettings:
    """Settings of `crosslingual url-table`.

    Attributes:
        dataset: whose columns the input has.
        input: Train_GCC-training.tsv or cc12m.tsv.
        output: the table to write.
    """

    dataset: Literal["cc3m", "cc12m"]
    input: str
    output: str


_OF_SOURCES = (
    "input image_dir split languages caption_language key_map task num_samples num_motif_samples "
    "num_captions seed distinct pictures"
).split()


def run_shards(argv: list[str]) -> None:
    """Writes what a source holds as shards."""
    from tqdm import tqdm

    settings = parse_settings(
        ShardsSettings,
        argv,
        prog="crosslingual shards",
        description="Writes pictures and captions as WebDataset shards with an index.json.",
    )
    records = tqdm(read_source(settings), unit=" samples", disable=None, leave=False)
    index = write_shards(
        records,
        settings.output_dir,
        samples_per_shard=settings.samples_per_shard,
        overwrite=settings.overwrite,
        allow_missing=settings.allow_missing,
    )
    print(f"wrote {settings.output_dir}: {_describe(index['shards'], index)}")
    if index["num_missing"]:
        print(f"left out: {index['num_missing']} samples whose picture is missing or no picture")


def read_source(settings: ShardsSettings) -> Iterator[Record]:
    """The records that the settings of `crosslingual shards` ask for.

    Raises:
        ValueError: a setting that the source does not take, or lacks one that it needs.
    """
    source = SOURCES[settings.source]
    parameters = inspect.signature(source).parameters
    given = {
        "input_path" if name == "input" else name: value
        for name in _OF_SOURCES
        if (value := getattr(settings, name)) is not None
    }
    limit = None if "num_samples" in parameters else given.pop("num_samples", None)
    for name in given.keys() - parameters.keys():
        takes = ", ".join(_flag(parameter) for parameter in parameters)
        raise ValueError(f"source {settings.source} takes no {_flag(name)}; it takes {takes}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ValueError(f"source {settings.source} needs {_flag(name)}")
    if "key_map" in given:
        given["key_map"] = parse_key_map(given["key_map"])
    changes: dict[str, bool | str] = {}
    if settings.culture is not None:
        changes |= {"culture": settings.culture, "parallel": False}
    if settings.parallel is not None:
        changes["parallel"] = settings.parallel
    for record in itertools.islice(source(**given), limit):
        yield dataclasses.replace(record, **changes)


def run_inspect(argv: list[str]) -> None:
    """Prints what shards hold."""
    words = ["--shards", *argv] if argv and not argv[0].startswith("-") else argv
    settings = parse_settings(
        InspectSettings,
        words,
        prog="crosslingual inspect",
        description="Prints the counts, languages and key names of shards: inspect SHARDS.",
    )
    key_map = parse_key_map(settings.key_map) if settings.key_map else None
    paths = expand_shards(settings.shards)
    tally = Tally()
    names: Counter[str] = Counter()
    faults: list[str] = []
    example: Record | None = None
    for sample in itertools.chain.from_iterable(map(iter_samples, paths)):
        names.update(names_found(sample))
        try:
            record = sample_to_record(
                sample, key_map=key_map, caption_language=settings.caption_language
            )
        except ValueError as error:
            faults.append(str(error))
            continue
        example = example or record
        tally.add(record)
    print(f"{settings.shards}: {_describe(paths, tally.as_dict())}")
    print("members and keys: " + ", ".join(f"{name} {count}" for name, count in names.items()))
    if example is not None:
        print(f"first sample {example.key}:")
        for language, texts in example.captions.items():
            print(f"  {language}: {texts[0]}")
    if faults:
        print(f"unreadable: {len(faults)} samples, the first: {faults[0]}")
    if (Path(settings.shards) / INDEX).is_file():
        index = read_index(settings.shards)
        check_sizes(settings.shards, index)
        print(f"index.json agrees; sha256 {index['sha256']}")


def run_url_table(argv: list[str]) -> None:
    """Makes of CC3M or CC12M the table that img2dataset takes."""
    settings = parse_settings(
        UrlTableSettings,
        argv,
        prog="crosslingual url-table",
        description="Makes of CC3M or CC12M the table that img2dataset takes.",
    )
    count = write_url_table(settings.dataset, settings.input, settings.output)
    print(f"wrote {settings.output}: {count} addresses; download the pictures with\n")
    print(
        f"  img2dataset --url_list {settings.output} --input_format tsv --url_col url "
        f"--caption_col caption --output_format webdataset --output_folder {settings.dataset}\n"
    )
    print(f"and train on {settings.dataset}, or see crosslingual inspect {settings.dataset}")


def _flag(parameter: str) -> str:
    return "--input" if parameter == "input_path" else f"--{parameter}"


def _describe(shards_found: Sized, counts: Mapping[str, Any]) -> str:
    languages = ", ".join(f"{name} {count}" for name, count in counts["languages"].items())
    return (
        f"{counts['num_samples']} samples in {len(shards_found)} shards, "
        f"{counts['num_images']} with a picture, {counts['num_parallel']} parallel, "
        f"{counts['num_culture']} of a culture; captions: {languages or 'none'}"
    )
