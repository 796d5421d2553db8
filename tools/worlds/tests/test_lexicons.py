"""Captions of all eighteen languages: unambiguous, well formed, and as a speaker wrote them."""

import functools
import itertools
import unicodedata
from dataclasses import replace
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
import yaml

from crosslingual.frozen.weights import resolve
from crosslingual_worlds.drawn import captions
from crosslingual_worlds.drawn.captions import Lexicon, lexicon
from crosslingual_worlds.drawn.languages import LANGUAGES
from crosslingual_worlds.drawn.world import (
    RELATIONS,
    SIZES,
    Scene,
    Thing,
    all_things,
    motif_scenes,
)

EXAMPLES = yaml.safe_load(Path(__file__).with_name("caption_examples.yaml").read_text("utf-8"))
every_language = pytest.mark.parametrize("language", LANGUAGES)


def scene_from(text: str) -> Scene:
    """The scene written as `big-red-star left_of small-blue-ring`."""
    first, *rest = text.split()
    things = []
    for name in (first, *rest[1:]):
        size, *color, shape = name.split("-")
        things.append(Thing(shape, color[0] if color else None, size))
    return Scene(things[0], *rest[:1], *things[1:])


@functools.cache
def scenes() -> tuple[Scene, ...]:
    """Every single thing, every motif, and pairs with the scenes most like them, each once."""
    rng = np.random.default_rng(17)
    things = all_things()
    found = [Scene(thing) for thing in things] + motif_scenes()
    for _ in range(220):
        a, b = (things[k] for k in rng.choice(len(things), 2, replace=False))
        swaps = [(a, b), (replace(a, color=b.color), replace(b, color=a.color))]
        swaps += [(replace(x, size=y.size), replace(y, size=x.size)) for x, y in swaps]
        swaps += [(replace(x, shape=y.shape), replace(y, shape=x.shape)) for x, y in swaps]
        found += [Scene(x, relation, y) for x, y in swaps for relation in RELATIONS if x != y]
    return tuple({scene.scene_id: scene for scene in found}.values())


@functools.cache
def captions_of(language: str) -> tuple[list[str], ...]:
    """The captions of each of `scenes()`."""
    entries = lexicon(language)
    return tuple(entries.captions(scene) for scene in scenes())


@every_language
def test_no_two_scenes_share_a_caption(language: str) -> None:
    assert len(scenes()) > 2000
    told = {}
    for scene, texts in zip(scenes(), captions_of(language), strict=True):
        for text in texts:
            assert told.setdefault(text.casefold(), scene.scene_id) == scene.scene_id, text


@every_language
def test_a_scene_has_the_same_captions_whichever_way_it_is_said(language: str) -> None:
    entries = lexicon(language)
    for scene, texts in list(zip(scenes(), captions_of(language), strict=True))[::7]:
        mirrored = entries.captions(scene.mirrored)
        assert len(set(texts)) == len(texts)
        assert set(mirrored) == set(texts)
        if scene.second:
            assert mirrored[0] != texts[0]


@every_language
def test_a_mixed_caption_names_the_second_thing_in_the_other_language(language: str) -> None:
    for scene in [scene for scene in scenes() if scene.second][::97]:
        for other in ("en", "ja"):
            text = captions.mixed_caption(scene, language, other)
            assert text == " ".join(text.split())
            if other == language:
                assert text == captions.caption(scene, language)
                continue
            second, first = lexicon(other).phrase(scene.second), lexicon(language).phrase
            assert second in text.replace(first(scene.first), "")
            assert first(scene.second) not in text


def test_two_languages_need_two_things() -> None:
    with pytest.raises(ValueError, match="has one thing: two languages need two"):
        captions.mixed_caption(scenes()[0], "de", "en")


@every_language
def test_captions_are_nfc_single_spaced_and_without_a_full_stop(language: str) -> None:
    for text in itertools.chain.from_iterable(captions_of(language)):
        assert unicodedata.is_normalized("NFC", text), text
        assert text == " ".join(text.split()), text
        assert not text.endswith((".", "。", "।", "؟")) and "{" not in text, text


@every_language
def test_captions_are_those_a_speaker_wrote(language: str) -> None:
    wanted = dict(zip(EXAMPLES["scenes"], EXAMPLES[language], strict=True))
    assert {text: lexicon(language).captions(scene_from(text))[0] for text in wanted} == wanted


def test_the_examples_hold_every_word_that_agrees() -> None:
    told = [scene_from(text) for text in EXAMPLES["scenes"]]
    things = [thing for scene in told for thing in (scene.first, scene.second) if thing]
    shaped = [thing for thing in all_things() if thing.color]
    assert {thing.shape for thing in things} >= {thing.shape for thing in shaped}
    assert {thing.color for thing in things} >= {thing.color for thing in shaped}
    assert {thing.size for thing in things} == set(SIZES)
    assert {scene.relation for scene in told} == {None, *RELATIONS}
    for language in LANGUAGES:
        nouns = lexicon(language).nouns
        genders = {noun.get("gender") for noun in nouns.values()}
        assert {nouns[thing.shape].get("gender") for thing in things} == genders, language


@every_language
def test_a_noun_has_every_case_that_the_templates_ask_for(language: str) -> None:
    entries = lexicon(language)
    things = all_things() + [scene.first for scene in motif_scenes()]
    texts = entries.single + [text for part in entries.relations.values() for text in part]
    fields = [part for text in texts for part in Formatter().parse(text) if part[1]]
    for case in {case for _, _, case, _ in fields}:
        assert len({entries.phrase(thing, case) for thing in things}) == len(things)


@pytest.fixture
def english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The fields of the English lexicon, to be spoilt and read by `read`."""
    fields = yaml.safe_load((captions.LEXICON_FOLDER / "en.yaml").read_text(encoding="utf-8"))
    monkeypatch.setattr(captions, "LEXICON_FOLDER", tmp_path)
    return fields


def read(fields: dict) -> Lexicon:
    """Writes a lexicon for English where it is looked for, and reads it past the cache."""
    (captions.LEXICON_FOLDER / "en.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    return lexicon.__wrapped__("en")


def test_what_a_lexicon_lacks_or_does_not_know_is_named(english: dict) -> None:
    nouns = {name: forms for name, forms in english["nouns"].items() if name != "star"}
    with pytest.raises(ValueError, match="lexicon en: nouns lacks or does not know star"):
        read(english | {"nouns": nouns})
    with pytest.raises(ValueError, match="lexicon en: colors lacks or does not know brown"):
        read(english | {"colors": english["colors"] | {"brown": "brown"}})
    with pytest.raises(ValueError, match="lexicon en lacks or does not know the field adverbs"):
        read(english | {"adverbs": {}})
    del english["single"]
    with pytest.raises(ValueError, match="lexicon en lacks or does not know the field single"):
        read(english)


def test_a_form_that_is_missing_is_named(english: dict) -> None:
    english["colors"]["red"] = {"m": "red"}
    with pytest.raises(ValueError, match="lexicon en: red has no form for any.nom; it has m"):
        read(english).captions(Scene(Thing("star", "red", "big")))


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ValueError, match="no lexicon for 'eo'; there are ar, de, en"):
        lexicon("eo")


@pytest.fixture(scope="module")
def tokenizer():
    """The tokenizer of `testbed:xlm-r`."""
    folder = Path(resolve("testbed:xlm-r"))
    if not (folder / "tokenizer.json").exists():
        pytest.skip("testbed:xlm-r has not been exported yet")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def tight(text: str) -> str:
    """A text without its spaces, in the form (NFKC) that XLM-R's tokenizer brings it to.

    It is NFC but for one vowel sign of Thai, which it takes apart.
    """
    return "".join(unicodedata.normalize("NFKC", text).split())


@every_language
def test_captions_survive_the_tokenizer(language: str, tokenizer) -> None:
    texts = [text for part in captions_of(language)[:164] for text in part]
    texts += [text for part in captions_of(language)[164::13] for text in part]
    rows = tokenizer(texts).input_ids
    assert max(map(len, rows)) <= tokenizer.model_max_length
    assert not any(tokenizer.unk_token_id in ids for ids in rows)
    decoded = tokenizer.batch_decode(rows, skip_special_tokens=True)
    assert [tight(text) for text in decoded] == [tight(text) for text in texts]
