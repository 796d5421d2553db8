"""Whatever a sample or a file is: a record equal to it, or a fault that is counted.

A few seconds by default; HYPOTHESIS_PROFILE=long takes minutes.
"""

import contextlib
import io
import json
import logging
import os
import tarfile
import tempfile
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from crosslingual.cli.main import main
from crosslingual.data.loader import ShardLoader
from crosslingual.data.pictures import decode_pixels
from crosslingual.data.records import Record
from crosslingual.data.shards import iter_shards, write_shards
from crosslingual.data.tars import iter_samples
from crosslingual.data.text import (
    decode_text,
    dump_json,
    iter_json_lines,
    iter_lines,
    parse_json,
    read_json,
    read_text,
)
from crosslingual_worlds.testing.shards import Members, write_tar

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
for name, examples in (("ci", 80), ("long", 2000)):
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=name == "ci",
        suppress_health_check=CHECKS,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
FEWER = settings(max_examples=settings().max_examples // 6)  # of what takes 0.1 s

MIB = 2**20


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of samples that are passed over would be thousands of lines in a failure."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings(action="ignore"):
        yield
    logging.disable(logging.NOTSET)


def pictures() -> dict[str, bytes]:
    """A small picture in each format and each awkward mode."""
    noise = Image.effect_noise((9, 8), 90)
    wide = Image.fromarray(np.arange(72, dtype=np.uint16).reshape(8, 9) * 900)
    made: dict[str, bytes] = {}
    for extension, form, image in [
        ("jpg", "JPEG", noise),
        ("png", "PNG", noise.convert("P")),
        ("apng", "PNG", wide),
        ("webp", "WEBP", noise.convert("RGBA")),
        ("gif", "GIF", noise),
        ("bmp", "BMP", noise.convert("1")),
        ("tif", "TIFF", wide),
        ("tiff", "TIFF", noise.convert("CMYK")),
        ("avif", "AVIF", noise.convert("RGB")),
    ]:
        buffer = io.BytesIO()
        image.save(buffer, form)
        made[extension] = buffer.getvalue()
    return made


PICTURES = pictures()
texts = st.text(max_size=12) | st.sampled_from(["\ud83d", "a\0b", " ", "\ufeff", "\u202e", "é\r\n"])
numbers = st.floats() | st.integers() | st.just(10**400) | st.booleans() | st.none()
values = st.recursive(
    numbers | texts, lambda part: st.lists(part) | st.dictionaries(texts, part), max_leaves=6
)
languages = st.sampled_from(["en", "de", "zh-Hans", "EN_us", "", "english", "\ud83d", "x" * 300])
captions = st.dictionaries(languages, st.lists(texts, max_size=2) | texts | values, max_size=3)
fields = st.fixed_dictionaries(
    {}, optional={"captions": captions | values, "parallel": values, "culture": values}
)
"""What a sample's JSON says of it."""
fragments = st.sampled_from(
    [b"[" * 2000, b'{"a":' * 90, b"1e999", b"NaN", b'"\\ud83d"', b"\xff\xfe", b"9" * 5000, b"\0"]
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some of them changed, cut off, or with others between them."""
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        other = draw(st.binary(max_size=4) | fragments)
        data = data[:place] + other + data[place + draw(st.sampled_from([0, 1, len(other), 999])) :]
    return data


@st.composite
def json_bytes(draw: st.DrawFn) -> bytes:
    """JSON of a sample, mostly whole."""
    data = json.dumps(draw(fields | values), ensure_ascii=draw(st.booleans()))
    whole = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    return draw(damaged(data.encode(whole, "surrogatepass")))


@given(st.data())
def test_bytes_are_text_and_json_or_an_error_of_one_line(data: st.DataObject) -> None:
    found = data.draw(json_bytes() | fragments | st.binary(max_size=40))
    with refused():
        assert decode_text(found).encode() in found
    with refused():
        value = parse_json(found)
        assert parse_json(dump_json(value)) == value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_bytes(found)
        for read in (
            read_text,
            read_json,
            lambda p: [*iter_lines(p)],
            lambda p: [*iter_json_lines(p)],
        ):
            with refused():
                read(path)


@given(st.sampled_from(list(PICTURES.values())).flatmap(damaged))
def test_bytes_are_a_picture_or_an_error_of_one_line(data: bytes) -> None:
    with refused():
        assert decode_pixels(data, 8, max_pixels=MIB).shape == (8, 8, 3)


@FEWER
@given(
    st.lists(
        st.builds(
            dict,
            key=texts | st.sampled_from(["a", "b/c", "a.b", "../a", "a\n"]),
            image=st.sampled_from([None, b"", *PICTURES.values()]),
            captions=st.dictionaries(languages, st.lists(texts, max_size=2), max_size=3),
            parallel=st.booleans(),
            culture=st.none() | languages,
            extra=st.dictionaries(texts, values, max_size=2),
        ),
        max_size=3,
    )
)
def test_what_is_written_is_read_again_or_refused(rows: list[dict[str, Any]]) -> None:
    records = []
    for row in rows:
        with refused():
            records.append(Record(**row))
    with tempfile.TemporaryDirectory() as folder, refused():
        write_shards(records, Path(folder, "out"))
        assert list(iter_shards([f"{folder}/out/00000.tar"])) == records


@st.composite
def samples(draw: st.DrawFn) -> list[tuple[str, Members]]:
    """Samples by key, with members that may be broken, doubled, foreign or badly named."""
    found: list[tuple[str, Members]] = []
    for number in range(draw(st.integers(1, 4))):
        ending = draw(st.sampled_from(["", " v1.0", ".b", "é", "\n", "#", ".jpg"]))
        key = f"{draw(st.sampled_from(['k', 'd/k', 'd.e/k']))}{number}{ending}"
        members: Members = []
        for _ in range(draw(st.integers(1, 4))):
            extension = draw(
                st.sampled_from([*PICTURES, "json", "txt", "JPG", "heic", "cls", "x.y"])
            )
            picture = st.just(PICTURES.get(extension.lower(), PICTURES["jpg"])).flatmap(damaged)
            texts_of = {"json": json_bytes(), "txt": st.binary(max_size=8) | st.just(b"a cat")}
            members.append((f"{key}.{extension}", draw(texts_of.get(extension, picture))))
        found.append((key, members))
    return found


@FEWER
@given(samples())
def test_every_sample_of_a_shard_is_read_or_counted(found: list[tuple[str, Members]]) -> None:
    """By everything that reads shards, which agree on what a sample is."""
    with tempfile.TemporaryDirectory() as folder:
        members = [member for _, part in found for member in part]
        tar = str(
            write_tar(
                Path(folder, "0.tar"), [*members, ("z.png", PICTURES["png"]), ("z.txt", b"z")]
            )
        )
        faults: dict[str, str] = {}
        keys = [record.key for record in iter_shards([tar], faults=faults)]
        told = " ".join([*keys, *faults]).replace(".", "_")
        for key, _ in found:
            assert (
                key.split(".")[0] in told or key.replace(".", "_") in told or not key.isprintable()
            )
        loaded = load(tar)
        assert {*loaded} <= {*keys} and "z" in loaded
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["inspect", tar]) == 0
            words = ["--source", "webdataset", "--input", tar, "--output_dir", f"{folder}/out"]
            assert main(["shards", *words]) == 0
        assert printed.getvalue().count(f"{len(keys)} samples in 1 shards") >= 1 or faults
        json.loads("".join(Path(folder, "out/index.json").read_text()), parse_constant=int)
        for sample in iter_samples(f"{folder}/out/00000.tar"):
            json.loads(sample["json"], parse_constant=int)  # which NaN is not


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """A tar whose headers lie, or are damaged."""
    buffer = io.BytesIO()
    form = draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]))
    for number in range(draw(st.integers(1, 4))):
        info = tarfile.TarInfo(f"{number}.{draw(st.sampled_from(['png', 'txt', 'json', 'x.png']))}")
        data = draw(st.binary(max_size=20))
        sizes = [len(data)] * 4 + [0, 511, 600, 2**30, 2**33 - 1]
        info.size, kinds = draw(st.sampled_from(sizes)), b"00000001234567gxLKSVX"
        info.type = bytes([draw(st.sampled_from(kinds))])
        if form == tarfile.PAX_FORMAT:
            names = ["size", "path", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.realsize"]
            names += ["GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.numblocks", "hdrcharset"]
            some = st.sampled_from(["0", "1", "-1", "9" * 12, "0,5,9", "BINARY", "a.png", "x\0"])
            info.pax_headers = draw(st.dictionaries(st.sampled_from(names), some, max_size=3))
        header = info.tobuf(form, errors="surrogateescape")
        padded = data.ljust(-len(data) % 512 + len(data), b"\0")
        buffer.write(header * draw(st.sampled_from([1, 1, 1, 1, 1500])) + padded)
    return draw(damaged(buffer.getvalue() + bytes(draw(st.sampled_from([0, 512, 1024])))))


@FEWER
@given(tars())
def test_no_header_of_a_tar_costs_more_than_an_error(data: bytes) -> None:
    """Neither an exception of `tarfile`'s nor memory for what a size promises."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "0.tar")
        path.write_bytes(data)
        with path.open("r+b") as file:
            file.truncate(len(data) + 2**34)  # so that the bytes of large members are there
        for end in (len(data) + 2**34, len(data)):
            os.truncate(path, end)
            tracemalloc.start()
            with refused():
                list(iter_shards([str(path)], faults={}))
            with refused():
                load(str(path))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 64 * MIB


def load(tar: str) -> list[str]:
    """The keys that the loader reads, in stored order."""
    loader = ShardLoader(
        tar, batch_size=4, seed=0, resolution=8, shuffle=False, max_corrupt=1.0, max_pixels=MIB
    )
    batches = loader.batches()
    return [key for _ in range(len(loader)) for key in next(batches)["keys"]]


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Lets nothing but a ValueError of one line pass."""
    try:
        yield
    except ValueError as error:
        assert "\n" not in str(error) and str(error)
