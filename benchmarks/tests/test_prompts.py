"""Prompt files, our culture set, MG-18 from Crossmodal-3600's files, and the testbed's prompts."""

import json
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from crosslingual_benchmarks.generation.prompts import ASPECTS, mc18, read_prompts
from crosslingual_benchmarks.generation.prompts import world as world_module
from crosslingual_benchmarks.generation.prompts.mg18 import mg18
from crosslingual_benchmarks.generation.prompts.world import reference_pictures, world_prompts
from crosslingual_benchmarks.generation.settings import GenerationSettings, load_prompt_set
from crosslingual_worlds.drawn.captions import caption, lexicon
from crosslingual_worlds.drawn.judge import shows
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.motifs import MOTIFS
from crosslingual_worlds.drawn.typesetting import is_right_to_left, shape_line
from crosslingual_worlds.drawn.world import sample_scenes, split_of

# What a language is written with, lower case, as a set of regular expressions' characters.
LETTERS = {
    "ar": "\u0621-\u063a\u0641-\u0652",
    "de": "a-zäöüß",
    "en": "a-z",
    "es": "a-záéíóúüñ",
    "fr": "a-zàâæçéèêëîïôœùûüÿ",
    "hi": "\u0900-\u097f",
    "it": "a-zàèéìíòóù",
    "ja": "ぁ-んァ-ヶー々一-鿿",
    "ko": "가-힣",
    "nl": "a-zéëïóö",
    "pl": "a-pr-uwyząćęłńóśźż",
    "pt": "a-záâãàçéêíóôõú",
    "ru": "а-яё",
    "th": "ก-\u0e3aเ-\u0e4e",
    "tr": "a-pr-vyzçğıöşüâîû",
    "uk": "а-щьюяґєії",
    "vi": "a-eghik-vxyàáảãạăằắẳẵặâầấẩẫậđèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữựỳýỷỹỵ",
    "zh": "一-鿿",
}
# A prompt of the language has at least one of these: what its neighbours do not write.
OWN = {"ja": "ぁ-んァ-ヶ", "vi": "àáảãạăằắẳẵặâầấẩẫậđèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữự"}


def letters_of(text):
    lowered = text.replace("İ", "i").lower()  # str.lower leaves a dot above
    return "".join(c for c in lowered if unicodedata.category(c)[0] in "LM")


def test_every_language_has_one_prompt_of_every_aspect():
    prompts = mc18().prompts
    assert Counter((p.culture, p.aspect) for p in prompts) == Counter(
        (language, aspect) for language in LANGUAGES for aspect in ASPECTS
    )
    assert all([*p.prompts] == [p.culture] and p.id == f"{p.culture}-{p.aspect}" for p in prompts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_culture_prompts_are_written_in_their_language_s_letters(language):
    for prompt in mc18().of(language):
        letters = letters_of(prompt.prompts[language])
        odd = re.sub(f"[{LETTERS[language]}]", "", letters)
        assert letters and not odd, (prompt.id, odd)
        if language in OWN:
            assert re.search(f"[{OWN[language]}]", letters), prompt.id


def test_the_letters_tell_scripts_apart():
    for language, text in {"de": "Тee", "uk": "сыр", "ko": "漢字", "zh": "のり"}.items():
        assert re.sub(f"[{LETTERS[language]}]", "", letters_of(text)), language


def test_chinese_prompts_are_simplified_and_japanese_and_korean_fit_their_national_sets():
    for language, encoding in {"zh": "gb2312", "ja": "cp932", "ko": "euc_kr"}.items():
        for prompt in mc18().of(language):
            assert prompt.prompts[language].encode(encoding)
    with pytest.raises(UnicodeEncodeError):
        "龍舟賽".encode("gb2312")


def test_no_culture_prompt_repeats_another_and_all_are_tidy():
    prompts = mc18().prompts
    texts = [text for p in prompts for text in p.prompts.values()]
    for column in (texts, [p.english for p in prompts], [p.about for p in prompts]):
        assert len(set(column)) == len(column) == 108
        for text in column:
            assert text == unicodedata.normalize("NFC", text) == " ".join(text.split())
    assert all(p.prompts["en"] == p.english for p in prompts if p.culture == "en")


def test_the_sheet_s_fonts_have_every_sign_of_the_culture_prompts():
    for prompt in mc18().prompts:
        for language, text in prompt.prompts.items():
            line = shape_line(text, language, is_right_to_left(text))
            assert all(glyph != 0 for _, glyph, _, _ in line.glyphs), (prompt.id, text)


def write_lines(path, *lines):
    words = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return path


def test_a_prompt_file_s_texts_come_back_in_nfc_with_english_from_its_own_column(tmp_path):
    (tmp_path / "house.jpg").write_bytes(b"")
    path = write_lines(
        tmp_path / "mine.jsonl",
        {"id": "a", "prompts": {"fr": "cafe\u0301", "en": "a coffee"}, "image": "house.jpg"},
        "",
        {"id": "b", "prompts": {"de": "ein Haus"}, "english": "a house", "aspect": None},
    )
    coffee, house = read_prompts(path)
    assert coffee.prompts["fr"] == "café" and coffee.english == "a coffee"
    assert coffee.image == tmp_path / "house.jpg" and house.image is None
    assert house.english == "a house" and house.aspect is None and house.culture is None


GOOD = {"id": "a", "prompts": {"de": "ein Haus"}, "english": "a house"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 is broken JSON"),
        ("[]", "line 2 is no JSON object"),
        ({**GOOD, "id": "b", "promts": {}}, "line 2 has the unknown key 'promts'; did you mean"),
        ({"id": "b", "english": "x"}, "line 2 lacks prompts"),
        ({"prompts": {"de": "x"}}, "line 2 lacks id"),
        ({**GOOD, "id": "b", "prompts": {}}, "line 2: prompts must be an object"),
        ({**GOOD, "id": "b", "prompts": "x"}, "line 2: prompts must be an object"),
        ({**GOOD, "id": "b", "prompts": {"de": " "}}, "line 2: prompts of de is ' '"),
        ({**GOOD, "id": 7}, "line 2: id is 7; a text is needed"),
        ({"id": "b", "prompts": {"de": "x"}}, "line 2 lacks english"),
        (GOOD, "line 2 repeats the id 'a' of line 1"),
        ({**GOOD, "id": "b", "image": "none.jpg"}, "line 2: no photograph .*none.jpg"),
        ({**GOOD, "id": "b", "prompts": {"../../x": "x"}}, "line 2: .*is no language code"),
        ({**GOOD, "id": "b", "prompts": {"jp": "x"}}, "line 2: .*did you mean .*ja"),
        ({**GOOD, "id": "b", "prompts": {"iw": "x", "he": "x"}}, "line 2 names a language twice"),
        ({**GOOD, "id": "b", "culture": "../x"}, "line 2: .*is no language code"),
        ({**GOOD, "id": "b", "image": "../a.png"}, "line 2: '../a.png' lies outside of"),
        ({**GOOD, "id": "b", "image": "/etc/passwd"}, "line 2: '/etc/passwd' lies outside of"),
    ],
)
def test_a_line_that_is_no_prompt_is_refused_by_file_and_line(tmp_path, line, words):
    path = write_lines(tmp_path / "mine.jsonl", GOOD, line)
    with pytest.raises((ValueError, FileNotFoundError), match=f"mine.jsonl {words}"):
        read_prompts(path)


def test_a_missing_and_an_empty_prompt_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no prompt file"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="is empty"):
        read_prompts(write_lines(tmp_path / "empty.jsonl"))


def test_an_empty_language_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(ValueError, match="mc18 has no prompt in 'sv'; it has ar, de, en"):
        mc18().of("sv")


@pytest.fixture
def xm3600(tmp_path):
    """Eight entries in Crossmodal-3600's layout, with photographs of no bytes."""
    (tmp_path / "images").mkdir()
    entries = []
    for number in range(8):
        key = f"{number:016x}"
        captions = {
            name: {"caption": [f"{name} {number} first", f"{name} {number} second"]}
            for name in ("de", "en", "quz", "th")
        }
        entries.append({"image/key": key, "image/locale": "de", **captions})
        (tmp_path / "images" / f"{key}.jpg").write_bytes(b"")
    write_lines(tmp_path / "captions.jsonl", *entries)
    return tmp_path


def test_mg18_takes_first_captions_with_the_english_one_and_the_photograph(xm3600):
    told = mg18(xm3600, ["th", "de"])
    assert sorted(p.id for p in told.prompts) == [f"{n:016x}" for n in range(8)]
    for prompt in told.prompts:
        number = int(prompt.id, 16)
        assert prompt.prompts == {"th": f"th {number} first", "de": f"de {number} first"}
        assert prompt.english == f"en {number} first"
        assert prompt.image == xm3600 / "images" / f"{prompt.id}.jpg"
    assert told.protocol == {
        "captions": "first",
        "prompt_set": "XM3600 without WIT",
        "sample_seed": 0,
    }


def test_mg18_s_sample_is_seeded_and_a_smaller_one_begins_a_larger_one(xm3600):
    ids = [[p.id for p in mg18(xm3600, ["de"], 5, seed=s).prompts] for s in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert [p.id for p in mg18(xm3600, ["th", "en"], 3).prompts] == ids[0][:3]


def test_mg18_refuses_what_it_cannot_sample(xm3600, tmp_path):
    with pytest.raises(ValueError, match="line 1 has no caption in 'fr'; it has de, en, quz, th"):
        mg18(xm3600, ["fr"])
    for count in (0, 9):
        with pytest.raises(ValueError, match=f"has 8 pictures, of which num_prompts asks {count}"):
            mg18(xm3600, ["de"], count)
    with pytest.raises(FileNotFoundError, match="captions.jsonl; --root is the folder"):
        mg18(tmp_path / "nowhere", ["de"])


def test_mg18_counts_missing_photographs_unless_they_are_not_wanted(xm3600):
    for number in (2, 3):
        (xm3600 / "images" / f"{number:016x}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="2 of 8 photographs are missing, the first"):
        mg18(xm3600, ["de"])
    assert {p.image for p in mg18(xm3600, ["de"], use_references=False).prompts} == {None}


@pytest.mark.parametrize("line", [{"de": {"caption": ["x"]}}, {"image/key": "0" * 16}])
def test_mg18_refuses_entries_without_a_key_of_their_own(xm3600, line):
    write_lines(xm3600 / "captions.jsonl", {"image/key": "0" * 16, "en": {"caption": ["x"]}}, line)
    with pytest.raises(ValueError, match="line 2 has no image/key of its own"):
        mg18(xm3600, ["en"])


@pytest.mark.parametrize("split", ["test", "val"])
def test_testbed_prompts_are_held_out_scenes_alike_in_every_language(split):
    settings = GenerationSettings("base", "testbed", languages=["de", "ja"], prompt_split=split)
    settings = replace(settings, num_prompts=12, num_motif_prompts=0, prompt_seed=3)
    told = load_prompt_set(settings)
    assert told.protocol["split"] == split
    assert [p.scene for p in told.prompts] == sample_scenes(split, 12, 3)
    for prompt in told.prompts:
        assert split_of(prompt.scene) == split and prompt.culture is None
        assert prompt.english == caption(prompt.scene, "en")
        assert prompt.prompts == {name: caption(prompt.scene, name) for name in ("de", "ja")}


def test_mixed_prompts_pair_second_languages_with_all_in_both_orders_on_the_same_scenes():
    settings = GenerationSettings("base", "testbed", languages=["de", "ar", "nl"], num_prompts=3)
    told = load_prompt_set(replace(settings, second_languages=["de", "en"]))
    pairs = {"de+en", "en+de"} | {f"{a}+{b}" for a in ("de", "en") for b in ("ar", "nl")}
    pairs |= {f"{b}+{a}" for a in ("de", "en") for b in ("ar", "nl")}
    assert set(told.languages) == pairs | {"de", "en", "ar", "nl"}  # and not ar+nl
    assert told.name == "testbed-mixed" and told.protocol["second_languages"] == ["de", "en"]
    for prompt in told.prompts:
        assert split_of(prompt.scene) == "test" and prompt.scene.second is not None
        assert prompt.prompts["de"] == caption(prompt.scene, "de")
        assert prompt.prompts["de+en"].endswith(lexicon("en").phrase(prompt.scene.second))


def test_each_language_is_asked_for_its_own_motif_in_both_sizes():
    told = world_prompts("testbed", ["de", "ja"], 0, 3)
    for language in ("de", "ja"):
        prompts = told.of(language)
        assert [p.culture for p in prompts] == [language] * 3
        assert {MOTIFS[p.scene.motif].language for p in prompts} == {language}
        assert [p.scene.first.size for p in prompts] == ["small", "big", "small"]


def test_languages_whose_cultures_have_fewer_scenes_share_a_protocol(monkeypatch):
    evaluation = SimpleNamespace(
        scenes=lambda split, count, seed: ["a shark"] * count,
        culture_scenes=lambda language, count: ["own"] * {"de": 1, "ja": 2}.get(language, 0),
        caption=lambda scene, language: scene,
    )
    found = SimpleNamespace(evaluation=evaluation)
    monkeypatch.setattr(world_module, "find_world", lambda name: found)
    told = world_prompts("few", ["de", "ja", "sw"], 1, 22)
    assert [len(told.of(language)) for language in ("de", "ja", "sw")] == [2, 3, 1]
    assert told.protocol["num_culture_prompts"] == 22
    assert told.protocol["culture_score"] == "judge"
    assert "culture_score" not in world_prompts("few", ["de"], 1, 0).protocol


def test_the_testbed_refuses_no_prompts_and_unknown_languages():
    with pytest.raises(ValueError, match="leave no prompt"):
        world_prompts("testbed", ["de"], 0, 0)
    with pytest.raises(ValueError, match="no lexicon for 'sv'"):
        world_prompts("testbed", ["sv"], 2, 0)


def test_reference_pictures_are_true_and_always_the_same():
    pictures = list(reference_pictures("testbed", 4))
    again = list(reference_pictures("testbed", 4))
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again, strict=True))
    scenes = sample_scenes("test", 4, 2_147_483_647)
    assert all(shows(picture, scene) for picture, scene in zip(pictures, scenes, strict=True))
