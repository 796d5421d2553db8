"""Records: a picture with its captions in any number of languages, and its form inside a shard.

Sources yield records, `crosslingual shards` writes them, the loader reads them back. In a shard a
record is a WebDataset sample: `KEY.png|jpg|webp` (none for text alone), `KEY.json` with captions of
all languages, and `KEY.txt` with the first English one, for readers that know no other. A picture
in another format that is read (GIF, BMP, TIFF, AVIF) is kept as it is, as `KEY.gif` and so on.
"""

import functools
import logging
import os.path
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crosslingual.data.languages import is_english, parse_language
from crosslingual.data.text import (
    check_characters,
    decode_text,
    dump_json,
    fault_of,
    find_file,
    parse_json,
    printable,
)

PICTURES = "jpg png webp jpeg jfif jpe apng gif bmp tif tiff avif".split()
"""Extensions of pictures; their content says what they are."""
NOT_READ = (
    "heic heif jxl jp2 j2k jpx jxr svg svgz psd tga ico ppm pgm pbm pnm eps dng exr hdr".split()
)
"""Extensions of pictures that are refused by name, so that none is passed over unnoticed."""
RESERVED = ("captions", "parallel", "culture")
CAPTION_KEYS = ("caption", "text", "TEXT", "alt")
"""JSON keys that img2dataset and others keep the caption under, for samples without `KEY.txt`."""

log = logging.getLogger(__name__)

_SIGNATURES = {  # by the extension that the picture gets in a shard
    "jpg": re.compile(rb"\xff\xd8\xff"),
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "gif": re.compile(rb"GIF8[79]a"),
    "bmp": re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    "tif": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "avif": re.compile(rb".{4}ftyp(avi[fs]|m[is]f1.{4}(.{4}){0,8}?avi[fs])", re.DOTALL),
}
_ENDING = re.compile(rf"(?<=[^/])\.({'|'.join([*PICTURES, *NOT_READ])})(?=#|$)", re.IGNORECASE)
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)


@dataclass(frozen=True)
class Record:
    """One sample.

    Attributes:
        key: its name in the shards: a relative path without dots in its last part.
        image: the encoded picture (in a format of `data.pictures`), the path of one, or None for
            text alone.
        captions: the texts by language (BCP-47, in the form of `parse_language`), at least one in
            each language named.
        parallel: whether the captions say the same, so that the English one speaks for all; where
            a file does not say so, this holds for captions with English among them and no culture.
        culture: for a culture-specific sample, the language of its culture.
        extra: whatever else is known, in JSON values.
        origin: the shard or file that it was read from, for messages; not written.
    """

    key: str
    image: bytes | Path | None
    captions: dict[str, list[str]]
    parallel: bool
    culture: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    origin: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuses what a shard could not hold."""
        folder, _, name = self.key.rpartition("/")
        outside = self.key.startswith("/") or ".." in folder.split("/")
        if not name or "." in name or outside or not self.key.isprintable():
            raise ValueError(f"key {self.key!r} must be a relative path inside, without a dot")
        if not self.captions:
            raise ValueError(f"record {self.key!r} has no captions")
        with fault_of(f"record {self.key!r}"):
            captions: dict[str, list[str]] = {}
            for language, texts in self.captions.items():
                captions.setdefault(parse_language(language), []).extend(map(str.strip, texts))
            culture = None if self.culture is None else parse_language(str(self.culture))
            check_characters("".join(map("".join, captions.values())))
        object.__setattr__(self, "captions", captions)
        object.__setattr__(self, "culture", culture)
        if not all(texts and all(texts) for texts in self.captions.values()):
            raise ValueError(f"record {self.key!r} has an empty caption")
        if clash := set(RESERVED) & set(self.extra):
            raise ValueError(f"record {self.key!r}: extra may not hold {', '.join(sorted(clash))}")


def picture_kind(data: bytes) -> str | None:
    """The extension of a picture by its first bytes; None for what is no picture that is read."""
    return next((kind for kind, form in _SIGNATURES.items() if form.match(data)), None)


def make_key(file_name: str) -> str:
    """The key of a picture file: its path without the extension, dots and `#` made `_`. Two files
    whose keys agree are an error where shards are written.
    """
    stem = _ENDING.sub("", file_name)
    return re.sub(r"[.#]", "_", stem.removeprefix("./").lstrip("/"))


def split_member(name: str) -> tuple[str, str] | None:
    """Splits a tar member's name at the first dot of its last part: (key, extension).

    None for a name that belongs to no sample: without an extension, or starting with a dot.
    """
    found = _MEMBER.fullmatch(name.removeprefix("./"))
    return (found[1], found[2].lower()) if found else None


def parse_key_map(pairs: Iterable[str]) -> dict[str, str]:
    """Reads `["caption_en=en", "caption_zh=zh"]`, as flags give it, into a dict."""
    mapped = {}
    for pair in pairs:
        name, equals, language = pair.partition("=")
        if not (name and equals):
            raise ValueError(
                f"caption_keys takes NAME=LANGUAGE such as caption_zh=zh, not {pair!r}"
            )
        mapped[name] = parse_language(language)
    return mapped


def record_from_fields(
    key: str,
    image: bytes | Path | None,
    fields: Mapping[str, Any],
    *,
    text: str | list[str] | None = None,
    key_map: Mapping[str, str] | None = None,
    caption_language: str = "en",
    origin: str = "",
) -> Record:
    """Makes a record of JSON fields: what is no caption, `parallel` or `culture` becomes `extra`.

    Captions are those of every language under `captions`; or those under the keys that `key_map`
    names, such as `{"caption_zh": "zh"}`; or else `text`, or what the first of `CAPTION_KEYS` that
    holds a text says, in `caption_language`.

    Raises:
        ValueError: no caption is found (the keys that were are named), or a field is malformed.
    """
    rest = dict(fields)
    captions: dict[str, list[str]] = {}
    if "captions" in rest:
        given = rest.pop("captions")
        if not isinstance(given, dict):
            raise ValueError("'captions' must be an object of lists of texts by language")
        captions = {language: _texts(texts) for language, texts in given.items()}
    elif key_map:
        for name, language in key_map.items():
            captions.setdefault(language, []).extend(_texts(rest.pop(name, None)))
    elif text is not None:
        captions = {caption_language: _texts(text)}
    elif name := next((name for name in CAPTION_KEYS if _is_caption(rest.get(name))), None):
        _say_key(name, caption_language)
        captions = {caption_language: _texts(rest.pop(name))}
    captions = {language: texts for language, texts in captions.items() if texts}
    if not captions:
        wanted = f" under {', '.join(key_map)}" if key_map else ""
        found = printable(", ".join(sorted(fields)[:20])) or "none"
        raise ValueError(f"no caption{wanted}; JSON keys found: {found}; see --caption_keys")
    culture = rest.pop("culture", None)
    parallel = rest.pop("parallel", None)
    if parallel is None:
        parallel = culture is None and any(map(is_english, captions))
    if not isinstance(parallel, bool):
        raise ValueError(f"'parallel' must be true or false, not {parallel!r}")
    return Record(key, image, captions, parallel, culture, rest, origin)


def record_to_sample(record: Record) -> dict[str, Any]:
    """The WebDataset sample of a record: `__key__` and bytes by extension; a path is read.

    Raises:
        FileNotFoundError: the picture is missing.
        ValueError: the picture is of no format that is read, or `extra` holds what is no JSON.
    """
    sample: dict[str, Any] = {"__key__": record.key}
    image = record.image
    remedy = "add it, or leave such samples out with --allow_missing"
    if isinstance(image, Path):
        path = find_file(image)
        if not os.path.isfile(path):  # unlike Path.is_file, it says no to names too long
            raise FileNotFoundError(f"record {record.key!r}: picture {image} is missing; {remedy}")
        image = path.read_bytes()
    if image is not None:
        if (kind := picture_kind(image)) is None:
            what = "no JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
            if isinstance(record.image, Path):
                raise ValueError(f"record {record.key!r}: {record.image} is {what}; {remedy}")
            raise ValueError(f"record {record.key!r}: the picture is {what}")
        sample[kind] = image
    fields = {name: getattr(record, name) for name in RESERVED} | record.extra
    with fault_of(f"record {record.key!r}"):
        sample["json"] = dump_json(fields, sort_keys=True).encode()
    if english := sorted(filter(is_english, record.captions)):
        sample["txt"] = record.captions[english[0]][0].encode()
    return sample


def sample_to_record(
    sample: Mapping[str, Any],
    *,
    key_map: Mapping[str, str] | None = None,
    caption_language: str = "en",
    caption_lines: bool = False,
) -> Record:
    """Reads a WebDataset sample, ours or another's: `__key__` and undecoded bytes by extension.

    The options are those of `record_from_fields`, whose `text` is `KEY.txt`: one caption, or with
    `caption_lines` one a line.

    Raises:
        ValueError: no caption, broken JSON, a key that points outside, two pictures or one that is
            not read; the sample is named.
    """
    key = sample["__key__"]
    with fault_of(f"sample {key!r}"):
        fields = parse_json(sample.get("json", b"{}"))
        if not isinstance(fields, dict):
            raise ValueError("the JSON is no object")
        text = decode_text(sample["txt"]) if "txt" in sample else None
        return record_from_fields(
            key,
            find_picture(sample),
            fields,
            text=text.split("\n") if caption_lines and text else text,
            key_map=key_map,
            caption_language=caption_language,
            origin=sample.get("__url__", ""),
        )


def find_picture(sample: Mapping[str, Any]) -> bytes | None:
    """The picture of a WebDataset sample, encoded; None where it has none.

    Raises:
        ValueError: it has two, or one of a format that is not read.
    """
    found = [name for name in sample if name in PICTURES]
    if len(found) > 1:
        raise ValueError(f"two pictures of one name, .{' and .'.join(found)}: rename one")
    if not found and (other := next((name for name in sample if name in NOT_READ), None)):
        raise ValueError(f"{other} pictures are not read: convert them to PNG or JPEG")
    return sample[found[0]] if found else None


def count_reasons(faults: Mapping[str, str]) -> str:
    """The most common reasons of faults (reason by the name of the sample) with their numbers."""
    reasons = Counter(re.split("[:;]", reason)[0] for reason in faults.values())
    return ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))


def describe_faults(faults: Mapping[str, str]) -> str:
    """Faults in one line: their reasons, and the first three by name."""
    first = "; ".join(f"{name}: {faults[name]}" for name in [*faults][:3])
    return f"{count_reasons(faults)}; first: {first}"


def names_found(sample: Mapping[str, Any]) -> list[str]:
    """What a sample holds, for messages about mis-keyed shards: `["jpg", "json:caption_en"]`."""
    names = [name for name in sample if name != "json" and not name.startswith("__")]
    if "json" in sample:
        try:
            fields = parse_json(sample["json"])
        except ValueError:
            fields = {"(broken)": None}
        if isinstance(fields, dict):
            names += [f"json:{printable(name)}" for name in fields]
        else:
            names.append("json")
    return sorted(names)


def _texts(value: Any) -> list[str]:
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"a caption must be a text or a list of texts, not {value!r:.60}")
    return [text.strip() for text in texts if text.strip()]


def _is_caption(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and text.strip() for text in texts)


@functools.cache
def _say_key(name: str, language: str) -> None:
    """Says once which key the captions were found under."""
    log.warning(
        "captions are taken from the JSON key %r as %r; see --caption_keys for others",
        name,
        language,
    )
