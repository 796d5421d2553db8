"""The one rule for language tags."""

import pytest

from crosslingual.data.languages import is_english, match_language, match_languages, parse_language


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        ("EN", "en"),
        ("en-us", "en-US"),
        ("zh-Hans", "zh-Hans"),
        ("zh_CN", "zh-CN"),
        ("zh-TW", "zh-TW"),
        ("pt-BR", "pt-BR"),
        ("iw", "he"),
        ("in", "id"),
        ("no", "no"),
        ("nb", "nb"),
        ("sr-Latn", "sr-Latn"),
        ("tl", "fil"),
        ("fil", "fil"),
        ("deu", "de"),
        ("en-UK", "en-GB"),
    ],
)
def test_a_tag_has_one_form(written: str, tag: str) -> None:
    assert parse_language(written) == parse_language(tag) == tag


@pytest.mark.parametrize(
    ("written", "meant"),
    [("jp", "ja"), ("cn", "zh"), ("cz", "cs"), ("english", "en"), ("German", "de")]
    + [("en_US.UTF-8", "en"), ("x-foo", ""), ("", ""), ("../x", ""), ("\ud83d", ""), ("\0", "")],
)
def test_what_is_no_tag_is_refused_with_the_one_that_is_meant(written: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{meant}'" if meant else "such as de"):
        parse_language(written)


@pytest.mark.parametrize(
    ("wanted", "found", "match"),
    [
        ("en", ["en-US", "de"], "en-US"),
        ("en-US", ["en", "de"], "en"),
        ("en", ["en", "en-US", "en-GB"], "en"),
        ("zh-TW", ["zh"], None),
        ("zh-TW", ["zh-Hant", "zh"], "zh-Hant"),
        ("zh", ["zh-CN", "zh-TW"], "zh-CN"),
        ("sr", ["sr-Latn"], None),
        ("nb", ["no", "nn"], "no"),
        ("iw", ["he"], "he"),
        ("tl", ["fil"], "fil"),
        ("fr", ["en"], None),
    ],
)
def test_a_language_finds_its_own_tag_or_the_only_one_of_its_language_and_script(
    wanted: str, found: list[str], match: str | None
) -> None:
    assert match_language(wanted, found) == match


def test_what_is_ambiguous_missing_or_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'pt' may be pt-BR or pt-PT"):
        match_language("pt", ["pt-PT", "pt-BR"])
    with pytest.raises(ValueError, match="no sample has captions in 'fr'; .* de, en"):
        match_languages(["en", "fr"], ["en", "de"])
    with pytest.raises(ValueError, match="'en' and 'en-US' are the same captions"):
        match_languages(["en", "en-US"], ["en", "de"])
    assert is_english("en-GB") and not is_english("enm")
