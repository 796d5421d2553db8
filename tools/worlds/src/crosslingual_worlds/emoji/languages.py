"""Languages of the emoji world: those that name more than a thousand emoji in CLDR 48.2 (scripts
count as languages, regions do not), and what groups them.
"""

from collections.abc import Mapping, Sequence

LANGUAGES = tuple(
    """
    af ak am ar as az ba be bg bn br bs ca chr cs cv cy da de dsb el en es et eu fa fi fil fo fr ga
    gd gl gu ha he hi hr hsb hu hy id ig is it ja jv ka kk kk-Arab kl km kn ko kok ky lb lo lt lv mi
    mk ml mn mr ms mt my ne nl no nso om or pa pa-Arab pcm pl ps pt qu quc rm ro ru rw sc sd shn si
    sk sl so sq sr sr-Latn sv sw ta te tg th ti tk tn to tr ug uk ur uz vi wo xh yo yue yue-Hans zh
    zh-Hant zu
""".split()
)

KNOWN = frozenset(
    """
    af am ar as az be bg bn br bs ca cs cy da de el en es et eu fa fi fil fr ga gd gl gu ha he hi hr
    hu hy id is it ja jv ka kk km kn ko ky lo lt lv mk ml mn mr ms my ne nl no om or pa pl ps pt ro
    ru sd si sk sl so sq sr sr-Latn sv sw ta te th tr ug uk ur uz vi xh zh zh-Hant
""".split()
)
"""Those in XLM-R's training text (CC-100, arXiv 1911.02116, table 6), from which multilingual-e5
began: `fil` is its `tl`. Kazakh and Punjabi in Arabic letters are not among them.
"""

_SCRIPTS = {
    "Arabic": "ar fa kk-Arab pa-Arab ps sd ug ur",
    "Bengali": "as bn",
    "Cyrillic": "ba be bg cv kk ky mk mn ru sr tg uk",
    "Devanagari": "hi kok mr ne",
    "Ethiopic": "am ti",
    "Han, kana": "ja yue yue-Hans zh zh-Hant",
    "Myanmar": "my shn",
    "Dravidian scripts": "kn ml ta te",
    "one language each": "chr el gu he hy ka km ko lo or pa si th",
}
_FAMILIES = {
    "Germanic": "af da de en fo is lb nl no sv",
    "Romance": "ca es fr gl it pt rm ro sc",
    "Balto-Slavic": "be bg bs cs dsb hr hsb lt lv mk pl ru sk sl sr sr-Latn uk",
    "Celtic": "br cy ga gd",
    "Indo-Iranian": "as bn fa gu hi kok mr ne or pa pa-Arab ps sd si tg ur",
    "Dravidian": "kn ml ta te",
    "Turkic": "az ba cv kk kk-Arab ky tk tr ug uz",
    "Uralic": "et fi hu",
    "Afro-Asiatic": "am ar ha he mt om so ti",
    "Niger-Congo": "ak ig nso rw sw tn wo xh yo zu",
    "Austronesian": "fil id jv mi ms to",
    "Sino-Tibetan": "my yue yue-Hans zh zh-Hant",
    "Kra-Dai, Austroasiatic": "km lo shn th vi",
    "American": "chr kl qu quc",
}

_NAMES = """
    af Afrikaans, ak Akan, am Amharic, ar Arabic, as Assamese, az Azerbaijani, ba Bashkir, be
    Belarusian, bg Bulgarian, bn Bangla, br Breton, bs Bosnian, ca Catalan, chr Cherokee, cs
    Czech, cv Chuvash, cy Welsh, da Danish, de German, dsb Lower Sorbian, el Greek, en English,
    es Spanish, et Estonian, eu Basque, fa Persian, fi Finnish, fil Filipino, fo Faroese, fr
    French, ga Irish, gd Scottish Gaelic, gl Galician, gu Gujarati, ha Hausa, he Hebrew, hi
    Hindi, hr Croatian, hsb Upper Sorbian, hu Hungarian, hy Armenian, id Indonesian, ig Igbo, is
    Icelandic, it Italian, ja Japanese, jv Javanese, ka Georgian, kk Kazakh, kk-Arab Kazakh
    (Arabic), kl Kalaallisut, km Khmer, kn Kannada, ko Korean, kok Konkani, ky Kyrgyz, lb
    Luxembourgish, lo Lao, lt Lithuanian, lv Latvian, mi Māori, mk Macedonian, ml Malayalam, mn
    Mongolian, mr Marathi, ms Malay, mt Maltese, my Burmese, ne Nepali, nl Dutch, no Norwegian,
    nso Northern Sotho, om Oromo, or Odia, pa Punjabi, pa-Arab Punjabi (Arabic), pcm Nigerian
    Pidgin, pl Polish, ps Pashto, pt Portuguese, qu Quechua, quc Kʼicheʼ, rm Romansh, ro
    Romanian, ru Russian, rw Kinyarwanda, sc Sardinian, sd Sindhi, shn Shan, si Sinhala, sk
    Slovak, sl Slovenian, so Somali, sq Albanian, sr Serbian, sr-Latn Serbian (Latin), sv
    Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, th Thai, ti Tigrinya, tk Turkmen, tn
    Tswana, to Tongan, tr Turkish, ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek, vi Vietnamese, wo
    Wolof, xh Xhosa, yo Yoruba, yue Cantonese, yue-Hans Cantonese (Simplified), zh Chinese,
    zh-Hant Chinese (Traditional), zu Zulu
"""


def _by_language(groups: Mapping[str, str], others: str) -> dict[str, str]:
    found = {language: name for name, held in groups.items() for language in held.split()}
    return {language: found.get(language, others) for language in LANGUAGES}


SCRIPT = _by_language(_SCRIPTS, "Latin")
FAMILY = _by_language(_FAMILIES, "others")  # eu el hy ja ka ko mn pcm sq
NAMES = dict(" ".join(part.split()).split(" ", 1) for part in _NAMES.split(","))
FACTS = {
    language: {
        "name": NAMES[language],
        "encoder": "known" if language in KNOWN else "unknown",
        "script": SCRIPT[language],
        "family": FAMILY[language],
    }
    for language in LANGUAGES
}
"""What result lines say of a language; `encoder`: whether it has read it."""


def language_groups(languages: Sequence[str], trained: Sequence[str]) -> dict[str, list[str]]:
    """Foreign languages by what a method knew of them; English is in no group.

    Zero-shot means that the method's training read no name of the language: the encoder had seen it
    (`KNOWN`), or not even that.
    """
    foreign = [language for language in languages if language != "en"]
    return {
        "trained": [name for name in foreign if name in trained],
        "zero-shot, known to the encoder": [
            name for name in foreign if name not in trained and name in KNOWN
        ],
        "zero-shot, unknown to it": [
            name for name in foreign if name not in trained and name not in KNOWN
        ],
    }


def script_and_family_groups(
    languages: Sequence[str], trained: Sequence[str]
) -> dict[str, list[str]]:
    """The zero-shot ones of `languages` by script and by family, as `script Cyrillic`."""
    groups: dict[str, list[str]] = {}
    for kind, facts in (("script", SCRIPT), ("family", FAMILY)):
        for language in languages:
            if language != "en" and language not in trained:
                groups.setdefault(f"{kind} {facts[language]}", []).append(language)
    return groups
