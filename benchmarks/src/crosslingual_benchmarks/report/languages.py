"""Languages by their own names, for readers of the report."""

import unicodedata

NAMES = {
    "ar": "العربية",
    "cs": "čeština",
    "de": "Deutsch",
    "en": "English",
    "es": "español",
    "fr": "français",
    "hi": "हिन्दी",
    "id": "bahasa Indonesia",
    "it": "italiano",
    "ja": "日本語",
    "ko": "한국어",
    "nl": "Nederlands",
    "pl": "polski",
    "pt": "português",
    "ru": "русский",
    "th": "ไทย",
    "tr": "Türkçe",
    "uk": "українська",
    "vi": "Tiếng Việt",
    "zh": "中文",
}


def direction(text: str) -> str:
    """`rtl` or `ltr`, by the text's first letter that has a direction (Unicode Annex 9, P2)."""
    kinds = (unicodedata.bidirectional(letter) for letter in text)
    return "rtl" if next((k for k in kinds if k in ("L", "R", "AL")), "L") != "L" else "ltr"


def in_order(languages: set[str]) -> list[str]:
    """English first, then the others by their codes."""
    return sorted(languages, key=lambda language: (language != "en", language))
