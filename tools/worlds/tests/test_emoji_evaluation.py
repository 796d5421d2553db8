"""The emoji world's records, prompts, judge and groups, on a handful of emoji in the packages' true
layouts, without a network; and once on the fetched packages, where they are.
"""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from crosslingual.evaluation import generation
from crosslingual.evaluation.generation import Arm, EvaluateSettings, evaluate_pipelines
from crosslingual_worlds.emoji import (
    LANGUAGES,
    evaluation,
    languages,
    names,
    packages,
    pictures,
    source,
)
from crosslingual_worlds.emoji.source import emoji

# An emoji of each split by the hash of its characters, and two that the base was never taught.
SHARK, BANANA, ANT, BELL = "\U0001f988", "\U0001f34c", "\U0001f41c", "\U0001f514"
TORII, PRETZEL, GRIN = "⛩", "\U0001f968", "\U0001f600"
GROUPS = {
    **dict.fromkeys((SHARK, ANT), ("Animals & Nature", "animal")),
    **dict.fromkeys((BANANA, PRETZEL), ("Food & Drink", "food")),
    TORII: ("Travel & Places", "place-religious"),
    BELL: ("Objects", "sound"),
    GRIN: ("Smileys & Emotion", "face-smiling"),
}
SAID = {
    "en": {
        SHARK: ("shark", ["fish", "shark"]),
        BANANA: ("banana", ["fruit"]),
        ANT: ("ant", ["insect", "ant"]),
        BELL: ("bell", ["bell"]),
        TORII: ("shinto shrine", ["religion"]),
        PRETZEL: ("pretzel", ["twisted"]),
        GRIN: ("grinning face", ["face"]),
    },
    "de": {
        SHARK: ("Hai", ["Fisch"]),
        BANANA: ("Banane", ["Obst"]),
        ANT: ("Ameise", ["Insekt", "hai", "Obst"]),
        PRETZEL: ("Brezel", ["Gebäck"]),
        TORII: ("Schrein", []),
    },
}


def archive(folder: Path, package: str, files: dict[str, Any]) -> None:
    """Writes a package as `npm pack` does."""
    with tarfile.open(folder / packages.PACKAGES[package].archive, "w:gz") as file:
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


CACHES = (packages._fetched, names.all_emoji, names.annotations, names.names)
CACHES += (evaluation._judge, evaluation._pictures, evaluation._named_everywhere)


def forget() -> None:
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def fetched_world(tmp_path, monkeypatch):
    """A cache with seven emoji, each a block of another colour in all sets, in two languages."""
    monkeypatch.setenv(packages.VARIABLE, str(tmp_path))
    monkeypatch.setattr(evaluation, "LANGUAGES", ("en", "de"))
    folder = tmp_path / "emoji" / "packages"
    folder.mkdir(parents=True)
    files = {}
    for language, words in SAID.items():
        entries = {char: {"default": more, "tts": [name]} for char, (name, more) in words.items()}
        files[f"annotations/{language}/annotations.json"] = {
            "annotations": {"annotations": entries}
        }
    archive(folder, "names", files)
    archive(folder, "derived_names", {})
    rows = [{"char": c, "group": group, "subgroup": sub} for c, (group, sub) in GROUPS.items()]
    archive(folder, "groups", {"emoji.json": rows})
    keys = ["-".join(f"{ord(c):x}" for c in text) for text in GROUPS]
    stored = np.full((len(keys), 64, 64, 3), 255, np.uint8)
    for number, picture in enumerate(stored):
        picture[8:56, 8:56] = [(40 * number) % 256, (90 * number) % 256, (200 * number) % 256]
    for name in pictures.SETS:
        np.savez(tmp_path / "emoji" / f"{name}-64.npz", keys=json.dumps(keys), pictures=stored)
    forget()
    names.make_names()
    yield tmp_path
    forget()


def said(**options: Any) -> dict[str, dict[str, list[str]]]:
    return {record.extra["emoji"]: record.captions for record in emoji(**options)}


def test_a_method_reads_foreign_names_of_the_train_split_alone(fetched_world):
    assert said(languages=["en", "de"]) == {
        ANT: {"en": ["ant"], "de": ["Ameise"]},
        BELL: {"en": ["bell"]},
    }
    assert said(languages=["de"], split="val") == {BANANA: {"de": ["Banane"]}}
    assert said(languages=["de"], split="test") == {SHARK: {"de": ["Hai"]}}
    everything = said(languages=["en", "de"], with_english=True)
    assert everything[SHARK] == {"en": ["shark"]} and everything[BANANA] == {"en": ["banana"]}
    english = said(languages=["en"], split="english")
    assert english == {text: {"en": [SAID["en"][text][0]]} for text in (SHARK, BANANA, ANT, BELL)}


def test_few_names_are_foreign_names_of_as_many_emoji(fetched_world):
    few = {"languages": ["en", "de"], "num_names": 1}
    assert said(**few) == {ANT: {"en": ["ant"], "de": ["Ameise"]}}
    told = said(**few, with_english=True)
    assert told.pop(ANT) == {"en": ["ant"], "de": ["Ameise"]}
    assert told == {text: {"en": [SAID["en"][text][0]]} for text in (SHARK, BANANA, BELL)}


def test_few_names_are_not_those_that_prompts_ask_for_first():
    """Both are drawn by the seed of a comparison, from one split."""
    chosen = [names.Emoji(chr(0x4E00 + n), "", "", str(n), ()) for n in range(600)]
    said = {"de": dict.fromkeys((one.text for one in chosen), "Name")}
    few = {count: source._few(chosen, said, count, seed=0) for count in (30, 100)}
    assert few[30] < few[100] and len(few[30] & set(chosen[:30])) <= 6  # 1.5 by chance
    assert few[30] != source._few(chosen, said, 30, seed=1)


def test_foreign_keywords_stand_beside_the_english_name(fetched_world):
    records = list(emoji(languages=["en", "de"], keywords="pairs", num_names=1))
    assert [r.captions for r in records] == [
        {"en": ["ant"], "de": ["Ameise"]},
        {"en": ["ant"], "de": ["Insekt"]},
        {"en": ["ant"], "de": ["Obst"]},
    ]
    assert len({r.key for r in records}) == 3 and all(r.parallel for r in records)


def test_few_names_are_repeated_until_they_are_as_many_as_the_english_ones(fetched_world):
    few = {"languages": ["en", "de"], "num_names": 1, "with_english": True, "balanced": True}
    records = list(emoji(**few))
    texts = [record.captions for record in records]
    foreign = {"en": ["ant"], "de": ["Ameise"]}
    assert texts.count(foreign) == 3 and len(texts) == 3 + 3
    assert len({record.key for record in records}) == len(records)
    fewer = list(emoji(**few, keywords="pairs", num_keywords=1))  # two records, and three others
    assert [r.captions["de"] for r in fewer if "de" in r.captions] == [["Ameise"], ["Insekt"]] * 2
    assert len({record.key for record in fewer}) == len(fewer)


def test_keywords_do_not_give_away_names_that_are_asked_for(fetched_world):
    train = said(languages=["de", "en"], keywords="captions")
    assert train[ANT] == {"de": ["Ameise", "Insekt", "Obst"], "en": ["ant", "insect"]}
    records = list(emoji(languages=["en"], split="english", keywords="records", pictures=False))
    assert Counter(r.captions["en"][0] for r in records) == Counter(
        ["shark", "fish", "banana", "fruit", "ant", "insect", "bell"]
    )
    assert len({r.key for r in records}) == 7 and not any(r.image for r in records)


def test_culture_emoji_are_named_in_their_own_language_alone(fetched_world):
    (pretzel,) = emoji(languages=["en", "de"], split="culture")
    assert (pretzel.captions, pretzel.culture, pretzel.parallel) == (
        {"de": ["Brezel"]},
        "de",
        False,
    )
    mixed = list(emoji(languages=["en", "de"], num_culture_samples=3))
    assert [r.culture for r in mixed] == [None, None, "de", "de", "de"]
    assert len({r.key for r in mixed}) == 5
    searched = said(languages=["en", "de"], split="all")
    assert searched[TORII] == {"en": ["shinto shrine"], "de": ["Schrein"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "no split 'dev'; there are train, val, test"),
        ({"split": "english"}, "no names in 'de'"),
        ({"split": "val", "with_english": True}, "are of split train alone"),
        ({"split": "val", "num_names": 1}, "are of split train alone"),
        ({"languages": ["en", "de"], "num_names": 2}, "num_names is 2: en, de all name 1 emoji"),
        ({"languages": ["en", "de"], "num_names": 0}, "num_names is 0"),
        ({"languages": ["en"], "with_english": True, "balanced": True}, "give num_names"),
        ({"num_keywords": 2}, "num_keywords counts keywords of the kind pairs"),
        ({"keywords": "pairs", "num_keywords": 0}, "1 or more"),
        ({"with_english": True}, "name en among the languages"),
        ({"keywords": "all"}, "no keywords 'all'"),
        ({"languages": ["en"], "num_culture_samples": 1}, "no culture emoji belong to en"),
        ({"languages": ["xx"]}, "CLDR names no emoji in 'xx'; there are de, en"),
    ],
)
def test_what_does_not_fit_is_refused(fetched_world, options, message):
    with pytest.raises(ValueError, match=message):
        list(emoji(**{"languages": ["de"], **options}))


def test_prompts_are_those_of_a_split_and_what_all_languages_name_comes_first(fetched_world):
    world = evaluation.EVALUATION
    assert [e.name for e in world.scenes("test", 3, 0)] == ["shark"] * 3
    for seed in range(4):
        assert [e.name for e in world.scenes("train", 2, seed)] == ["ant", "bell"]
    assert world.caption(world.scenes("train", 2, 0)[1], "de") is None
    assert [e.name for e in world.culture_scenes("de", 5)] == ["pretzel"]
    assert world.culture_scenes("en", 5) == []
    with pytest.raises(ValueError, match="no split 'culture' of taught emoji"):
        world.scenes("culture", 1, 0)
    with pytest.raises(ValueError, match="test split has 1 emoji, not 2"):
        world.distinct_scenes("test", 2, 0)
    sizes = {name: len(scenes) for name, scenes in world.galleries().items()}
    assert sizes == {
        "everywhere": 3, "everywhere, test": 1, "all": 6, "taught": 4, "test": 1, "culture": 2,
    }  # fmt: skip


def test_the_judge_ranks_all_distinct_emoji(fetched_world):
    world = evaluation.EVALUATION
    shark, ant = world.scenes("test", 1, 0)[0], world.scenes("train", 1, 0)[0]
    picture = world.draw(shark, np.random.default_rng(0))
    assert world.shows(picture, shark) and world.place(picture, shark) == 0
    assert not world.shows(picture, ant) and 0 < world.place(picture, ant) < 6


class Painter:
    """A pipeline that draws what names of the languages that it understands say."""

    components: ClassVar[dict[str, Any]] = {}

    def __init__(self, *known: str):
        world = evaluation.EVALUATION
        scenes = world.galleries()["all"]
        self.known = {world.caption(scene, name): scene for scene in scenes for name in known}

    def __call__(self, prompts: list[str], **options: Any) -> SimpleNamespace:
        assert len(options["generator"]) == len(prompts) and None not in prompts
        blank = Image.new("RGB", (64, 64), (255, 255, 255))
        drawn = [self.known.get(prompt) for prompt in prompts]
        draw = evaluation.EVALUATION.draw
        return SimpleNamespace(images=[draw(e, None) if e else blank for e in drawn])


def test_evaluate_says_at_1_at_5_and_the_means_of_groups(fetched_world, tmp_path, monkeypatch):
    base = SimpleNamespace(load_pipeline=lambda: Painter("en"))
    monkeypatch.setattr(generation.Base, "open", lambda name: base)
    settings = EvaluateSettings(
        output_dir=str(tmp_path / "out"), languages=["de"], num_prompts=2, split="train"
    )
    arms = {"pea": Arm("PEA", lambda language: Painter("de"))}
    result = evaluate_pipelines(
        settings, "emoji:sd", arms, trained=["en"], kind="names", note="7 parameters"
    )
    assert result["english"] == 1.0
    assert result["languages"]["de"] == {"as_is": 0.0, "pea": 1.0}  # of the one name that it has
    assert result["at_5"]["de"]["pea"] == 1.0
    known = result["means"]["zero-shot, known to the encoder"]["pea"]
    assert known == {"num_languages": 1, "at_1": 1.0, "at_5": 1.0}
    assert result["means"]["script Latin"]["pea"]["at_1"] == 1.0
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert "| language | training | as-is | PEA | at 5 | of English |" in table
    assert "| de | none (zero-shot) | 0.00 | 1.00 | 1.00 | 100% |" in table
    assert "| mean of zero-shot, known to the encoder | | | 1.00 | 1.00 | 100% |" in table
    judged = generation.judge_pipelines(settings, "emoji:sd", arms, ["de", "en"], ["en"], 4)
    assert judged.accuracy(judged.culture, "pea") == {"de": 1.0}


def test_every_language_has_a_script_and_a_family_and_is_in_one_group():
    assert languages.SCRIPT.keys() == languages.FAMILY.keys() == set(LANGUAGES)
    assert set(LANGUAGES) > languages.KNOWN and len(languages.KNOWN) == 87
    groups = languages.language_groups(LANGUAGES, ["en", "de", "chr"])
    assert groups["trained"] == ["chr", "de"]
    assert sum(map(len, groups.values())) == len(LANGUAGES) - 1
    assert {"wo", "kk-Arab", "yue"} <= set(groups["zero-shot, unknown to it"])
    for facts in (languages._SCRIPTS, languages._FAMILIES):
        words = " ".join(facts.values()).split()
        assert len(words) == len(set(words)) and set(words) <= set(LANGUAGES)


fetched = pytest.mark.skipif(
    not (packages.cache_folder() / "openmoji-64.npz").exists(),
    reason=f"the emoji world is not in {packages.cache_folder()}: {packages.FETCH}",
)


@fetched
def test_on_the_fetched_packages_english_is_drawn_and_other_languages_are_not():
    """From names to judged pictures, by the shipped base."""
    from crosslingual.frozen.base import Base

    forget()
    world = evaluation.EVALUATION
    asked = world.scenes("test", 120, 0)
    assert all(world.caption(scene, name) for scene in asked for name in LANGUAGES)
    splits = Counter(record.key.split("-")[0] for record in emoji(languages=["de"], split="all"))
    assert splits == {"train": 607, "val": 84, "test": 193, "culture": 49}
    pipe = Base.open("emoji:sd").load_pipeline()
    english, german = (world.judge_prompts(pipe, asked[:8], name) for name in ("en", "de"))
    assert sum(item.is_right for item in english) >= 7
    assert sum(item.is_right for item in german) <= 2
