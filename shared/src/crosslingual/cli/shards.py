"""The verbs `shards` and `inspect` of the command `crosslingual`."""

import dataclasses
import inspect
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import docstring_parser

from crosslingual.data.index import (
    Tally,
    check_hashes,
    check_sizes,
    language_counts,
    read_index,
    shard_sizes,
)
from crosslingual.data.languages import LanguageCode, match_languages
from crosslingual.data.records import (
    Record,
    count_reasons,
    names_found,
    parse_key_map,
    record_to_sample,
    sample_to_record,
)
from crosslingual.data.shards import write_shards
from crosslingual.data.sources import SOURCES, find_sources
from crosslingual.data.tars import (
    CUT_OFF,
    DAMAGED,
    FOREIGN,
    INDEX,
    expand_shards,
    iter_samples,
)
from crosslingual.data.text import printable
from crosslingual.worlds import REMEDY, find_worlds

NUM_NAMES = 50  # members and keys that inspect lists
NUM_FAULTS = 10  # samples that are listed with what is wrong with them
FORMER_NAMES = {"key_map": "caption_keys"}


@dataclass
class WriteSettings:
    """Settings of `crosslingual shards` that every source takes.

    Attributes:
        source: form of the input: folder (pictures with metadata.jsonl, metadata.csv or a.txt
            beside a.jpg), webdataset (img2dataset's and open_clip's shards), json_keys (PEA's and
            AltDiffusion's shards), karpathy and coco (JSON), multi30k (its repository), moses
            (PREFIX.de and PREFIX.en), or a source of an installed world: {worlds}.
        output_dir: folder of shards to write; new or empty.
        num_samples: number of samples at which reading stops.
        parallel: whether the captions of a sample translate one another; replaces what the source
            says.
        culture: language of the culture that all samples are specific to; replaces what the source
            says.
        samples_per_shard: number of samples in a shard; the last one may hold fewer.
        overwrite: replaces the shards in output_dir once the new ones are complete.
        allow_missing: leaves out samples whose picture is missing or no picture, and what of a
            shard is damaged, and names them. Samples of shards that cannot be used are always left
            out and named.
    """

    source: str
    output_dir: str
    num_samples: int | None = None
    parallel: bool | None = None
    culture: LanguageCode | None = None
    samples_per_shard: int = 10_000
    overwrite: bool = False
    allow_missing: bool = False


def _settings_of_sources() -> type[WriteSettings]:
    """`WriteSettings` and the keyword arguments of all sources, each with its sources' words."""
    kinds: dict[str, Any] = {}
    words: dict[str, list[str]] = defaultdict(list)
    for source_name, source in find_sources().items():
        kinds_of_source = inspect.get_annotations(source)
        for each in docstring_parser.parse(source.__doc__).params:
            name, kind = each.arg_name, kinds_of_source[each.arg_name]
            if name != "num_samples":
                is_list = any(word in str(kind) for word in ("Sequence", "Mapping"))
                kinds.setdefault(name, list[str] if is_list else kind)
                words[name].append(f"{source_name}: {' '.join(each.description.split())}")
    worlds = ", ".join(sorted(find_sources().keys() - SOURCES.keys())) or f"none is; {REMEDY}"
    lines = [f"        {name}: {' '.join(each)}" for name, each in words.items()]
    doc = WriteSettings.__doc__.format(worlds=worlds).rstrip()
    return dataclasses.make_dataclass(
        "ShardsSettings",
        [(name, kind | None, None) for name, kind in kinds.items()],
        bases=(WriteSettings,),
        namespace={"__doc__": "\n".join([doc, *lines]), "FORMER_NAMES": FORMER_NAMES},
    )


ShardsSettings = _settings_of_sources()
"""Settings of `crosslingual shards`."""


@dataclass
class InspectSettings:
    """Settings of `crosslingual inspect`.

    Attributes:
        shards: folder, tar file, brace range, fsspec address, or several of them joined by '::'.
        caption_keys: JSON keys and their languages, as caption_en=en caption_zh=zh.
        caption_language: language of KEY.txt, which counts where the JSON holds no captions.
        caption_lines: whether each line of KEY.txt is a caption.
        verify_data: compare each shard with the SHA-256 in its index, about a second a GB; false
            compares sizes alone.
    """

    FORMER_NAMES: ClassVar[dict[str, str]] = FORMER_NAMES

    shards: str
    caption_keys: list[str] | None = None
    caption_language: LanguageCode = "en"
    caption_lines: bool = False
    verify_data: bool = True


def write(settings: WriteSettings) -> None:
    """Writes pictures and captions as WebDataset shards with an index.json."""
    from tqdm import tqdm

    faults: dict[str, str] = {}
    records = tqdm(read_source(settings, faults), unit=" samples", disable=None, leave=False)
    index = write_shards(
        records,
        settings.output_dir,
        samples_per_shard=settings.samples_per_shard,
        overwrite=settings.overwrite,
        allow_missing=settings.allow_missing,
        faults=faults,
    )
    print(f"wrote {settings.output_dir}: {_describe(len(index['shards']), index)}")
    _say_faults("left out", faults)


def read_source(settings: WriteSettings, faults: dict[str, str] | None = None) -> Iterator[Record]:
    """The records that the settings of `crosslingual shards` ask for. With `faults`, samples that
    cannot be read go there, reason by name, if the source has such an argument.

    Raises:
        ValueError: no such source, a setting that the source does not take, or a missing one that
            it needs.
    """
    if settings.num_samples is not None and settings.num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, not {settings.num_samples}")
    sources = find_sources()
    if settings.source not in sources:
        known = ", ".join(sources)
        raise ValueError(
            f"no source {settings.source!r}; there are {known}; for a world's source, {REMEDY}"
        )
    source = sources[settings.source]
    parameters = inspect.signature(source).parameters
    own = {field.name for field in dataclasses.fields(WriteSettings)} - parameters.keys()
    given = {k: v for k, v in vars(settings).items() if v is not None and k not in own}
    for name in given.keys() - parameters.keys():
        takes = ", ".join(f"--{name}" for name in parameters if name != "faults")
        raise ValueError(f"source {settings.source} takes no --{name}; it takes {takes}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ValueError(f"source {settings.source} needs --{name}")
    for world in find_worlds().values():
        if settings.source in world.sources and "languages" in given:
            given["languages"] = [*match_languages(given["languages"], world.languages).values()]
    if "caption_keys" in given:
        given["caption_keys"] = parse_key_map(given["caption_keys"])
    changes: dict[str, bool | str] = {}
    if settings.culture is not None:
        changes |= {"culture": settings.culture, "parallel": False}
    if settings.parallel is not None:
        changes["parallel"] = settings.parallel
    if "faults" in parameters:
        given["faults"] = faults
    limit = settings.num_samples if "num_samples" in own else None
    for record in itertools.islice(source(**given), limit):
        yield dataclasses.replace(record, **changes)


def survey(settings: InspectSettings) -> None:
    """Prints the counts, languages and key names of shards: inspect SHARDS."""
    from crosslingual.data.pictures import check_mode  # which imports torch

    paths = expand_shards(settings.shards)
    key_map = parse_key_map(settings.caption_keys or ()) or None
    options = {"key_map": key_map, "caption_language": settings.caption_language}
    options["caption_lines"] = settings.caption_lines
    tally, names, first = Tally(), Counter(), None
    faults: dict[str, str] = {}
    for sample in itertools.chain.from_iterable(iter_samples(p, faults, names) for p in paths):
        names.update(names_found(sample))
        try:
            record = sample_to_record(sample, **options)
            check_mode(record_to_sample(record))  # what could not be written again
        except ValueError as error:
            key = sample["__key__"]
            reason = re.sub(r"\A(sample|record) '.*?': ", "", str(error))
            faults[f"{sample['__url__']}: {printable(key)}"] = reason
            continue
        tally.add(record)
        first = first or record
    print(f"{settings.shards}: {_describe(len(paths), tally.as_dict())}")
    found = ", ".join(f"{name} {count}" for name, count in names.most_common(NUM_NAMES))
    print(f"members and keys: {found or 'none'}")
    if first is not None:
        print(f"first sample {first.key}:")
        for language, texts in first.captions.items():
            print(f"  {language}: {texts[0]}")
    _say_faults("unreadable", faults)
    if first is None:
        raise ValueError(f"no sample of {settings.shards} can be used")
    if damaged := [f"{k} is {v}" for k, v in faults.items() if v in (CUT_OFF, DAMAGED)]:
        raise ValueError(f"{damaged[0]}: copy or write it again")
    if (Path(settings.shards) / INDEX).is_file():
        index = read_index(settings.shards)
        shard_sizes(paths)  # raises where the loader would
        said = language_counts(paths)
        if not faults and said != (tally.languages, tally.counts["num_samples"]):
            raise ValueError(
                f"{settings.shards}/{INDEX} says other numbers of samples: write the shards again"
            )
        if settings.verify_data:
            check_hashes(settings.shards, index)
            print(f"index.json agrees with the SHA-256 of each shard; sha256 {index['sha256']}")
        else:
            check_sizes(settings.shards, index)
            print(f"index.json agrees with the shards' sizes; sha256 {index['sha256']}")


def _say_faults(what: str, faults: Mapping[str, str]) -> None:
    """Prints faults by reason, and members that belong to no sample apart from them."""
    foreign = [name for name, reason in faults.items() if reason == FOREIGN]
    samples = {name: reason for name, reason in faults.items() if reason != FOREIGN}
    if samples:
        print(f"{what}: {len(samples)} samples")
        for name, reason in [*samples.items()][:NUM_FAULTS]:
            print(f"  {name}: {reason}")
        if len(samples) > NUM_FAULTS:
            print(f"  in all: {count_reasons(samples)}")
    if foreign:
        print(f"passed over: {len(foreign)} members of no sample, the first: {foreign[0]}")


def _describe(num_shards: int, counts: Mapping[str, Any]) -> str:
    languages = ", ".join(f"{name} {count}" for name, count in counts["languages"].items())
    return (
        f"{counts['num_samples']} samples in {num_shards} shards, "
        f"{counts['num_images']} with a picture, {counts['num_parallel']} parallel, "
        f"{counts['num_culture']} of a culture; captions: {languages or 'none'}"
    )
